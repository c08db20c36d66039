/**
 * The engine, on the bindings that `cargo xtask wasm --target web` puts into `wasm/`, beside this
 * package's sources and beside what is made of them.
 */

import init, * as wasm from "../../wasm/duet_frontend_wasm.js";

import {
  type BindingError,
  bindingError,
  duetError,
  fail,
  Failure,
  refusalError,
} from "../errors.js";
import { bytesToHex, hexToBytes, payloadDocument, plainDocument } from "../payload.js";
import type { KeySource } from "../protocol.js";
import type {
  Address,
  Description,
  Hex,
  Payload,
  ReadTransaction,
  TypedDataPayload,
  Verification,
  VerifyOptions,
  WalletParty,
} from "../types.js";
import type {
  Admission,
  Answered,
  ApprovalReply,
  Backend,
  DealOrder,
  Dealt,
  DeviceWallet,
  Drawn,
  Encrypted,
  Engine,
  Handle,
  Initiator,
  ManifestFacts,
  Opened,
  Pending,
  Responder,
  SealKey,
  Verdict,
} from "./engine.js";
import type { Destination, Frames, ServerFrame } from "./frames.js";
import { readToken } from "./token.js";

type Result<T> = { ok: true; value: T } | { ok: false; error: BindingError };

/** The value of a binding's result. `field` is where the argument came from, for refusals that do not say. */
function take<T>(result: Result<T>, field?: string): T {
  if (result.ok) return result.value;
  throw new Failure(bindingError(result.error, field));
}

/** Returns what was read from the reply of `by`. Throws a refusal by `by` if the reading failed. */
function takeReply<T>(result: Result<T>, by: string): T {
  if (result.ok) return result.value;
  const { kind, code, message } = result.error;
  if (kind === "refused" && code !== undefined)
    throw new Failure(refusalError({ code, message }, by));
  throw new Failure(
    duetError("refused", `The answer of ${by} does not parse: ${message}.`, {
      code: "peer-misbehaved",
      by,
    }),
  );
}

/** Loads the module. Once for each worker. */
export async function loadEngine(): Promise<Engine> {
  try {
    // Written out in full: bundlers look for exactly this expression.
    await init({
      module_or_path: new URL("../../wasm/duet_frontend_wasm_bg.wasm", import.meta.url),
    });
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    fail("internal", `WebAssembly did not load: ${reason}`);
  }
  return engine;
}

const frames: Frames = {
  get protocol() {
    return wasm.gatewayProtocol();
  },
  hello: build => take(wasm.helloFrame(build)),
  leave: wallet => take(wasm.leaveFrame(wallet)),
  request: (id, to: Destination, message) => take(wasm.requestFrame(id, to, message)),
  read(bytes) {
    const frame: Result<ServerFrame> = wasm.readFrame(bytes);
    return frame.ok ? frame.value : null;
  },
};

/** Exact length of each prime of a 2048-bit modulus. */
const PRIME_BITS = 1024;

function partiesOf(holders: wasm.ShareHolder[]): WalletParty[] {
  return holders.map(({ share, party, fingerprint = "" }): WalletParty => {
    if (share === 3 && party === undefined) return { share, role: "backup-file" };
    const name = party ?? "";
    if (share === 1) return { share, role: "device", party: name };
    return share === 2
      ? { share, role: "service", party: name, fingerprint }
      : { share, role: "partner", party: name, fingerprint };
  });
}

// Handles of WebAssembly, which the rest of the worker knows only by what they do.

const sealKey = (key: SealKey): wasm.KeyEncryptionKey => key as wasm.KeyEncryptionKey;

class BoundPending implements Pending {
  constructor(private readonly pending: wasm.PendingWallet) {}
  get id() {
    return this.pending.id;
  }
  get parties() {
    return partiesOf(this.pending.holders);
  }
  get deliveries() {
    return this.pending.deliveries();
  }
  seal(key: SealKey) {
    return take(this.pending.seal(sealKey(key)));
  }
  bundle(receipts: Uint8Array[]) {
    return take(this.pending.bundle(receipts));
  }
  finish(bundle: Uint8Array, acknowledgements: Uint8Array[]) {
    return new BoundWallet(take(this.pending.finish(bundle, acknowledgements)));
  }
  free() {
    this.pending.free();
  }
}

