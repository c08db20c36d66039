/**
 * What the library takes and gives. Everything here crosses between the page and the worker by
 * structured clone, so it is plain data; functions and `AbortSignal`s appear only in options.
 */

/** `0x` and an even number of hexadecimal digits, lower case unless said otherwise. */
export type Hex = `0x${string}`;
/** An Ethereum address with the checksum of EIP-55. */
export type Address = Hex;
/** A wallet: 64 hexadecimal digits. Known before the address is. */
export type WalletId = string;
/** A job: 32 hexadecimal digits. */
export type JobId = string;
/** Milliseconds since 1970. */
export type Timestamp = number;
/** `m`, or a BIP-32 path without hardened steps: `m/0/7`. */
export type DerivationPath = string;

// ----------------------------------------------------------------------------------------- errors

/**
 * The outcome of an operation that can fail. No promise of this library rejects for a foreseeable
 * reason.
 */
export type Outcome<T> = { ok: true; value: T } | { ok: false; error: DuetError };

export type DuetErrorKind =
  /** No connection to the gateway, and none came within the deadline. Trying again later may work. */
  | "gateway-unreachable"
  /** The gateway is there; the party `by` does not answer. Trying again later may work. */
  | "party-unreachable"
  /** The wallet is locked: unlock it first. */
  | "locked"
  /** The passphrase does not open the record or the file. Attempts are slowed down. */
  | "wrong-passphrase"
  /** The browser has no passkey that can be used, or the person dismissed it. */
  | "passkey-unavailable"
  /** The caller's signal was aborted, or the job was cancelled. */
  | "cancelled"
  /** The job's time has passed. */
  | "job-expired"
  /** The owner said no to the job. */
  | "rejected"
  /** The payload is for another chain than was expected. */
  | "wrong-chain"
  /** This page is older than the gateway's: reload. */
  | "stale-page"
  /** Another tab is using this wallet. Trying again later works. */
  | "busy-elsewhere"
  /** The wallet was restored from a backup and signs only after `rotate`. */
  | "needs-rotation"
  /** A bad answer locked the Paillier key; the wallet signs again after `rotate`. */
  | "paillier-locked"
  /**
   * A bad signature of `by` locked a key in this browser, and no other pair is left: see
   * `WalletSummary.culprits` and `acceptCulprit`.
   */
  | "quarantined"
  /** `by` refused. `code` says why; docs/errors.md explains it. */
  | "refused"
  /** An argument is wrong; `field` is the path of what, for example `payload.maxFeePerGas`. */
  | "invalid"
  /** The browser's storage does not work or holds something unreadable. Nothing is signed until it does. */
  | "storage"
  /** An internal failure. */
  | "internal";

/** Why an operation failed. Programs distinguish by `kind`; `message` is a sentence for people. */
export type DuetError = {
  [Kind in DuetErrorKind]: {
    readonly kind: Kind;
    readonly message: string;
    /** A stable code of docs/errors.md, where `by` refused. */
    readonly code?: string;
    /** Who is behind it: a party's name, `orchestrator` or `gateway`. */
    readonly by?: string;
    /** The path of the wrong field. */
    readonly field?: string;
    /** When it is worth trying again, if that is known: after so many milliseconds. */
    readonly retryAfterMs?: number;
  };
}[DuetErrorKind];

// ------------------------------------------------------------------------------------- the gateway

/** Which share a party holds: the service share 2, the partner share 3. */
export type BackendRole = "service" | "partner";

/**
 * A party that shares may be dealt to, as its organisation states it. The list comes from the
 * page's own configuration, never from a gateway: a gateway that named the parties could name its
 * own.
 */
export interface PartyPin {
  role: BackendRole;
  /** The party's name: 1 to 32 of `a-z`, `0-9` and `-`, the first a letter. */
  name: string;
  /** The fingerprint of its card, 64 hexadecimal digits, as `duet party card` prints it. */
  fingerprint: string;
  /** An admission token that every owner of this page may use, as `duet party token` prints it. */
  token?: string;
}

