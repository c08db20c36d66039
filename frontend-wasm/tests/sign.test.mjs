// A device signs in WebAssembly, with a service and with a partner; ethers and viem judge.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import {
  HOUR_MS,
  QUICK,
  QUICK_FILE,
  TEAM_SECRET,
  duet,
  establish,
  makeBackends,
  manifestFor,
  requestDocument,
  sign,
  unwrap,
  verified,
  walletSetup,
} from "./parties.mjs";

const hex = bytes => `0x${Buffer.from(bytes).toString("hex")}`;
const bytesOf = digits => new Uint8Array(Buffer.from(digits.slice(2), "hex"));

/** What ethers and viem say about signatures. */
function judge(checks) {
  const program = fileURLToPath(new URL("../../tests/js/verify.mjs", import.meta.url));
  const run = spawnSync(process.execPath, [program], {
    input: JSON.stringify(checks),
    encoding: "utf8",
  });
  assert.equal(run.status, 0, `${run.stdout}${run.stderr}`);
}

const TRANSFER = {
  kind: "transaction",
  type: "0x2",
  chainId: 31337,
  nonce: 3,
  to: "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
  value: "0xde0b6b3a7640000",
  gas: 21000,
  maxFeePerGas: "2000000000",
  maxPriorityFeePerGas: 1,
};

const MAIL = {
  types: {
    EIP712Domain: [
      { name: "name", type: "string" },
      { name: "chainId", type: "uint256" },
    ],
    Mail: [
      { name: "to", type: "address" },
      { name: "contents", type: "string" },
    ],
  },
  primaryType: "Mail",
  domain: { name: "Ether Mail", chainId: 31337 },
  message: { to: "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", contents: "Hello, Bob!" },
};

// Made once: proving their parameters takes a party seconds.
const backends = makeBackends();

