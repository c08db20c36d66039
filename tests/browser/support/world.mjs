// What all scenarios share: one stack and one browser. Each scenario has its own profiles. At its
// end, they and their messages are searched for secrets.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { PASSPHRASE, Page } from "./page.mjs";
import { Profile, RESULTS, launch } from "./profile.mjs";
import { Secrets, search } from "./secrets.mjs";
import { serveSite } from "./site.mjs";
import { Stack } from "./stack.mjs";

/** A scenario that hangs is stopped after this time. */
const DEADLINE_MS = 480_000;

const EXAMPLES = ["viem", "ethers", "eip1193"];

let site;
let stack;
let browser;

/**
 * What a browser stored when it had made a wallet, with the wallet and its secrets, by the options
 * of the creation. Scenarios that need a wallet and do not test how it is made borrow it.
 */
const kept = new Map();

before(async () => {
  const folder = name =>
    fileURLToPath(new URL(`../../../frontend-wasm/examples/${name}/dist`, import.meta.url));
  site = await serveSite(Object.fromEntries(EXAMPLES.map(name => [name, folder(name)])));
  [stack, browser] = await Promise.all([Stack.start(), launch()]);
});

after(async () => {
  await browser?.close();
  await stack?.stop();
  await site?.close();
});

/** The tools of a scenario. */
class Scene {
  stack = stack;
  browser = browser;
  /** The URL of the examples: `<site>/viem/`. */
  site = site.origin;
  /** The folders that the site serves, by name. A scenario may add some. */
  folders = site.folders;
  secrets = new Secrets();
  profiles = [];
  /** Functions to call after the profiles were searched and closed, last first. */
  endings = [];

  /** A fresh profile. */
  async profile(origin = stack.url, of = browser, options = {}) {
    const profile = await Profile.open(of, origin, options);
    this.profiles.push(profile);
    return profile;
  }

  /** A tab with the page, ready and connected. It uses a fresh profile unless one is given. */
  async open(profile, route) {
    const page = new Page(await (profile ?? (await this.profile())).tab(route));
    await page.ready();
    await page.online();
    return page;
  }

  /** A tab with a new wallet. Its secrets are known from its backup. */
  async wallet(options) {
    const page = await this.open();
    const wallet = await page.create(options);
    await this.learn(page, wallet.id);
    await page.openWallet(wallet.id);
    return { page, ...wallet };
  }

  /**
   * A tab with a wallet that was made once for all scenarios with these options, unlocked. The
   * profile is fresh, and stores what the browser stored when it had made the wallet. The parties
   * remember what they signed before. A scenario that locks the wallet's key or replaces it makes
   * a wallet of its own.
   */
  async borrow(options = {}) {
    const name = JSON.stringify(options);
    if (!kept.has(name)) {
      const { page, ...made } = await this.wallet(options);
      const storageState = await page.tab.context().storageState({ indexedDB: true });
      kept.set(name, { made, storageState, secrets: [...this.secrets.known] });
      return { page, ...made };
    }
    const { made, storageState, secrets } = kept.get(name);
    this.secrets.known.push(...secrets);
    const page = await this.open(await this.profile(undefined, undefined, { storageState }));
    await page.openWallet(made.id);
    await page.unlock();
    await page.walletState("unlocked");
    return { page, ...made };
  }

  /**
   * Remembers bytes that must not occur in the clear, from the backup, which is opened outside the
   * browser.
   */
  async learn(page, wallet, passphrase) {
    this.secrets.learn(await page.backUp(wallet, passphrase), passphrase);
    await this.learnKeys(page, wallet);
  }

  /**
   * Remembers the primes of a wallet's Paillier keys, from its sealed record. A record sealed by a
   * passkey stays sealed.
   */
  async learnKeys(page, wallet, passphrase = PASSPHRASE) {
    const [rows, records] = [await page.stored("wallets"), await page.stored("records")];
    const { protection } = rows.find(({ id }) => id === wallet);
    const { sealed } = records.find(record => record.wallet === wallet && record.kind === "device");
    if (protection.kind === "passphrase")
      this.secrets.learnKeys(wallet, sealed, protection.descriptor, passphrase);
  }
}

/**
 * Runs a scenario, and once more if it fails, as nextest does with the tests in Rust. The task
 * `test` counts those that passed only then.
 */
export function scenario(name, play) {
  test(name, { timeout: DEADLINE_MS }, async context => {
    try {
      await once(name, play);
    } catch (error) {
      context.diagnostic(error.stack);
      await once(name, play);
      context.diagnostic("flaky 1");
    }
  });
}

/** Afterwards no secret may occur in the clear, and no error may be uncaught. */
async function once(name, play) {
  const scene = new Scene();
  try {
    await play(scene);
    for (const profile of scene.profiles) {
      assert.deepEqual(profile.uncaught, [], "no error goes uncaught");
      assert.deepEqual(
        await search(profile, scene.secrets),
        [],
        "no secret is anywhere in the clear",
      );
    }
  } catch (error) {
    await picture(scene, name);
    throw error;
  } finally {
    await Promise.all(scene.profiles.map(profile => profile.close()));
    for (const end of scene.endings.reverse()) await end();
  }
}

/** Saves what the tabs showed when a scenario failed. */
async function picture(scene, name) {
  const folder = join(RESULTS, "failures");
  mkdirSync(folder, { recursive: true });
  const tabs = scene.profiles.flatMap(profile => profile.context.pages());
  for (const [number, tab] of tabs.entries()) {
    const path = join(folder, `${name.replaceAll(/[^a-z0-9]+/gi, "-")}-${number + 1}.png`);
    await tab.screenshot({ path, fullPage: true }).catch(() => {});
  }
}