/** What a gateway says of itself, and whom the shares of new wallets go to. */
export interface GatewayInfo {
  /** The build of the page this gateway serves; empty when it serves none. */
  build: string;
  /** The version of the frames it speaks. */
  protocol: number;
  /** The tenant it is run for. Wallets belong to the tenant that their admission tokens name. */
  tenant?: string;
  /** Whether it is a gateway for trying out: it says so, and it is on the loopback. */
  trial: boolean;
  /** The parties that get the shares of new wallets. Empty: nothing can be dealt. */
  recipients: ShareRecipient[];
  /** A node for the chain that wallets made here are for. */
  rpc?: { chainId: number; url: string };
}

/** A party that gets a share of each new wallet. */
export interface ShareRecipient {
  role: BackendRole;
  /** The party's name. */
  party: string;
  /** The fingerprint of its card, 64 hexadecimal digits. Only a gateway for trying out may leave it out. */
  fingerprint?: string;
  /** Who names it: this page's configuration, or, where there is none, a gateway for trying out. */
  source: "configuration" | "trial-gateway";
  /** Whether an admission token for it is there already. Otherwise the owner has to bring one. */
  admits: boolean;
  /** Whether this browser has dealt to this very card in this role before, or only to others. */
  seen: "never" | "this" | "other";
}

/** `offline` is between two attempts; `stale-page` is final: the page must be reloaded. */
export type Connection = "connecting" | "online" | "offline" | "stale-page";

// ---------------------------------------------------------------------------------------- wallets

/** How a wallet's records are to be sealed in this browser. */
export type Protection = { kind: "passphrase"; passphrase: string } | { kind: "passkey" };
/** What opens them again; of the kind the wallet was protected with. */
export type Unlock = Protection;
export type ProtectionKind = Protection["kind"];

/** Who holds the third share. A backup file is sealed by a passphrase of its own (age format). */
export type ThirdShare = { kind: "partner" } | { kind: "backup-file"; passphrase: string };

/**
 * `pending`: its creation was interrupted; `resumeCreation` or `discardPending`. `locked`: unlock
 * it. The other three are unlocked: `unlocked` signs, `needs-rotation` and `paillier-locked` sign
 * after `rotate`.
 */
export type WalletState = "pending" | "locked" | "unlocked" | "needs-rotation" | "paillier-locked";

/** A wallet as this browser has it. Nothing in it is secret. */
export interface WalletSummary {
  id: WalletId;
  /** `null` while pending: an address is shown only once every party has committed its share. */
  address: Address | null;
  /** SEC1 compressed, 33 bytes; `null` while pending. */
  publicKey: Hex | null;
  label: string;
  createdAt: Timestamp;
  state: WalletState;
  /** What the store says of the device's Paillier key, whether the wallet is unlocked or not. */
  key: "ready" | "needs-rotation" | "locked";
  protection: ProtectionKind;
  tenant: string;
  /** Who holds which share; this device has share 1. */
  parties: WalletParty[];
  /**
   * The backup file of this device's share. `exportedAt`: when one was last made here. `checkedAt`:
   * when one was last opened again here; only then is it known to work. `due`: the wallet is new,
   * and its owner has neither opened a backup file again nor waived it. `thirdDue`: the file of the
   * third share was not opened again after it was saved; until then it is kept here. A page shows
   * no address while one of them is due: money sent there is lost with this browser.
   */
  backup: {
    exportedAt: Timestamp | null;
    checkedAt: Timestamp | null;
    due: boolean;
    thirdDue: boolean;
  };
  /**
   * What bad signatures of other parties may have cost this wallet, as far as this browser saw
   * them.
   */
  losses: WalletLosses;
  /** The wallet's parties whose bad signatures locked a key of any wallet in this browser. */
  culprits: Culprit[];
  /** Whether the browser promised not to delete this page's storage by itself (`navigator.storage.persisted`). */
  persistent: boolean;
  /** Whether this browser got the wallet from a backup. */
  restored: boolean;
  /** Wrong attempts to unlock since the last right one, and when the next is taken. */
  attempts: { failed: number; nextAt: Timestamp };
}

/** What locked keys may have cost a wallet. No new key takes it back. */
export interface WalletLosses {
  /** Paillier keys of this wallet that bad signatures locked here. */
  failures: number;
  /** Bits of this device's share that they told at most. */
  maxBits: number;
  /** Whether there were so many that the funds are to be moved to a new wallet. */
  moveFunds: boolean;
}

