// What a browser does around a signature: primes from helpers, backups, rotation, the gateway's
// frames.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";

import {
  HOUR_MS,
  QUICK,
  QUICK_FILE,
  TENANT,
  dealWithHelpers,
  duet,
  establish,
  makeBackends,
  manifestFor,
  offerTo,
  primes,
  requestDocument,
  sign,
  unwrap,
  verified,
  walletSetup,
} from "./parties.mjs";

const MESSAGE = { kind: "personal_message", text: "hello" };
const backends = makeBackends();

describe("primes", () => {
  test("a_search__should_find_a_prime_of_the_length_and_count", () => {
    const heard = [];
    const prime = unwrap(
      duet.findPrime(1024, candidates => {
        heard.push(candidates);
      }),
    );
    assert.equal(prime.length, 128);
    assert.equal(prime[0] >> 6, 3, "the two highest bits are set");
    assert.equal(prime[127] & 3, 3, "a Blum prime");
    assert.deepEqual(
      heard,
      heard.map((_, at) => at + 1),
    );
  });

  test("a_search__should_end_when_it_is_told_to", () => {
    let heard = 0;
    const ended = duet.findPrime(1024, candidates => {
      heard = candidates;
      return candidates < 2;
    });
    assert.equal(ended.error.kind, "cancelled");
    assert.equal(heard, 2);
    assert.equal(duet.findPrime(512, undefined).error.kind, "malformed");
  });

  test("a_dealer__should_take_good_primes_only", () => {
    const [p] = primes();
    const composite = p.slice();
    composite[0] ^= 0x21;
    composite[64] ^= 0x55;
    const deal = (first, second) =>
      walletSetup(backends).draw(first, second, Date.now(), undefined);
    assert.equal(deal(p, p).error.kind, "malformed");
    assert.equal(deal(p, composite).error.kind, "malformed");
    assert.equal(deal(p, p.slice(1)).error.kind, "malformed");
  });
});

describe("proofs made in helpers", () => {
  test("an_assembly__should_take_the_proofs_of_its_own_tasks_only", () => {
    const [drawn, other] = [0, 1].map(() =>
      unwrap(walletSetup(backends).draw(...primes(), Date.now(), undefined)),
    );
    const [tasks, others] = [drawn, other].map(one => unwrap(one.tasks()));
    assert.deepEqual(
      tasks.map(({ share }) => share),
      [2, 3],
    );
    const encrypted = unwrap(drawn.encrypt());
    const proofs = unwrap(duet.makeProofs(tasks[0].task));
    const foreign = unwrap(duet.makeProofs(others[1].task));
    const { error } = encrypted.assemble([proofs, foreign], undefined);
    assert.deepEqual([error.kind, /partner/.test(error.message)], ["misuse", true]);
    assert.equal(duet.makeProofs(tasks[1].task.slice(1)).error.kind, "malformed");
  });
});

