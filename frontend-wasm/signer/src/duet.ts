/** The library on the page's side: no secret stays here, everything is the worker's. */

import { duetError, Failure, outcomeOf, toError, unwrap } from "./errors.js";
import { isLoopback, readParties } from "./parties.js";
import { makePasskey, passkeysAvailable, usePasskey } from "./passkey.js";
import type { KeySource, Methods, WorkerEvent, WorkerSettings } from "./protocol.js";
import { Remote } from "./remote.js";
import type {
  ApproveOptions,
  Connection,
  CreatedWallet,
  CreateOptions,
  DerivationPath,
  Description,
  DuetApi,
  GatewayInfo,
  Hex,
  InboxNotice,
  JobId,
  OpenOptions,
  Outcome,
  Payload,
  ProgressOptions,
  Protection,
  ReadTransaction,
  Signed,
  SignOptions,
  TypedDataPayload,
  Undeclared,
  Unlock,
  Unsubscribe,
  Verification,
  VerifyOptions,
  WaitingJob,
  WalletId,
  WalletSummary,
} from "./types.js";

const DEFAULT_IDLE_LOCK_MS = 5 * 60_000;
const MAX_IDLE_LOCK_MS = 24 * 60 * 60_000;

/**
 * A browser's wallets, and its line to a gateway. Keys, shares and passphrases live in a worker
 * that nothing else runs in; what comes out of it is public.
 */
