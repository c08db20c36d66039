/**
 * What the worker needs of WebAssembly, in its own words. All methods throw {@link Failure};
 * handles hold secrets in WebAssembly's memory until `free` wipes them.
 */

import type { KeySource } from "../protocol.js";
import type {
  Address,
  DerivationPath,
  Description,
  Hex,
  Payload,
  ReadTransaction,
  RequesterChoice,
  Timestamp,
  TypedDataPayload,
  Undeclared,
  Verification,
  VerifyOptions,
  WaitingJob,
  WalletId,
  WalletParty,
} from "../types.js";
import type { Frames } from "./frames.js";

/** Something in WebAssembly's memory. */
export interface Handle {
  free(): void;
}

/** The key that seals a wallet's records. */
export type SealKey = Handle;

/** A party whose card is verified. */
export interface Responder extends Handle {
  readonly party: string;
  readonly fingerprint: string;
}

/** The same with its admission token: a party that gets a share. */
export interface Backend extends Responder {
  readonly admitted: true;
}

/** An admission token, and what it says. Its party's signature is checked with the party's card. */
export interface Admission {
  party: string;
  tenant: string;
  token: Uint8Array;
}

export interface DealOrder {
  tenant: string;
  device: string;
  service: Backend;
  /** `null`: share 3 goes to a backup file. */
  partner: Backend | null;
  requesters: RequesterChoice[];
  /** The two primes of the Paillier key, secret. Wiped. */
  primes: [Uint8Array, Uint8Array];
}

/** A wallet whose shares and keys are drawn. */
export interface Drawn extends Handle {
  /** The proofs to make, each for {@link Engine.makeProofs} in a helper. Made anew on each reading; secret. */
  readonly tasks: { share: 2 | 3; task: Uint8Array }[];
  /** Encrypts this device's share for every receiver. The drawn wallet is gone then. */
  encrypt(): Encrypted;
}

/** A drawn wallet that lacks only its proofs. */
export interface Encrypted extends Handle {
  /** Seals the packages. `onSealing` hears for which share. It is gone then. */
  assemble(proofs: Uint8Array[], onSealing: (share: 2 | 3) => void): Dealt;
}

/** A dealt wallet, and share 3 if it goes to a backup file. */
export interface Dealt extends Handle {
  /** Once. */
  takePending(): Pending;
  backupFile(passphrase: string, nowMs: number): Uint8Array;
}

export interface Delivery {
  share: 2 | 3;
  party: string;
  envelope: Uint8Array;
}

/** A wallet dealt and not yet committed. */
export interface Pending extends Handle {
  readonly id: WalletId;
  readonly parties: WalletParty[];
  readonly deliveries: Delivery[];
  seal(key: SealKey): Uint8Array;
  bundle(receipts: Uint8Array[]): Uint8Array;
  /** The finished wallet. */
  finish(bundle: Uint8Array, acknowledgements: Uint8Array[]): DeviceWallet;
}

/** A wallet that signs. */
export interface DeviceWallet extends Handle {
  readonly id: WalletId;
  readonly address: Address;
  readonly publicKey: Hex;
  readonly tenant: string;
  readonly parties: WalletParty[];
  /** The newest Paillier key; `null` after a restore. */
  readonly newestKey: string | null;
  /** The responders that have not taken the newest key. */
  readonly unenrolled: { share: 2 | 3; party: string }[];
  addressAt(path: DerivationPath): Address;
  /** Whether a signature over a digest is by the key at a path. */
  holds(path: DerivationPath, digest: Hex, signature: Uint8Array): boolean;
  seal(key: SealKey): Uint8Array;
  authenticate(challenge: Uint8Array, nowMs: number): Uint8Array;
  /** The owner's request to sign a document, as a message to the orchestrator, and the job it makes. */
  requestSignature(document: string, nowMs: number): { message: Uint8Array; job: string };
  listJobs(nowMs: number): Uint8Array;
  approveJob(job: string, nowMs: number): Uint8Array;
  /** The owner's revocation of a job's request, by the hash that the answer to {@link askJob} has. */
  rejectJob(job: string, requestHash: Uint8Array, nowMs: number): Uint8Array;
  askJob(job: string, nowMs: number): Uint8Array;
  /** Checks a manifest against the wallet, and that it is about this job and digest. */
  readManifest(manifest: Uint8Array, nowMs: number): ManifestFacts;
  start(manifest: Uint8Array, responderCard: Uint8Array, nowMs: number): Step<Initiator>;
  reportSigned(manifest: Uint8Array, signature: Uint8Array): Uint8Array;
  reportFailed(manifest: Uint8Array, code: string, message: string, culprit?: string): Uint8Array;
  beginRotation(primes: [Uint8Array, Uint8Array]): void;
  /** The proofs about the newest key for a responder, for {@link Engine.makeProofs} in a helper. Secret. */
  proofTask(responder: Responder): Uint8Array;
  /** The newest key, offered to a responder. */
  offer(responder: Responder, proofs: Uint8Array, nowMs: number): Uint8Array;
  agree(party: string): void;
  /** All Paillier keys, the oldest first. */
  readonly paillierKeys: string[];
  /** The evidence of a lock that a pending verdict demands, empty when there is none; `null` when the answer was honest. */
  judgePending(sealed: Uint8Array, session: string, key: SealKey): Uint8Array | null;
  /** Forgets a key that is locked. */
  forgetKey(paillierKey: string): void;
  backup(passphrase: string, nowMs: number): Uint8Array;
}

