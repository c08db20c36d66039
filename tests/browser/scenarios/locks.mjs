// The lock on a Paillier key, and a storage that fails to write: what the page may reveal then, and
// when.

import assert from "node:assert/strict";

import { inspect } from "../support/accessibility.mjs";
import { judge } from "../support/judges.mjs";
import { workerOf } from "../support/worker.mjs";
import { scenario } from "../support/world.mjs";

/** Tries to sign. Returns the kind of the failure, and what the worker did meanwhile. */
async function fails(page, worker, id, text) {
  await page.reviewMessage(id, text);
  await worker.said();
  await page.startSigning();
  assert.equal(await page.state("signing", ["signed", "failed"]), "failed");
  return { kind: await page.error(), said: await worker.said() };
}

/**
 * Everything from the responder's last message to the page's answer, in which a verdict could show.
 */
function afterVerdict(said) {
  const start = said.indexOf("note received 4");
  const end = said.findIndex(entry => entry.startsWith("answer "));
  assert.ok(start >= 0 && end > start, said.join(", "));
  return said.slice(start + 1, end + 1);
}

/** The parties that the worker noted: those that invited it, and those that it asked for a card. */
function asked(said) {
  const noted = said.filter(entry => /^note (invited|card|enrolling) /.test(entry));
  return [...new Set(noted.map(entry => entry.split(" ")[2]))];
}

scenario(
  "a bad answer locks the key before the worker reports, and the owner's acceptance and a new key end it",
  async scene => {
    const { page, id, address } = await scene.wallet({ third: "backup-file" });
    await judge({
      kind: "personal_message",
      address,
      signature: await page.signMessage(id, "Before"),
      text: "Before",
    });
    const worker = await workerOf(page);
    await worker.record();

    // The disk is full when a good verdict should be written, so the page does not reveal it.
    await worker.refuseWrites("keys");
    const good = await fails(page, worker, id, "Into the dark");
    assert.equal(good.kind, "storage");
    // Nothing begins before the storage has worked again.
    const next = await fails(page, worker, id, "Still dark");
    assert.equal(next.kind, "storage");
    assert.ok(!next.said.includes("sent"), `nothing is sent: ${next.said.join(", ")}`);
    await worker.allowWrites();

    // The service starts to cheat. A bad verdict that cannot be written looks like a good one.
    // First the pending good verdict is judged, then the storage is tried: two writes.
    await scene.stack.spoil(id);
    await worker.refuseWrites("keys", 2);
    const unsaid = await fails(page, worker, id, "Poisoned in the dark");
    assert.equal(unsaid.kind, "storage");
    assert.deepEqual(afterVerdict(unsaid.said), afterVerdict(good.said));
    await worker.allowWrites();

    // The tab ends, and the storage works again. The pending bad answer is judged before anything
    // is initiated.
    const left = (await page.stored("pending")).filter(row => row.wallet === id);
    assert.equal(left.length, 1, "one verdict is pending");
    await page.reload();
    await page.online();
    await page.openWallet(id);
    await page.unlock();
    const again = await workerOf(page);
    await again.record();
    const judged = await fails(page, again, id, "Not even asked");
    assert.equal(judged.kind, "paillier-locked");
    assert.ok(!judged.said.includes("sent"), `nothing is sent: ${judged.said.join(", ")}`);
    const [key] = (await page.stored("keys")).filter(row => row.wallet === id);
    assert.equal(key.state, "locked");
    assert.equal(key.lock.culprit, "service");
    assert.ok(key.lock.evidence, "the responder's signed answer is kept");
    assert.deepEqual(await page.stored("pending"), []);

    // It outlives the tab. There is no other pair, and no new key without the owner's word.
    await page.reload();
    await page.online();
    await page.openWallet(id);
    await page.unlock();
    await page.walletState("paillier-locked");
    await page.state("paillier-locked", "none", "data-other");
    await page.state("lock-losses", "1", "data-failures");
    // Three verdicts under this key, the last one bad: it names one of four intervals.
    assert.equal(await page.get("lock-losses").getAttribute("data-bits"), "2");
    await page.shown("no-other-pair");
    await page.state("culprit-service", "quarantined", "data-standing");
    assert.equal(await page.get("rotate-submit").count(), 0, "no new key without the owner's word");
    await inspect(page.tab, "wallet-paillier-locked");
    await page.acceptCulprit();
    await page.shown("rotate-done");
    await page.openWallet(id);
    await page.walletState("unlocked");
    await scene.learnKeys(page, id);
    const signature = await page.signMessage(id, "Under a new key");
    await judge({ kind: "personal_message", address, signature, text: "Under a new key" });

    // A bad verdict that can be written: the lock is on the disk before the page or the gateway
    // learns of it.
    await scene.stack.spoil(id);
    const last = await workerOf(page);
    await last.record();
    const bad = await fails(page, last, id, "Poisoned");
    assert.equal(bad.kind, "paillier-locked");
    const after = afterVerdict(bad.said);
    assert.equal(after[0], "stored locked", after.join(", "));
    assert.equal(after.at(-1), "answer paillier-locked");
    // A second lock by a card is final: the page offers no word any more.
    await page.state("culprit-service", "final", "data-standing");
    await page.shown("no-other-pair");
    assert.equal(await page.get("culprit-accept-service").count(), 0);
    assert.equal(await page.get("rotate-submit").count(), 0);
  },
);