/** A party whose bad signature locked a key in this browser. */
export interface Culprit {
  role: BackendRole;
  party: string;
  /** The fingerprint of its card, 64 hexadecimal digits. */
  fingerprint: string;
  /** How many keys its answers locked, over all wallets of this browser. */
  locks: number;
  /**
   * `quarantined`: nothing is initiated with it. `accepted`: the owner said to go on. `final`: it
   * locked a second key, and no word changes that any more.
   */
  standing: "quarantined" | "accepted" | "final";
}

/** A party that answers this device. */
export type RespondingParty =
  | { share: 2; role: "service"; party: string; fingerprint: string }
  | { share: 3; role: "partner"; party: string; fingerprint: string };

export type WalletParty =
  { share: 1; role: "device"; party: string } | RespondingParty | { share: 3; role: "backup-file" };

/** How far a creation or a rotation is. `atMs` counts from its beginning. */
export type CreateProgress = { atMs: number } &
  /** Deriving the key that seals the records from passphrase or passkey. */
  (
    | { step: "protection" }
    /** Asking `party` for its card, comparing its fingerprint, verifying the proof on it. */
    | { step: "card"; party: string }
    /** `party`'s card is the right one, and its parameters are proved. */
    | { step: "card-verified"; party: string }
    /** Drawing the key's three shares. */
    | { step: "shares" }
    /** Searching the two primes of the device's Paillier key; `candidates` were tried so far. */
    | { step: "paillier-key"; candidates: number }
    /** Proving to `party` that the Paillier key is sound and encrypts the right share. */
    | { step: "proofs"; share: 2 | 3; party: string }
    /** Sealing the package for `party`. */
    | { step: "sealing"; share: 2 | 3; party: string }
    /** Everything is stored in this browser, sealed: from here on the creation survives a reload. */
    | { step: "stored"; wallet: WalletId }
    /** The package is on its way; `party` verifies it. */
    | { step: "preparing"; share: 2 | 3; party: string }
    /** `party` has verified and stored its share, and its signed receipt is checked. */
    | { step: "prepared"; share: 2 | 3; party: string }
    /** `party` is asked to commit. */
    | { step: "committing"; share: 2 | 3; party: string }
    /** `party` has committed. */
    | { step: "committed"; share: 2 | 3; party: string }
    /** `party` was offered the new Paillier key (rotation only), and has taken it. */
    | { step: "enrolling"; share: 2 | 3; party: string }
    | { step: "enrolled"; share: 2 | 3; party: string }
    /** The wallet can sign. */
    | { step: "ready"; wallet: WalletId }
  );

export interface CreateOptions {
  /** 1 to 64 characters. */
  label: string;
  protection: Protection;
  third: ThirdShare;
  /**
   * Admission tokens that the owner was given, in any order, as `duet party token` prints them.
   * Each states which party it is for and which tenant the wallet will belong to.
   */
  tokens?: string[];
  /** Teams that may queue jobs for this wallet, besides its owner. Fixed for the wallet's life. */
  requesters?: RequesterChoice[];
  signal?: AbortSignal;
  onProgress?: (progress: CreateProgress) => void;
}

/** A team that may ask for signatures, and for which kinds of payload: the parties refuse it everything else. */
export interface RequesterChoice {
  /** The team's Ed25519 key, 64 hexadecimal digits. */
  key: string;
  kinds: PayloadKind[];
}

export interface CreatedWallet {
  wallet: WalletSummary;
  /**
   * Share 3, sealed by its passphrase, if the third share is a backup file. To be saved by the
   * owner: see `checkThirdShare`.
   */
  backupFile?: Uint8Array;
}

export interface ProgressOptions {
  signal?: AbortSignal;
  onProgress?: (progress: CreateProgress) => void;
}

// --------------------------------------------------------------------------------------- payloads

/** A number, as number, decimal string, `0x` and hexadecimal digits, or bigint. */
export type Quantity = number | bigint | string;

export interface AccessListItem {
  address: string;
  storageKeys: string[];
}

