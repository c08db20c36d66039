/** Backups of the device's share: a file that a passphrase opens, in the age format, and the way back. */

import { fail } from "../errors.js";
import type { KeySource } from "../protocol.js";
import type { WalletId, WalletSummary } from "../types.js";
import type { Context } from "./context.js";
import { checkPassphrase, protectionOf, readLabel } from "./create.js";
import { changeWallet, STRICT, type WalletRow } from "./database.js";

/** No backup is larger. */
const MAX_FILE_BYTES = 128 * 1024;

export async function exportBackup(context: Context, id: WalletId, passphrase: string): Promise<Uint8Array> {
  checkPassphrase(passphrase, "passphrase");
  const file = await context.wallets.use(id, ({ device }) => Promise.resolve(device.backup(passphrase, Date.now())));
  await changeWallet(context.database, id, (row) => ({ ...row, exportedAt: Date.now() }));
  await context.wallets.changed();
  return file;
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
  if (file.length > MAX_FILE_BYTES) fail("invalid", "The file is too large to be a backup.", { field: "file" });
  if (source.kind === "passphrase") checkPassphrase(source.passphrase, "protection.passphrase");
  const name = label === null ? "Restored wallet" : readLabel(label);
  const device = engine.restore(file, passphrase);
  const { id } = device;
  try {
    if ((await database.get("wallets", id)) !== undefined) {
      fail("invalid", "This browser has the wallet already.", { field: "file", code: "wallet-exists" });
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
      attempts: { failed: 0, nextAt: 0 },
    };
    try {
      const sealed = device.seal(key);
      const transaction = database.transaction(["wallets", "records"], "readwrite", STRICT);
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
