/** The wallets of this browser: what is known of them, and those that are unlocked in this tab. */

import { duetError, fail, Failure } from "../errors.js";
import type { KeySource } from "../protocol.js";
import type { WalletId, WalletState, WalletSummary } from "../types.js";
import { attemptPauseMs } from "./backoff.js";
import { culpritsAmong, lossesOf } from "./culprits.js";
import {
  changeWallet,
  type CulpritRow,
  type Database,
  type KeyRow,
  requireRecord,
  requireWallet,
  type WalletRow,
} from "./database.js";
import type { DeviceWallet, Engine, SealKey } from "./engine.js";
import { closedError } from "./gate.js";
import type { Socket } from "./socket.js";
import type { Tabs } from "./tabs.js";

/** A wallet whose secrets are in memory. */
export interface Unlocked {
  readonly device: DeviceWallet;
  readonly key: SealKey;
}

interface Held extends Unlocked {
  device: DeviceWallet;
  timer: ReturnType<typeof setTimeout> | undefined;
  lockAt: number;
  /** Uses under way: what is in use is not wiped from under them. */
  uses: number;
  condemned: boolean;
}

export class Wallets {
  readonly #held = new Map<WalletId, Held>();

  constructor(
    private readonly database: Database,
    private readonly engine: Engine,
    private readonly socket: Socket,
    private readonly tabs: Tabs,
    private readonly idleLockMs: number,
    private readonly onChange: (wallets: WalletSummary[]) => void,
  ) {}

  // ------------------------------------------------------------------------------------- summaries

