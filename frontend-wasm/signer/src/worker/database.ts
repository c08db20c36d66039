/**
 * The browser's store. What it keeps in the clear is public; every secret is a sealed record.
 *
 * Everything is written with strict durability: what a resolved promise says was written is on
 * disk. Pending verdicts alone, and what their jobs sign, are written with relaxed durability: they
 * outlive the tab and the browser. A power cut takes them only with the verdict, before any party
 * has heard of it.
 */

import {
  type DBSchema,
  type IDBPDatabase,
  type IDBPTransaction,
  openDB,
  type StoreKey,
  type StoreNames,
  type StoreValue,
} from "idb";

import { duetError, fail, Failure } from "../errors.js";
import type { PasskeyReference } from "../protocol.js";
import type {
  Address,
  BackendRole,
  DuetError,
  Hex,
  RespondingParty,
  Timestamp,
  WalletId,
  WalletParty,
} from "../types.js";

const NAME = "duet";
const VERSION = 5;

/** How a wallet's records are sealed: what is needed, besides the secret, to derive their key. */
export type StoredProtection =
  | { kind: "passphrase"; descriptor: string }
  | { kind: "passkey"; descriptor: string; passkey: PasskeyReference };

/** A wallet's public facts. */
export interface WalletRow {
  id: WalletId;
  label: string;
  createdAt: Timestamp;
  /** Whether every party has committed. */
  status: "pending" | "ready";
  tenant: string;
  parties: WalletParty[];
  address: Address | null;
  publicKey: Hex | null;
  /** The current Paillier key's id; empty while pending. */
  paillierKey: string;
  protection: StoredProtection;
  restored: boolean;
  /** When a backup file was last made here. */
  exportedAt: Timestamp | null;
  /** When a backup file was last opened again here. Rows of earlier versions lack it. */
  checkedAt?: Timestamp | null;
  /** Whether the owner still has to save a backup, or to do without. Rows of earlier versions lack it: nothing is due. */
  backupDue?: boolean;
  /**
   * Whether the owner still has to open the saved file of the third share. Rows of earlier versions
   * lack it: nothing is due.
   */
  thirdDue?: boolean;
  attempts: { failed: number; nextAt: Timestamp };
}

/**
 * `pending`: a creation under way. `device`: share, Paillier key and device keys. `owner`: the key
 * that signs requests. `backup`: the sealed file of the third share, until its owner opened the
 * saved one. `rotation`: the device's record under a new Paillier key that not every party has
 * taken yet. `answers`: the first signatures of messages, see answers.ts.
 */
export type RecordKind = "pending" | "device" | "owner" | "backup" | "rotation" | "answers";

export interface RecordRow {
  wallet: WalletId;
  kind: RecordKind;
  sealed: Uint8Array;
}

/**
 * An answer that is about to be decrypted. It is written before the decryption and removed with the
 * verdict, so one that is there while no tab uses the wallet belongs to a session that ended in
 * between.
 */
export interface PendingRow {
  session: string;
  wallet: WalletId;
  paillierKey: string;
  responder: string;
  sealed: Uint8Array;
}

/**
 * What a job was signed for. Its id comes from the idempotency key, so that a key is for one
 * payload, whatever the queue forgets. Outlives the wallets.
 */
export interface JobRow {
  job: string;
  /** SHA-256 over wallet, path and digest, in hexadecimal. */
  signs: string;
  /** When an answer was about to be decrypted for the first time. */
  signedAt: Timestamp;
  /** When the newest request under the key expires. */
  expiresAt: Timestamp;
}

/** Whether a Paillier key may initiate. The word that counts: see gate.ts. */
export interface KeyRow {
  id: string;
  wallet: WalletId;
  state: "ready" | "needs-rotation" | "locked";
  /** Verdicts released or refused under it: written with each, so that each proves that the store can write. */
  verdicts: number;
  lock: { session: string; at: Timestamp; evidence: Uint8Array; culprit?: string } | null;
}

export interface CardRow {
  /** 64 hexadecimal digits. */
  fingerprint: string;
  party: string;
  card: Uint8Array;
}

/** A card that shares were dealt to: by role and fingerprint. The name is for people. */
export interface PinRow {
  /** `unknown`: pinned by version 1, which kept names only, and no wallet here says what it was. */
  role: BackendRole | "unknown";
  /** 64 hexadecimal digits. */
  fingerprint: string;
  party: string;
}

/**
 * A responder's card whose bad answers locked Paillier keys of this browser: see culprits.ts.
 * Outlives the wallets.
 */
export interface CulpritRow {
  /** 64 hexadecimal digits. */
  fingerprint: string;
  party: string;
  /** The ids of the Paillier keys that it locked. */
  locks: string[];
  /** When the owner said to go on with it. */
  acceptedAt: Timestamp | null;
}

