// Measures the page's speed in Chromium, with the whole stack on this machine: `cargo xtask bench
// browser`.
//
// Prints one flat JSON object. The page's own clock takes each time, from the click to its effect
// in the document. The time to tell the browser to click is not included.

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";

import { PASSPHRASE, Page } from "./support/page.mjs";
import { Profile, launch } from "./support/profile.mjs";
import { Stack, setting } from "./support/stack.mjs";

const KEYGENS = 12;
const UNLOCKS = 20;
const SIGNATURES = 60;
const LOADS = 20;
/** Runs before counting begins: they open connections and compile code. */
const WARM_UP = 3;

const rounded = milliseconds => Math.round(milliseconds * 1e3) / 1e3;

function figure(times) {
  const sorted = times.toSorted((one, other) => one - other);
  const middle = sorted.length / 2;
  const median = (sorted[Math.ceil(middle) - 1] + sorted[Math.floor(middle)]) / 2;
  return {
    median_ms: rounded(median),
    min_ms: rounded(sorted[0]),
    max_ms: rounded(sorted.at(-1)),
    n: sorted.length,
  };
}

/**
 * Clicks in the page, and waits there until the selector matches. Returns the milliseconds between
 * the two.
 */
function clicked(page, id, selector) {
  return page.tab.evaluate(
    ([button, wanted]) =>
      new Promise((resolve, reject) => {
        const start = performance.now();
        const observer = new MutationObserver(() => {
          if (document.querySelector('[data-testid="error"]'))
            reject(new Error(document.querySelector('[data-testid="error"]').innerText));
          else if (document.querySelector(wanted)) resolve(performance.now() - start);
          else return;
          observer.disconnect();
        });
        observer.observe(document, { subtree: true, childList: true, attributes: true });
        document.querySelector(`[data-testid="${button}"]`).click();
      }),
    [id, selector],
  );
}

const stack = await Stack.start();
const browser = await launch();
const open = async profile => {
  const page = new Page(await profile.tab());
  await page.ready();
  await page.online();
  return page;
};

/** Runs once everything that a user waits for during a creation. */
async function keygen(page) {
  await page.fillCreation();
  const time = await clicked(page, "create-submit", '[data-testid="create-secured"]');
  return { time, ...(await page.finishCreation()) };
}

async function unlock(page, id) {
  await page.openWallet(id);
  await page.lock();
  await page.get("unlock-passphrase").fill(PASSPHRASE);
  const time = await clicked(
    page,
    "unlock-submit",
    '[data-testid="wallet"][data-state="unlocked"]',
  );
  return time;
}

async function signature(page, id, number) {
  await page.reviewMessage(id, `measured ${number}`);
  return clicked(page, "review-sign", '[data-testid="signature-verified"][data-valid="true"]');
}

/** The longest task on the page's main thread while `work` runs. */
async function longestTask(page, work) {
  await browser.startTracing(page.tab, {
    categories: ["toplevel", "disabled-by-default-devtools.timeline", "__metadata"],
  });
  await work();
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const mains = new Set(
    traceEvents
      .filter(({ name, args }) => name === "thread_name" && args?.name === "CrRendererMain")
      .map(({ pid, tid }) => `${pid}.${tid}`),
  );
  const tasks = traceEvents.filter(
    ({ name, ph, pid, tid }) => ph === "X" && /RunTask$/.test(name) && mains.has(`${pid}.${tid}`),
  );
  if (tasks.length === 0) throw new Error("the trace holds no tasks of the main thread");
  return Math.max(...tasks.map(({ dur }) => dur ?? 0)) / 1e3;
}

const figures = {};
try {
  const loads = [];
  for (let run = 0; run < LOADS; run += 1) {
    const profile = await Profile.open(browser, stack.url);
    await profile.context.addInitScript(() => {
      new MutationObserver((_, observer) => {
        if (!document.querySelector('[data-testid="app"][data-ready="true"]')) return;
        globalThis.interactive = performance.now();
        observer.disconnect();
      }).observe(document, { subtree: true, childList: true, attributes: true });
    });
    const tab = await profile.tab();
    await tab.waitForFunction(() => globalThis.interactive !== undefined);
    loads.push(await tab.evaluate(() => globalThis.interactive));
    await profile.close();
  }
  figures["browser.interactive"] = figure(loads);

  const keygens = [];
  for (let run = 0; run < KEYGENS; run += 1) {
    const profile = await Profile.open(browser, stack.url);
    keygens.push((await keygen(await open(profile))).time);
    await profile.close();
  }
  figures["browser.keygen"] = figure(keygens);

  const profile = await Profile.open(browser, stack.url);
  const page = await open(profile);
  const { id } = await keygen(page);
  const unlocks = [];
  for (let run = 0; run < UNLOCKS; run += 1) unlocks.push(await unlock(page, id));
  figures["browser.unlock"] = figure(unlocks);

  const signatures = [];
  for (let run = 0; run < WARM_UP + SIGNATURES; run += 1) {
    const time = await signature(page, id, run);
    if (run >= WARM_UP) signatures.push(time);
  }
  figures["browser.sign"] = figure(signatures);

  const longest = [
    await longestTask(page, () => keygen(page)),
    await longestTask(page, () => unlock(page, id)),
    await longestTask(page, async () => {
      for (let run = 0; run < 10; run += 1) await signature(page, id, `traced ${run}`);
    }),
  ];
  const max = rounded(Math.max(...longest));
  figures["browser.longtask.max"] = {
    median_ms: max,
    min_ms: rounded(Math.min(...longest)),
    n: longest.length,
  };

  const folder = setting("DUET_PAGE");
  const module = readdirSync(folder, { recursive: true }).find(name => name.endsWith(".wasm.br"));
  if (module === undefined) throw new Error(`${folder} holds no compressed module`);
  figures["browser.wasm.compressed_bytes"] = { bytes: statSync(join(folder, module)).size };
  await profile.close();
} finally {
  await browser.close();
  await stack.stop();
}
console.log(JSON.stringify(figures));
