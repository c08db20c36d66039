/** Why something was not done. `message` is for people. */
export type DuetError =
  /** Bytes or text that do not parse; nothing was done. */
  | { kind: "malformed"; message: string }
  /** A manifest, request or payload that is refused, with a stable code of docs/errors.md. */
  | { kind: "refused"; message: string; code: string; path?: string }
  /** A card that is not the pinned one, or whose parameters are not proved. */
  | { kind: "card"; message: string }
  /** A message that the peer did not send in this session. Nobody can be blamed. */
  | { kind: "not-authentic"; message: string }
  /** The authenticated peer broke the protocol. */
  | { kind: "peer-misbehaved"; message: string; culprit: string }
  /** A receipt or acknowledgement that does not count, or is missing. */
  | { kind: "paper"; message: string }
  /** A signature that does not hold. */
  | { kind: "bad-signature"; message: string }
  /** The caller's own mistake. */
  | { kind: "misuse"; message: string };

/** What came of something that can fail. */
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

/** A payload and what is signed of it. */
export type PayloadInfo = { kind: PayloadKind; digest: Uint8Array; chainId?: bigint };

/** A signature, with the responder's signed answer for the audit log. */
export type Signed = { signature: Uint8Array; evidence: Uint8Array };