/** The fields of the JSON-RPC interface. Which fee fields there are says which type it is, unless `type` does. */
export interface TransactionPayload {
  kind: "transaction";
  type?: "legacy" | "eip2930" | "eip1559" | Quantity | null;
  chainId: Quantity;
  nonce: Quantity;
  /** `null` creates a contract, which takes its code as `data`. */
  to: string | null;
  value?: Quantity;
  gas: Quantity;
  gasPrice?: Quantity;
  maxFeePerGas?: Quantity;
  maxPriorityFeePerGas?: Quantity;
  accessList?: AccessListItem[];
  data?: string;
}

/** EIP-191: text, signed as its UTF-8 bytes, or bytes. */
export type PersonalMessagePayload =
  { kind: "personal_message"; text: string } | { kind: "personal_message"; hex: string };

/** EIP-712. */
export interface TypedDataPayload {
  kind: "typed_data";
  types: Record<string, { name: string; type: string }[]>;
  primaryType: string;
  domain: Record<string, unknown>;
  message: Record<string, unknown>;
  /** What happens to members that `types` does not declare. They are refused unless it says that they are dropped. */
  undeclared?: Undeclared;
}

/** Refuse members that the types do not declare, or sign without them; the description lists those. */
export type Undeclared = "refuse" | "drop";

/** 32 bytes of unknown meaning. Refused unless the wallet was made to allow it. */
export interface DigestPayload {
  kind: "digest";
  digest: string;
}

export type Payload =
  TransactionPayload | PersonalMessagePayload | TypedDataPayload | DigestPayload;
export type PayloadKind = Payload["kind"];

/** A payload as it will be signed: computed in WebAssembly by the code that makes the digest. */
export interface Description {
  kind: PayloadKind;
  /** The 32 bytes that ECDSA signs. */
  digest: Hex;
  /** Of a transaction, or of the domain of typed data. */
  chainId?: number;
  /** The payload read and written again, in one normal form: quantities are `0x…`, addresses checksummed. */
  payload: Payload;
  /** Every field that goes into the digest, in order, spelled out. */
  fields: DescribedField[];
  /** Members of typed data that do not go into the digest: the signature says nothing about them. */
  notSigned?: NotSigned[];
}

/** A member that is not signed. */
export interface NotSigned {
  /** Where it is: `domain.chainId`, `message.__typename`. */
  path: string;
  /** Its value as JSON. */
  value: string;
  /** The declared domain does not cover it, or the types do not declare it and it was dropped by choice. */
  reason: "not-covered" | "undeclared";
}

/** A transaction as far as its author has said it. */
export interface ReadTransaction {
  /** What is there, in one normal form. */
  members: Partial<Omit<TransactionPayload, "kind">>;
  /** The members that are missing before it can be signed. Where no fee says the type, those of EIP-1559. */
  missing: string[];
  /** The account that it is sent from. */
  from?: Address;
  /** Where it is said or follows from the fees. */
  type?: "0x0" | "0x1" | "0x2";
}

export interface DescribedField {
  /** Where it is: `to`, `accessList[0].address`, `message.from.wallet`. */
  path: string;
  /** Its type: `address`, `uint256`, `bytes`, `string`, … */
  type: string;
  /** Its value as text: quantities in decimal digits, bytes as `0x…`, addresses checksummed. */
  value: string;
}

// ---------------------------------------------------------------------------------------- signing

/** A pair with this device in it. */
export type DevicePair = `device+${BackendRole}`;

export interface SignOptions {
  /** The root key unless given. */
  path?: DerivationPath;
  /** How long the request may be signed, in seconds; 10 minutes unless given. */
  expiresInS?: number;
  /**
   * With whom to sign, in order of preference; the service, then the partner, unless given. Never
   * with a quarantined party.
   */
  pairs?: DevicePair[];
  signal?: AbortSignal;
  onStep?: (step: SigningStep) => void;
}

export type ApproveOptions = Pick<SignOptions, "signal" | "onStep">;