describe("a wallet dealt in WebAssembly", () => {
  let wallet;
  let address;
  const progress = [];

  before(() => {
    const dealt = unwrap(walletSetup(backends).deal(Date.now(), step => progress.push(step)));
    const pending = dealt.takePending();
    assert.equal(dealt.takePending(), undefined, "it can be taken once");
    assert.equal(dealt.needsBackupFile, false);
    assert.equal(dealt.backupFile("x", Date.now(), QUICK_FILE).error.kind, "misuse");
    // As after a reload of the page.
    const { key } = unwrap(duet.KeyEncryptionKey.newPassphrase("correct horse", QUICK));
    wallet = establish(
      unwrap(duet.PendingWallet.open(unwrap(pending.seal(key)), key, pending.id)),
      backends,
    );
    address = wallet.address;
  });

  test("keygen__should_report_each_step_in_order", () => {
    const steps = progress.map(({ step, share }) => (share ? `${step} ${share}` : step));
    const distinct = steps.filter((step, at) => step !== steps[at - 1]);
    assert.deepEqual(distinct, [
      "shares",
      "paillier-key",
      "proofs 2",
      "proofs 3",
      "sealing 2",
      "sealing 3",
    ]);
    assert.ok(progress.filter(({ candidates }) => candidates > 0).length >= 2);
  });

  test("signatures__should_convince_ethers_and_viem_with_either_responder", () => {
    const checks = [];
    for (const party of ["service", "partner"]) {
      const signed = payload => sign(wallet, backends[party], manifestFor(wallet, party, payload));
      const transfer = signed(TRANSFER);
      checks.push({
        kind: "transaction",
        name: `${party} transaction`,
        address,
        digest: unwrap(duet.describe(JSON.stringify(TRANSFER))).digest,
        signed_transaction: unwrap(duet.signedTransaction(JSON.stringify(TRANSFER), transfer)).raw,
        expect: { chainId: 31337, nonce: 3, value: "1000000000000000000" },
      });
      const text = `hello from ${party} 🤗`;
      checks.push({
        kind: "personal_message",
        name: `${party} message`,
        address,
        text,
        signature: hex(signed({ kind: "personal_message", text })),
      });
      checks.push({
        kind: "typed_data",
        name: `${party} typed data`,
        address,
        typed_data: MAIL,
        signature: hex(signed({ kind: "typed_data", ...MAIL })),
      });
    }
    judge(checks);
  });

  test("signatures__should_hold_in_rust_and_for_nothing_else", () => {
    const payload = { kind: "personal_message", text: "once" };
    const digest = bytesOf(unwrap(duet.describe(JSON.stringify(payload))).digest);
    const signature = sign(wallet, backends.service, manifestFor(wallet, "service", payload));
    assert.deepEqual(duet.verify(wallet.publicKey, digest, signature), {
      ok: true,
      value: undefined,
    });
    assert.equal(
      duet.verify(
        wallet.publicKey,
        digest.map(byte => byte ^ 1),
        signature,
      ).error.kind,
      "bad-signature",
    );
    const flipped = signature.slice();
    flipped[64] ^= 1;
    assert.equal(duet.verify(wallet.publicKey, digest, flipped).error.kind, "bad-signature");
    assert.equal(duet.verify(wallet.publicKey, digest, signature.slice(1)).error.kind, "malformed");
  });

  test("a_child_key__should_sign_under_another_address", () => {
    const payload = { kind: "personal_message", text: "child" };
    const signature = sign(
      wallet,
      backends.partner,
      manifestFor(wallet, "partner", payload, { path: "m/0/5" }),
    );
    const digest = bytesOf(unwrap(duet.describe(JSON.stringify(payload))).digest);
    assert.equal(duet.verify(wallet.publicKey, digest, signature).error.kind, "bad-signature");
    assert.deepEqual(wallet.verifyAt("m/0/5", digest, signature), { ok: true, value: undefined });
    assert.equal(wallet.verifyAt("m", digest, signature).error.kind, "bad-signature");
    const child = unwrap(wallet.addressAt("m/0/5"));
    assert.notEqual(child, address);
    assert.deepEqual(
      unwrap(duet.verifyPayload(JSON.stringify(payload), signature, child)).valid,
      true,
    );
  });

  test("a_stored_wallet__should_sign_after_it_is_read_again", () => {
    const { key, descriptor } = unwrap(duet.KeyEncryptionKey.newPassphrase("correct horse", QUICK));
    const record = unwrap(wallet.seal(key));
    const found = unwrap(duet.KeyEncryptionKey.fromPassphrase("correct horse", descriptor));
    const again = unwrap(duet.DeviceWallet.open(record, found, wallet.id));
    assert.equal(again.id, wallet.id);
    const payload = { kind: "personal_message", text: "again" };
    sign(again, backends.service, manifestFor(again, "service", payload));

    assert.equal(
      duet.KeyEncryptionKey.fromPassphrase("correct house", descriptor).error.kind,
      "wrong-passphrase",
    );
    assert.equal(
      duet.KeyEncryptionKey.fromPrf(new Uint8Array(32), descriptor).error.kind,
      "malformed",
    );
    assert.equal(duet.KeyEncryptionKey.fromPassphrase("x", "{}").error.kind, "record");
    assert.equal(duet.DeviceWallet.open(record, found, "11".repeat(32)).error.kind, "record");
    const changed = record.slice();
    changed[changed.length - 1] ^= 1;
    assert.equal(duet.DeviceWallet.open(changed, found, wallet.id).error.kind, "record");
    assert.equal(duet.DeviceWallet.open(new Uint8Array(7), found, wallet.id).error.kind, "record");
  });

  test("a_state__should_serve_one_message_only", () => {
    const manifest = manifestFor(wallet, "service", TRANSFER);
    const { state, message } = unwrap(
      wallet.start(manifest, unwrap(backends.service.card()), Date.now()),
    );
    const { message: second } = unwrap(backends.service.respond(manifest, message, Date.now()));
    const opened = unwrap(state.receive(second));
    assert.throws(() => state.receive(second), "the state was consumed");
    opened.state.free();
  });

  test("a_changed_message__should_be_refused_without_blame", () => {
    const manifest = manifestFor(wallet, "service", TRANSFER);
    const card = unwrap(backends.service.card());
    const start = () => unwrap(wallet.start(manifest, card, Date.now()));
    for (const change of [
      m => m.slice(1),
      m => Uint8Array.of(...m, 0),
      m => m.map((b, i) => (i === 40 ? b ^ 1 : b)),
    ]) {
      const { state, message } = start();
      const { message: second } = unwrap(backends.service.respond(manifest, message, Date.now()));
      assert.equal(state.receive(change(second)).error.kind, "not-authentic");
    }
    // Message 2 of another session of the same manifest.
    const { message } = start();
    const { message: second } = unwrap(backends.service.respond(manifest, message, Date.now()));
    assert.equal(start().state.receive(second).error.kind, "not-authentic");
  });

  test("a_manifest__should_be_checked_before_anything_is_sent", () => {
    const card = unwrap(backends.service.card());
    const refusal = (manifest, now = Date.now()) => wallet.start(manifest, card, now).error;
    const good = manifestFor(wallet, "service", TRANSFER);
    assert.equal(refusal(good, Date.now() + 2 * HOUR_MS).code, "job-expired");
    assert.equal(
      refusal(manifestFor(wallet, "service", TRANSFER, { id: "11".repeat(32) })).code,
      "unknown-wallet",
    );
    assert.equal(
      refusal(manifestFor(wallet, "service", TRANSFER, { paillierKey: "22".repeat(16) })).code,
      "stale-paillier-key",
    );
    assert.equal(
      refusal(manifestFor(wallet, "service", TRANSFER, { secret: TEAM_SECRET })).code,
      "requester-not-allowed",
    );
    const digest = { kind: "digest", digest: `0x${"11".repeat(32)}` };
    assert.equal(refusal(manifestFor(wallet, "service", digest)).code, "kind-not-allowed");
    const forged = good.slice();
    forged[forged.length - 20] ^= 1;
    assert.equal(refusal(forged).code, "bad-signature");
    assert.equal(
      wallet.start(good, unwrap(backends.partner.card()), Date.now()).error.kind,
      "card",
    );
    // The other side checks it, too.
    assert.equal(
      backends.service.respond(
        manifestFor(wallet, "service", digest),
        new Uint8Array(96),
        Date.now(),
      ).error.code,
      "kind-not-allowed",
    );
  });

  test("a_verdict__should_open_for_its_own_paillier_key_only", () => {
    const manifest = manifestFor(wallet, "service", TRANSFER);
    const card = unwrap(backends.service.card());
    const started = unwrap(wallet.start(manifest, card, Date.now()));
    const answered = unwrap(backends.service.respond(manifest, started.message, Date.now()));
    const opened = unwrap(started.state.receive(answered.message));
    const verdict = unwrap(
      unwrap(
        opened.state.receive(unwrap(answered.state.receive(opened.message))),
      ).decryptAfterPendingWritten(),
    );
    assert.equal(verdict.demandsLock, false);
    assert.equal(verdict.releaseAfterUnlockedRead("33".repeat(16)).error.kind, "misuse");
    assert.throws(
      () => verdict.releaseAfterUnlockedRead(wallet.newestKey),
      "the signature is gone",
    );
  });

  test("a_bad_answer__should_demand_a_lock_before_anything_is_said", () => {
    const manifest = manifestFor(wallet, "service", TRANSFER);
    const card = unwrap(backends.service.card());
    const started = unwrap(wallet.start(manifest, card, Date.now()));
    const answered = unwrap(backends.service.respond(manifest, started.message, Date.now()));
    const opened = unwrap(started.state.receive(answered.message));
    const verdict = unwrap(
      unwrap(
        opened.state.receive(unwrap(answered.state.receiveAndCheat(opened.message))),
      ).decryptAfterPendingWritten(),
    );
    assert.equal(verdict.demandsLock, true);
    assert.ok(verdict.lockEvidence.length > 64);
    const { culprit, evidence } = unwrap(verdict.settleAfterLockWritten(wallet.newestKey));
    assert.equal(culprit, "service");
    assert.ok(evidence.length > 64);
    assert.ok(
      unwrap(wallet.reportFailed(manifest, "peer-misbehaved", "A bad signature.", culprit)).length >
        64,
    );
  });

  test("a_bad_verdict__should_not_be_released_as_a_signature", () => {
    const manifest = manifestFor(wallet, "service", TRANSFER);
    const started = unwrap(wallet.start(manifest, unwrap(backends.service.card()), Date.now()));
    const answered = unwrap(backends.service.respond(manifest, started.message, Date.now()));
    const opened = unwrap(started.state.receive(answered.message));
    const verdict = unwrap(
      unwrap(
        opened.state.receive(unwrap(answered.state.receiveAndCheat(opened.message))),
      ).decryptAfterPendingWritten(),
    );
    assert.equal(verdict.releaseAfterUnlockedRead(wallet.newestKey).error.kind, "misuse");
  });

  test("a_verdict_that_a_tab_left_behind__should_be_judged_without_its_nonce", () => {
    const { key } = unwrap(duet.KeyEncryptionKey.newPassphrase("correct horse", QUICK));
    const leave = answer => {
      const manifest = manifestFor(wallet, "service", TRANSFER);
      const { session } = unwrap(wallet.readManifest(manifest, Date.now()));
      const started = unwrap(wallet.start(manifest, unwrap(backends.service.card()), Date.now()));
      const answered = unwrap(backends.service.respond(manifest, started.message, Date.now()));
      const opened = unwrap(started.state.receive(answered.message));
      const arrived = unwrap(opened.state.receive(unwrap(answered.state[answer](opened.message))));
      const sealed = unwrap(arrived.pendingVerdict(key));
      arrived.free();
      return { session, sealed };
    };
    const good = leave("receive");
    const bad = leave("receiveAndCheat");
    assert.equal(wallet.judgePending(good.sealed, good.session, key), undefined);
    assert.ok(
      wallet.judgePending(bad.sealed, bad.session, key).length > 64,
      "the signed bad answer",
    );
    // What does not open demands the lock, and so does what is sealed for another session or under
    // another key.
    for (const [sealed, session] of [
      [good.sealed, bad.session],
      [good.sealed.slice(1), good.session],
    ]) {
      assert.equal(wallet.judgePending(sealed, session, key).length, 0);
    }
    const other = unwrap(duet.KeyEncryptionKey.newPassphrase("correct house", QUICK)).key;
    assert.equal(wallet.judgePending(good.sealed, good.session, other).length, 0);

    // A copy that forgot the key cannot judge, and cannot start.
    const copy = unwrap(duet.DeviceWallet.open(unwrap(wallet.seal(key)), key, wallet.id));
    unwrap(copy.forgetKey(wallet.newestKey));
    assert.deepEqual(copy.paillierKeys, []);
    assert.equal(copy.newestKey, undefined);
    assert.equal(copy.judgePending(good.sealed, good.session, key).length, 0);
    const manifest = manifestFor(wallet, "service", TRANSFER);
    const refused = copy.start(manifest, unwrap(backends.service.card()), Date.now());
    assert.equal(refused.error.kind, "needs-rotation");
  });

  test("the_owners_word__should_be_signed_and_typed", () => {
    const job = "44".repeat(16);
    for (const said of [
      wallet.listJobs(Date.now()),
      wallet.approveJob(job, Date.now()),
      wallet.rejectJob(job, new Uint8Array(32), Date.now()),
    ]) {
      assert.ok(unwrap(said).length > 64);
    }
    assert.equal(wallet.approveJob("44", Date.now()).error.kind, "malformed");
    const manifest = manifestFor(wallet, "service", TRANSFER);
    assert.ok(
      unwrap(wallet.reportFailed(manifest, "deadline", "The service did not answer.", undefined))
        .length > 64,
    );
    assert.equal(
      wallet.reportFailed(manifest, "no-such-code", "", undefined).error.kind,
      "malformed",
    );
    const facts = unwrap(wallet.readManifest(manifest, Date.now()));
    assert.equal(facts.responder, "service");
    assert.equal(facts.responderFingerprint, backends.service.fingerprint);
    assert.equal(facts.digest, unwrap(duet.describe(JSON.stringify(TRANSFER))).digest);
    assert.equal(facts.paillierKey, wallet.newestKey);
    assert.match(facts.signs, /^[0-9a-f]{64}$/);
    assert.ok(facts.requestExpiresAt > facts.expiresAt - HOUR_MS);
    assert.equal(wallet.readManifest(manifest, Date.now() + 2 * HOUR_MS).error.code, "job-expired");
    assert.equal(wallet.rejectJob(job, new Uint8Array(31), Date.now()).error.kind, "malformed");
  });
});

describe("what is wrong", () => {
  test("a_card__should_be_the_pinned_one", () => {
    const { service, partner } = backends;
    assert.equal(
      duet.Responder.verify(unwrap(service.card()), partner.fingerprint).error.kind,
      "card",
    );
    const changed = unwrap(service.card());
    changed[changed.length - 1] ^= 1;
    assert.equal(duet.Responder.verify(changed, service.fingerprint).error.kind, "malformed");
    assert.equal(verified(service).fingerprint, service.fingerprint);
  });

  test("a_payload__should_be_refused_with_code_and_path", () => {
    const { error } = duet.describe(
      JSON.stringify({ ...TRANSFER, to: "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD" }),
    );
    assert.deepEqual(
      { kind: error.kind, code: error.code, path: error.path },
      { kind: "refused", code: "malformed-json", path: "to" },
    );
  });

  test("a_request__should_be_refused_where_its_author_can_correct_it", () => {
    const document = requestDocument("11".repeat(32), { ...TRANSFER, gasPrice: 1 });
    assert.equal(duet.signRequest(document, TEAM_SECRET).error.path, "payload.gasPrice");
  });
});