export interface ManifestFacts {
  session: string;
  job: string;
  responder: string;
  responderFingerprint: string;
  paillierKey: string;
  digest: Hex;
  path: DerivationPath;
  expiresAt: Timestamp;
  /** What is signed, by which key: requests under one idempotency key agree in it. */
  signs: string;
  /** When the signed request expires; a session of it ends earlier. */
  requestExpiresAt: Timestamp;
}

export interface Step<State> {
  state: State;
  message: Uint8Array;
}

/** Message 1 is out. Each state is gone once `receive` was called. */
export interface Initiator extends Handle {
  receive(message: Uint8Array): Step<Opened>;
}

/** Message 3 is out. */
export interface Opened extends Handle {
  receive(message: Uint8Array): Answered;
}

/** Message 4 is there, and not decrypted. */
export interface Answered extends Handle {
  /** What is to be stored before {@link Answered.decrypt}, sealed. */
  pendingVerdict(key: SealKey): Uint8Array;
  /** To be called once the pending verdict is stored. */
  decrypt(): Verdict;
}

export interface Verdict extends Handle {
  /** The responder's signed bad answer, if this verdict demands a lock. */
  readonly lockEvidence: Uint8Array | null;
  /** The signature. To be called once the store was seen to hold the key unlocked. */
  release(paillierKey: string): Uint8Array;
  /** Whose fault it is. To be called once the lock is durable. */
  settle(paillierKey: string): string;
}

export type ApprovalReply =
  | { kind: "jobs"; jobs: WaitingJob[]; more: boolean }
  | { kind: "session"; manifest: Uint8Array }
  | {
      kind: "job";
      job: string;
      state: string;
      signature?: Uint8Array;
      code?: string;
      message?: string;
      /** Of the request that makes this job: by it the owner revokes the request. */
      requestHash?: Uint8Array;
    }
  | { kind: "done" };

/** What this device did in a session. */
export type ProgressStep =
  | { step: "sent" | "received"; message: number }
  | { step: "signed" }
  | { step: "failed"; code: string };

export interface Engine {
  readonly frames: Frames;
  protect(source: KeySource): { descriptor: string; key: SealKey };
  /** @throws {Failure} `wrong-passphrase` */
  unprotect(descriptor: string, source: KeySource): SealKey;
  /** Verifies the proof on a card; takes more than half a second. */
  verifyCard(card: Uint8Array, fingerprint: string): void;
  /** A party whose card a helper has verified. */
  responder(card: Uint8Array, fingerprint: string): Responder;
  /** A party that gets a share: its card, and its token, which has to be signed by the card's key. */
  backend(card: Uint8Array, fingerprint: string, token: Uint8Array): Backend;
  /** What a card says, its own signature checked. */
  cardFacts(card: Uint8Array): { party: string; fingerprint: string };
  /** Reads an admission token as organisations hand it out: hexadecimal digits, or base64. */
  readAdmission(text: string, field: string): Admission;
  draw(order: DealOrder, nowMs: number): Drawn;
  /** Does a proof task; takes more than a second. */
  makeProofs(task: Uint8Array): Uint8Array;
  openPending(sealed: Uint8Array, key: SealKey, id: WalletId): Pending;
  openWallet(sealed: Uint8Array, key: SealKey, id: WalletId): DeviceWallet;
  restore(file: Uint8Array, passphrase: string): DeviceWallet;
  /** Opens the file of a third share; which wallet it belongs to. */
  readThirdShare(file: Uint8Array, passphrase: string): { wallet: WalletId; address: Address };
  /** Seals something beside a wallet, under a name; opened for the same wallet and name only. */
  sealItem(key: SealKey, wallet: WalletId, item: string, content: Uint8Array): Uint8Array;
  openItem(key: SealKey, wallet: WalletId, item: string, sealed: Uint8Array): Uint8Array;
  /** A prime, or `null` once `onCandidate` said `false`. */
  searchPrime(onCandidate: () => boolean): Uint8Array | null;

  // Messages of the parties and the orchestrator. `by` is who answered.
  askCard(): Uint8Array;
  readCard(reply: Uint8Array, by: string): Uint8Array;
  prepare(envelope: Uint8Array): Uint8Array;
  readReceipt(reply: Uint8Array, by: string): Uint8Array;
  commit(bundle: Uint8Array): Uint8Array;
  readAcknowledgement(reply: Uint8Array, by: string): Uint8Array;
  enrol(offer: Uint8Array): Uint8Array;
  readEnrolled(reply: Uint8Array, by: string): void;
  readApproval(reply: Uint8Array): ApprovalReply;
  /** Whether the report was acknowledged; a refusal is final, too. */
  readOutcomeReply(reply: Uint8Array): void;
  /** A note on how far a session has come, for the clients that follow its events. */
  progressNote(session: string, step: ProgressStep, nowMs: number): Uint8Array;

  describe(payload: Payload): Description;
  readTransaction(request: Record<string, unknown>): ReadTransaction;
  readTypedData(
    document: string | Record<string, unknown>,
    undeclared: Undeclared,
  ): TypedDataPayload;
  signedTransaction(payload: Payload, signature: Uint8Array): { raw: Hex; hash: Hex };
  verify(options: VerifyOptions): Verification;
}
