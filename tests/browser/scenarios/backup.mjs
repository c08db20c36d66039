// A wallet moves to another browser through its backup file.

import assert from "node:assert/strict";

import { judge } from "../support/judges.mjs";
import { nativeDevice } from "../support/native.mjs";
import { OTHER_PASSPHRASE, PASSPHRASE } from "../support/page.mjs";
import { scenario } from "../support/world.mjs";

scenario(
  "a backup is restored on a new profile, which signs after it made a Paillier key of its own",
  async scene => {
    const { page: old, id, address } = await scene.wallet();
    const file = await old.backUp(id);
    assert.ok(
      file.toString("latin1").startsWith("age-encryption.org/v1"),
      "the file is in the age format",
    );

    // A native device opens the page's file, and the page below the native device's.
    const native = await nativeDevice(async device => {
      const wallet = await device.restore(file, OTHER_PASSPHRASE);
      assert.deepEqual([wallet.id, wallet.status], [id, "needs_rotation"]);
      assert.equal(wallet.address.toLowerCase(), address.toLowerCase());
      return device.backUp(OTHER_PASSPHRASE);
    });

    const page = await scene.open();
    await page.restore(file, { passphrase: PASSPHRASE });
    assert.equal(await page.error(), "wrong-passphrase");
    await page.restore(native, { passphrase: OTHER_PASSPHRASE });
    await page.shown("restore-done");
    await page.openWallet(id);
    assert.equal(
      await page.walletState(["needs-rotation", "unlocked", "locked"]),
      "needs-rotation",
    );
    assert.equal(await page.get("wallet").getAttribute("data-address"), address);

    await page.get("rotate-submit").first().click();
    await page.shown("rotate-done");
    await page.openWallet(id);
    await page.walletState("unlocked");
    const signature = await page.signMessage(id, "On the new laptop");
    await judge({ kind: "personal_message", address, signature, text: "On the new laptop" });
    await scene.learn(page, id);
  },
);