  async summaries(): Promise<WalletSummary[]> {
    const transaction = await this.database.transaction(["wallets", "keys", "culprits"]);
    const [rows, keys, culprits] = await Promise.all([
      transaction.objectStore("wallets").getAll(),
      transaction.objectStore("keys").getAll(),
      transaction.objectStore("culprits").getAll(),
    ]);
    const persistent = await isPersistent();
    return rows
      .map(row =>
        this.#summary(
          row,
          keys.filter(({ wallet }) => wallet === row.id),
          culprits,
          persistent,
        ),
      )
      .sort((one, other) => one.createdAt - other.createdAt || (one.id < other.id ? -1 : 1));
  }

  async summary(id: WalletId): Promise<WalletSummary> {
    const row = await requireWallet(this.database, id);
    const [keys, culprits] = await Promise.all([
      this.database.keysOf(id),
      this.database.getAll("culprits"),
    ]);
    return this.#summary(row, keys, culprits, await isPersistent());
  }

  #summary(
    row: WalletRow,
    keys: KeyRow[],
    culprits: CulpritRow[],
    persistent: boolean,
  ): WalletSummary {
    const { id, address, publicKey, label, createdAt, tenant, parties, restored, attempts } = row;
    const { exportedAt, checkedAt = null, backupDue = false, thirdDue = false } = row;
    // Without a Paillier key there is nothing to initiate with: the wallet comes from a backup.
    const key = keys.find(one => one.id === row.paillierKey)?.state ?? "needs-rotation";
    return {
      id,
      address,
      publicKey,
      label,
      createdAt,
      tenant,
      parties,
      restored,
      attempts,
      key,
      state: this.#state(row, key),
      protection: row.protection.kind,
      backup: { exportedAt, checkedAt, due: backupDue, thirdDue },
      losses: lossesOf(keys),
      culprits: culpritsAmong(culprits, parties),
      persistent,
    };
  }

  #state(row: WalletRow, key: WalletSummary["key"]): WalletState {
    if (row.status === "pending") return "pending";
    if (!this.isUnlocked(row.id)) return "locked";
    return key === "ready" ? "unlocked" : key === "locked" ? "paillier-locked" : "needs-rotation";
  }

  /** Tells the page, and the other tabs, that something is not as it was. */
  async changed(): Promise<void> {
    this.tabs.announce();
    await this.tell();
  }

  async tell(): Promise<void> {
    this.onChange(await this.summaries());
  }

  // ------------------------------------------------------------------------------------- unlocking

  /**
   * Derives the key of a wallet's records. Wrong attempts are counted before they are tried, so
   * that ending the tab does not undo one, and the next is taken only after a while.
   */
  async derive(id: WalletId, source: KeySource): Promise<SealKey> {
    const row = await requireWallet(this.database, id);
    if (row.protection.kind !== source.kind) {
      fail("invalid", `This wallet is opened with a ${row.protection.kind}.`, { field: "unlock" });
    }
    const waitMs = row.attempts.nextAt - Date.now();
    if (waitMs > 0) {
      const seconds = Math.ceil(waitMs / 1000);
      fail("wrong-passphrase", `Too many wrong attempts. The next is taken in ${seconds} s.`, {
        retryAfterMs: waitMs,
      });
    }
    const failed = row.attempts.failed + 1;
    const pauseMs = attemptPauseMs(failed);
    await changeWallet(this.database, id, now => ({
      ...now,
      attempts: { failed: Math.max(failed, now.attempts.failed + 1), nextAt: Date.now() + pauseMs },
    }));
    let key: SealKey;
    try {
      key = this.engine.unprotect(row.protection.descriptor, source);
    } catch (thrown) {
      if (thrown instanceof Failure && thrown.error.kind === "wrong-passphrase") {
        await this.tell();
        const { message } = thrown.error;
        throw new Failure(
          duetError("wrong-passphrase", message, pauseMs > 0 ? { retryAfterMs: pauseMs } : {}),
        );
      }
      throw thrown;
    }
    await changeWallet(this.database, id, now => ({ ...now, attempts: { failed: 0, nextAt: 0 } }));
    return key;
  }

  async unlock(id: WalletId, source: KeySource): Promise<WalletSummary> {
    const { status } = await requireWallet(this.database, id);
    if (status === "pending")
      fail("invalid", "The wallet's creation is not finished; resume it.", { field: "id" });
    const key = await this.derive(id, source);
    try {
      this.hold(
        this.engine.openWallet(await requireRecord(this.database, id, "device"), key, id),
        key,
      );
    } catch (thrown) {
      key.free();
      throw thrown;
    }
    await this.tell();
    return this.summary(id);
  }

  /** Keeps a wallet's secrets in memory, and has the gateway know that its device is here. */
  hold(device: DeviceWallet, key: SealKey): void {
    const { id } = device;
    this.#drop(id);
    const held: Held = { device, key, timer: undefined, lockAt: 0, uses: 0, condemned: false };
    this.#held.set(id, held);
    this.#touch(id, held);
    this.socket.join(id, (challenge, nowMs) => held.device.authenticate(challenge, nowMs));
  }

  /** Another tab changed the store: what it removed is locked here, what it rotated is read again. */
  async refresh(): Promise<void> {
    for (const [id, held] of this.#held) {
      const row = await this.database.get("wallets", id);
      if (row === undefined) {
        this.#drop(id);
        continue;
      }
      if (row.paillierKey === (held.device.newestKey ?? "")) continue;
      const record = await this.database.get("records", [id, "device"]);
      if (record === undefined || held.uses > 0 || held.condemned) continue;
      const old = held.device;
      held.device = this.engine.openWallet(record.sealed, held.key, id);
      old.free();
    }
    await this.tell();
  }

  isUnlocked(id: WalletId): boolean {
    const held = this.#held.get(id);
    // A timer of a tab in the background may be late.
    if (held && held.uses === 0 && Date.now() >= held.lockAt) this.#drop(id);
    return this.#held.has(id);
  }

  /**
   * Runs `work` with a wallet's secrets.
   *
   * @throws {Failure} `locked`
   */
  async use<T>(id: WalletId, work: (unlocked: Unlocked) => Promise<T>): Promise<T> {
    const held = this.isUnlocked(id) ? this.#held.get(id) : undefined;
    if (!held) {
      await requireWallet(this.database, id);
      fail("locked", "The wallet is locked; unlock it first.");
    }
    held.uses += 1;
    try {
      return await work(held);
    } finally {
      held.uses -= 1;
      if (held.condemned) this.#wipe(held);
      else this.#touch(id, held);
    }
  }

  /** Locks one wallet, or all. What is in use ends first. */
  async lock(id: WalletId | null): Promise<void> {
    for (const held of id === null ? [...this.#held.keys()] : [id]) this.#drop(held);
    await this.tell();
  }

  #touch(id: WalletId, held: Held): void {
    clearTimeout(held.timer);
    held.lockAt = Date.now() + this.idleLockMs;
    held.timer = setTimeout(() => {
      if (held.uses > 0) return;
      this.#drop(id);
      void this.tell();
    }, this.idleLockMs);
  }

  #drop(id: WalletId): void {
    const held = this.#held.get(id);
    if (!held) return;
    this.#held.delete(id);
    clearTimeout(held.timer);
    this.socket.leave(id);
    held.condemned = true;
    if (held.uses === 0) this.#wipe(held);
  }

  #wipe(held: Held): void {
    if (held.uses > 0) return;
    held.device.free();
    held.key.free();
  }
}

/** Whether the browser promised not to delete this origin's storage by itself. */
async function isPersistent(): Promise<boolean> {
  try {
    return await navigator.storage.persisted();
  } catch {
    // A browser without the call makes no promise.
    return false;
  }
}

/** Refuses what a key in this state does not do. */
export function requireKeyReady(summary: WalletSummary): void {
  if (summary.key !== "ready") throw new Failure(closedError(summary.key));
}
