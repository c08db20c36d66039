// A wallet's whole use, with the keyboard alone.

import assert from "node:assert/strict";

import { judge } from "../support/judges.mjs";
import { Keyboard } from "../support/keyboard.mjs";
import { PASSPHRASE } from "../support/page.mjs";
import { scenario } from "../support/world.mjs";

const heading = page => page.tab.evaluate(() => globalThis.document.activeElement?.textContent);

scenario("a wallet is made, opened and used without a pointer", async scene => {
  const page = await scene.open();
  const keyboard = new Keyboard(page);
  await page.state("view", "welcome", "data-view");

  // One step leads past the header to the view's content.
  await keyboard.activate("skip-link");
  assert.equal(await page.tab.evaluate(() => globalThis.document.activeElement?.localName), "h1");
  await keyboard.activate("welcome-create");
  await page.state("view", "create", "data-view");
  assert.equal(await heading(page), "Create a wallet", "a new view says what it is");

  // Submitted too early, the form moves the focus to the missing field.
  await keyboard.activate("create-submit");
  await page.shown("field-error-create-label");
  await keyboard.type("create-label", "Without a mouse");
  await keyboard.to("create-protection-passphrase");
  await keyboard.press("ArrowDown");
  await keyboard.to("create-protection-passkey");
  await keyboard.press("ArrowUp");
  await keyboard.type("create-passphrase", PASSPHRASE);
  await keyboard.type("create-passphrase-repeat", PASSPHRASE);
  await keyboard.activate("create-submit");
  await page.shown("create-secured");
  assert.equal(await heading(page), "One step is left", "the focus goes where the news is");
  await keyboard.activate("backup-waive");
  await page.shown("waive-dialog");
  await keyboard.activate("waive-sure", "Space");
  await keyboard.activate("waive-confirm");
  await page.shown("create-done");
  assert.equal(await heading(page), "Your wallet is ready", "the focus goes where the news is");
  const address = await page.get("create-done").getAttribute("data-address");
  await keyboard.activate("create-open-wallet");
  await page.state("view", "wallet", "data-view");
  const id = await page.get("wallet").getAttribute("data-id");

  // A dialog holds the focus, closes on Escape, and returns the focus.
  await keyboard.activate("wallet-receive");
  await page.shown("receive-dialog");
  await keyboard.to("receive-close");
  await keyboard.press("Escape");
  await page.get("receive-dialog").waitFor({ state: "detached" });
  await keyboard.to("wallet-receive");

  await keyboard.activate("wallet-lock", "Space");
  await page.walletState("locked");
  await keyboard.type("unlock-passphrase", PASSPHRASE);
  await keyboard.press("Enter");
  await page.walletState("unlocked");

  await keyboard.activate("wallet-sign-message");
  await page.state("view", "message", "data-view");
  const text = "Signed with ten fingers";
  await keyboard.type("message-text", text);
  await keyboard.activate("review-submit");
  await page.shown("review");
  await keyboard.activate("review-sign");
  const signature = await page.signed();
  await judge({ kind: "personal_message", address, signature, text });
  await scene.learn(page, id);
});