/** What happened in a signature. `atMs` counts from the call; `tookMs` is work, not waiting. */
export type SigningStep = { atMs: number; tookMs?: number } &
  /** The owner's signed request is about to leave for the orchestrator: it makes `job`, or approves it. */
  (
    | { step: "requested"; job: JobId }
    /** The session's manifest is here: `responder` has accepted it. */
    | { step: "invited"; session: string; responder: string }
    /** The manifest, the request's signature, the digest, the cards and the key's lock were checked. */
    | { step: "checked" }
    /** Message 1: the commitment to this device's nonce point. Message 3: its opening, with a proof. */
    | { step: "sent"; message: 1 | 3; to: string }
    /** Message 2: the responder's nonce point, proof verified. Message 4: the encrypted signature, authentic. */
    | { step: "received"; message: 2 | 4; from: string }
    /** Decrypted, and verified by the library verifier; the store found the key unlocked. */
    | { step: "verified" }
    /** The orchestrator has acknowledged the outcome. */
    | { step: "reported" }
  );

/** A signature that verified. */
export interface Signed {
  wallet: WalletId;
  job: JobId;
  /** Empty if the signature was made earlier and only fetched again. */
  session: string;
  /** The address of the key that signed. */
  address: Address;
  path: DerivationPath;
  digest: Hex;
  /** 65 bytes: r, s, v with v 27 or 28. */
  signature: Hex;
  r: Hex;
  s: Hex;
  yParity: 0 | 1;
  /** For a transaction: what to broadcast, and the hash it will be known by. */
  transaction?: { raw: Hex; hash: Hex };
  /** The party that signed with this device. */
  responder: string;
  tookMs: number;
}

// ------------------------------------------------------------------------------------------ inbox

/** A job that waits for the owner. Its request's signature was verified. */
export interface WaitingJob {
  job: JobId;
  wallet: WalletId;
  /** What would be signed. Pass its `digest` to `approve`: nothing else is signed then. */
  description: Description;
  path: DerivationPath;
  tenant: string;
  /** The requester's Ed25519 key, 64 hexadecimal digits. */
  requester: string;
  idempotencyKey: string;
  pairs: string[];
  createdAt: Timestamp;
  expiresAt: Timestamp;
}

/** Told whenever it changes. */
export interface InboxNotice {
  wallet: WalletId;
  /** How many jobs wait. */
  jobs: number;
}

// ----------------------------------------------------------------------------------- verification

export interface VerifyOptions {
  payload: Payload;
  /** 65 bytes: r, s and v (0, 1, 27 or 28). */
  signature: string;
  /** Whom it should be by. */
  address: string;
}

export type Verification =
  | { valid: true; digest: Hex; signer: Address }
  /** `signer`: the address whose signature it is instead, if it is one. */
  | { valid: false; digest: Hex; signer?: Address; reason: string };

// ------------------------------------------------------------------------------------- the library

export interface OpenOptions {
  /** The gateway's address: `https://gateway.example` or, on loopback, `http://127.0.0.1:8080`. */
  gateway: string;
  /**
   * The parties that shares of new wallets may be dealt to, one a role. Without a list, wallets are
   * made only through a gateway on the loopback that says it is for trying out.
   */
  parties?: PartyPin[];
  /** The build id of the page, compared with the gateway's; without it nothing is compared. */
  build?: string;
  /** Where the worker's script is, if the bundler did not find it by itself. */
  workerUrl?: string | URL;
  /** Wallets are locked after so long without use. Default 5 minutes, at most a day; 0 is refused. */
  idleLockMs?: number;
}

/** Ends a subscription. */
export type Unsubscribe = () => void;

/** The methods of `Duet`, which `Duet.open` gives. See there for what each does. */
export interface DuetApi {
  readonly connection: Connection;
  onConnection(listener: (connection: Connection) => void): Unsubscribe;
  info(): Promise<Outcome<GatewayInfo>>;

  wallets(): Promise<WalletSummary[]>;
  /** Called whenever a wallet of this browser changed, in this tab or another. */
  onWallets(listener: (wallets: WalletSummary[]) => void): Unsubscribe;
  createWallet(options: CreateOptions): Promise<Outcome<CreatedWallet>>;
  resumeCreation(
    id: WalletId,
    unlock: Unlock,
    options?: ProgressOptions,
  ): Promise<Outcome<CreatedWallet>>;
  discardPending(id: WalletId): Promise<Outcome<void>>;
  unlock(id: WalletId, unlock: Unlock): Promise<Outcome<WalletSummary>>;
  /** Locks one wallet, or all. */
  lock(id?: WalletId): Promise<void>;
  rename(id: WalletId, label: string): Promise<Outcome<WalletSummary>>;
  /** Removes a wallet from this browser. Its share is lost unless it was backed up. */
  forget(id: WalletId): Promise<Outcome<void>>;

