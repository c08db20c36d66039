// A gateway under an attacker's control names its own parties, shows its own cards and changes
// receipts. The page seals nothing to parties other than those that its configuration pins.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createHash, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { createServer } from "node:tls";

import { Bundle } from "../support/bundle.mjs";
import { judge } from "../support/judges.mjs";
import { Page } from "../support/page.mjs";
import { launch } from "../support/profile.mjs";
import { serveSite } from "../support/site.mjs";
import { scenario } from "../support/world.mjs";

/** Host names that only this suite's browser resolves, as if they were other machines. */
const WALLET_HOST = "wallet.duet.test";
const GATEWAY_HOST = "gateway.duet.test";

/** The parties with their tokens, so that a page needs no other setting. */
const configured = ({ facts }) =>
  facts.parties.map((party, at) => ({ ...party, token: facts.tokens[at] }));

/** Opens a page of the developers' site with this configuration. */
async function pinned(scene, config) {
  const bundle = new Bundle(config);
  scene.endings.push(() => bundle.remove());
  scene.folders.pinned = bundle.folder;
  const page = new Page(await (await scene.profile(`${scene.site}/pinned`)).tab());
  await page.ready();
  await page.online();
  return { page, bundle };
}

/** Checks that the browser has nothing of a wallet, and that the attacker received nothing. */
async function nothingDealt(scene, page) {
  assert.deepEqual(await page.stored("wallets"), [], "nothing is stored");
  assert.deepEqual(await page.stored("recipients"), [], "no party is pinned");
  assert.deepEqual(
    await scene.stack.taken(),
    { packages: 0, key: false },
    "nothing is sealed to the attacker",
  );
}

async function refused(page, by, code) {
  assert.equal(await page.error(), "refused");
  const error = page.get("error").first();
  assert.equal(await error.getAttribute("data-by"), by);
  assert.equal(await error.getAttribute("data-code"), code);
  assert.equal(await page.get("create-secured").count(), 0, "the wallet is not made");
  assert.equal(await page.get("create-done").count(), 0, "no address is shown");
}

scenario("a gateway that lies about parties and cards gets no share", async scene => {
  const gateway = await scene.stack.lie("fingerprints");
  const { page } = await pinned(scene, { gateway, parties: configured(scene.stack) });
  for (const [lie, by] of [
    ["fingerprints", "gateway"],
    ["names", "gateway"],
    ["cards", "service"],
  ]) {
    await scene.stack.lie(lie);
    await page.reload();
    await page.online();
    await page.startCreation();
    await refused(page, by, "card-mismatch");
    await nothingDealt(scene, page);
  }
  // The page shows the configuration's fingerprints for comparison, whatever the gateway reports.
  await scene.stack.lie("names");
  await page.reload();
  await page.online();
  await page.go("#/create", "create");
  for (const { role, name, fingerprint } of scene.stack.facts.parties) {
    const shown = page.get(`create-recipients-${role}`);
    await shown.waitFor();
    assert.equal(await shown.getAttribute("data-party"), name);
    assert.equal((await shown.innerText()).replace(/\s/g, "").endsWith(fingerprint), true);
  }
  await scene.stack.lie("nothing");
  const { id, address } = await page.create();
  await scene.learn(page, id);
  const signature = await page.signMessage(id, "To the right ones");
  await judge({ kind: "personal_message", address, signature, text: "To the right ones" });
});

scenario(
  "a gateway that lies about receipts leaves the wallet pending, and the party is named",
  async scene => {
    const gateway = await scene.stack.lie("receipts");
    const { page, bundle } = await pinned(scene, { gateway, parties: configured(scene.stack) });
    await page.startCreation();
    await refused(page, "service", "peer-misbehaved");
    await page.go("#/", "wallets");
    const [{ id }] = await page.stored("wallets");
    await page.state(`wallet-card-${id}`, "pending");
    assert.equal(
      await page.get(`wallet-card-${id}`).getAttribute("data-address"),
      "",
      "no address is shown",
    );

    await scene.stack.lie("acknowledgements");
    await page.get(`pending-resume-${id}`).click();
    await page.unlock();
    await refused(page, "service", "peer-misbehaved");
    assert.deepEqual(
      (await page.stored("wallets")).map(({ status }) => status),
      ["pending"],
    );

    // A page that pins other parties than the creation began with does not continue it.
    const others = configured(scene.stack).map(party => ({
      ...party,
      fingerprint: "5a".repeat(32),
    }));
    bundle.configure({ gateway, parties: others });
    await scene.stack.lie("nothing");
    await page.reload();
    await page.online();
    await page.get(`pending-resume-${id}`).click();
    await page.unlock();
    await refused(page, "service", "card-mismatch");

    bundle.configure({ gateway, parties: configured(scene.stack) });
    await page.reload();
    await page.online();
    await page.get(`pending-resume-${id}`).click();
    await page.unlock();
    const finished = await page.finishCreation();
    assert.equal(finished.id, id);
    await scene.learn(page, id);
  },
);