describe("a wallet whose primes and proofs helpers made", () => {
  let wallet;

  before(() => {
    const steps = [];
    const dealt = dealWithHelpers(walletSetup(backends), primes(), step => steps.push(step));
    wallet = establish(dealt.takePending(), backends);
    assert.deepEqual(
      wallet.holders.map(({ share, party }) => [share, party]),
      [
        [1, "device"],
        [2, "service"],
        [3, "partner"],
      ],
    );
    assert.ok(
      steps.every(({ candidates }) => !candidates),
      "no prime was searched",
    );
  });

  test("a_passkey__should_open_what_it_sealed", () => {
    const secret = new Uint8Array(32).fill(9);
    const { key, descriptor } = unwrap(duet.KeyEncryptionKey.newPrf(secret));
    const record = unwrap(wallet.seal(key));
    const found = unwrap(duet.KeyEncryptionKey.fromPrf(secret, descriptor));
    assert.equal(unwrap(duet.DeviceWallet.open(record, found, wallet.id)).address, wallet.address);
    assert.equal(
      duet.KeyEncryptionKey.fromPrf(
        secret.map(byte => byte ^ 1),
        descriptor,
      ).error.kind,
      "wrong-passphrase",
    );
    const note = unwrap(key.seal(wallet.id, "label", new TextEncoder().encode("Savings")));
    assert.equal(new TextDecoder().decode(unwrap(found.open(wallet.id, "label", note))), "Savings");
    assert.equal(found.open(wallet.id, "other", note).error.kind, "record");
  });

  test("a_restored_wallet__should_sign_after_a_rotation_only", () => {
    const card = unwrap(backends.service.card());
    const file = unwrap(wallet.backup("correct horse", 5, QUICK_FILE));
    assert.equal(duet.OpenedBackup.open(file, "correct house").error.kind, "wrong-passphrase");
    assert.equal(duet.OpenedBackup.open(file.slice(0, -1), "correct horse").error.kind, "record");
    const opened = unwrap(duet.OpenedBackup.open(file, "correct horse"));
    assert.deepEqual(
      [opened.contents, opened.wallet, opened.address, opened.madeAt],
      ["device", wallet.id, wallet.address, 5],
    );
    const restored = unwrap(opened.restore());
    assert.equal(restored.newestKey, undefined);
    assert.deepEqual(
      restored.unenrolled.map(({ party }) => party),
      ["service", "partner"],
    );
    const old = manifestFor(wallet, "service", MESSAGE);
    assert.equal(restored.start(old, card, Date.now()).error.kind, "needs-rotation");

    unwrap(restored.beginRotation(...primes()));
    assert.equal(restored.start(old, card, Date.now()).error.code, "stale-paillier-key");
    const offer = unwrap(duet.enrol(offerTo(restored, backends.service)));
    unwrap(duet.readEnrolled(unwrap(backends.service.takeOffer(offer))));
    unwrap(restored.agree("service"));
    assert.deepEqual(
      restored.unenrolled.map(({ party }) => party),
      ["partner"],
    );

    const { key } = unwrap(duet.KeyEncryptionKey.newPassphrase("x", QUICK));
    const again = unwrap(duet.DeviceWallet.open(unwrap(restored.seal(key)), key, wallet.id));
    assert.deepEqual(
      again.unenrolled.map(({ party }) => party),
      ["partner"],
    );
    const signature = sign(again, backends.service, manifestFor(again, "service", MESSAGE));
    assert.equal(
      unwrap(duet.verifyPayload(JSON.stringify(MESSAGE), signature, wallet.address)).valid,
      true,
    );
  });

  test("a_rotation__should_keep_the_old_key_for_a_responder_that_has_not_agreed", () => {
    const before = wallet.newestKey;
    unwrap(wallet.beginRotation(...primes()));
    assert.deepEqual(wallet.paillierKeys, [before, wallet.newestKey]);
    const underOld = manifestFor(wallet, "partner", MESSAGE, { paillierKey: before });
    const started = unwrap(wallet.start(underOld, unwrap(backends.partner.card()), Date.now()));
    started.state.free();
    assert.equal(wallet.agree("stranger").error.kind, "misuse");
    unwrap(wallet.agree("service"));
    unwrap(wallet.agree("partner"));
    assert.deepEqual(wallet.paillierKeys, [wallet.newestKey]);
  });

  test("the_owners_request__should_be_signed_and_checked_where_it_is_made", () => {
    const document = new TextDecoder().decode(requestDocument(wallet.id, MESSAGE));
    const { message, job, digest } = unwrap(wallet.requestSignature(document, Date.now()));
    assert.ok(message.length > document.length);
    assert.match(job, /^[0-9a-f]{32}$/);
    assert.equal(digest, unwrap(duet.describe(JSON.stringify(MESSAGE))).digest);
    const bad = new TextDecoder().decode(
      requestDocument(wallet.id, { kind: "digest", digest: "0x12" }),
    );
    assert.equal(wallet.requestSignature(bad, Date.now()).error.path, "payload.digest");
    const other = new TextDecoder().decode(requestDocument("11".repeat(32), MESSAGE));
    assert.equal(wallet.requestSignature(other, Date.now()).error.code, "unknown-wallet");
  });

  test("waiting_jobs__should_be_shown_only_as_their_requester_signed_them", () => {
    const document = requestDocument(wallet.id, MESSAGE, "m/0/1");
    const { requester, signature } = unwrap(wallet.signRequest(document));
    const reply = unwrap(
      duet.readApproval(unwrap(duet.testWaitingJobs(document, requester, signature))),
    );
    assert.equal(reply.jobs.length, 1);
    const [job] = reply.jobs;
    assert.equal(job.wallet, wallet.id);
    assert.equal(job.path, "m/0/1");
    assert.equal(job.tenant, TENANT);
    assert.deepEqual(job.description.fields, [{ path: "text", type: "string", value: "hello" }]);
    assert.ok(job.expiresAt > Date.now() && job.expiresAt <= Date.now() + HOUR_MS);
    const { error } = duet.readApproval(unwrap(duet.testRefusal("job-expired", "Too late.")));
    assert.deepEqual(
      [error.kind, error.code, error.message],
      ["refused", "job-expired", "Too late."],
    );
  });

  test("a_gateway__should_be_convinced_over_its_own_challenge_only", () => {
    const challenge = new Uint8Array(32).fill(3);
    const now = Date.now();
    const frame = unwrap(wallet.authenticate(challenge, now));
    const card = unwrap(wallet.card());
    assert.equal(duet.testAuthenticate(frame, challenge, card, now).ok, true);
    assert.equal(
      duet.testAuthenticate(
        frame,
        challenge.map(b => b + 1),
        card,
        now,
      ).error.kind,
      "bad-signature",
    );
    assert.equal(
      duet.testAuthenticate(frame, challenge, card, now + HOUR_MS).error.kind,
      "bad-signature",
    );
  });
});

