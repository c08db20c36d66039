// A wallet is created, with both kinds of third share, and signs for the first time.

import assert from "node:assert/strict";

import { judge } from "../support/judges.mjs";
import { Page } from "../support/page.mjs";
import { scenario } from "../support/world.mjs";

const RECIPIENT = "0x00000000000000000000000000000000DeaDBeef";

scenario("a new wallet sends ether and sees the receipt", async scene => {
  const { page, id, address } = await scene.wallet();
  assert.match(address, /^0x[0-9a-fA-F]{40}$/);
  assert.notEqual(address, address.toLowerCase(), "the address carries its checksum");

  await scene.stack.fund(address, 3);
  await page.get("wallet-refresh").click();
  await page.state("wallet-balance", String(3n * 10n ** 18n), "data-wei");

  const before = await scene.stack.balance(RECIPIENT);
  await page.reviewTransfer(id, { to: RECIPIENT, amount: "1.25" });
  assert.match(
    await page.get("review").innerText(),
    /1[.,]25/,
    "what is sent is shown before it is signed",
  );
  const digest = await page.get("review").getAttribute("data-digest");
  await page.sign();
  const raw = await page.text("signed-transaction");
  await judge({
    kind: "transaction",
    address,
    digest,
    signed_transaction: raw,
    expect: {
      chainId: scene.stack.facts.chainId,
      to: RECIPIENT,
      value: String(125n * 10n ** 16n),
      nonce: 0,
    },
  });

  await page.get("broadcast").click();
  await page.state("receipt", "success", "data-status");
  assert.equal(await page.state("broadcast-state", "confirmed"), "confirmed");
  assert.equal((await scene.stack.balance(RECIPIENT)) - before, 125n * 10n ** 16n);
});

scenario("a wallet whose third share is a backup file signs with the service", async scene => {
  const page = await scene.open();
  const wallet = await page.create({ third: "backup-file" });
  assert.ok(wallet.file, "there is a file to save");
  scene.secrets.learn(wallet.file);
  await scene.learn(page, wallet.id);
  const signature = await page.signMessage(wallet.id, "Two of three, one of them on paper");
  await judge({
    kind: "personal_message",
    address: wallet.address,
    signature,
    text: "Two of three, one of them on paper",
  });
});

scenario("a wallet is not made while the service is down, and is once it is back", async scene => {
  const page = await scene.open();
  await scene.stack.kill("service");
  try {
    await page.startCreation();
    await page.state("error", "party-unreachable", "data-kind");
    assert.equal(await page.get("error").first().getAttribute("data-by"), "service");
    assert.equal(await page.get("create-secured").count(), 0, "no wallet is made");
  } finally {
    await scene.stack.start("service");
  }
  await page.reload();
  await page.online();
  const { id, address } = await page.create();
  await scene.learn(page, id);
  const signature = await page.signMessage(id, "Back again");
  await judge({ kind: "personal_message", address, signature, text: "Back again" });
});

scenario("a slow browser offers the partner, as a fast one does", async scene => {
  const profile = await scene.profile();
  // The gateway's answer comes after the form was drawn, and before the browser runs its effects.
  await profile.context.addInitScript(() => {
    const { setTimeout } = globalThis;
    globalThis.requestAnimationFrame = then => setTimeout(() => then(performance.now()), 1500);
    globalThis.setTimeout = (then, delay = 0, ...more) =>
      setTimeout(then, Math.max(delay, 1500), ...more);
  });
  let answer;
  const drawn = new Promise(resolve => (answer = resolve));
  await profile.context.route("**/v1/info", async route => {
    await drawn;
    await route.continue();
  });
  const page = new Page(await profile.tab("#/create"));
  await page.get("create-label").waitFor();
  assert.equal(await page.get("create-recipients-service").count(), 0, "no answer came yet");
  answer();
  await page.get("create-recipients-service").waitFor();
  assert.equal(await page.get("create-third-partner").isChecked(), true);
  await page.get("create-recipients-partner").waitFor();
});