/**
 * Launches a browser that resolves this suite's hosts to this machine, and accepts the stack's
 * certificate for them.
 */
async function launchElsewhere(scene) {
  const { facts } = scene.stack;
  const certificate = new X509Certificate(readFileSync(facts.certificate));
  const key = createHash("sha256")
    .update(certificate.publicKey.export({ type: "spki", format: "der" }))
    .digest("base64");
  const browser = await launch([
    "--host-resolver-rules=MAP *.duet.test 127.0.0.1",
    `--ignore-certificate-errors-spki-list=${key}`,
  ]);
  scene.endings.push(() => browser.close());
  return browser;
}

/** Starts a web server for the page on its own origin, with the headers from deploy/README.md. */
async function serveElsewhere(scene) {
  const { certificate, key } = scene.stack.facts;
  const site = await serveSite({}, { host: WALLET_HOST, tls: { certificate, key } });
  scene.endings.push(() => site.close());
  return site;
}

function policy(gateway, rpc) {
  return [
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; img-src 'self' data: blob:;",
    `connect-src 'self' ${gateway} ${gateway.replace("https", "wss")} ${rpc}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  ].join(" ");
}

scenario(
  "a page without pinned parties deals to no party that a gateway elsewhere names",
  async scene => {
    const { facts } = scene.stack;
    const site = await serveElsewhere(scene);
    const browser = await launchElsewhere(scene);
    const liar = new URL(await scene.stack.lie("fingerprints"));
    const tunnel = createServer(
      { cert: readFileSync(facts.certificate), key: readFileSync(facts.key) },
      socket => {
        const onward = connect(Number(liar.port), liar.hostname);
        for (const end of [socket, onward])
          end.on("error", () => {
            socket.destroy();
            onward.destroy();
          });
        socket.pipe(onward).pipe(socket);
      },
    ).listen(0, "127.0.0.1");
    scene.endings.push(() => tunnel.close());
    await once(tunnel, "listening");
    const gateway = `https://${GATEWAY_HOST}:${tunnel.address().port}`;
    const bundle = new Bundle({ gateway });
    scene.endings.push(() => bundle.remove());
    site.folders.page = bundle.folder;
    const page = new Page(await (await scene.profile(`${site.origin}/page`, browser)).tab());
    await page.ready();
    await page.go("#/create", "create");
    await page.get("recipients-none").waitFor();
    await page.startCreation({ third: "backup-file" });
    assert.equal(await page.error(), "invalid");
    await nothingDealt(scene, page);
  },
);