class BoundWallet implements DeviceWallet {
  constructor(private readonly wallet: wasm.DeviceWallet) {}
  get id() {
    return this.wallet.id;
  }
  get address() {
    return this.wallet.address as Address;
  }
  get publicKey() {
    return bytesToHex(this.wallet.publicKey);
  }
  get tenant() {
    return this.wallet.tenant;
  }
  get parties() {
    return partiesOf(this.wallet.holders);
  }
  get newestKey() {
    return this.wallet.newestKey ?? null;
  }
  get unenrolled() {
    return this.wallet.unenrolled;
  }
  addressAt(path: string) {
    return take(this.wallet.addressAt(path), "path") as Address;
  }
  holds(path: string, digest: Hex, signature: Uint8Array) {
    return this.wallet.verifyAt(path, hexToBytes(digest, "digest"), signature).ok;
  }
  seal(key: SealKey) {
    return take(this.wallet.seal(sealKey(key)));
  }
  authenticate(challenge: Uint8Array, nowMs: number) {
    return take(this.wallet.authenticate(challenge, nowMs));
  }
  requestSignature(document: string, nowMs: number) {
    return take(this.wallet.requestSignature(document, nowMs));
  }
  listJobs(nowMs: number) {
    return take(this.wallet.listJobs(nowMs));
  }
  approveJob(job: string, nowMs: number) {
    return take(this.wallet.approveJob(job, nowMs), "job");
  }
  rejectJob(job: string, requestHash: Uint8Array, nowMs: number) {
    return take(this.wallet.rejectJob(job, requestHash, nowMs), "job");
  }
  askJob(job: string, nowMs: number) {
    return take(this.wallet.askJob(job, nowMs), "job");
  }
  readManifest(manifest: Uint8Array, nowMs: number): ManifestFacts {
    // Who drew it up is to blame for what is wrong with it.
    const facts = takeReply(this.wallet.readManifest(manifest, nowMs), "orchestrator");
    return { ...facts, digest: facts.digest as Hex };
  }
  start(manifest: Uint8Array, responderCard: Uint8Array, nowMs: number) {
    const { state, message } = take(this.wallet.start(manifest, responderCard, nowMs));
    return { state: new BoundInitiator(state), message };
  }
  reportSigned(manifest: Uint8Array, signature: Uint8Array) {
    return take(this.wallet.reportSigned(manifest, signature));
  }
  reportFailed(manifest: Uint8Array, code: string, message: string, culprit?: string) {
    return take(this.wallet.reportFailed(manifest, code, message, culprit));
  }
  beginRotation([p, q]: [Uint8Array, Uint8Array]) {
    try {
      take(this.wallet.beginRotation(p, q));
    } finally {
      p.fill(0);
      q.fill(0);
    }
  }
  proofTask(responder: Responder) {
    return take(this.wallet.proofTask((responder as BoundResponder).handle));
  }
  offer(responder: Responder, proofs: Uint8Array, nowMs: number) {
    return take(this.wallet.offer((responder as BoundResponder).handle, proofs, nowMs));
  }
  agree(party: string) {
    take(this.wallet.agree(party));
  }
  get paillierKeys() {
    return this.wallet.paillierKeys;
  }
  judgePending(sealed: Uint8Array, session: string, key: SealKey) {
    return this.wallet.judgePending(sealed, session, sealKey(key)) ?? null;
  }
  forgetKey(paillierKey: string) {
    take(this.wallet.forgetKey(paillierKey));
  }
  backup(passphrase: string, nowMs: number) {
    return take(this.wallet.backup(passphrase, nowMs));
  }
  free() {
    this.wallet.free();
  }
}

class Bound<H extends wasm.Backend | wasm.Responder> implements Responder {
  constructor(readonly handle: H) {}
  get party() {
    return this.handle.party;
  }
  get fingerprint() {
    return this.handle.fingerprint;
  }
  free() {
    this.handle.free();
  }
}

class BoundResponder extends Bound<wasm.Responder> {}

class BoundBackend extends Bound<wasm.Backend> implements Backend {
  readonly admitted = true;
}

function backend(card: Uint8Array, fingerprint: string, token: Uint8Array) {
  const responder = take(wasm.Responder.verifiedElsewhere(card, fingerprint));
  try {
    return new BoundBackend(take(wasm.Backend.create(responder, token), "tokens"));
  } finally {
    responder.free();
  }
}

function readAdmission(text: string, field: string): Admission {
  const token = readToken(text, field);
  return { ...take(wasm.admissionFacts(token), field), token };
}

