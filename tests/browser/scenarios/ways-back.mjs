// What an owner loses with a browser. The backup is due before the address shows, and the wallet
// warns afterwards.

import assert from "node:assert/strict";

import { judge } from "../support/judges.mjs";
import { OTHER_PASSPHRASE, PASSPHRASE } from "../support/page.mjs";
import { workerOf } from "../support/worker.mjs";
import { scenario } from "../support/world.mjs";

/** Every text, attribute and field of the tab that could show an address. */
function shown(page) {
  return page.tab.evaluate(() => globalThis.document.documentElement.outerHTML.toLowerCase());
}

scenario(
  "the address shows once the backup file was opened again, and the file brings the wallet back",
  async scene => {
    const page = await scene.open();
    await page.startCreation();
    await page.shown("create-secured");
    const [{ id, address }] = await page.stored("wallets");
    assert.match(address, /^0x[0-9a-fA-F]{40}$/);
    const hidden = async where =>
      assert.ok(
        !(await shown(page)).includes(address.toLowerCase().slice(2)),
        `no address on ${where}`,
      );
    await hidden("the last step");

    // Leaving the view asks first, and shows no address either.
    await page.tab.evaluate(() => {
      globalThis.location.hash = "#/";
    });
    await page.shown("leave-dialog");
    await page.get("leave-stay").click();
    await page.state("view", "create", "data-view");
    await page.tab.evaluate(() => {
      globalThis.location.hash = "#/";
    });
    await page.get("leave-anyway").click();
    await page.state("view", "wallets", "data-view");
    await hidden("the list");
    await page.openWallet(id);
    await page.shown("backup-gate");
    await hidden("the wallet");

    // A reload changes nothing. A file that is no backup, or that of another wallet, is refused.
    await page.reload();
    await page.unlock();
    await page.shown("backup-gate");
    await hidden("the wallet after a reload");
    const file = await page.saveDueBackup(OTHER_PASSPHRASE);
    await page.state("ways-back", "checked");
    assert.equal(await page.get("wallet").getAttribute("data-address"), address);

    const elsewhere = await scene.open();
    await elsewhere.restore(file, { own: PASSPHRASE });
    await elsewhere.shown("restore-done");
    await elsewhere.openWallet(id);
    assert.equal(await elsewhere.get("wallet").getAttribute("data-address"), address);
    await elsewhere.get("rotate-submit").first().click();
    await elsewhere.shown("rotate-done");
    await scene.learn(elsewhere, id);
    await judge({
      kind: "personal_message",
      address,
      signature: await elsewhere.signMessage(id, "I am back"),
      text: "I am back",
    });
  },
);

scenario("a file that does not open, or is another wallet's, is no backup", async scene => {
  const { page, id: other } = await scene.borrow();
  const stranger = await page.backUp(other);
  await page.startCreation({ label: "New" });
  await page.shown("create-secured");
  const choose = async buffer => {
    await page
      .get("backup-file")
      .setInputFiles({ name: "backup.age", mimeType: "application/octet-stream", buffer });
    await page.get("backup-check").click();
  };
  const file = await page.download("backup-export");
  await page.shown("backup-done");
  await choose(file.subarray(0, file.length - 1));
  await page.shown("field-error-backup-file");
  await choose(stranger);
  assert.equal(await page.error(), "wrong-passphrase", "sealed by another passphrase");
  assert.equal(await page.get("create-done").count(), 0, "no address yet");
  await choose(file);
  await page.openCreated();
});

