// The lock on a Paillier key, and a storage that fails to write: what the page may reveal then, and
// when.

import assert from 'node:assert/strict';

import { inspect } from '../support/accessibility.mjs';
import { judge } from '../support/judges.mjs';
import { workerOf } from '../support/worker.mjs';
import { scenario } from '../support/world.mjs';

/** Tries to sign. Returns the kind of the failure, and what the worker did meanwhile. */
async function fails(page, worker, id, text) {
  await page.reviewMessage(id, text);
  await worker.said();
  await page.startSigning();
  assert.equal(await page.state('signing', ['signed', 'failed']), 'failed');
  return { kind: await page.error(), said: await worker.said() };
}

/**
 * Everything from the responder's last message to the page's answer, in which a verdict could show.
 */
function afterVerdict(said) {
  const start = said.indexOf('note received 4');
  const end = said.findIndex((entry) => entry.startsWith('answer '));
  assert.ok(start >= 0 && end > start, said.join(', '));
  return said.slice(start + 1, end + 1);
}

scenario('a bad answer locks the key before anything is said, and a new key ends it', async (scene) => {
  const { page, id, address } = await scene.wallet({ third: 'backup-file' });
  judge({ kind: 'personal_message', address, signature: await page.signMessage(id, 'Before'), text: 'Before' });
  const worker = await workerOf(page);
  await worker.record();

  // The disk is full when a good verdict should be written, so the page does not reveal it.
  await worker.refuseWrites('keys');
  const good = await fails(page, worker, id, 'Into the dark');
  assert.equal(good.kind, 'storage');
  // Nothing begins before the storage has worked again.
  const next = await fails(page, worker, id, 'Still dark');
  assert.equal(next.kind, 'storage');
  assert.ok(!next.said.includes('sent'), `nothing is sent: ${next.said.join(', ')}`);
  await worker.allowWrites();

  // The service starts to cheat. A bad verdict that cannot be written looks like a good one. First
  // the pending good verdict is judged, then the storage is tried: two writes.
  await scene.stack.spoil(id);
  await worker.refuseWrites('keys', 2);
  const unsaid = await fails(page, worker, id, 'Poisoned in the dark');
  assert.equal(unsaid.kind, 'storage');
  assert.deepEqual(afterVerdict(unsaid.said), afterVerdict(good.said));
  await worker.allowWrites();

  // The tab ends, and the storage works again. The pending bad answer is judged before anything is
  // initiated.
  const left = (await page.stored('pending')).filter((row) => row.wallet === id);
  assert.equal(left.length, 1, 'one verdict is pending');
  await page.reload();
  await page.online();
  await page.openWallet(id);
  await page.unlock();
  const again = await workerOf(page);
  await again.record();
  const judged = await fails(page, again, id, 'Not even asked');
  assert.equal(judged.kind, 'paillier-locked');
  assert.ok(!judged.said.includes('sent'), `nothing is sent: ${judged.said.join(', ')}`);
  const [key] = (await page.stored('keys')).filter((row) => row.wallet === id);
  assert.equal(key.state, 'locked');
  assert.equal(key.lock.culprit, 'service');
  assert.ok(key.lock.evidence, 'the responder\'s signed answer is kept');
  assert.deepEqual(await page.stored('pending'), []);
  const [wallet] = (await page.stored('wallets')).filter((row) => row.id === id);
  assert.equal(wallet.failures, 1);

  // The lock outlives the tab, and only a new key ends it.
  await page.reload();
  await page.online();
  await page.openWallet(id);
  await page.unlock();
  await page.walletState('paillier-locked');
  await page.shown('paillier-locked');
  await inspect(page.tab, 'wallet-paillier-locked');
  await page.get('rotate-submit').first().click();
  await page.shown('rotate-done');
  await page.openWallet(id);
  await page.walletState('unlocked');
  await scene.learnKeys(page, id);
  const signature = await page.signMessage(id, 'Under a new key');
  judge({ kind: 'personal_message', address, signature, text: 'Under a new key' });

  // A bad verdict that can be written: the lock is on the disk before the page or the gateway
  // learns of it.
  await scene.stack.spoil(id);
  const last = await workerOf(page);
  await last.record();
  const bad = await fails(page, last, id, 'Poisoned');
  assert.equal(bad.kind, 'paillier-locked');
  const after = afterVerdict(bad.said);
  assert.equal(after[0], 'stored locked', after.join(', '));
  assert.equal(after.at(-1), 'answer paillier-locked');
});

scenario('a store of the version before pending verdicts opens, and its wallet signs', async (scene) => {
  const { page, id, address } = await scene.wallet({ third: 'backup-file' });
  const { origin } = new URL(page.tab.url());
  // No page of ours has the store open while the test puts it back to the content of version 2.
  await page.tab.goto(`${origin}/config.json`);
  await page.tab.evaluate(async () => {
    const done = (request) =>
      new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const stores = { wallets: 'id', records: ['wallet', 'kind'], keys: 'id', cards: 'fingerprint', recipients: ['role', 'fingerprint'] };
    const now = await done(indexedDB.open('duet'));
    const rows = {};
    for (const name of Object.keys(stores)) rows[name] = await done(now.transaction(name).objectStore(name).getAll());
    now.close();
    await done(indexedDB.deleteDatabase('duet'));
    const opening = indexedDB.open('duet', 2);
    opening.onupgradeneeded = () => {
      for (const [name, keyPath] of Object.entries(stores)) opening.result.createObjectStore(name, { keyPath });
      opening.transaction.objectStore('keys').createIndex('wallet', 'wallet');
    };
    const old = await done(opening);
    for (const [name, kept] of Object.entries(rows)) {
      for (const row of kept) await done(old.transaction(name, 'readwrite').objectStore(name).put(row));
    }
    old.close();
  });
  await page.tab.goto(`${origin}/`);
  await page.ready();
  await page.online();
  await page.openWallet(id);
  await page.unlock();
  judge({ kind: 'personal_message', address, signature: await page.signMessage(id, 'From before'), text: 'From before' });
  assert.deepEqual(await page.stored('pending'), []);
});