scenario("a page on an origin of its own and a production gateway make wallets", async scene => {
  const { parties, tokens, rpc } = scene.stack.facts;
  const site = await serveElsewhere(scene);
  const browser = await launchElsewhere(scene);
  const { port } = new URL(await scene.stack.order("production", { origin: site.origin }));
  const gateway = `https://${GATEWAY_HOST}:${port}`;
  const bundle = new Bundle({}).publish({ gateway, parties });
  scene.endings.push(() => bundle.remove());
  site.folders.page = bundle.folder;
  site.headers["Content-Security-Policy"] = policy(gateway, rpc);
  const profile = await scene.profile(`${site.origin}/page`, browser);
  const page = new Page(await profile.tab());
  await page.ready();
  await page.online();
  // The gateway gives out no tokens. Here the owner enters them into the field.
  await page.fillCreation({ third: "backup-file" });
  await page.get("create-submit").click();
  await page.get("field-error-create-tokens").waitFor();
  await page.get("create-tokens").fill(tokens[1]);
  await page.get("create-submit").click();
  assert.equal(await page.error(), "invalid", "a token of another party is none of this one");
  await page.get("error-dismiss").click();
  await page.get("create-tokens").fill(`${tokens[0]}\n`);
  await page.get("create-submit").click();
  const first = await page.finishCreation();
  scene.secrets.learn(first.file);
  await scene.learn(page, first.id);

  // Here they come by a link, which leaves nothing in the address bar.
  const tab = await profile.tab(`#token=${tokens.join(",")}`);
  const linked = new Page(tab);
  await linked.ready();
  await linked.state("view", "create", "data-view");
  assert.equal(await linked.get("create-tokens").inputValue(), tokens.join("\n"));
  assert.equal(new URL(tab.url()).hash, "#/create");
  await linked.online();
  for (const { role, name, fingerprint } of parties) {
    const shown = linked.get(`create-recipients-${role}`);
    await shown.waitFor();
    assert.equal(await shown.getAttribute("data-source"), "configuration");
    assert.equal(await shown.getAttribute("data-party"), name);
    assert.equal(await shown.getAttribute("data-fingerprint"), fingerprint);
    assert.equal(await shown.getAttribute("data-seen"), role === "service" ? "this" : "never");
  }
  await linked.fillCreation({ label: "By a link" });
  await linked.get("create-submit").click();
  const { id, address } = await linked.finishCreation();
  await scene.learn(linked, id);
  const signature = await linked.signMessage(id, "In production");
  await judge({ kind: "personal_message", address, signature, text: "In production" });
});

scenario("a browser of version 1 keeps what it pinned, by role", async scene => {
  const profile = await scene.profile();
  const tab = await profile.context.newPage();
  await tab.goto(`${profile.origin}/build.json`);
  const [service, partner, other] = ["1", "2", "3"].map(digit => digit.repeat(64));
  const wallet = {
    id: "4".repeat(64),
    label: "Old",
    createdAt: 1,
    status: "ready",
    tenant: "demo",
    address: "0x00000000000000000000000000000000DeaDBeef",
    publicKey: "0x02",
    paillierKey: "",
    protection: { kind: "passphrase", descriptor: "{}" },
    restored: false,
    exportedAt: null,
    attempts: { failed: 0, nextAt: 0 },
    parties: [
      { share: 1, role: "device", party: "device" },
      { share: 2, role: "service", party: "first", fingerprint: service },
      { share: 3, role: "partner", party: "second", fingerprint: partner },
    ],
  };
  const pins = [
    { party: "first", fingerprint: service },
    { party: "second", fingerprint: partner },
    { party: "third", fingerprint: other },
  ];
  await tab.evaluate(
    async ([row, rows]) => {
      const request = indexedDB.open("duet", 1);
      request.onupgradeneeded = () => {
        const database = request.result;
        database.createObjectStore("wallets", { keyPath: "id" });
        database.createObjectStore("records", { keyPath: ["wallet", "kind"] });
        database.createObjectStore("keys", { keyPath: "id" }).createIndex("wallet", "wallet");
        database.createObjectStore("cards", { keyPath: "fingerprint" });
        database.createObjectStore("pins", { keyPath: "party" });
      };
      await new Promise((resolve, reject) => {
        request.onsuccess = resolve;
        request.onerror = reject;
      });
      const transaction = request.result.transaction(["wallets", "pins"], "readwrite");
      transaction.objectStore("wallets").put(row);
      for (const pin of rows) transaction.objectStore("pins").put(pin);
      await new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onerror = reject;
      });
      request.result.close();
    },
    [wallet, pins],
  );
  await tab.close();

  const page = await scene.open(profile);
  await page.state(`wallet-card-${wallet.id}`, "locked");
  assert.deepEqual(await page.stored("recipients"), [
    { role: "partner", fingerprint: partner, party: "second" },
    { role: "service", fingerprint: service, party: "first" },
    { role: "unknown", fingerprint: other, party: "third" },
  ]);
  // This gateway for trials shows other cards than were pinned, so the page refuses.
  await page.startCreation();
  await refused(page, "service", "card-mismatch");
  await page.go("#/create", "create");
  await page.get("recipients-changed").waitFor();
  assert.equal((await page.stored("wallets")).length, 1);
});
