/** What the page and its worker say to each other. */

import type {
  Connection,
  CreatedWallet,
  CreateProgress,
  DerivationPath,
  Description,
  DuetError,
  GatewayInfo,
  Hex,
  InboxNotice,
  JobId,
  Outcome,
  PartyPin,
  Payload,
  ReadTransaction,
  RequesterChoice,
  Signed,
  SigningStep,
  SignOptions,
  ThirdShare,
  TypedDataPayload,
  Undeclared,
  Verification,
  VerifyOptions,
  WaitingJob,
  WalletId,
  WalletSummary,
} from "./types.js";

/** A passkey's public part, kept with the wallet. */
export interface PasskeyReference {
  credential: Uint8Array;
  /** The input of its pseudo-random function. */
  salt: Uint8Array;
}

/** What a wallet's records are sealed with. The passkey's `secret` is the output of its function, 32 bytes. */
export type KeySource =
  | { kind: "passphrase"; passphrase: string }
  | { kind: "passkey"; secret: Uint8Array; passkey: PasskeyReference };

export interface WorkerSettings {
  gateway: string;
  /** The parties that shares may be dealt to; empty when nothing pins any. */
  parties: PartyPin[];
  build: string;
  idleLockMs: number;
}

export interface CreateOrder {
  label: string;
  source: KeySource;
  third: ThirdShare;
  tokens?: string[];
  requesters?: RequesterChoice[];
}

export interface SignOrder {
  path?: DerivationPath;
  expiresInS?: number;
  pairs?: NonNullable<SignOptions["pairs"]>;
}

/** A method's arguments, what it gives, and what it tells meanwhile. */
interface Method<Args extends unknown[], Value, Note = never> {
  args: Args;
  value: Value;
  note: Note;
}

/** What the worker does for the page. */
export interface Methods {
  open: Method<[WorkerSettings], undefined>;
  info: Method<[], GatewayInfo>;
  wallets: Method<[], WalletSummary[]>;
  createWallet: Method<[CreateOrder], CreatedWallet, CreateProgress>;
  resumeCreation: Method<[WalletId, KeySource], CreatedWallet, CreateProgress>;
  discardPending: Method<[WalletId], undefined>;
  passkeyOf: Method<[WalletId], PasskeyReference>;
  unlock: Method<[WalletId, KeySource], WalletSummary>;
  lock: Method<[WalletId | null], undefined>;
  rename: Method<[WalletId, string], WalletSummary>;
  forget: Method<[WalletId], undefined>;
  describe: Method<[Payload], Description>;
  readTransaction: Method<[Record<string, unknown>], ReadTransaction>;
  readTypedData: Method<[string | Record<string, unknown>, Undeclared], TypedDataPayload>;
  sign: Method<[WalletId, Payload, SignOrder], Signed, SigningStep>;
  outcome: Method<[WalletId, JobId, Payload, DerivationPath], Signed>;
  inbox: Method<[WalletId], WaitingJob[]>;
  approve: Method<[WalletId, JobId, Hex], Signed, SigningStep>;
  reject: Method<[WalletId, JobId], undefined>;
  exportBackup: Method<[WalletId, string], Uint8Array>;
  checkBackup: Method<[WalletId, Uint8Array, string], WalletSummary>;
  waiveBackup: Method<[WalletId], WalletSummary>;
  thirdShareFile: Method<[WalletId], Uint8Array>;
  checkThirdShare: Method<[WalletId, Uint8Array, string], WalletSummary>;
  restoreBackup: Method<[Uint8Array, string, KeySource, string | null], WalletSummary>;
  rotate: Method<[WalletId], WalletSummary, CreateProgress>;
  acceptCulprit: Method<[WalletId, string], boolean>;
  verify: Method<[VerifyOptions], Verification>;
}

export type MethodName = keyof Methods;

export type ToWorker =
  | {
      [Name in MethodName]: { type: "call"; id: number; method: Name; args: Methods[Name]["args"] };
    }[MethodName]
  | { type: "abort"; id: number };

export type WorkerEvent =
  | { name: "connection"; connection: Connection }
  | { name: "wallets"; wallets: WalletSummary[] }
  | { name: "inbox"; notice: InboxNotice };

export type FromWorker =
  | { type: "answer"; id: number; outcome: Outcome<unknown> }
  | { type: "note"; id: number; note: unknown }
  | { type: "event"; event: WorkerEvent }
  /** The worker is of no use: WebAssembly did not load, for example. */
  | { type: "broken"; error: DuetError };