scenario(
  "a culprit is asked no more, in no wallet of the profile, and device and partner go on",
  async scene => {
    const { requester } = scene.stack.facts;
    const { page, id, address } = await scene.wallet();
    const sibling = await page.create({ label: "Sibling", requesters: requester });
    await scene.learn(page, sibling.id);
    const filed = await page.create({ label: "Filed", third: "backup-file" });
    scene.secrets.learn(filed.file);
    await scene.learn(page, filed.id);
    const worker = await workerOf(page);
    await worker.record();
    const signs = async (wallet, text) => {
      await worker.said();
      const signature = await page.signMessage(wallet.id, text);
      await judge({ kind: "personal_message", address: wallet.address, signature, text });
      return asked(await worker.said());
    };
    const wallet = { id, address };
    assert.deepEqual(await signs(wallet, "Before"), ["service"], "the service is asked first");

    // The service turns. The page says at once what happened and what it may have cost, and offers
    // the partner.
    await scene.stack.spoil(id);
    assert.equal((await fails(page, worker, id, "Poisoned")).kind, "paillier-locked");
    await page.state("paillier-locked", "partner", "data-other");
    await page.state("lock-losses", "1", "data-failures");
    assert.equal(
      await page.get("lock-losses").getAttribute("data-bits"),
      "2",
      "one good answer and a bad one",
    );
    await page.state("culprit-service", "quarantined", "data-standing");
    await inspect(page.tab, "signing-paillier-locked");

    // Another wallet, whose key is not locked, signs with the partner; a team's job for the service
    // alone is not even begun.
    assert.deepEqual(await signs(sibling, "Elsewhere"), ["partner"]);
    await page.go("#/inbox", "inbox");
    const alone = await scene.stack.submit(
      sibling.id,
      ["message", "With the service"],
      "device+service",
    );
    await page.state(`job-${alone.id}`, "waiting");
    await worker.said();
    await page.get(`job-approve-${alone.id}`).click();
    assert.equal(await page.error(), "quarantined");
    assert.deepEqual(asked(await worker.said()), [], "no session begins");
    // For a job of either pair the orchestrator proposes the service first, and the device refuses
    // before message 1.
    const either = await scene.stack.submit(
      sibling.id,
      ["message", "With either"],
      "device+service,device+partner",
    );
    await page.state(`job-${either.id}`, "waiting");
    await page.get(`job-approve-${either.id}`).click();
    await page.state(`job-${either.id}`, "signed");
    const said = await worker.said();
    const [refused, begun] = [said.indexOf("note invited service"), said.indexOf("note sent 1")];
    assert.ok(begun > said.indexOf("note invited partner") && refused < begun, said.join(", "));
    assert.equal(
      said.filter(entry => entry === "note sent 1").length,
      1,
      "only the partner gets a message",
    );
    // A wallet whose third share is a file says so before anything is filled in.
    await page.go(`#/wallet/${filed.id}/message`, "message");
    await page.shown("quarantine");
    assert.equal(await page.get("message-text").count(), 0);

    // After a reload it is as it was. The owner's click makes a new key, which the service is not
    // offered.
    await page.reload();
    await page.online();
    await page.openWallet(id);
    await page.unlock();
    await page.walletState("paillier-locked");
    await page.state("lock-losses", "1", "data-failures");
    const later = await workerOf(page);
    await later.record();
    await page.replaceKey();
    assert.deepEqual(asked(await later.said()), ["partner"]);
    await page.openWallet(id);
    await page.walletState("unlocked");
    await page.state("wallet-losses", "1", "data-failures");
    await scene.learnKeys(page, id);
    const signature = await page.signMessage(id, "With the partner");
    await judge({ kind: "personal_message", address, signature, text: "With the partner" });
    assert.deepEqual(asked(await later.said()), ["partner"]);
    // The owner may also replace the key at will: the service is left out again.
    await page.go(`#/wallet/${id}/settings`, "wallet-settings");
    await page.replaceKey();
    assert.deepEqual(asked(await later.said()), ["partner"]);
    await scene.learnKeys(page, id);

    // The owner's word: the service takes the key that the partner has, and is asked again.
    await page.openWallet(id);
    await page.acceptCulprit();
    await page.shown("rotate-done");
    assert.deepEqual(asked(await later.said()), ["service"]);
    // The orchestrator learns from the first session that the service has another key by now. The
    // partner signs meanwhile.
    await page.signMessage(id, "Together again");
    assert.equal(asked(await later.said())[0], "service");
    await page.signMessage(id, "Together at last");
    assert.deepEqual(asked(await later.said()), ["service"]);

    // Its second lock is final; the partner's first makes three of the wallet.
    await scene.stack.spoil(id);
    assert.equal((await fails(page, later, id, "Poisoned again")).kind, "paillier-locked");
    await page.state("culprit-service", "final", "data-standing");
    assert.equal(await page.get("culprit-accept-service").count(), 0);
    await page.state("lock-losses", "2", "data-failures");
    await page.openWallet(id);
    await page.replaceKey();
    await page.openWallet(id);
    await page.walletState("unlocked");
    await scene.learnKeys(page, id);
    await page.signMessage(id, "With the partner again");
    await scene.stack.spoil(id, "partner");
    assert.equal((await fails(page, later, id, "Poisoned by the partner")).kind, "paillier-locked");
    await page.state("lock-losses", "3", "data-failures");
    await page.shown("lock-losses-move-funds");
    await page.state("paillier-locked", "none", "data-other");
    await inspect(page.tab, "signing-move-funds");
  },
);

