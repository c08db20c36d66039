/**
 * The gate of a verdict. A bad signature locks the Paillier key, durably, before anything is said;
 * a good one leaves only after a transaction that found the key unlocked. Both write, so that
 * neither can be told from the other by a store that fails, and a verdict that cannot be written is
 * not spoken.
 */

import { duetError, fail, Failure } from "../errors.js";
import type { WalletId } from "../types.js";
import {
  type Database,
  type JobRow,
  type KeyRow,
  type PendingRow,
  respondersOf,
  STRICT,
  withLock,
} from "./database.js";
import type { DeviceWallet, ManifestFacts, SealKey } from "./engine.js";

export type GateVerdict = "open" | "locked-now" | Exclude<KeyRow["state"], "ready">;

/** Whether the store was seen to write since this worker started. */
let writable = false;

/** Refuses unless the key may initiate, and the store can write. To be called before a session begins. */
export async function requireReady(database: Database, key: string): Promise<void> {
  const row = writable ? await database.get("keys", key) : await testWrite(database, key);
  if (row === undefined) fail("storage", "The record of this wallet's Paillier key is missing.");
  if (row.state !== "ready") throw new Failure(closedError(row.state));
}

async function testWrite(database: Database, key: string): Promise<KeyRow | undefined> {
  const transaction = await database.transaction(["keys"], "readwrite", STRICT);
  const keys = transaction.objectStore("keys");
  const row = await keys.get(key);
  if (row !== undefined) await keys.put(row);
  await transaction.done;
  writable = true;
  return row;
}

/** How long what a job signed is kept after its newest request expired, as every party keeps it. */
const JOBS_KEPT_MS = 400 * 24 * 60 * 60 * 1000;
/** Rows that a session removes at most for their age. */
const REMOVED_AT_ONCE = 100;

/** What a session signs: see {@link JobRow}. */
export type Signing = Pick<ManifestFacts, "job" | "signs" | "requestExpiresAt">;

/** Refuses when the job was signed for something else before. To be called before a session begins. */
export async function requireSamePayload(database: Database, signing: Signing): Promise<void> {
  comparePayload(await database.get("jobs", signing.job), signing);
}

function comparePayload(row: JobRow | undefined, { signs }: Signing): void {
  if (row === undefined || row.signs === signs) return;
  const at = new Date(row.signedAt).toISOString();
  fail(
    "refused",
    `This device signed something else under the same idempotency key at ${at}; sign this under a key of its own.`,
    { code: "conflict", by: "device" },
  );
}

/**
 * Writes what a verdict will depend on, before the answer is decrypted, and what the job signs. It
 * outlives the tab.
 *
 * @throws {Failure} `refused`, when the job was signed for something else before, and `storage`,
 * when the store does not write. Then nothing may be decrypted.
 */
export async function writePending(
  database: Database,
  pending: PendingRow,
  signing: Signing,
): Promise<void> {
  try {
    const transaction = await database.transaction(["pending", "jobs"], "readwrite");
    const jobs = transaction.objectStore("jobs");
    const row = await jobs.get(signing.job);
    comparePayload(row, signing);
    const now = Date.now();
    await jobs.put({
      job: signing.job,
      signs: signing.signs,
      signedAt: row?.signedAt ?? now,
      expiresAt: Math.max(row?.expiresAt ?? 0, signing.requestExpiresAt),
    });
    const old = IDBKeyRange.upperBound(now - JOBS_KEPT_MS);
    for (const job of await jobs.index("expiry").getAllKeys(old, REMOVED_AT_ONCE))
      await jobs.delete(job);
    await transaction.objectStore("pending").put(pending);
    await transaction.done;
  } catch (thrown) {
    throw thrown instanceof Failure ? thrown : unwritable(thrown);
  }
}