interface Schema extends DBSchema {
  wallets: { key: string; value: WalletRow };
  records: { key: [string, RecordKind]; value: RecordRow };
  keys: { key: string; value: KeyRow; indexes: { wallet: string } };
  cards: { key: string; value: CardRow };
  /** The cards that shares were dealt to. */
  recipients: { key: [string, string]; value: PinRow };
  pending: { key: string; value: PendingRow; indexes: { wallet: string } };
  culprits: { key: string; value: CulpritRow };
  jobs: { key: string; value: JobRow; indexes: { expiry: number } };
}

export type StoreName = StoreNames<Schema>;
type Connection = IDBPDatabase<Schema>;
type Mode = "readonly" | "readwrite";

export const STRICT = { durability: "strict" } as const;

/** Opens the store, making or migrating it. `onReplaced` hears when a newer page takes the store over. */
export async function openDatabase(onReplaced: (error: DuetError) => void): Promise<Database> {
  const database = new Database(onReplaced);
  await database.connect();
  return database;
}

/**
 * The open store. A browser may close the connection at any time, for example to free memory or
 * after its storage process died. The next call then opens it again.
 */
export class Database {
  #connection: Promise<Connection> | undefined;
  #replaced = false;

  constructor(private readonly onReplaced: (error: DuetError) => void) {}

  get<Name extends StoreName>(
    store: Name,
    key: StoreKey<Schema, Name>,
  ): Promise<StoreValue<Schema, Name> | undefined> {
    return this.#run(connection => connection.get(store, key));
  }

  getAll<Name extends StoreName>(store: Name): Promise<StoreValue<Schema, Name>[]> {
    return this.#run(connection => connection.getAll(store));
  }

  async put<Name extends StoreName>(store: Name, value: StoreValue<Schema, Name>): Promise<void> {
    await this.#run(connection => connection.put(store, value));
  }

  /** The Paillier keys of a wallet. */
  keysOf(wallet: WalletId): Promise<KeyRow[]> {
    return this.#run(connection => connection.getAllFromIndex("keys", "wallet", wallet));
  }

  /** The verdicts of a wallet that are pending. */
  pendingOf(wallet: WalletId): Promise<PendingRow[]> {
    return this.#run(connection => connection.getAllFromIndex("pending", "wallet", wallet));
  }

  /** Begins a transaction. The caller must make its first request before it waits for anything else. */
  transaction<Names extends StoreName[], As extends Mode = "readonly">(
    names: Names,
    mode?: As,
    options?: IDBTransactionOptions,
  ): Promise<IDBPTransaction<Schema, Names, As>> {
    return this.#run(connection => connection.transaction(names, mode, options));
  }