export class Duet implements DuetApi {
  readonly #remote: Remote;
  readonly #listeners = {
    connection: new Set<(connection: Connection) => void>(),
    wallets: new Set<(wallets: WalletSummary[]) => void>(),
    inbox: new Set<(notice: InboxNotice) => void>(),
  };
  #connection: Connection = "connecting";

  private constructor(worker: Worker) {
    this.#remote = new Remote(worker, event => this.#hear(event));
  }

  /**
   * Starts the worker, which opens the browser's store and connects. Resolves before it is
   * connected: see `connection`.
   *
   * @throws {Failure} with a `DuetError` as `error`, when the options make no sense, the worker
   * does not start or the store does not open.
   */
  static async open(options: OpenOptions): Promise<Duet> {
    const settings = readSettings(options);
    const worker =
      options.workerUrl === undefined
        ? // Written out in full: bundlers look for exactly this expression.
          new Worker(new URL("./worker/index.js", import.meta.url), {
            type: "module",
            name: "duet",
          })
        : new Worker(options.workerUrl, { type: "module", name: "duet" });
    const duet = new Duet(worker);
    const opened = await duet.#remote.call("open", [settings]);
    if (!opened.ok) {
      duet.#remote.end(opened.error);
      throw new Failure(opened.error);
    }
    return duet;
  }

  get connection(): Connection {
    return this.#connection;
  }

  onConnection(listener: (connection: Connection) => void): Unsubscribe {
    return subscribe(this.#listeners.connection, listener);
  }

  onWallets(listener: (wallets: WalletSummary[]) => void): Unsubscribe {
    return subscribe(this.#listeners.wallets, listener);
  }

  onInbox(listener: (notice: InboxNotice) => void): Unsubscribe {
    return subscribe(this.#listeners.inbox, listener);
  }

  info(): Promise<Outcome<GatewayInfo>> {
    return this.#remote.call("info", []);
  }

  /** @throws {Failure} when the browser's store cannot be read. */
  async wallets(): Promise<WalletSummary[]> {
    return unwrap(await this.#remote.call("wallets", []));
  }

  createWallet(options: CreateOptions): Promise<Outcome<CreatedWallet>> {
    const { protection, signal, onProgress, ...rest } = options;
    return outcomeOf(async () => {
      const source =
        protection.kind === "passphrase" ? { ...protection } : await makePasskey(rest.label);
      await askToPersist();
      const order = { ...rest, source };
      return unwrap(
        await this.#remote.call("createWallet", [order], {
          signal,
          onNote: onProgress,
          transfer: secrets(source),
        }),
      );
    });
  }

  resumeCreation(
    id: WalletId,
    unlock: Unlock,
    options: ProgressOptions = {},
  ): Promise<Outcome<CreatedWallet>> {
    const { signal, onProgress } = options;
    return outcomeOf(async () => {
      const source = await this.#source(id, unlock);
      const line = { signal, onNote: onProgress, transfer: secrets(source) };
      return unwrap(await this.#remote.call("resumeCreation", [id, source], line));
    });
  }

  discardPending(id: WalletId): Promise<Outcome<void>> {
    return this.#remote.call("discardPending", [id]);
  }

  unlock(id: WalletId, unlock: Unlock): Promise<Outcome<WalletSummary>> {
    return outcomeOf(async () => {
      const source = await this.#source(id, unlock);
      return unwrap(await this.#remote.call("unlock", [id, source], { transfer: secrets(source) }));
    });
  }

  async lock(id?: WalletId): Promise<void> {
    await this.#remote.call("lock", [id ?? null]);
  }

  rename(id: WalletId, label: string): Promise<Outcome<WalletSummary>> {
    return this.#remote.call("rename", [id, label]);
  }

  forget(id: WalletId): Promise<Outcome<void>> {
    return this.#remote.call("forget", [id]);
  }

  describe(payload: Payload): Promise<Outcome<Description>> {
    return this.#remote.call("describe", [payload]);
  }

  readTransaction(request: Record<string, unknown>): Promise<Outcome<ReadTransaction>> {
    return this.#remote.call("readTransaction", [request]);
  }

  readTypedData(
    document: string | Record<string, unknown>,
    undeclared: Undeclared = "refuse",
  ): Promise<Outcome<TypedDataPayload>> {
    return this.#remote.call("readTypedData", [document, undeclared]);
  }

  sign(id: WalletId, payload: Payload, options: SignOptions = {}): Promise<Outcome<Signed>> {
    const { signal, onStep, ...order } = options;
    return this.#remote.call("sign", [id, payload, order], { signal, onNote: onStep });
  }

  outcome(
    id: WalletId,
    job: JobId,
    payload: Payload,
    path: DerivationPath = "m",
  ): Promise<Outcome<Signed>> {
    return this.#remote.call("outcome", [id, job, payload, path]);
  }

  inbox(id: WalletId): Promise<Outcome<WaitingJob[]>> {
    return this.#remote.call("inbox", [id]);
  }

  approve(
    id: WalletId,
    job: JobId,
    digest: Hex,
    options: ApproveOptions = {},
  ): Promise<Outcome<Signed>> {
    return this.#remote.call("approve", [id, job, digest], {
      signal: options.signal,
      onNote: options.onStep,
    });
  }

  reject(id: WalletId, job: JobId): Promise<Outcome<void>> {
    return this.#remote.call("reject", [id, job]);
  }

  exportBackup(id: WalletId, passphrase: string): Promise<Outcome<Uint8Array>> {
    return this.#remote.call("exportBackup", [id, passphrase]);
  }

  checkBackup(id: WalletId, file: Uint8Array, passphrase: string): Promise<Outcome<WalletSummary>> {
    return this.#remote.call("checkBackup", [id, file, passphrase]);
  }

  waiveBackup(id: WalletId): Promise<Outcome<WalletSummary>> {
    return this.#remote.call("waiveBackup", [id]);
  }

  thirdShareFile(id: WalletId): Promise<Outcome<Uint8Array>> {
    return this.#remote.call("thirdShareFile", [id]);
  }

  checkThirdShare(
    id: WalletId,
    file: Uint8Array,
    passphrase: string,
  ): Promise<Outcome<WalletSummary>> {
    return this.#remote.call("checkThirdShare", [id, file, passphrase]);
  }

  restoreBackup(
    file: Uint8Array,
    passphrase: string,
    protection: Protection,
    options: { label?: string } = {},
  ): Promise<Outcome<WalletSummary>> {
    const { label } = options;
    return outcomeOf(async () => {
      const source =
        protection.kind === "passphrase"
          ? { ...protection }
          : await makePasskey(label ?? "Restored wallet");
      await askToPersist();
      const args: Methods["restoreBackup"]["args"] = [file, passphrase, source, label ?? null];
      return unwrap(await this.#remote.call("restoreBackup", args, { transfer: secrets(source) }));
    });
  }

  rotate(id: WalletId, options: ProgressOptions = {}): Promise<Outcome<WalletSummary>> {
    return this.#remote.call("rotate", [id], {
      signal: options.signal,
      onNote: options.onProgress,
    });
  }

  acceptCulprit(id: WalletId, card: string): Promise<Outcome<boolean>> {
    return this.#remote.call("acceptCulprit", [id, card]);
  }

  verify(options: VerifyOptions): Promise<Outcome<Verification>> {
    return this.#remote.call("verify", [options]);
  }

  passkeysAvailable(): Promise<boolean> {
    return passkeysAvailable();
  }

  async close(): Promise<void> {
    await this.lock();
    this.#remote.end(duetError("cancelled", "The library was closed."));
  }

  async #source(id: WalletId, unlock: Unlock): Promise<KeySource> {
    if (unlock.kind === "passphrase") return { ...unlock };
    return usePasskey(unwrap(await this.#remote.call("passkeyOf", [id])));
  }

  #hear(event: WorkerEvent): void {
    switch (event.name) {
      case "connection":
        this.#connection = event.connection;
        return tell(this.#listeners.connection, event.connection);
      case "wallets":
        return tell(this.#listeners.wallets, event.wallets);
      case "inbox":
        return tell(this.#listeners.inbox, event.notice);
    }
  }
}

/** Asks the browser to keep this page's storage. Its answer shows in each wallet's summary. */
async function askToPersist(): Promise<void> {
  try {
    await navigator.storage.persist();
  } catch {
    // A browser without the call keeps the storage as long as it likes, which the summary says.
  }
}

/** What moves to the worker instead of being copied. */
function secrets(source: KeySource): Transferable[] {
  return source.kind === "passkey" ? [source.secret.buffer as ArrayBuffer] : [];
}

function subscribe<T>(listeners: Set<T>, listener: T): Unsubscribe {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** One listener that throws does not keep the others from hearing. */
function tell<T>(listeners: Set<(value: T) => void>, value: T): void {
  for (const listener of listeners) {
    try {
      listener(value);
    } catch (thrown) {
      reportError(thrown);
    }
  }
}

function readSettings(options: OpenOptions): WorkerSettings {
  const { gateway, parties = [], build = "", idleLockMs = DEFAULT_IDLE_LOCK_MS } = options;
  const invalid = (message: string, field: string): never => {
    throw new Failure(duetError("invalid", message, { field }));
  };
  let url: URL;
  try {
    url = new URL(gateway);
  } catch (thrown) {
    return invalid(`The gateway's address does not parse: ${toError(thrown).message}`, "gateway");
  }
  if (url.protocol !== "https:" && !(url.protocol === "http:" && isLoopback(url.hostname))) {
    return invalid(
      "The gateway's address must begin with https://; http:// only on this machine.",
      "gateway",
    );
  }
  if (!Number.isFinite(idleLockMs) || idleLockMs <= 0 || idleLockMs > MAX_IDLE_LOCK_MS) {
    return invalid("The idle time is more than nothing and at most a day.", "idleLockMs");
  }
  const address = url.origin + url.pathname.replace(/\/+$/, "");
  return { gateway: address, parties: readParties(parties), build, idleLockMs };
}
