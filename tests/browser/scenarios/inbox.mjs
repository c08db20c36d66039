// A team queues jobs that wait for the owner.

import assert from "node:assert/strict";

import { judge } from "../support/judges.mjs";
import { scenario } from "../support/world.mjs";

scenario("the owner approves one job and rejects another, and the team sees both", async scene => {
  const { page, id, address } = await scene.borrow({ requesters: scene.stack.facts.requester });
  await page.go("#/inbox", "inbox");
  await page.shown("inbox-empty");

  const approved = await scene.stack.submit(id, ["message", "Pay the gardener"]);
  // The job appears without a reload.
  await page.state(`job-${approved.id}`, "waiting");
  assert.equal((await page.get("inbox-count").innerText()).trim(), "1");
  assert.match(
    await page.get(`job-${approved.id}`).innerText(),
    /Pay the gardener/,
    "what would be signed is spelled out",
  );
  const rejected = await scene.stack.submit(id, ["message", "Pay the burglar"]);
  await page.state(`job-${rejected.id}`, "waiting");

  await page.get(`job-approve-${approved.id}`).click();
  await page.state(`job-${approved.id}`, "signed");
  await page.get(`job-reject-${rejected.id}`).click();
  await page.get("job-reject-confirm").click();
  await page.state(`job-${rejected.id}`, "rejected");

  const job = await scene.stack.settled(approved.id);
  assert.equal(job.state, "signed");
  await judge({
    kind: "personal_message",
    address,
    signature: job.signature,
    text: "Pay the gardener",
  });
  assert.match(JSON.stringify(await scene.stack.settled(rejected.id)), /"rejected-by-owner"/);

  // A third job, found after a reload.
  const third = await scene.stack.submit(id, ["message", "Pay the plumber"]);
  await page.state(`job-${third.id}`, "waiting");
  await page.reload();
  await page.online();
  // Jobs answered in this tab can still be looked at.
  await page.state(`job-${approved.id}`, "signed");
  await page.state(`job-${rejected.id}`, "rejected");
  await page.shown(`inbox-locked-${id}`);
  await page.unlock();
  await page.state(`job-${third.id}`, "waiting");
  await page.get(`job-approve-${third.id}`).click();
  await page.state(`job-${third.id}`, "signed");
  const signature = (await scene.stack.settled(third.id)).signature;
  await judge({ kind: "personal_message", address, signature, text: "Pay the plumber" });
});

/** Has this browser remember that it signed something else for a job. */
function remember(page, job) {
  return page.tab.evaluate(async job => {
    const done = request =>
      new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const database = await done(indexedDB.open("duet"));
    const row = { job, signs: "00".repeat(32), signedAt: 0, expiresAt: Date.now() };
    await done(database.transaction("jobs", "readwrite").objectStore("jobs").put(row));
    database.close();
  }, job);
}

scenario("a job that this browser signed for another payload is not signed", async scene => {
  const { page, id } = await scene.borrow({ requesters: scene.stack.facts.requester });
  await page.go("#/inbox", "inbox");
  const honest = await scene.stack.submit(id, ["message", "Pay Alice"]);
  await page.state(`job-${honest.id}`, "waiting");
  await page.get(`job-approve-${honest.id}`).click();
  await page.state(`job-${honest.id}`, "signed");
  const [kept] = await page.stored("jobs");
  assert.equal(kept.job, honest.id);
  assert.match(kept.signs, /^[0-9a-f]{64}$/);
  assert.ok(kept.expiresAt > Date.now());

  // The queue gives the job to the owner as if it were new, with another payload.
  const second = await scene.stack.submit(id, ["message", "Pay Mallory"]);
  await page.state(`job-${second.id}`, "waiting");
  await remember(page, second.id);
  await page.get(`job-approve-${second.id}`).click();
  assert.equal(await page.state(`job-${second.id}`, ["failed", "signed"]), "failed");
  const job = await scene.stack.settled(second.id);
  assert.equal(job.state, "failed");
  assert.match(JSON.stringify(job), /"conflict".*at 1970-01-01/);
  const rows = await page.stored("jobs");
  assert.equal(rows.find(row => row.job === second.id).signs, "00".repeat(32));
});
