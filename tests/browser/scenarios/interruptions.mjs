// Interruptions in the middle of work: the tab is reloaded, or the gateway dies. A paused service
// holds work in the middle: it has begun and cannot end.

import assert from "node:assert/strict";

import { inspect } from "../support/accessibility.mjs";
import { judge } from "../support/judges.mjs";
import { PASSPHRASE } from "../support/page.mjs";
import { scenario } from "../support/world.mjs";

/** Runs `work` while the service does not answer. */
async function whilePaused(stack, work) {
  await stack.pause("service");
  try {
    return await work();
  } finally {
    await stack.resume("service");
  }
}

/** Interrupts a creation when both parties have prepared the wallet and neither has committed. */
async function interruptedCreation(scene, page, interrupt) {
  // Cards come first: the service is paused after it has shown its own.
  await page.startCreation();
  await page.tab.locator('[data-testid^="create-step-"][data-state="done"]').first().waitFor();
  await whilePaused(scene.stack, async () => {
    await page.tab.locator('[data-testid="create-progress"][data-step="preparing"]').waitFor();
    await interrupt();
  });
}

async function resume(page) {
  await page.go("#/", "wallets");
  const card = page.tab.locator('[data-testid^="wallet-card-"][data-state="pending"]');
  await card.waitFor();
  const id = (await card.getAttribute("data-testid")).slice("wallet-card-".length);
  await page.get(`pending-resume-${id}`).click();
  await page.get("unlock-passphrase").fill(PASSPHRASE);
  await page.get("unlock-submit").click();
}

scenario(
  "a reload in the middle of key generation leaves a wallet that can be finished",
  async scene => {
    const page = await scene.open();
    await interruptedCreation(scene, page, () => page.tab.reload());
    await page.ready();
    await page.online();
    await resume(page);
    const { id, address } = await page.finishCreation();
    await scene.learn(page, id);
    const signature = await page.signMessage(id, "After all");
    await judge({ kind: "personal_message", address, signature, text: "After all" });
  },
);

scenario(
  "the gateway dies in the middle of key generation, and the wallet is finished when it is back",
  async scene => {
    const page = await scene.open();
    await interruptedCreation(scene, page, async () => {
      await scene.stack.kill("gateway");
      await page.state("connection", ["offline", "connecting"]);
      await page.shown("offline-banner");
      await scene.stack.start("gateway");
    });
    // Either it continues by itself, or it shows what happened and can be resumed.
    const done = page.get("create-secured");
    const error = page.get("error");
    await done.or(error).first().waitFor();
    if (!(await done.isVisible())) {
      await page.reload();
      await page.online();
      await resume(page);
    }
    const { id, address } = await page.finishCreation();
    await scene.learn(page, id);
    const signature = await page.signMessage(id, "Still here");
    await judge({ kind: "personal_message", address, signature, text: "Still here" });
  },
);

scenario("a reload in the middle of a signature costs that signature and no more", async scene => {
  const { page, id, address } = await scene.borrow({ third: "backup-file" });
  await page.reviewMessage(id, "Interrupted");
  await whilePaused(scene.stack, async () => {
    await page.startSigning();
    await page.state("signing", "signing");
    await page.reload();
  });
  await page.online();
  await page.openWallet(id);
  await page.walletState("locked");
  await page.unlock();
  await page.walletState("unlocked");
  const signature = await page.signMessage(id, "Afterwards");
  await judge({ kind: "personal_message", address, signature, text: "Afterwards" });
});

/**
 * Delays writes to the keys' store like a slow disk, until told otherwise. Reads are not delayed.
 */
async function holdStore({ tab }) {
  await tab.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open("duet");
        opening.onerror = reject;
        opening.onsuccess = () => {
          const store = opening.result.transaction("keys").objectStore("keys");
          const hold = () => {
            resolve();
            if (globalThis.released) opening.result.close();
            else store.count().onsuccess = hold;
          };
          hold();
        };
      }),
  );
  return () =>
    tab.evaluate(() => {
      globalThis.released = true;
    });
}

scenario("a signature whose end the page did not see is shown after a reload", async scene => {
  const { page, id, address } = await scene.borrow({ third: "backup-file" });
  // From the second signature on, the device writes to the store only at the end.
  await page.signMessage(id, "Seen");
  // The device reports the signature, and waits a moment for the acknowledgement. The reload must
  // come within that moment.
  for (let attempt = 1; ; attempt += 1) {
    await page.reviewMessage(id, "Unseen");
    const release = await holdStore(page);
    await page.startSigning();
    await page.state("timeline-received-4", "done");
    await scene.stack.pause("orchestrator");
    try {
      await release();
      await page.state("timeline-verified", "done");
      await page.reload();
    } finally {
      await scene.stack.resume("orchestrator");
    }
    await page.online();
    await page.openWallet(id);
    await page.unlock();
    await page.walletState("unlocked");
    if ((await page.get("interrupted-banner").count()) > 0) break;
    assert.ok(attempt < 5, "the page was never reloaded in time");
  }
  await page.state("interrupted-banner", "signed");
  await inspect(page.tab, "interrupted-signed");
  await judge({
    kind: "personal_message",
    address,
    signature: await page.text("interrupted-signature"),
    text: "Unseen",
  });
  await page.get("interrupted-dismiss").click();
  await page.reload();
  assert.equal(
    await page.get("interrupted-banner").count(),
    0,
    "it is said until it is understood",
  );
});

scenario(
  "the gateway dies in the middle of a signature; the page says so and signs when it is back",
  async scene => {
    const { page, id, address } = await scene.borrow({ third: "backup-file" });
    await page.reviewMessage(id, "Cut off");
    await whilePaused(scene.stack, async () => {
      await page.startSigning();
      await page.state("signing", "signing");
      await scene.stack.kill("gateway");
      await page.state("connection", ["offline", "connecting"]);
      await page.shown("offline-banner");
    });
    await scene.stack.start("gateway");
    await page.online();
    assert.equal(await page.get("offline-banner").count(), 0);
    // It may have ended by itself. If not, it shows that it failed.
    const state = await page.state("signing", ["signed", "failed"]);
    if (state === "failed")
      assert.ok(
        ["gateway-unreachable", "party-unreachable", "refused"].includes(await page.error()),
      );
    const signature = await page.signMessage(id, "Connected again");
    await judge({ kind: "personal_message", address, signature, text: "Connected again" });
  },
);