/**
 * Judges what sessions of this wallet left behind that ended between the decryption and the gate,
 * and locks what has to be locked. Called with the wallet's lock held, before anything is
 * initiated: then no pending verdict belongs to a session that still runs.
 *
 * @returns whether a key was locked.
 */
export async function finishPending(
  database: Database,
  wallet: WalletId,
  device: DeviceWallet,
  sealKey: SealKey,
): Promise<boolean> {
  let locked = false;
  for (const { sealed, ...pending } of await database.pendingOf(wallet)) {
    const evidence = device.judgePending(sealed, pending.session, sealKey);
    const bad =
      evidence === null
        ? null
        : { evidence, record: withoutKey(device, pending.paillierKey, sealKey) };
    if ((await passGate(database, pending, bad)) === "locked-now") locked = true;
  }
  return locked;
}

/** The device's record without a key that is being locked. */
export function withoutKey(device: DeviceWallet, paillierKey: string, key: SealKey): Uint8Array {
  device.forgetKey(paillierKey);
  return device.seal(key);
}

function unwritable(thrown: unknown): Failure {
  writable = false;
  return new Failure(
    duetError("storage", "The browser's storage does not work; nothing is signed until it does.", {
      code: "storage-unavailable",
    }),
    { cause: thrown },
  );
}

/**
 * Takes a verdict through the gate: writes the lock and the culprit's quarantine if it is `bad`,
 * else that it was released, and removes the pending verdict; then reads back what is stored.
 * Called with the wallet's lock held, so that no other tab comes in between.
 *
 * @throws {Failure} `storage`, when the store does not write. Then nothing may be said about the
 * verdict.
 */
export async function passGate(
  database: Database,
  { session, wallet, paillierKey: key, responder }: Omit<PendingRow, "sealed">,
  bad: { evidence: Uint8Array; record: Uint8Array } | null,
): Promise<GateVerdict> {
  try {
    const transaction = await database.transaction(
      ["keys", "pending", "records", "wallets", "culprits"],
      "readwrite",
      STRICT,
    );
    const keys = transaction.objectStore("keys");
    const row = await keys.get(key);
    if (row === undefined) fail("storage", "The record of this wallet's Paillier key is missing.");
    const closed = row.state !== "ready";
    const locks = bad !== null && !closed;
    const next: KeyRow = {
      ...row,
      verdicts: row.verdicts + 1,
      ...(locks
        ? {
            state: "locked",
            lock: { session, evidence: bad.evidence, culprit: responder, at: Date.now() },
          }
        : {}),
    };
    await keys.put(next);
    await transaction.objectStore("pending").delete(session);
    if (locks) {
      // The lock destroys the key: the record is sealed without it.
      await transaction.objectStore("records").put({ wallet, kind: "device", sealed: bad.record });
      const holders = respondersOf(
        (await transaction.objectStore("wallets").get(wallet))?.parties ?? [],
      );
      const culprit = holders.find(({ party }) => party === responder);
      const culprits = transaction.objectStore("culprits");
      if (culprit)
        await culprits.put(withLock(await culprits.get(culprit.fingerprint), culprit, key));
    }
    await transaction.done;
    const stored = await database.get("keys", key);
    if (stored === undefined || stored.state !== next.state || stored.verdicts !== next.verdicts) {
      fail("storage", "The browser's storage did not keep what was written.");
    }
    if (locks) return "locked-now";
    return row.state === "ready" ? "open" : row.state;
  } catch (thrown) {
    throw unwritable(thrown);
  }
}

/** Why a key does not initiate. */
export function closedError(
  state: Exclude<KeyRow["state"], "ready">,
): ReturnType<typeof duetError> {
  return state === "locked"
    ? duetError(
        "paillier-locked",
        "A bad answer locked this wallet's Paillier key; make a new one to sign again.",
        {
          code: "locked",
        },
      )
    : duetError(
        "needs-rotation",
        "The wallet was restored from a backup; make a new Paillier key before it signs.",
        {
          code: "needs-rotation",
        },
      );
}