  /**
   * The open connection.
   *
   * @throws {Failure} `stale-page` once a newer page took the store over.
   */
  connect(): Promise<Connection> {
    if (this.#replaced) return Promise.reject(replaced());
    return (this.#connection ??= this.#open());
  }

  /** Runs `work`, and once more on a new connection when the browser had closed the one at hand. */
  async #run<T>(work: (connection: Connection) => T | Promise<T>): Promise<T> {
    const before = this.connect();
    try {
      return await work(await before);
    } catch (thrown) {
      if (!isClosed(thrown)) throw thrown;
      if (this.#connection === before) this.#connection = undefined;
      return work(await this.connect());
    }
  }

  async #open(): Promise<Connection> {
    try {
      return await openDB<Schema>(NAME, VERSION, {
        async upgrade(database, oldVersion, _newVersion, transaction) {
          if (oldVersion < 1) {
            database.createObjectStore("wallets", { keyPath: "id" });
            database.createObjectStore("records", { keyPath: ["wallet", "kind"] });
            database.createObjectStore("keys", { keyPath: "id" }).createIndex("wallet", "wallet");
            database.createObjectStore("cards", { keyPath: "fingerprint" });
          }
          if (oldVersion < 2) {
            database.createObjectStore("recipients", { keyPath: ["role", "fingerprint"] });
            if (oldVersion > 0) await pinByRole(database, transaction);
          }
          if (oldVersion < 3) {
            database
              .createObjectStore("pending", { keyPath: "session" })
              .createIndex("wallet", "wallet");
          }
          if (oldVersion < 4) {
            database.createObjectStore("culprits", { keyPath: "fingerprint" });
            if (oldVersion > 0) await quarantineFromLocks(transaction);
          }
          if (oldVersion < 5) {
            database
              .createObjectStore("jobs", { keyPath: "job" })
              .createIndex("expiry", "expiresAt");
          }
        },
        // A newer page wants to migrate: this one makes way, and is of no more use.
        blocking: (_current, _blocked, event) => {
          (event.target as IDBDatabase).close();
          this.#replace();
        },
        terminated: () => (this.#connection = undefined),
      });
    } catch (thrown) {
      this.#connection = undefined;
      // A newer page migrated the store while this one had no connection.
      if (thrown instanceof DOMException && thrown.name === "VersionError") {
        this.#replace();
        throw replaced();
      }
      throw thrown;
    }
  }

  #replace(): void {
    this.#replaced = true;
    this.#connection = undefined;
    this.onReplaced(replaced().error);
  }
}

/** Whether the browser closed the connection before or while it was used: nothing was read or written. */
function isClosed(thrown: unknown): boolean {
  return (
    thrown instanceof DOMException &&
    (thrown.name === "InvalidStateError" || thrown.name === "AbortError")
  );
}

function replaced(): Failure {
  return new Failure(
    duetError(
      "stale-page",
      "Another tab has opened a newer version of this page; reload this one.",
    ),
  );
}

type Upgrade = IDBPTransaction<Schema, StoreName[], "versionchange">;

/** Version 1 pinned cards under the name that a gateway had for their party. What it pinned stays pinned, by role. */
async function pinByRole(database: Connection, transaction: Upgrade): Promise<void> {
  // The store is of no version that the schema still knows.
  const old = (
    transaction as unknown as IDBPTransaction<unknown, string[], "versionchange">
  ).objectStore("pins");
  const pins = (await old.getAll()) as { party: string; fingerprint: string }[];
  const wallets = await transaction.objectStore("wallets").getAll();
  const holders = wallets.flatMap(({ parties }) => parties.filter(party => "fingerprint" in party));
  const recipients = transaction.objectStore("recipients");
  for (const { party, fingerprint } of pins) {
    const roles = new Set(
      holders.filter(holder => holder.fingerprint === fingerprint).map(({ role }) => role),
    );
    for (const role of roles.size > 0 ? roles : ["unknown" as const])
      await recipients.put({ role, fingerprint, party });
  }
  (database as unknown as IDBPDatabase).deleteObjectStore("pins");
}

/**
 * Earlier versions kept the culprit's name beside the lock, or nothing. Its card is in the wallet's
 * row. Where a lock names no culprit and the wallet has one responder, that responder is it.
 */
async function quarantineFromLocks(transaction: Upgrade): Promise<void> {
  const culprits = transaction.objectStore("culprits");
  const wallets = await transaction.objectStore("wallets").getAll();
  for (const { id, wallet, lock } of await transaction.objectStore("keys").getAll()) {
    if (lock === null) continue;
    const responders = respondersOf(wallets.find(row => row.id === wallet)?.parties ?? []);
    const [only] = responders.length === 1 ? responders : [];
    const culprit =
      lock.culprit === undefined ? only : responders.find(({ party }) => party === lock.culprit);
    if (culprit) await culprits.put(withLock(await culprits.get(culprit.fingerprint), culprit, id));
  }
}

/** The holders of a wallet that answer its device. */
export function respondersOf(parties: readonly WalletParty[]): RespondingParty[] {
  return parties.filter((party): party is RespondingParty => "fingerprint" in party);
}

/** A card's row with one more key that its answer locked. */
export function withLock(
  row: CulpritRow | undefined,
  { fingerprint, party }: RespondingParty,
  paillierKey: string,
): CulpritRow {
  const { locks, acceptedAt } = row ?? { locks: [], acceptedAt: null };
  return { fingerprint, party, locks: [...new Set([...locks, paillierKey])], acceptedAt };
}

/** The wallet's row, or a refusal. */
export async function requireWallet(database: Database, id: WalletId): Promise<WalletRow> {
  const row = await database.get("wallets", id);
  return row ?? fail("invalid", "There is no such wallet in this browser.", { field: "id" });
}

/** Changes a wallet's row by what `change` gives; nothing comes in between. */
export async function changeWallet(
  database: Database,
  id: WalletId,
  change: (row: WalletRow) => WalletRow,
): Promise<WalletRow> {
  const transaction = await database.transaction(["wallets"], "readwrite", STRICT);
  const wallets = transaction.objectStore("wallets");
  const row = await wallets.get(id);
  if (row === undefined)
    fail("invalid", "There is no such wallet in this browser.", { field: "id" });
  const changed = change(row);
  await wallets.put(changed);
  await transaction.done;
  return changed;
}

/** A sealed record, which must be there. */
export async function requireRecord(
  database: Database,
  wallet: WalletId,
  kind: RecordKind,
): Promise<Uint8Array> {
  const row = await database.get("records", [wallet, kind]);
  return (
    row?.sealed ?? fail("storage", "A record of this wallet is missing from the browser's storage.")
  );
}
