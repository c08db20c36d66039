// Runs axe on a view, and saves a picture of it for people to look at.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { RESULTS } from "./profile.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const SIZES = { desktop: { width: 1280, height: 900 }, phone: { width: 360, height: 780 } };
const THEMES = ["light", "dark"];

/** The serious and critical findings of axe, in words. */
export async function findings(page) {
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(AXE);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(globalThis.document, {
      resultTypes: ["violations"],
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }),
  );
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(
      ({ id, help, nodes }) =>
        `${id}: ${help}\n${nodes.map(({ html, failureSummary }) => `  ${html}\n  ${failureSummary}`).join("\n")}`,
    );
}

/**
 * Checks a view as it stands. Saves a picture in both themes on a desktop and a phone, runs axe on
 * each, and checks that nothing requires sideways scrolling.
 */
export async function inspect(page, name) {
  const folder = join(RESULTS, "screenshots");
  mkdirSync(folder, { recursive: true });
  const before = page.viewportSize();
  const problems = [];
  for (const [size, viewport] of Object.entries(SIZES)) {
    await page.setViewportSize(viewport);
    for (const theme of THEMES) {
      await page.emulateMedia({ colorScheme: theme, reducedMotion: "reduce" });
      await page.waitForFunction(
        wanted => globalThis.document.documentElement.dataset.theme === wanted,
        theme,
      );
      await page.screenshot({
        path: join(folder, `${name}-${size}-${theme}.png`),
        fullPage: true,
        animations: "disabled",
      });
      const found = await findings(page);
      problems.push(...found.map(finding => `${name}, ${size}, ${theme}: ${finding}`));
    }
    const { content, window: visible } = await page.evaluate(() => ({
      content: globalThis.document.documentElement.scrollWidth,
      window: globalThis.document.documentElement.clientWidth,
    }));
    if (content > visible)
      problems.push(`${name}, ${size}: ${content} pixels wide in a window of ${visible}`);
  }
  await page.emulateMedia({ colorScheme: null, reducedMotion: null });
  await page.setViewportSize(before);
  assert.deepEqual(problems, []);
}
