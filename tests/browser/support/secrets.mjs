// Searches for secret bytes in the clear: in everything that a profile stores, and in everything
// that it sent or printed.

import { createRequire } from "node:module";
import { join } from "node:path";

import { OTHER_PASSPHRASE } from "./page.mjs";
import { setting } from "./stack.mjs";

/** This many equal bytes in a row are no accident, and no secret of ours is shorter. */
const WINDOW_BYTES = 16;

/** The secrets of a scenario's wallets. */
export class Secrets {
  /** `[{ name, bytes }]` */
  known = [];

  /** Opens a backup with the module under Node, and remembers the secrets in it. */
  learn(file, passphrase = OTHER_PASSPHRASE) {
    for (const { name, bytes } of opened("the backup", duet().secretsOfBackup(file, passphrase)))
      this.add(name, bytes);
  }

  /** Opens a wallet's record with the module under Node, and remembers the primes in it. */
  learnKeys(wallet, sealed, descriptor, passphrase) {
    const { DeviceWallet, KeyEncryptionKey, primesOfWallet } = duet();
    const key = opened("the wallet", KeyEncryptionKey.fromPassphrase(passphrase, descriptor));
    const device = opened("the wallet", DeviceWallet.open(new Uint8Array(sealed), key, wallet));
    for (const { name, bytes } of primesOfWallet(device)) this.add(name, bytes);
    for (const handle of [device, key]) handle.free();
  }

  add(name, bytes) {
    if (bytes.length < WINDOW_BYTES) throw new Error(`${name} is too short to be searched for`);
    this.known.push({ name, bytes: Buffer.from(bytes) });
  }

  /**
   * All byte strings that must not occur anywhere, each with its secret: `[{ name, form, needle
   * }]`.
   */
  needles() {
    return this.known.flatMap(({ name, bytes }) =>
      [bytes, Buffer.from(bytes).reverse()].flatMap(order =>
        windows(order).flatMap(window =>
          forms(window).map(([form, needle]) => ({ name, form, needle })),
        ),
      ),
    );
  }
}

/** The module under Node, with the tests' exports. */
const duet = () =>
  createRequire(import.meta.url)(join(setting("DUET_WASM_PACKAGE"), "duet_frontend_wasm.js"));

function opened(what, result) {
  if (!result.ok) throw new Error(`${what} cannot be opened: ${JSON.stringify(result.error)}`);
  return result.value;
}

/**
 * Pieces that together cover a key, so that the search also finds half a key. A few pieces of a
 * long number.
 */
function windows(bytes) {
  const all = [];
  const step = Math.max(WINDOW_BYTES / 2, bytes.length / 4);
  for (let start = 0; start + WINDOW_BYTES <= bytes.length; start += step) {
    all.push(bytes.subarray(start, start + WINDOW_BYTES));
  }
  return all;
}

/** The forms in which programs write bytes. */
function forms(bytes) {
  const base64 = [0, 1, 2].map(shift => {
    // The preceding bytes decide how the same bytes look. At the edges, the form depends on the
    // neighbours.
    const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString("base64");
    return text.slice(Math.ceil((shift * 4) / 3), Math.floor(((shift + bytes.length) * 8) / 6));
  });
  return [
    ["bytes", bytes],
    ["hexadecimal", Buffer.from(bytes.toString("hex"))],
    ["HEXADECIMAL", Buffer.from(bytes.toString("hex").toUpperCase())],
    ...base64.map(text => ["base64", Buffer.from(text)]),
    ...base64.map(text => [
      "base64url",
      Buffer.from(text.replaceAll("+", "-").replaceAll("/", "_")),
    ]),
    ["numbers", Buffer.from([...bytes].join(","))],
    ["numbers, spaced", Buffer.from([...bytes].join(", "))],
    ["decimal", Buffer.from(BigInt(`0x${bytes.toString("hex")}`).toString())],
  ];
}

/** Everything that the origin stores in the browser, byte by byte. Runs in the page. */
async function dump() {
  const kept = [];
  const bytes = value => {
    let text = "";
    for (const byte of value) text += String.fromCharCode(byte);
    return btoa(text);
  };
  // Some libraries write byte arrays as objects with numbers as keys.
  const walk = async (channel, value) => {
    if (value === null || value === undefined) return;
    if (typeof value === "string" || typeof value === "number" || typeof value === "bigint") {
      kept.push({ channel, text: String(value) });
    } else if (value instanceof ArrayBuffer) {
      kept.push({ channel, base64: bytes(new Uint8Array(value)) });
    } else if (ArrayBuffer.isView(value)) {
      kept.push({
        channel,
        base64: bytes(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)),
      });
    } else if (value instanceof Blob) {
      await walk(channel, await value.arrayBuffer());
    } else if (value instanceof CryptoKey) {
      if (value.extractable)
        kept.push({ channel, text: JSON.stringify(await crypto.subtle.exportKey("jwk", value)) });
    } else if (value instanceof Map || value instanceof Set) {
      for (const entry of value) await walk(channel, entry);
    } else if (typeof value === "object") {
      kept.push({
        channel,
        text: JSON.stringify(value, (_, inner) =>
          typeof inner === "bigint" ? String(inner) : inner,
        ),
      });
      for (const [name, inner] of Object.entries(value)) await walk(`${channel}.${name}`, inner);
    }
  };
  const done = request =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  for (const { name } of await indexedDB.databases()) {
    const database = await done(indexedDB.open(name));
    for (const store of database.objectStoreNames) {
      const [keys, values] = await Promise.all(
        ["getAllKeys", "getAll"].map(method =>
          done(database.transaction(store).objectStore(store)[method]()),
        ),
      );
      for (const [index, value] of values.entries()) {
        await walk(`IndexedDB ${name}.${store}`, keys[index]);
        await walk(`IndexedDB ${name}.${store}`, value);
      }
    }
    database.close();
  }
  for (const [channel, storage] of [
    ["localStorage", localStorage],
    ["sessionStorage", sessionStorage],
  ]) {
    for (const [key, value] of Object.entries(storage))
      kept.push({ channel, text: `${key}=${value}` });
  }
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys())
      await walk("Cache", await (await cache.match(request)).arrayBuffer());
  }
  kept.push({ channel: "cookies", text: document.cookie });
  kept.push({ channel: "history", text: JSON.stringify(history.state) });
  return kept;
}

/** Every place in a profile where a secret occurs in the clear, in words. */
export async function search(profile, secrets) {
  // Each tab has its own session storage. All tabs see the other storage.
  const tabs = profile.context.pages();
  if (tabs.length === 0) tabs.push(await profile.tab());
  const kept = (await Promise.all(tabs.map(tab => tab.evaluate(dump)))).flat();
  const records = kept
    .map(({ channel, text, base64 }) => ({
      channel,
      bytes: Buffer.from(base64 ?? text ?? "", base64 === undefined ? "utf8" : "base64"),
    }))
    .concat(profile.records);
  const needles = secrets.needles();
  const found = new Set();
  for (const { channel, bytes } of records) {
    for (const { name, form, needle } of needles) {
      if (bytes.includes(needle)) found.add(`${channel}: ${name} as ${form}`);
    }
  }
  return [...found];
}
