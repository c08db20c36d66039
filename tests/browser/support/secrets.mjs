// Looks for secret bytes in the clear: in everything a profile keeps, and in everything that left
// it or was said in it.

import { createRequire } from 'node:module';
import { join } from 'node:path';

import { OTHER_PASSPHRASE } from './page.mjs';
import { setting } from './stack.mjs';

/** So many bytes in a row are no accident, and no secret of ours is shorter. */
const WINDOW_BYTES = 16;

/** The secrets of the wallets of a scenario. */
export class Secrets {
  /** `[{ name, bytes }]` */
  known = [];

  /** Opens a backup with the module under Node, and remembers what is secret in it. */
  learn(file, passphrase = OTHER_PASSPHRASE) {
    for (const { name, bytes } of opened('the backup', duet().secretsOfBackup(file, passphrase))) this.add(name, bytes);
  }

  /** Opens a wallet's record with the module under Node, and remembers the primes in it. */
  learnKeys(wallet, sealed, descriptor, passphrase) {
    const { DeviceWallet, KeyEncryptionKey, primesOfWallet } = duet();
    const key = opened('the wallet', KeyEncryptionKey.fromPassphrase(passphrase, descriptor));
    const device = opened('the wallet', DeviceWallet.open(new Uint8Array(sealed), key, wallet));
    for (const { name, bytes } of primesOfWallet(device)) this.add(name, bytes);
    for (const handle of [device, key]) handle.free();
  }

  add(name, bytes) {
    if (bytes.length < WINDOW_BYTES) throw new Error(`${name} is too short to be searched for`);
    this.known.push({ name, bytes: Buffer.from(bytes) });
  }

  /** Everything that must be found nowhere, with the secret it is a part of: `[{ name, form, needle }]`. */
  needles() {
    return this.known.flatMap(({ name, bytes }) =>
      [bytes, Buffer.from(bytes).reverse()].flatMap((order) =>
        windows(order).flatMap((window) => forms(window).map(([form, needle]) => ({ name, form, needle }))),
      ),
    );
  }
}

/** The module under Node, with the tests' exports. */
const duet = () => createRequire(import.meta.url)(join(setting('DUET_WASM_PACKAGE'), 'duet_frontend_wasm.js'));

function opened(what, result) {
  if (!result.ok) throw new Error(`${what} cannot be opened: ${JSON.stringify(result.error)}`);
  return result.value;
}

/** Pieces that together cover a key: whoever writes down half of it is found, too. Of a long number, a few. */
function windows(bytes) {
  const all = [];
  const step = Math.max(WINDOW_BYTES / 2, bytes.length / 4);
  for (let start = 0; start + WINDOW_BYTES <= bytes.length; start += step) {
    all.push(bytes.subarray(start, start + WINDOW_BYTES));
  }
  return all;
}

/** The ways in which programs write bytes. */
function forms(bytes) {
  const base64 = [0, 1, 2].map((shift) => {
    // What stands before decides how the same bytes look; what is at the edges depends on the
    // neighbours.
    const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString('base64');
    return text.slice(Math.ceil((shift * 4) / 3), Math.floor(((shift + bytes.length) * 8) / 6));
  });
  return [
    ['bytes', bytes],
    ['hexadecimal', Buffer.from(bytes.toString('hex'))],
    ['HEXADECIMAL', Buffer.from(bytes.toString('hex').toUpperCase())],
    ...base64.map((text) => ['base64', Buffer.from(text)]),
    ...base64.map((text) => ['base64url', Buffer.from(text.replaceAll('+', '-').replaceAll('/', '_'))]),
    ['numbers', Buffer.from([...bytes].join(','))],
    ['numbers, spaced', Buffer.from([...bytes].join(', '))],
    ['decimal', Buffer.from(BigInt(`0x${bytes.toString('hex')}`).toString())],
  ];
}

/** Everything that the origin keeps in the browser, byte by byte. Runs in the page. */
async function dump() {
  const kept = [];
  const bytes = (value) => {
    let text = '';
    for (const byte of value) text += String.fromCharCode(byte);
    return btoa(text);
  };
  // Objects keyed by number are how some libraries write byte arrays.
  const walk = async (channel, value) => {
    if (value === null || value === undefined) return;
    if (typeof value === 'string' || typeof value === 'number' || typeof value === 'bigint') {
      kept.push({ channel, text: String(value) });
    } else if (value instanceof ArrayBuffer) {
      kept.push({ channel, base64: bytes(new Uint8Array(value)) });
    } else if (ArrayBuffer.isView(value)) {
      kept.push({ channel, base64: bytes(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) });
    } else if (value instanceof Blob) {
      await walk(channel, await value.arrayBuffer());
    } else if (value instanceof CryptoKey) {
      if (value.extractable) kept.push({ channel, text: JSON.stringify(await crypto.subtle.exportKey('jwk', value)) });
    } else if (value instanceof Map || value instanceof Set) {
      for (const entry of value) await walk(channel, entry);
    } else if (typeof value === 'object') {
      kept.push({ channel, text: JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? String(inner) : inner)) });
      for (const [name, inner] of Object.entries(value)) await walk(`${channel}.${name}`, inner);
    }
  };
  const done = (request) =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  for (const { name } of await indexedDB.databases()) {
    const database = await done(indexedDB.open(name));
    for (const store of database.objectStoreNames) {
      const [keys, values] = await Promise.all(
        ['getAllKeys', 'getAll'].map((method) => done(database.transaction(store).objectStore(store)[method]())),
      );
      for (const [index, value] of values.entries()) {
        await walk(`IndexedDB ${name}.${store}`, keys[index]);
        await walk(`IndexedDB ${name}.${store}`, value);
      }
    }
    database.close();
  }
  for (const [channel, storage] of [['localStorage', localStorage], ['sessionStorage', sessionStorage]]) {
    for (const [key, value] of Object.entries(storage)) kept.push({ channel, text: `${key}=${value}` });
  }
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) await walk('Cache', await (await cache.match(request)).arrayBuffer());
  }
  kept.push({ channel: 'cookies', text: document.cookie });
  kept.push({ channel: 'history', text: JSON.stringify(history.state) });
  return kept;
}

/** Every place in a profile where a secret stands in the clear, in words. */
export async function search(profile, secrets) {
  // Every tab has a session storage of its own; what else there is, each of them sees.
  const tabs = profile.context.pages();
  if (tabs.length === 0) tabs.push(await profile.tab());
  const kept = (await Promise.all(tabs.map((tab) => tab.evaluate(dump)))).flat();
  const records = kept
    .map(({ channel, text, base64 }) => ({ channel, bytes: Buffer.from(base64 ?? text ?? '', base64 === undefined ? 'utf8' : 'base64') }))
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
