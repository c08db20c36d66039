// A device signs in WebAssembly, with a service and with a partner; ethers and viem judge.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import {
  HOUR_MS, TENANT, duet, establish, makeBackends, manifestFor, ownerKey, requestDocument, sign, unwrap, verified,
  walletSetup,
} from './parties.mjs';

const hex = (bytes) => `0x${Buffer.from(bytes).toString('hex')}`;

/** What ethers and viem say about signatures. */
function judge(checks) {
  const program = fileURLToPath(new URL('../../tests/js/verify.mjs', import.meta.url));
  const run = spawnSync(process.execPath, [program], { input: JSON.stringify(checks), encoding: 'utf8' });
  assert.equal(run.status, 0, `${run.stdout}${run.stderr}`);
}

const TRANSFER = {
  kind: 'transaction',
  type: '0x2',
  chainId: 31337,
  nonce: 3,
  to: '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed',
  value: '0xde0b6b3a7640000',
  gas: 21000,
  maxFeePerGas: '2000000000',
  maxPriorityFeePerGas: 1,
};

const MAIL = {
  types: {
    EIP712Domain: [{ name: 'name', type: 'string' }, { name: 'chainId', type: 'uint256' }],
    Mail: [{ name: 'to', type: 'address' }, { name: 'contents', type: 'string' }],
  },
  primaryType: 'Mail',
  domain: { name: 'Ether Mail', chainId: 31337 },
  message: { to: '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed', contents: 'Hello, Bob!' },
};

// Made once: proving their parameters takes a party seconds.
const backends = makeBackends();

