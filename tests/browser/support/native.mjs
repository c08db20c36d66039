// The owner's device as a program, in a folder of its own, without any connection.

import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** Runs `use` with a native device that has no wallets yet. */
export async function nativeDevice(use) {
  const folder = await mkdtemp(join(tmpdir(), "duet-native-"));
  const at = name => join(folder, name);
  const duet = async (passphrase, ...command) => {
    const env = {
      PATH: process.env.PATH,
      DUET_HOME: folder,
      DUET_KEY_FILE: at("seal.key"),
      DUET_BACKUP_PASSPHRASE: passphrase,
    };
    const run = promisify(execFile)(process.env.DUET_PROGRAM, ["--json", "wallet", ...command], {
      env,
    });
    return JSON.parse((await run).stdout).wallet;
  };
  try {
    return await use({
      /** Puts a wallet back from the bytes of a backup file. Returns the wallet. */
      async restore(file, passphrase) {
        await writeFile(at("given.age"), file);
        return duet(passphrase, "restore", at("given.age"));
      },
      /** The bytes of a new backup file of its only wallet. */
      async backUp(passphrase) {
        await duet(passphrase, "backup", "--out", at("made.age"));
        return readFile(at("made.age"));
      },
    });
  } finally {
    await rm(folder, { recursive: true });
  }
}
