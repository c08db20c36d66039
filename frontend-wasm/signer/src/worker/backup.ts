/** Backups of the device's share: a file that a passphrase opens, in the age format, and the way back. */

import { fail } from "../errors.js";
import type { KeySource } from "../protocol.js";
import type { WalletId, WalletSummary } from "../types.js";
import type { Context } from "./context.js";
import { checkPassphrase, protectionOf, readLabel } from "./create.js";
import { changeWallet, requireRecord, requireWallet, STRICT, type WalletRow } from "./database.js";

/** No backup is larger. */
const MAX_FILE_BYTES = 128 * 1024;

export async function exportBackup(
  context: Context,
  id: WalletId,
  passphrase: string,
): Promise<Uint8Array> {
  checkPassphrase(passphrase, "passphrase");
  const file = await context.wallets.use(id, ({ device }) =>
    Promise.resolve(device.backup(passphrase, Date.now())),
  );
  await changeWallet(context.database, id, row => ({ ...row, exportedAt: Date.now() }));
  await context.wallets.changed();
  return file;
}

/**
 * Opens a backup file again and compares it with the wallet: afterwards the owner is known to have
 * a file that works.
 *
 * @throws {Failure} `wrong-passphrase`; `invalid` when the file is no backup of this wallet's
 * device share.
 */
export async function checkBackup(
  context: Context,
  id: WalletId,
  file: Uint8Array,
  passphrase: string,
): Promise<WalletSummary> {
  const { engine, database, wallets } = context;
  const { address } = await requireWallet(database, id);
  checkSize(file);
  const device = engine.restore(file, passphrase);
  try {
    if (device.id !== id || device.address !== address) {
      fail("invalid", "The file is the backup of another wallet.", {
        field: "file",
        code: "other-wallet",
      });
    }
  } finally {
    device.free();
  }
  await changeWallet(database, id, row => ({ ...row, checkedAt: Date.now(), backupDue: false }));
  await wallets.changed();
  return wallets.summary(id);
}

/** The owner does without a backup of a new wallet. */
export async function waiveBackup(
  { database, wallets }: Context,
  id: WalletId,
): Promise<WalletSummary> {
  await changeWallet(database, id, row => ({ ...row, backupDue: false }));
  await wallets.changed();
  return wallets.summary(id);
}

/**
 * The file of the third share, sealed by its own passphrase, until its owner has opened the saved
 * one.
 */
export async function thirdShareFile({ database }: Context, id: WalletId): Promise<Uint8Array> {
  const { thirdDue = false } = await requireWallet(database, id);
  if (!thirdDue) fail("invalid", "The file of the third share is not kept here.", { field: "id" });
  return requireRecord(database, id, "backup");
}

/**
 * Opens the saved file of the third share again and compares it with the wallet. Afterwards no copy
 * of it is kept here.
 *
 * @throws {Failure} `wrong-passphrase`; `invalid` when the file is not this wallet's third share.
 */
export async function checkThirdShare(
  context: Context,
  id: WalletId,
  file: Uint8Array,
  passphrase: string,
): Promise<WalletSummary> {
  const { engine, database, wallets } = context;
  const { address } = await requireWallet(database, id);
  checkSize(file);
  const third = engine.readThirdShare(file, passphrase);
  if (third.wallet !== id || third.address !== address) {
    fail("invalid", "The file is the third share of another wallet.", {
      field: "file",
      code: "other-wallet",
    });
  }
  const transaction = await database.transaction(["wallets", "records"], "readwrite", STRICT);
  const row = await transaction.objectStore("wallets").get(id);
  if (row === undefined)
    fail("invalid", "There is no such wallet in this browser.", { field: "id" });
  await transaction.objectStore("wallets").put({ ...row, thirdDue: false });
  await transaction.objectStore("records").delete([id, "backup"]);
  await transaction.done;
  await wallets.changed();
  return wallets.summary(id);
}

function checkSize(file: Uint8Array): void {
  if (file.length > MAX_FILE_BYTES)
    fail("invalid", "The file is too large to be a backup.", { field: "file" });
}

/** Takes a wallet in from a backup. It signs once its Paillier key is rotated. */
export async function restoreBackup(
  context: Context,
  file: Uint8Array,
  passphrase: string,
  source: KeySource,
  label: string | null,
): Promise<WalletSummary> {
  const { engine, database, wallets } = context;
  checkSize(file);
  if (source.kind === "passphrase") checkPassphrase(source.passphrase, "protection.passphrase");
  const name = label === null ? "Restored wallet" : readLabel(label);
  const device = engine.restore(file, passphrase);
  const { id } = device;
  try {
    if ((await database.get("wallets", id)) !== undefined) {
      fail("invalid", "This browser has the wallet already.", {
        field: "file",
        code: "wallet-exists",
      });
    }
    const { descriptor, key } = engine.protect(source);
    const row: WalletRow = {
      id,
      label: name,
      createdAt: Date.now(),
      status: "ready",
      tenant: device.tenant,
      parties: device.parties,
      address: device.address,
      publicKey: device.publicKey,
      paillierKey: "",
      protection: protectionOf(source, descriptor),
      restored: true,
      exportedAt: null,
      // The file that it came from was just opened.
      checkedAt: Date.now(),
      backupDue: false,
      attempts: { failed: 0, nextAt: 0 },
    };
    try {
      const sealed = device.seal(key);
      const transaction = await database.transaction(["wallets", "records"], "readwrite", STRICT);
      await transaction.objectStore("wallets").add(row);
      await transaction.objectStore("records").put({ wallet: id, kind: "device", sealed });
      await transaction.done;
    } catch (thrown) {
      key.free();
      throw thrown;
    }
    wallets.hold(device, key);
  } catch (thrown) {
    device.free();
    throw thrown;
  }
  await wallets.changed();
  return wallets.summary(id);
}