/**
 * Puts the store back to what `version` kept, with `more` rows of keys, and opens the page again.
 */
async function downgrade(page, version, more = []) {
  const { origin } = new URL(page.tab.url());
  // No page of ours has the store open while the test puts it back to an old version's content.
  await page.tab.goto(`${origin}/config.json`);
  await page.tab.evaluate(
    async ([version, keys]) => {
      const done = request =>
        new Promise((resolve, reject) => {
          request.onsuccess = () => resolve(request.result);
          request.onerror = () => reject(request.error);
        });
      const stores = {
        wallets: "id",
        records: ["wallet", "kind"],
        keys: "id",
        cards: "fingerprint",
        recipients: ["role", "fingerprint"],
        ...(version >= 3 && { pending: "session" }),
        ...(version >= 4 && { culprits: "fingerprint" }),
      };
      const now = await done(indexedDB.open("duet"));
      const rows = {};
      for (const name of Object.keys(stores))
        rows[name] = await done(now.transaction(name).objectStore(name).getAll());
      rows.keys.push(...keys);
      now.close();
      await done(indexedDB.deleteDatabase("duet"));
      const opening = indexedDB.open("duet", version);
      opening.onupgradeneeded = () => {
        for (const [name, keyPath] of Object.entries(stores))
          opening.result.createObjectStore(name, { keyPath });
        for (const name of ["keys", "pending"].filter(name => name in stores))
          opening.transaction.objectStore(name).createIndex("wallet", "wallet");
      };
      const old = await done(opening);
      for (const [name, kept] of Object.entries(rows)) {
        for (const row of kept)
          await done(old.transaction(name, "readwrite").objectStore(name).put(row));
      }
      old.close();
    },
    [version, more],
  );
  await page.tab.goto(`${origin}/`);
  await page.ready();
  await page.online();
}

scenario("a lock of an earlier version quarantines the culprit's card", async scene => {
  const { page, id } = await scene.wallet();
  const lock = { session: "00".repeat(16), at: 1, evidence: [], culprit: "service" };
  const key = { id: "ab".repeat(32), wallet: id, state: "locked", verdicts: 9, lock };
  await downgrade(page, 2, [key]);
  await page.openWallet(id);
  await page.unlock();
  await page.state("culprit-service", "quarantined", "data-standing");
  await page.state("wallet-losses", "1", "data-failures");
  assert.equal(await page.get("wallet-losses").getAttribute("data-bits"), "4");
  const worker = await workerOf(page);
  await worker.record();
  await page.signMessage(id, "Since before");
  assert.deepEqual(asked(await worker.said()), ["partner"]);

  // The lock and the quarantine outlive the wallet: it may come back from a backup.
  await page.go(`#/wallet/${id}/settings`, "wallet-settings");
  await page.get("forget-open").click();
  await page.get("forget-sure").check();
  await page.get("forget-confirm").click();
  await page.state("view", "welcome", "data-view");
  assert.equal((await page.stored("culprits")).length, 1);
  assert.deepEqual(
    (await page.stored("keys")).map(({ state }) => state),
    ["locked"],
  );
});

for (const [version, what] of [
  [2, "pending verdicts"],
  [4, "what jobs signed"],
]) {
  scenario(`a store of the version before ${what} opens, and its wallet signs`, async scene => {
    const { page, id, address } = await scene.borrow({ third: "backup-file" });
    await downgrade(page, version);
    await page.openWallet(id);
    await page.unlock();
    await judge({
      kind: "personal_message",
      address,
      signature: await page.signMessage(id, "From before"),
      text: "From before",
    });
    assert.deepEqual(await page.stored("pending"), []);
    assert.equal((await page.stored("jobs")).length, 1);
  });
}
