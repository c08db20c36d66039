// Several tabs, old and new.

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { judge } from "../support/judges.mjs";
import { setting } from "../support/stack.mjs";
import { scenario } from "../support/world.mjs";

scenario("two tabs sign with one wallet at once", async scene => {
  const { page: first, id, address } = await scene.borrow();
  const second = await scene.open(scene.profiles[0], `#/wallet/${id}`);
  await second.unlock();
  await second.walletState("unlocked");
  await first.reviewMessage(id, "From the first tab");
  await second.reviewMessage(id, "From the second tab");
  await Promise.all([first.startSigning(), second.startSigning()]);
  const outcomes = await Promise.all(
    [first, second].map(tab => tab.state("signing", ["signed", "failed"])),
  );
  assert.ok(outcomes.includes("signed"), "one of them signs");
  for (const [index, tab] of [first, second].entries()) {
    if (outcomes[index] === "failed") assert.equal(await tab.error(), "busy-elsewhere");
    const text = `Afterwards, from tab ${index + 1}`;
    await judge({
      kind: "personal_message",
      address,
      signature: await tab.signMessage(id, text),
      text,
    });
  }
  // Locking a wallet in one tab locks it there. The other tab continues.
  await first.openWallet(id);
  await first.lock();
  await judge({
    kind: "personal_message",
    address,
    signature: await second.signMessage(id, "Alone"),
    text: "Alone",
  });
});

/** The same page as another build. */
function anotherBuild() {
  const folder = mkdtempSync(join(tmpdir(), "duet-page-"));
  cpSync(setting("DUET_PAGE"), folder, { recursive: true });
  const old = JSON.parse(readFileSync(join(folder, "build.json"), "utf8")).build;
  const build = [...old].reverse().join("");
  writeFileSync(join(folder, "build.json"), JSON.stringify({ build }));
  const index = join(folder, "index.html");
  writeFileSync(index, readFileSync(index, "utf8").replaceAll(old, build));
  for (const file of ["index.html", "build.json"]) {
    for (const suffix of [".br", ".gz"]) rmSync(join(folder, file + suffix), { force: true });
  }
  return { folder, build };
}

scenario(
  "a tab that is older than the page says so, offers a reload, and signs after it",
  async scene => {
    const { page, id, address } = await scene.borrow();
    const { folder, build } = anotherBuild();
    try {
      await scene.stack.serve(folder);
      await page.state("connection", "stale-page");
      await page.shown("stale-banner");
      await page.get("stale-reload").click();
      await page.state("app", build, "data-build");
      await page.ready();
      await page.online();
      await page.openWallet(id);
      await page.unlock();
      await page.walletState("unlocked");
      await judge({
        kind: "personal_message",
        address,
        signature: await page.signMessage(id, "Fresh"),
        text: "Fresh",
      });
    } finally {
      await scene.stack.serve(setting("DUET_PAGE"));
      rmSync(folder, { recursive: true });
    }
  },
);