// The states of a session and of a dealing are consumed by the step that leads out of them: nothing
// is left to free then.

/** A state that is gone once it was taken. */
class Once<State extends Handle> implements Handle {
  #state: State | undefined;
  constructor(state: State) {
    this.#state = state;
  }
  protected get state(): State {
    return this.#state ?? fail("internal", "This step was taken already.");
  }
  protected taken(): State {
    const { state } = this;
    this.#state = undefined;
    return state;
  }
  free() {
    this.#state?.free();
    this.#state = undefined;
  }
}

class BoundInitiator extends Once<wasm.InitiatorSession> implements Initiator {
  receive(message: Uint8Array) {
    const next = take(this.taken().receive(message));
    return { state: new BoundOpened(next.state), message: next.message };
  }
}

class BoundOpened extends Once<wasm.OpenedSession> implements Opened {
  receive(message: Uint8Array) {
    return new BoundAnswered(take(this.taken().receive(message)));
  }
}

class BoundAnswered extends Once<wasm.AnsweredSession> implements Answered {
  pendingVerdict(key: SealKey) {
    return take(this.state.pendingVerdict(sealKey(key)));
  }
  decrypt() {
    return new BoundVerdict(take(this.taken().decryptAfterPendingWritten()));
  }
}

class BoundVerdict implements Verdict {
  constructor(private readonly verdict: wasm.Verdict) {}
  get lockEvidence() {
    return this.verdict.demandsLock ? (this.verdict.lockEvidence ?? new Uint8Array()) : null;
  }
  release(paillierKey: string) {
    return take(this.verdict.releaseAfterUnlockedRead(paillierKey)).signature;
  }
  settle(paillierKey: string) {
    return take(this.verdict.settleAfterLockWritten(paillierKey)).culprit;
  }
  free() {
    this.verdict.free();
  }
}

// ----------------------------------------------------------------------------------------- dealing

function draw(order: DealOrder, nowMs: number) {
  const {
    tenant,
    device,
    service,
    partner,
    requesters,
    primes: [p, q],
  } = order;
  try {
    const setup = take(wasm.WalletSetup.create(tenant, device, (service as BoundBackend).handle));
    if (partner) setup.setPartner((partner as BoundBackend).handle);
    for (const [at, { key, kinds }] of requesters.entries()) {
      const field = `requesters[${at}].key`;
      take(setup.addRequester(hexToBytes(key, field), kinds), field);
    }
    return new BoundDrawn(take(setup.draw(p, q, nowMs, undefined)));
  } finally {
    p.fill(0);
    q.fill(0);
  }
}

class BoundDrawn extends Once<wasm.DrawnWallet> implements Drawn {
  get tasks() {
    return take(this.state.tasks());
  }
  encrypt() {
    return new BoundEncrypted(take(this.taken().encrypt()));
  }
}

class BoundEncrypted extends Once<wasm.EncryptedWallet> implements Encrypted {
  assemble(proofs: Uint8Array[], onSealing: (share: 2 | 3) => void) {
    const hear = (progress: wasm.KeygenProgress): void => {
      if (progress.step === "sealing") onSealing(progress.share);
    };
    return new BoundDealt(take(this.taken().assemble(proofs, hear)));
  }
}

class BoundDealt implements Dealt {
  constructor(private readonly dealt: wasm.DealtWallet) {}
  takePending() {
    const pending = this.dealt.takePending();
    return pending ? new BoundPending(pending) : fail("internal", "Nothing was dealt.");
  }
  backupFile(passphrase: string, nowMs: number) {
    return take(this.dealt.backupFile(passphrase, nowMs));
  }
  free() {
    this.dealt.free();
  }
}

function searchPrime(onCandidate: () => boolean) {
  const found: Result<Uint8Array> = wasm.findPrime(PRIME_BITS, onCandidate);
  return !found.ok && found.error.kind === "cancelled" ? null : take(found);
}

function protect(source: KeySource) {
  const made =
    source.kind === "passphrase"
      ? take(
          wasm.KeyEncryptionKey.newPassphrase(source.passphrase, undefined),
          "protection.passphrase",
        )
      : take(wasm.KeyEncryptionKey.newPrf(source.secret), "protection");
  if (source.kind === "passkey") source.secret.fill(0);
  return made;
}

