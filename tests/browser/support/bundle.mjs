// The page as an operator publishes it: the built bundle with its own configuration.

import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

import { setting } from "./stack.mjs";

const PUBLISH = fileURLToPath(new URL("../../../xtask/publish.mjs", import.meta.url));

/** A copy of the built page, with this configuration. */
export class Bundle {
  #directory = mkdtempSync(join(tmpdir(), "duet-bundle-"));

  constructor(config) {
    cpSync(setting("DUET_PAGE"), this.folder, { recursive: true });
    this.configure(config);
  }

  get folder() {
    return join(this.#directory, "page");
  }

  configure(config) {
    writeFileSync(join(this.folder, "config.json"), `${JSON.stringify(config)}\n`);
    return this;
  }

  /**
   * Configures it as `cargo xtask page --config` does: the configuration is hashed with the rest.
   */
  publish(config) {
    const file = join(this.#directory, "config.json");
    writeFileSync(file, JSON.stringify(config));
    execFileSync(process.execPath, [PUBLISH, this.folder, file]);
    execFileSync("sha256sum", ["--check", "--strict", "--quiet", "SHA256SUMS"], {
      cwd: this.folder,
    });
    return this;
  }

  remove() {
    rmSync(this.#directory, { recursive: true });
  }
}