describe("a wallet without a partner", () => {
  test("its_third_share__should_go_to_a_file_that_was_read_back", () => {
    const setup = unwrap(duet.WalletSetup.create(TENANT, "device", verified(backends.service)));
    const dealt = dealWithHelpers(setup);
    assert.equal(dealt.needsBackupFile, true);
    assert.equal(dealt.backupFile("", Date.now(), QUICK_FILE).error.kind, "misuse");
    const file = unwrap(dealt.backupFile("correct horse", Date.now(), QUICK_FILE));
    assert.equal(Buffer.from(file).toString("latin1").split("\n")[0], "age-encryption.org/v1");
    const pending = dealt.takePending();
    assert.deepEqual(
      pending.deliveries().map(({ share, party }) => ({ share, party })),
      [{ share: 2, party: "service" }],
    );
    assert.equal(pending.holders[2].party, undefined);
    const opened = unwrap(duet.OpenedBackup.open(file, "correct horse"));
    assert.deepEqual([opened.contents, opened.wallet], ["third-share", pending.id]);
    assert.equal(opened.restore().error.kind, "misuse");
    // Nothing comes of a wallet whose receipts are missing.
    assert.equal(pending.bundle([]).error.kind, "paper");
  });
});

describe("frames and messages", () => {
  const wallet = "02".repeat(32);
  const session = "05".repeat(16);

  test("frames_of_a_gateway__should_be_plain_objects", () => {
    const frames = duet.testServerFrames().map(frame => unwrap(duet.readFrame(frame)));
    assert.deepEqual(frames, [
      {
        kind: "challenge",
        nonce: new Uint8Array(32).fill(1),
        protocol: 1,
        build: "b1",
        limits: { maxFrameBytes: 1000, idleS: 60 },
      },
      { kind: "authenticated", wallet },
      { kind: "reply", id: 7, message: Uint8Array.of(1, 2) },
      { kind: "refused", id: undefined, refusal: { code: "bad-signature", message: "no" } },
      { kind: "waiting", wallet, jobs: 3 },
    ]);
    for (const bytes of [
      new Uint8Array(0),
      Uint8Array.of(0x61, 1, 9),
      Uint8Array.of(...duet.testServerFrames()[1], 0),
    ]) {
      assert.equal(duet.readFrame(bytes).error.kind, "malformed");
    }
  });

  test("requests__should_go_where_they_are_sent", () => {
    const sent = to =>
      unwrap(duet.testClientFrame(unwrap(duet.requestFrame(4, to, Uint8Array.of(1, 2, 3)))));
    assert.match(
      sent({ kind: "card", party: "service" }),
      /^Request\(4, Card\(.*service.*\), 3 bytes\)$/,
    );
    assert.match(sent({ kind: "share", party: "service" }), /Share\(/);
    assert.match(sent({ kind: "approval", wallet }), /Approval\(/);
    assert.match(sent({ kind: "round", session, to: "service" }), /Round \{.*service/);
    assert.match(sent({ kind: "outcome", session }), /Outcome/);
    assert.match(sent({ kind: "event", session }), /Event/);
    assert.equal(
      duet.requestFrame(4, { kind: "elsewhere" }, new Uint8Array(0)).error.kind,
      "malformed",
    );
    assert.equal(
      duet.requestFrame(4, { kind: "card", party: "no name" }, new Uint8Array(0)).error.kind,
      "malformed",
    );
    assert.match(unwrap(duet.testClientFrame(unwrap(duet.helloFrame("b1")))), /Hello\(1, "b1"\)/);
    assert.match(unwrap(duet.testClientFrame(unwrap(duet.leaveFrame(wallet)))), /Leave/);
  });

  test("a_card__should_come_out_of_its_answer", () => {
    assert.ok(unwrap(duet.askCard()).length >= 3);
    const card = unwrap(duet.readCard(unwrap(backends.service.cardReply())));
    assert.deepEqual(unwrap(duet.cardFacts(card)), {
      party: "service",
      fingerprint: backends.service.fingerprint,
    });
    assert.equal(duet.readReceipt(unwrap(backends.service.cardReply())).error.kind, "malformed");
    const believed = unwrap(duet.Responder.verifiedElsewhere(card, backends.service.fingerprint));
    assert.equal(believed.party, "service");
    assert.equal(
      duet.Responder.verifiedElsewhere(card, backends.partner.fingerprint).error.kind,
      "card",
    );
  });

  test("a_progress_note__should_be_json_for_its_readers", () => {
    const note = JSON.parse(
      new TextDecoder().decode(unwrap(duet.progressNote(session, { step: "sent", message: 3 }, 5))),
    );
    assert.deepEqual(note, { session, step: "sent", message: 3, at_ms: 5 });
  });
});

describe("payloads", () => {
  test("a_description__should_show_what_is_signed", () => {
    const description = unwrap(
      duet.describe(
        JSON.stringify({
          kind: "transaction",
          chainId: 1,
          nonce: 1,
          gas: 21000,
          to: "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
          value: "1000000000000000000",
          maxFeePerGas: 2,
          maxPriorityFeePerGas: 1,
        }),
      ),
    );
    assert.equal(description.kind, "transaction");
    assert.equal(description.chainId, 1);
    assert.equal(description.payload.to, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed");
    const value = description.fields.find(({ path }) => path === "value");
    assert.deepEqual(value, { path: "value", type: "uint256", value: "1000000000000000000" });
    const { error } = duet.describe('{"kind":"transaction","chainId":1,"nonce":"x"}');
    assert.deepEqual([error.kind, error.path], ["refused", "nonce"]);
  });

  test("addresses__should_be_checksummed", () => {
    assert.equal(
      unwrap(duet.checksumAddress("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed")),
      "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    );
    assert.equal(
      duet.checksumAddress("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD").error.kind,
      "malformed",
    );
  });
});