function unprotect(descriptor: string, source: KeySource) {
  try {
    return source.kind === "passphrase"
      ? take(wasm.KeyEncryptionKey.fromPassphrase(source.passphrase, descriptor), "unlock")
      : take(wasm.KeyEncryptionKey.fromPrf(source.secret, descriptor), "unlock");
  } finally {
    if (source.kind === "passkey") source.secret.fill(0);
  }
}

/** Opens a backup file. Its own refusals are about the file, not about this browser's storage. */
function openBackup(
  file: Uint8Array,
  passphrase: string,
  wanted: wasm.OpenedBackup["contents"],
  otherwise: string,
) {
  const opened: Result<wasm.OpenedBackup> = wasm.OpenedBackup.open(file, passphrase);
  if (!opened.ok && opened.error.kind === "record") {
    const error = bindingError(opened.error);
    throw new Failure(duetError("invalid", error.message, { field: "file" }));
  }
  const backup = take(opened, "file");
  if (backup.contents !== wanted) {
    backup.free();
    fail("invalid", otherwise, { field: "file" });
  }
  return backup;
}

function restore(file: Uint8Array, passphrase: string) {
  const otherwise =
    "The file holds the third share of a wallet; a browser is restored from its own backup.";
  return new BoundWallet(take(openBackup(file, passphrase, "device", otherwise).restore(), "file"));
}

function readThirdShare(file: Uint8Array, passphrase: string) {
  const otherwise =
    "The file is a backup of this device's own share; choose the file of the third share.";
  const backup = openBackup(file, passphrase, "third-share", otherwise);
  try {
    return { wallet: backup.wallet, address: backup.address as Address };
  } finally {
    backup.free();
  }
}

const engine: Engine = {
  frames,
  protect,
  unprotect,
  verifyCard: (card, fingerprint) => take(wasm.Responder.verify(card, fingerprint)).free(),
  responder: (card, fingerprint) =>
    new BoundResponder(take(wasm.Responder.verifiedElsewhere(card, fingerprint))),
  backend,
  cardFacts: card => take(wasm.cardFacts(card)),
  readAdmission,
  draw,
  makeProofs: task => take(wasm.makeProofs(task)),
  openPending: (sealed, key, id) =>
    new BoundPending(take(wasm.PendingWallet.open(sealed, sealKey(key), id))),
  openWallet: (sealed, key, id) =>
    new BoundWallet(take(wasm.DeviceWallet.open(sealed, sealKey(key), id))),
  restore,
  readThirdShare,
  sealItem: (key, wallet, item, content) => take(sealKey(key).seal(wallet, item, content)),
  openItem: (key, wallet, item, sealed) => take(sealKey(key).open(wallet, item, sealed)),
  searchPrime,

  askCard: () => take(wasm.askCard()),
  readCard: (reply, by) => takeReply(wasm.readCard(reply), by),
  prepare: envelope => take(wasm.prepareShare(envelope)),
  readReceipt: (reply, by) => takeReply(wasm.readReceipt(reply), by),
  commit: bundle => take(wasm.commitShare(bundle)),
  readAcknowledgement: (reply, by) => takeReply(wasm.readAcknowledgement(reply), by),
  enrol: offer => take(wasm.enrol(offer)),
  readEnrolled(reply, by) {
    takeReply(wasm.readEnrolled(reply), by);
  },
  readApproval: reply => takeReply(wasm.readApproval(reply), "orchestrator") as ApprovalReply,
  readOutcomeReply(reply) {
    takeReply(wasm.readOutcomeReply(reply), "orchestrator");
  },
  progressNote: (session, step, nowMs) => take(wasm.progressNote(session, step, nowMs)),

  describe: (payload: Payload) =>
    take(wasm.describe(payloadDocument(payload)), "payload") as unknown as Description,
  readTransaction: request =>
    take(wasm.readTransaction(plainDocument(request)), "transaction") as ReadTransaction,
  readTypedData(document, undeclared) {
    const text = typeof document === "string" ? document : plainDocument(document);
    return take(
      wasm.readTypedData(text, undeclared === "drop"),
      "document",
    ) as unknown as TypedDataPayload;
  },
  signedTransaction: (payload, signature) =>
    take(wasm.signedTransaction(payloadDocument(payload), signature)) as { raw: Hex; hash: Hex },
  verify: ({ payload, signature, address }: VerifyOptions) =>
    take(
      wasm.verifyPayload(payloadDocument(payload), hexToBytes(signature, "signature"), address),
      "signature",
    ) as Verification,
};
