// Passphrases and passkeys; locking.

import assert from "node:assert/strict";

import { judge } from "../support/judges.mjs";
import { PASSPHRASE } from "../support/page.mjs";
import { workerOf } from "../support/worker.mjs";
import { scenario } from "../support/world.mjs";

scenario(
  "a wrong passphrase opens nothing, the right one does, and locking closes it again",
  async scene => {
    const { page, id, address } = await scene.borrow();
    await page.lock();
    await page.go(`#/wallet/${id}/message`, "message");
    await page.shown("unlock-form");

    await page.openWallet(id);
    await page.unlock(`${PASSPHRASE} `);
    assert.equal(await page.error(), "wrong-passphrase");
    await page.walletState("locked");

    await page.unlock();
    await page.walletState("unlocked");
    await judge({
      kind: "personal_message",
      address,
      signature: await page.signMessage(id, "Open"),
      text: "Open",
    });

    // A reload locks what was unlocked, and changes nothing else.
    await page.openWallet(id);
    await page.reload();
    await page.walletState("locked");
    await page.online();
    await page.unlock();
    await page.walletState("unlocked");
    await judge({
      kind: "personal_message",
      address,
      signature: await page.signMessage(id, "Still"),
      text: "Still",
    });
  },
);

scenario("an unused wallet locks itself", async scene => {
  const { page, id, address } = await scene.borrow();
  const IDLE_MS = 5 * 60_000;
  await page.lock();
  const worker = await workerOf(page);
  await worker.holdTimers();
  await page.unlock();
  await page.walletState("unlocked");
  await worker.pass(IDLE_MS - 1);
  // Using the wallet restarts the time.
  await judge({
    kind: "personal_message",
    address,
    signature: await page.signMessage(id, "In use"),
    text: "In use",
  });
  await page.openWallet(id);
  await worker.pass(IDLE_MS - 1);
  assert.equal(await page.get("wallet").getAttribute("data-state"), "unlocked");
  await worker.pass(1);
  await page.walletState("locked");
  await page.unlock();
  await page.walletState("unlocked");
  await judge({
    kind: "personal_message",
    address,
    signature: await page.signMessage(id, "Awake"),
    text: "Awake",
  });
});

scenario("a passkey seals and opens a wallet", async scene => {
  const profile = await scene.profile();
  const page = await scene.open(profile);
  const key = await profile.authenticator(page.tab);
  const { id, address } = await page.create({ protection: "passkey" });
  await scene.learn(page, id);
  await page.openWallet(id);
  await page.lock();

  await page.get("unlock-passkey").click();
  await page.walletState("unlocked");
  const signature = await page.signMessage(id, "By touch");
  await judge({ kind: "personal_message", address, signature, text: "By touch" });

  // A stranger at the device. Last, because the authenticator accepts no finger after that.
  await page.openWallet(id);
  await page.lock();
  await key.verifies(false);
  await page.get("unlock-passkey").click();
  assert.equal(await page.error(), "passkey-unavailable");
  await page.walletState("locked");
});
