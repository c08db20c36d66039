/**
 * The browser's store. What it keeps in the clear is public; every secret is a sealed record.
 *
 * Everything is written with strict durability: what a resolved promise says was written is on disk.
 */

import { type DBSchema, type IDBPDatabase, openDB } from "idb";

import { fail } from "../errors.js";
import type { PasskeyReference } from "../protocol.js";
import type { Hex, Address, Timestamp, WalletId, WalletParty } from "../types.js";

const NAME = "duet";
const VERSION = 1;

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
  exportedAt: Timestamp | null;
  attempts: { failed: number; nextAt: Timestamp };
}

/**
 * `pending`: a creation under way. `device`: share, Paillier key and device keys. `owner`: the key that signs
 * requests. `backup`: the sealed file of the third share, until the creation is finished. `rotation`: the device's
 * record under a new Paillier key that not every party has taken yet.
 */
export type RecordKind = "pending" | "device" | "owner" | "backup" | "rotation";

export interface RecordRow {
  wallet: WalletId;
  kind: RecordKind;
  sealed: Uint8Array;
}

/** Whether a Paillier key may initiate. The word that counts: see gate.ts. */
export interface KeyRow {
  id: string;
  wallet: WalletId;
  state: "ready" | "needs-rotation" | "locked";
  /** Verdicts released or refused under it: written with each, so that each proves that the store can write. */
  verdicts: number;
  lock: { session: string; at: Timestamp; evidence: Uint8Array } | null;
}

export interface CardRow {
  /** 64 hexadecimal digits. */
  fingerprint: string;
  party: string;
  card: Uint8Array;
}

interface Schema extends DBSchema {
  wallets: { key: string; value: WalletRow };
  records: { key: [string, RecordKind]; value: RecordRow };
  keys: { key: string; value: KeyRow; indexes: { wallet: string } };
  cards: { key: string; value: CardRow };
  /** Which card each party was seen with first: it must not change. */
  pins: { key: string; value: { party: string; fingerprint: string } };
}

export type StoreName = "wallets" | "records" | "keys" | "cards" | "pins";
export type Database = IDBPDatabase<Schema>;

export const STRICT = { durability: "strict" } as const;

/** Opens the store, making or migrating it. */
export async function openDatabase(onReplaced: () => void): Promise<Database> {
  const database = await openDB<Schema>(NAME, VERSION, {
    upgrade(database, oldVersion) {
      if (oldVersion > 0) return;
      database.createObjectStore("wallets", { keyPath: "id" });
      database.createObjectStore("records", { keyPath: ["wallet", "kind"] });
      database.createObjectStore("keys", { keyPath: "id" }).createIndex("wallet", "wallet");
      database.createObjectStore("cards", { keyPath: "fingerprint" });
      database.createObjectStore("pins", { keyPath: "party" });
    },
    // A newer page wants to migrate: this one makes way, and is of no more use.
    blocking: (_current, _blocked, event) => {
      (event.target as IDBDatabase).close();
      onReplaced();
    },
    terminated: onReplaced,
  });
  return database;
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
  const transaction = database.transaction("wallets", "readwrite", STRICT);
  const row = await transaction.store.get(id);
  if (row === undefined) fail("invalid", "There is no such wallet in this browser.", { field: "id" });
  const changed = change(row);
  await transaction.store.put(changed);
  await transaction.done;
  return changed;
}

/** A sealed record, which must be there. */
export async function requireRecord(database: Database, wallet: WalletId, kind: RecordKind): Promise<Uint8Array> {
  const row = await database.get("records", [wallet, kind]);
  return row?.sealed ?? fail("storage", "A record of this wallet is missing from the browser's storage.");
}