describe('a wallet dealt in WebAssembly', () => {
  let wallet;
  let address;
  const progress = [];

  before(() => {
    const dealt = unwrap(walletSetup(backends).deal(Date.now(), (step) => progress.push(step)));
    const pending = dealt.takePending();
    assert.equal(dealt.takePending(), undefined, 'it can be taken once');
    assert.equal(dealt.takeBackup(), undefined, 'the partner has the third share');
    // As after a reload of the page.
    wallet = establish(unwrap(duet.PendingWallet.fromSecretBytes(unwrap(pending.toSecretBytes()))), backends);
    address = hex(wallet.address);
  });

  test('keygen__should_report_each_step_in_order', () => {
    const steps = progress.map(({ step, share }) => (share ? `${step} ${share}` : step));
    const distinct = steps.filter((step, at) => step !== steps[at - 1]);
    assert.deepEqual(
      distinct,
      ['shares', 'paillier-key', 'proofs 2', 'sealing 2', 'proofs 3', 'sealing 3'],
    );
    assert.ok(progress.filter(({ candidates }) => candidates > 0).length >= 2);
  });

  test('signatures__should_convince_ethers_and_viem_with_either_responder', () => {
    const checks = [];
    for (const party of ['service', 'partner']) {
      const signed = (payload) => sign(wallet, backends[party], manifestFor(wallet, party, payload));
      const transfer = signed(TRANSFER);
      checks.push({
        kind: 'transaction',
        name: `${party} transaction`,
        address,
        digest: hex(unwrap(duet.readPayload(JSON.stringify(TRANSFER))).digest),
        signed_transaction: hex(unwrap(duet.signedTransaction(JSON.stringify(TRANSFER), transfer))),
        expect: { chainId: 31337, nonce: 3, value: '1000000000000000000' },
      });
      const text = `hello from ${party} 🤗`;
      checks.push({
        kind: 'personal_message',
        name: `${party} message`,
        address,
        text,
        signature: hex(signed({ kind: 'personal_message', text })),
      });
      checks.push({
        kind: 'typed_data',
        name: `${party} typed data`,
        address,
        typed_data: MAIL,
        signature: hex(signed({ kind: 'typed_data', ...MAIL })),
      });
    }
    judge(checks);
  });

  test('signatures__should_hold_in_rust_and_for_nothing_else', () => {
    const payload = { kind: 'personal_message', text: 'once' };
    const { digest } = unwrap(duet.readPayload(JSON.stringify(payload)));
    const signature = sign(wallet, backends.service, manifestFor(wallet, 'service', payload));
    assert.deepEqual(duet.verify(wallet.publicKey, digest, signature), { ok: true, value: undefined });
    assert.equal(duet.verify(wallet.publicKey, digest.map((byte) => byte ^ 1), signature).error.kind, 'bad-signature');
    const flipped = signature.slice();
    flipped[64] ^= 1;
    assert.equal(duet.verify(wallet.publicKey, digest, flipped).error.kind, 'bad-signature');
    assert.equal(duet.verify(wallet.publicKey, digest, signature.slice(1)).error.kind, 'malformed');
  });

  test('a_child_key__should_sign_under_another_address', () => {
    const payload = { kind: 'personal_message', text: 'child' };
    const signature = sign(wallet, backends.partner, manifestFor(wallet, 'partner', payload, 'm/0/5'));
    const { digest } = unwrap(duet.readPayload(JSON.stringify(payload)));
    assert.equal(duet.verify(wallet.publicKey, digest, signature).error.kind, 'bad-signature');
  });

  test('a_stored_wallet__should_sign_after_it_is_read_again', () => {
    const again = unwrap(duet.DeviceWallet.fromSecretBytes(unwrap(wallet.toSecretBytes())));
    assert.equal(again.id, wallet.id);
    const payload = { kind: 'personal_message', text: 'again' };
    sign(again, backends.service, manifestFor(again, 'service', payload));
    assert.equal(duet.DeviceWallet.fromSecretBytes(new Uint8Array(7)).error.kind, 'malformed');
  });

  test('a_state__should_serve_one_message_only', () => {
    const manifest = manifestFor(wallet, 'service', TRANSFER);
    const { state, message } = unwrap(wallet.start(manifest, unwrap(backends.service.card()), Date.now()));
    const { message: second } = unwrap(backends.service.respond(manifest, message, Date.now()));
    const opened = unwrap(state.receive(second));
    assert.throws(() => state.receive(second), 'the state was consumed');
    opened.state.free();
  });

  test('a_changed_message__should_be_refused_without_blame', () => {
    const manifest = manifestFor(wallet, 'service', TRANSFER);
    const card = unwrap(backends.service.card());
    const start = () => unwrap(wallet.start(manifest, card, Date.now()));
    for (const change of [(m) => m.slice(1), (m) => Uint8Array.of(...m, 0), (m) => m.map((b, i) => (i === 40 ? b ^ 1 : b))]) {
      const { state, message } = start();
      const { message: second } = unwrap(backends.service.respond(manifest, message, Date.now()));
      assert.equal(state.receive(change(second)).error.kind, 'not-authentic');
    }
    // Message 2 of another session of the same manifest.
    const { message } = start();
    const { message: second } = unwrap(backends.service.respond(manifest, message, Date.now()));
    assert.equal(start().state.receive(second).error.kind, 'not-authentic');
  });

  test('a_manifest__should_be_checked_before_anything_is_sent', () => {
    const card = unwrap(backends.service.card());
    const refusal = (manifest, now = Date.now()) => wallet.start(manifest, card, now).error;
    const good = manifestFor(wallet, 'service', TRANSFER);
    assert.equal(refusal(good, Date.now() + 2 * HOUR_MS).code, 'job-expired');
    assert.equal(refusal(manifestFor({ id: '11'.repeat(32), paillierKey: wallet.paillierKey }, 'service', TRANSFER)).code, 'unknown-wallet');
    assert.equal(refusal(manifestFor({ id: wallet.id, paillierKey: '22'.repeat(16) }, 'service', TRANSFER)).code, 'stale-paillier-key');
    const stranger = new Uint8Array(32).fill(8);
    assert.equal(refusal(manifestFor(wallet, 'service', TRANSFER, 'm', stranger)).code, 'requester-not-allowed');
    const digest = { kind: 'digest', digest: `0x${'11'.repeat(32)}` };
    assert.equal(refusal(manifestFor(wallet, 'service', digest)).code, 'kind-not-allowed');
    const forged = good.slice();
    forged[forged.length - 20] ^= 1;
    assert.equal(refusal(forged).code, 'bad-signature');
    assert.equal(wallet.start(good, unwrap(backends.partner.card()), Date.now()).error.kind, 'card');
    // The other side checks it, too.
    assert.equal(
      backends.service.respond(manifestFor(wallet, 'service', digest), new Uint8Array(96), Date.now()).error.code,
      'kind-not-allowed',
    );
  });

  test('a_verdict__should_open_for_its_own_paillier_key_only', () => {
    const manifest = manifestFor(wallet, 'service', TRANSFER);
    const card = unwrap(backends.service.card());
    const started = unwrap(wallet.start(manifest, card, Date.now()));
    const answered = unwrap(backends.service.respond(manifest, started.message, Date.now()));
    const opened = unwrap(started.state.receive(answered.message));
    const verdict = unwrap(opened.state.receive(unwrap(answered.state.receive(opened.message))));
    assert.equal(verdict.demandsLock, false);
    assert.equal(verdict.releaseAfterUnlockedRead('33'.repeat(16)).error.kind, 'misuse');
    assert.throws(() => verdict.releaseAfterUnlockedRead(wallet.paillierKey), 'the signature is gone');
  });

  test('the_owners_word__should_be_signed_and_typed', () => {
    const job = '44'.repeat(16);
    for (const said of [wallet.listJobs(Date.now()), wallet.approveJob(job, Date.now()), wallet.rejectJob(job, Date.now())]) {
      assert.ok(unwrap(said).length > 64);
    }
    assert.equal(wallet.approveJob('44', Date.now()).error.kind, 'malformed');
    const manifest = manifestFor(wallet, 'service', TRANSFER);
    assert.ok(unwrap(wallet.reportFailed(manifest, 'deadline', 'The service did not answer.', undefined)).length > 64);
    assert.equal(wallet.reportFailed(manifest, 'no-such-code', '', undefined).error.kind, 'malformed');
    assert.equal(JSON.parse(unwrap(duet.readManifest(manifest))).payload.kind, 'transaction');
  });
});

