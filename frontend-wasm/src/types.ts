/** Why an operation failed. `message` is for people. */
export type DuetError =
  /** Bytes or text that do not parse; nothing was done. */
  | { kind: "malformed"; message: string }
  /** A manifest, request or payload that is refused, with a stable code of docs/errors.md. */
  | { kind: "refused"; message: string; code: string; path?: string }
  /** A card that is not the pinned one, or whose parameters are not proved. */
  | { kind: "card"; message: string }
  /** A message that the peer did not send in this session. No party can be blamed. */
  | { kind: "not-authentic"; message: string }
  /** The authenticated peer broke the protocol. */
  | { kind: "peer-misbehaved"; message: string; culprit: string }
  /** A receipt or acknowledgement of `culprit` that does not count, or is missing. */
  | { kind: "paper"; message: string; culprit: string }
  /** A signature that does not hold. */
  | { kind: "bad-signature"; message: string }
  /** Another passphrase or passkey than the wallet's or the file's. */
  | { kind: "wrong-passphrase"; message: string }
  /** A sealed record or backup file that was changed, moved, or is of another version or key. */
  | { kind: "record"; message: string }
  /** The wallet came from a backup and initiates only after a rotation. */
  | { kind: "needs-rotation"; message: string }
  /** The caller ended it. */
  | { kind: "cancelled"; message: string }
  /** The caller's own mistake. */
  | { kind: "misuse"; message: string };

/** The outcome of an operation that can fail. */
export type Result<T> = { ok: true; value: T } | { ok: false; error: DuetError };

/** How far the dealing of a wallet is. */
export type KeygenProgress =
  | { step: "shares" }
  /** The longest step; `candidates` counts those tried for its two primes, some 120 in all. */
  | { step: "paillier-key"; candidates: number }
  | { step: "proofs"; share: 2 | 3 }
  | { step: "sealing"; share: 2 | 3 };

/** A sealed package to send to a party until its receipt comes back. */
export type Delivery = { share: 2 | 3; party: string; envelope: Uint8Array };

/** A kind of payload. */
export type PayloadKind = "transaction" | "personal_message" | "typed_data" | "digest";

/** A session's next state, and the message to send. */
export type Step<State> = { state: State; message: Uint8Array };

/** What argon2id costs. */
export type Argon2Cost = { memoryKib: number; passes: number; lanes: number };

/** A new key, and the JSON document to store in the clear with which it is found again. */
export type NewKey = { key: KeyEncryptionKey; descriptor: string };

/** Who holds a share; a backup file has neither name nor card. */
export type ShareHolder = { share: 1 | 2 | 3; party?: string; fingerprint?: string };

/** What a session's manifest says, checked against the wallet. `expiresAt` in milliseconds since 1970. */
export type ManifestFacts = {
  session: string;
  job: string;
  responder: string;
  responderFingerprint: string;
  paillierKey: string;
  digest: string;
  path: string;
  expiresAt: number;
  /** SHA-256 over wallet, path and digest, in hexadecimal: requests under one idempotency key agree in it. */
  signs: string;
  /** When the signed request expires, in milliseconds since 1970. */
  requestExpiresAt: number;
};

/** A payload spelled out; `digest` is `0x…`. */
export type Description = {
  kind: PayloadKind;
  digest: string;
  chainId?: number;
  /** The payload in one normal form. */
  payload: Record<string, unknown>;
  /** Every field that goes into the digest, in order. */
  fields: DescribedField[];
  /** Members of typed data that do not go into the digest. */
  notSigned?: NotSigned[];
};

/** `value` is JSON. */
export type NotSigned = { path: string; value: string; reason: "not-covered" | "undeclared" };

/** A transaction as far as it is known; `type` where it is said or follows from the fees. */
export type ReadTransaction = {
  members: Record<string, unknown>;
  missing: string[];
  from?: string;
  type?: "0x0" | "0x1" | "0x2";
};

/** `value`: quantities in decimal digits, bytes as `0x…`, addresses with their checksum. */
export type DescribedField = { path: string; type: string; value: string };

/** Whose a signature is. */
export type Verification = { valid: boolean; digest: string; signer?: string; reason?: string };

/** Whom the gateway is to forward to. */
export type GatewayDestination =
  | { kind: "card" | "share"; party: string }
  | { kind: "approval"; wallet: string }
  | { kind: "round"; session: string; to: string }
  | { kind: "outcome" | "event"; session: string };

/** What the gateway says. */
export type ServerFrame =
  | {
      kind: "challenge";
      nonce: Uint8Array;
      protocol: number;
      build: string;
      limits: { maxFrameBytes: number; idleS: number };
    }
  | { kind: "authenticated"; wallet: string }
  | { kind: "reply"; id: number; message: Uint8Array }
  | { kind: "refused"; id: number | undefined; refusal: { code: string; message: string } }
  | { kind: "waiting"; wallet: string; jobs: number };

/** A job that waits for the owner, its request's signature verified. Times in milliseconds since 1970. */
export type WaitingJob = {
  job: string;
  wallet: string;
  description: Description;
  path: string;
  tenant: string;
  requester: string;
  idempotencyKey: string;
  pairs: string[];
  createdAt: number;
  expiresAt: number;
};

/** A job's state and result. Its signature is the orchestrator's word until it is verified. */
export type JobReport = {
  kind: "job";
  job: string;
  state: "queued" | "awaiting_owner" | "running" | "signed" | "failed" | "expired" | "cancelled";
  /** By this hash the owner revokes the request; absent when the request is not that of the job. */
  requestHash?: Uint8Array;
  code?: string;
  message?: string;
  signature?: Uint8Array;
  digest?: string;
  path?: string;
  session?: string;
};

/** The orchestrator's answer to the owner. */
export type ApprovalReply =
  | { kind: "jobs"; jobs: WaitingJob[]; more: boolean }
  | { kind: "session"; manifest: Uint8Array }
  | JobReport
  | { kind: "done" };

/** What a device did in a session. */
export type ProgressStep =
  | { step: "sent" | "received"; message: number }
  | { step: "signed" }
  | { step: "failed"; code: string };

/** A signature, with the responder's signed answer for the audit log. */
export type Signed = { signature: Uint8Array; evidence: Uint8Array };