  describe(payload: Payload): Promise<Outcome<Description>>;
  /**
   * Reads a transaction as `eth_sendTransaction` takes it, by the rules by which it would be
   * signed. A member that is not understood is refused; docs/adapters.md lists the hints that are
   * ignored.
   */
  readTransaction(request: Record<string, unknown>): Promise<Outcome<ReadTransaction>>;
  /**
   * Reads typed data as `eth_signTypedData_v4` takes it, by the rules by which it would be signed.
   * From text, numbers keep all their digits; in an object, a number beyond 2^53 is refused.
   */
  readTypedData(
    document: string | Record<string, unknown>,
    undeclared?: Undeclared,
  ): Promise<Outcome<TypedDataPayload>>;
  sign(id: WalletId, payload: Payload, options?: SignOptions): Promise<Outcome<Signed>>;
  /**
   * The outcome of a signature whose end this page did not see, such as one that was running when
   * the page was reloaded: the signature, verified, or why there is none. `job` is that of its step
   * `requested`. A job that still waits for its owner is rejected, so that it is not signed later
   * by accident. The kind `party-unreachable` says that it has not ended yet.
   */
  outcome(
    id: WalletId,
    job: JobId,
    payload: Payload,
    path?: DerivationPath,
  ): Promise<Outcome<Signed>>;

  inbox(id: WalletId): Promise<Outcome<WaitingJob[]>>;
  onInbox(listener: (notice: InboxNotice) => void): Unsubscribe;
  approve(
    id: WalletId,
    job: JobId,
    digest: Hex,
    options?: ApproveOptions,
  ): Promise<Outcome<Signed>>;
  reject(id: WalletId, job: JobId): Promise<Outcome<void>>;

  exportBackup(id: WalletId, passphrase: string): Promise<Outcome<Uint8Array>>;
  /**
   * Opens a backup file of the device's share again, without restoring it. Fails with
   * `wrong-passphrase`, or `invalid` when the file is no backup of this wallet. Afterwards no
   * backup is `due`.
   */
  checkBackup(id: WalletId, file: Uint8Array, passphrase: string): Promise<Outcome<WalletSummary>>;
  /** Notes that the owner does without a backup of a new wallet. */
  waiveBackup(id: WalletId): Promise<Outcome<WalletSummary>>;
  /**
   * The file of the third share, sealed by its own passphrase. Kept until `checkThirdShare`, so
   * that a wallet that was just made can be left and taken up again.
   */
  thirdShareFile(id: WalletId): Promise<Outcome<Uint8Array>>;
  /**
   * Opens the saved file of the third share again. Fails with `wrong-passphrase`, or `invalid` when
   * the file is not this wallet's third share. Afterwards this browser keeps no copy, and
   * `thirdDue` is over.
   */
  checkThirdShare(
    id: WalletId,
    file: Uint8Array,
    passphrase: string,
  ): Promise<Outcome<WalletSummary>>;
  restoreBackup(
    file: Uint8Array,
    passphrase: string,
    protection: Protection,
    options?: { label?: string },
  ): Promise<Outcome<WalletSummary>>;
  /**
   * Makes a new Paillier key and has the other parties take it, all but quarantined ones. Ends a
   * lock.
   */
  rotate(id: WalletId, options?: ProgressOptions): Promise<Outcome<WalletSummary>>;
  /**
   * The owner's word to go on with a party whose bad signature locked a key: counts once, in every
   * wallet of this browser. The wallet must be unlocked. `card` is the fingerprint. The value says
   * whether `rotate` is due before the party answers again.
   */
  acceptCulprit(id: WalletId, card: string): Promise<Outcome<boolean>>;

  verify(options: VerifyOptions): Promise<Outcome<Verification>>;

  /** Whether passkeys with the PRF extension may work here. */
  passkeysAvailable(): Promise<boolean>;
  /** Locks everything and ends the worker. */
  close(): Promise<void>;
}