scenario(
  "the file of the third share is read back from the disk before the address shows",
  async scene => {
    const { page, id: other, file: stranger } = await scene.borrow({ third: "backup-file" });
    const own = await page.backUp(other);
    await page.startCreation({ label: "New", third: "backup-file" });
    await page.shown("create-secured");
    const [{ id, address }] = (await page.stored("wallets")).filter(row => row.label === "New");
    const hidden = async where =>
      assert.ok(
        !(await shown(page)).includes(address.toLowerCase().slice(2)),
        `no address on ${where}`,
      );
    const refused = async (file, sentence) => {
      await page.checkThird(file);
      await page.shown("field-error-third-file");
      assert.match(await page.get("field-error-third-file").innerText(), sentence);
      await hidden("the gate");
    };

    // Cut short, of another wallet, and another kind of file: each is refused, and says why.
    const file = await page.download("create-download");
    await refused(file.subarray(0, file.length - 1), /\.$/);
    await refused(stranger, /another wallet/);
    await refused(own, /own share/);
    // Without the backup of the own share there is still no address: the third share's file is due.
    await page.waiveBackup();
    await hidden("the gate without a backup");

    // Leaving asks, and loses nothing: the file is still here, and still due.
    await page.tab.evaluate(() => {
      globalThis.location.hash = "#/";
    });
    await page.shown("leave-dialog");
    await page.get("leave-stay").click();
    await page.state("view", "create", "data-view");
    await page.tab.evaluate(() => {
      globalThis.location.hash = "#/";
    });
    await page.get("leave-anyway").click();
    await page.state("view", "wallets", "data-view");
    await hidden("the list");
    await page.reload();
    await page.openWallet(id);
    await page.unlock();
    await page.shown("backup-gate");
    await hidden("the wallet after a reload");
    const again = await page.download("create-download");
    assert.deepEqual(again, file, "the same file is handed out again");
    await page.checkThird(again, PASSPHRASE);
    await page.shown("field-error-third-passphrase");
    await page.checkThird(again, OTHER_PASSPHRASE);
    await page.state("wallet", address, "data-address");
    const kept = (await page.stored("records")).filter(row => row.wallet === id);
    assert.ok(!kept.some(({ kind }) => kind === "backup"), "the browser keeps no copy");
    scene.secrets.learn(file);
    await scene.learn(page, id);
  },
);

scenario("a waived backup is said wherever the wallet is shown", async scene => {
  const { page, id } = await scene.borrow();
  const { persistent } = await page.tab.evaluate(async () => ({
    persistent: await navigator.storage.persisted(),
  }));
  const [{ exportedAt }] = await page.stored("wallets");
  // The test made a file itself, to learn the wallet's secrets, and did not open it again here.
  assert.ok(exportedAt > 0);
  await page.openWallet(id);
  await page.state("ways-back", "unchecked");
  assert.equal(
    await page.get("ways-back").getAttribute("data-persistent"),
    String(persistent),
    "what the browser promised",
  );

  const other = await page.create({ label: "Without" });
  await page.openWallet(other.id);
  await page.state("ways-back", "none");
  await scene.learn(page, other.id);
});

scenario("the browser is asked to keep the storage when a wallet is made", async scene => {
  const profile = await scene.profile();
  await profile.context.addInitScript(() => {
    // The blank page before this one has no such API.
    if (!isSecureContext) return;
    globalThis.duetAsked = 0;
    const { persist } = StorageManager.prototype;
    StorageManager.prototype.persist = function asked() {
      globalThis.duetAsked += 1;
      return persist.call(this);
    };
  });
  const page = await scene.open(profile);
  assert.equal(await page.tab.evaluate(() => globalThis.duetAsked), 0);
  const { id } = await page.create();
  assert.equal(await page.tab.evaluate(() => globalThis.duetAsked), 1);
  await scene.learn(page, id);
});

scenario("a connection to the storage that the browser closed is opened again", async scene => {
  const { page, id, address } = await scene.borrow();
  const worker = await workerOf(page);
  await worker.closeDatabase();
  await judge({
    kind: "personal_message",
    address,
    signature: await page.signMessage(id, "Reopened"),
    text: "Reopened",
  });
  await worker.closeDatabase();
  await page.openWallet(id);
  await page.lock();
  await page.unlock();
  await page.walletState("unlocked");
});

scenario("a passkey that does not give the same secret twice protects nothing", async scene => {
  const profile = await scene.profile();
  await profile.context.addInitScript(() => {
    // The blank page before this one has no such API.
    if (!isSecureContext) return;
    globalThis.duetRemoved = [];
    PublicKeyCredential.signalUnknownCredential = async ({ credentialId }) =>
      void globalThis.duetRemoved.push(credentialId);
    const { getClientExtensionResults } = PublicKeyCredential.prototype;
    let first = true;
    PublicKeyCredential.prototype.getClientExtensionResults = function changed() {
      const results = getClientExtensionResults.call(this);
      // At the creation, the authenticator returns another output than later.
      if (first && results.prf?.results) {
        first = false;
        new Uint8Array(results.prf.results.first)[0] ^= 1;
      }
      return results;
    };
  });
  const page = await scene.open(profile);
  await profile.authenticator(page.tab);
  await page.startCreation({ protection: "passkey" });
  assert.equal(await page.error(), "passkey-unavailable");
  assert.deepEqual(await page.stored("wallets"), [], "nothing was made");
  assert.equal(
    await page.tab.evaluate(() => globalThis.duetRemoved.length),
    1,
    "the passkey is removed",
  );
});
