// Uses the page without a pointer.

import assert from "node:assert/strict";

/** More stops than any view has. */
const STOPS = 60;

/**
 * A user with only a keyboard. The user reaches elements by Tab, and each must show that it has the
 * focus.
 */
export class Keyboard {
  constructor(page) {
    this.page = page;
  }

  press(key) {
    return this.page.tab.keyboard.press(key);
  }

  /** Presses Tab until the element has the focus. */
  async to(id) {
    const passed = [];
    for (let stop = 0; stop <= STOPS; stop += 1) {
      const focus = await this.#focus();
      if (focus.id === id) {
        assert.ok(focus.outlined, `${id} shows that it has the focus`);
        // The browser scrolls there by itself, in a later frame.
        await this.page.tab.waitForFunction(inSight);
        return;
      }
      passed.push(focus.id);
      await this.press("Tab");
    }
    throw new Error(`Tab does not lead to ${id}, but to ${passed.join(", ")}`);
  }

  async type(id, text) {
    await this.to(id);
    await this.page.tab.keyboard.type(text);
  }

  async activate(id, key = "Enter") {
    await this.to(id);
    await this.press(key);
  }

  /** The element with the focus: its id, and whether it or an element around it is outlined. */
  #focus() {
    return this.page.tab.evaluate(() => {
      const active = globalThis.document.activeElement;
      const outlined = [active, active?.closest("label")].some(element => {
        if (!element) return false;
        const { outlineStyle, outlineWidth } = globalThis.getComputedStyle(element);
        return outlineStyle !== "none" && Number.parseFloat(outlineWidth) >= 2;
      });
      return { id: active.dataset.testid ?? active.localName, outlined };
    });
  }
}

/** Whether the element with the focus is on the screen. */
function inSight() {
  const { top, bottom, left, right } = globalThis.document.activeElement.getBoundingClientRect();
  return bottom > 0 && top < globalThis.innerHeight && right > 0 && left < globalThis.innerWidth;
}
