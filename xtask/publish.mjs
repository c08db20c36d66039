// Makes a built page ready to be served: compresses what compresses, and writes down the hash of
// every file.
//
//   node publish.mjs FOLDER [CONFIG]
//
// CONFIG, a deployment's configuration, takes the place of config.json before the hashes are made.
// Compressed files lie beside their originals with .br and .gz appended. They are not in
// SHA256SUMS, because another version of Node may compress differently: what counts is what the
// browser gets after it has unpacked them.

import { createHash } from "node:crypto";
import { copyFileSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, posix, sep } from "node:path";
import process from "node:process";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const COMPRESSIBLE = /\.(html|js|mjs|css|wasm|svg|json|txt|webmanifest)$/;
/** Smaller files gain nothing that the headers do not take. */
const SMALLEST_BYTES = 512;
const HASHES = "SHA256SUMS";

const [folder, config] = process.argv.slice(2);
if (folder === undefined || !statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
  console.error("usage: node publish.mjs FOLDER [CONFIG]");
  process.exit(2);
}

if (config !== undefined) copyFileSync(config, join(folder, "config.json"));

const files = readdirSync(folder, { recursive: true, withFileTypes: true })
  .filter(entry => entry.isFile())
  .map(entry => join(entry.parentPath, entry.name));
const lines = [];
let total = 0;
for (const file of files) {
  const name = file.slice(join(folder, sep).length).split(sep).join(posix.sep);
  if (/\.(br|gz)$/.test(name) || name === HASHES) {
    rmSync(file);
    continue;
  }
  const bytes = readFileSync(file);
  lines.push(`${createHash("sha256").update(bytes).digest("hex")}  ${name}`);
  let smallest = bytes.length;
  if (COMPRESSIBLE.test(name) && bytes.length >= SMALLEST_BYTES) {
    const parameters = {
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    };
    const brotli = brotliCompressSync(bytes, { params: parameters });
    writeFileSync(`${file}.br`, brotli);
    writeFileSync(`${file}.gz`, gzipSync(bytes, { level: 9 }));
    smallest = Math.min(smallest, brotli.length);
  }
  total += smallest;
  console.log(`${String(bytes.length).padStart(9)} ${String(smallest).padStart(9)}  ${name}`);
}
writeFileSync(
  join(folder, HASHES),
  `${lines.sort((one, other) => (one.slice(66) < other.slice(66) ? -1 : 1)).join("\n")}\n`,
);
console.log(`${lines.length} files, ${total} bytes as a browser fetches them; hashes in ${HASHES}`);
