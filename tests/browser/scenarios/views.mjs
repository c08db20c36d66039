// Every view, in both themes, on a desktop and a phone: axe finds nothing serious, and the test
// saves a picture for people to look at.

import { PASSPHRASE } from "../support/page.mjs";
import { inspect } from "../support/accessibility.mjs";
import { scenario } from "../support/world.mjs";

const RECIPIENT = "0x00000000000000000000000000000000DeaDBeef";

scenario("every view is accessible", async scene => {
  const page = await scene.open();
  const look = name => inspect(page.tab, name);
  await page.state("view", "welcome", "data-view");
  await look("welcome");
  await page.go("#/create", "create");
  await look("create");
  await page.go("#/restore", "restore");
  await look("restore");
  await page.go("#/verify", "verify");
  await look("verify");
  await page.go("#/nowhere", "not-found");
  await look("not-found");

  await page.startCreation({ requesters: scene.stack.facts.requester });
  // Held while it waits for the service, so that it can be inspected.
  await page.state("create-step-paillier-key", "active");
  await scene.stack.pause("service");
  try {
    await page.state("create-step-preparing", "active");
    await look("create-progress");
  } finally {
    await scene.stack.resume("service");
  }
  await page.shown("create-secured");
  await look("create-secured");
  await page.saveDueBackup();
  await page.shown("create-done");
  await look("create-done");
  const { id, address } = await page.openCreated();
  await scene.learn(page, id);
  await scene.stack.fund(address, 2);

  await page.openWallet(id);
  await page.get("wallet-refresh").click();
  await page.state("wallet-balance", "known");
  await look("wallet");
  await page.get("wallet-receive").click();
  await page.shown("receive-dialog");
  await look("wallet-receive");
  await page.get("receive-close").click();
  await page.go(`#/wallet/${id}/settings`, "wallet-settings");
  await look("wallet-settings");
  await page.go("#/settings", "settings");
  await look("settings");
  await page.go(`#/wallet/${id}/message`, "message");
  await look("message");
  await page.go(`#/wallet/${id}/typed-data`, "typed-data");
  await look("typed-data");

  await page.reviewMessage(id, "Good morning");
  await look("message-review");
  await scene.stack.pause("service");
  try {
    await page.startSigning();
    await page.state("timeline-requested", "done");
    await look("signing");
  } finally {
    await scene.stack.resume("service");
  }
  await page.signed();
  await look("signed");

  await page.reviewTransfer(id, { to: RECIPIENT, amount: "0.5" });
  await look("send-review");
  await page.sign();
  await page.get("broadcast").click();
  await page.state("receipt", "success", "data-status");
  await look("send-receipt");

  await page.go("#/inbox", "inbox");
  await page.shown("inbox-empty");
  await look("inbox-empty");
  const job = await scene.stack.submit(id, ["message", "Pay the gardener"]);
  await page.state(`job-${job.id}`, "waiting");
  await page.get(`job-open-${job.id}`).click();
  await look("inbox-waiting");
  await page.get(`job-approve-${job.id}`).click();
  await page.state(`job-${job.id}`, "signed");
  await look("inbox-signed");

  await page.go("#/", "wallets");
  await look("wallets");
  await page.openWallet(id);
  await page.lock();
  await look("wallet-locked");
  await page.unlock(`not ${PASSPHRASE}`);
  await page.error();
  await look("wallet-wrong-passphrase");

  await scene.stack.kill("gateway");
  try {
    // The passphrase's error still shows.
    await page.get("offline-banner").waitFor();
    await look("offline");
  } finally {
    await scene.stack.start("gateway");
  }
  await page.online();
});
