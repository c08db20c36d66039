// The lock on a Paillier key, and a storage that does not write: what the page may say then, and when.

import assert from 'node:assert/strict';

import { inspect } from '../support/accessibility.mjs';
import { judge } from '../support/judges.mjs';
import { workerOf } from '../support/worker.mjs';
import { scenario } from '../support/world.mjs';

/** Tries to sign; the failure's kind, and what was noted in the worker meanwhile. */
async function fails(page, worker, id, text) {
  await page.reviewMessage(id, text);
  await worker.said();
  await page.startSigning();
  assert.equal(await page.state('signing', ['signed', 'failed']), 'failed');
  return { kind: await page.error(), said: await worker.said() };
}

/** From the responder's last message to the answer: all that a verdict could show in. */
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

  // The disk is full when a good verdict is to be written: it is not spoken.
  await worker.refuseWrites('keys');
  const good = await fails(page, worker, id, 'Into the dark');
  assert.equal(good.kind, 'storage');
  // Nothing begins before the storage was seen to work.
  const next = await fails(page, worker, id, 'Still dark');
  assert.equal(next.kind, 'storage');
  assert.ok(!next.said.includes('sent'), `nothing is sent: ${next.said.join(', ')}`);
  await worker.allowWrites();

  // The service turns. A bad verdict that cannot be written looks like a good one.
  await scene.stack.spoil(id);
  await worker.refuseWrites('keys', 1);
  const unsaid = await fails(page, worker, id, 'Poisoned in the dark');
  assert.equal(unsaid.kind, 'storage');
  assert.deepEqual(afterVerdict(unsaid.said), afterVerdict(good.said));
  await worker.allowWrites();

  // With the storage back, the lock is on the disk before the page or anybody else hears.
  const bad = await fails(page, worker, id, 'Poisoned');
  assert.equal(bad.kind, 'paillier-locked');
  const after = afterVerdict(bad.said);
  assert.equal(after[0], 'stored locked', after.join(', '));
  assert.equal(after.at(-1), 'answer paillier-locked');
  const [key] = (await page.stored('keys')).filter((row) => row.wallet === id);
  assert.equal(key.state, 'locked');
  assert.ok(key.lock.evidence, 'the responder\'s signed answer is kept');

  // It outlives the tab, and nothing but a new key ends it.
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
});
