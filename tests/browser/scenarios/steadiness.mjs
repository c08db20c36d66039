// Nothing moves under the user's finger while parties take turns.

import assert from "node:assert/strict";

import { scenario } from "../support/world.mjs";

const SIZES = { desktop: { width: 1280, height: 900 }, phone: { width: 360, height: 780 } };

/** Elements that must not move once they are shown. */
const FIXED = [
  ".signing-head",
  '[data-testid="timeline"]',
  '[data-testid^="timeline-"]',
  ".signing-result",
  ".footer",
];

/**
 * Records the positions of a running signature's elements, in every frame from the first one that
 * shows it until it is over. Returns the elements that moved or changed their width.
 */
function watch(tab) {
  return tab.evaluate(
    selectors =>
      new Promise(resolve => {
        const first = new Map();
        const moved = new Set();
        let frames = 0;
        const look = () => {
          const signing = globalThis.document.querySelector('[data-testid="signing"]');
          if (signing) {
            frames += 1;
            for (const element of globalThis.document.querySelectorAll(selectors.join(", "))) {
              const name = element.dataset.testid ?? element.className;
              const { left, top, width } = element.getBoundingClientRect();
              const at = [left + globalThis.scrollX, top + globalThis.scrollY, width]
                .map(Math.round)
                .join(" ");
              const before = first.get(name) ?? at;
              first.set(name, before);
              // The result may be taller than the rounds. Then the page ends further down.
              if (before !== at && !(name === "footer" && signing.dataset.state !== "signing"))
                moved.add(`${name}: ${before} became ${at}`);
            }
          }
          if (signing && signing.dataset.state !== "signing")
            resolve({ moved: [...moved], frames, parts: first.size });
          else globalThis.requestAnimationFrame(look);
        };
        globalThis.requestAnimationFrame(look);
      }),
    FIXED,
  );
}

scenario("nothing moves while a signature is made", async scene => {
  const { page, id } = await scene.borrow();
  await page.tab.emulateMedia({ reducedMotion: "no-preference" });
  for (const [size, viewport] of Object.entries(SIZES)) {
    await page.tab.setViewportSize(viewport);
    await page.reviewMessage(id, `Steady on a ${size}`);
    // Paused for a moment, so that the test sees more states than a fast machine draws.
    await scene.stack.pause("service");
    const watched = watch(page.tab);
    try {
      await page.startSigning();
      await page.state("timeline-requested", "done");
    } finally {
      await scene.stack.resume("service");
    }
    await page.signed();
    const { moved, frames, parts } = await watched;
    assert.deepEqual(moved, [], `${size}: everything stays where it was`);
    assert.ok(frames >= 3, `${size}: it was looked at ${frames} times`);
    assert.ok(parts >= 12, `${size}: ${parts} parts were looked at`);
  }
});