describe('what is wrong', () => {
  test('a_card__should_be_the_pinned_one', () => {
    const { service, partner } = backends;
    const token = unwrap(service.token(TENANT, Date.now() + HOUR_MS));
    assert.equal(duet.Backend.verify(unwrap(service.card()), partner.fingerprint, token).error.kind, 'card');
    const changed = unwrap(service.card());
    changed[changed.length - 1] ^= 1;
    assert.equal(duet.Backend.verify(changed, service.fingerprint, token).error.kind, 'malformed');
    assert.equal(verified(service).fingerprint, service.fingerprint);
  });

  test('a_payload__should_be_refused_with_code_and_path', () => {
    const { error } = duet.readPayload(JSON.stringify({ ...TRANSFER, to: '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD' }));
    assert.deepEqual(
      { kind: error.kind, code: error.code, path: error.path },
      { kind: 'refused', code: 'malformed-json', path: 'to' },
    );
  });

  test('a_request__should_be_refused_where_its_author_can_correct_it', () => {
    const secret = new Uint8Array(32).fill(7);
    const document = requestDocument('11'.repeat(32), { ...TRANSFER, gasPrice: 1 });
    assert.equal(duet.signRequest(document, secret).error.path, 'payload.gasPrice');
    assert.equal(duet.signRequest(document, secret.slice(1)).error.kind, 'malformed');
    assert.equal(ownerKey().length, 32);
  });

  test('a_backup__should_hold_the_third_share', { timeout: 120_000 }, () => {
    const { service } = backends;
    const setup = unwrap(duet.WalletSetup.create(TENANT, 'device', verified(service), ownerKey()));
    const dealt = unwrap(setup.deal(Date.now(), undefined));
    assert.ok(dealt.takeBackup().length > 32);
    const pending = dealt.takePending();
    assert.deepEqual(pending.deliveries().map(({ share, party }) => ({ share, party })), [{ share: 2, party: 'service' }]);
    // Nothing comes of a wallet whose receipts are missing.
    assert.equal(pending.bundle([]).error.kind, 'paper');
  });
});
