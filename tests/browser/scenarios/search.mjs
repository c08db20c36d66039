// The search for secrets finds them wherever they are. Otherwise it would prove nothing when it
// finds none.

import assert from "node:assert/strict";

import { scenario } from "../support/world.mjs";
import { Secrets, search } from "../support/secrets.mjs";

scenario("a secret that is written down or sent anywhere is found", async scene => {
  const page = await scene.open();
  const { id } = await page.create();
  const mine = new Secrets();
  mine.learn(await page.backUp(id));
  assert.ok(
    mine.known.some(({ name }) => /share/.test(name)),
    "the share is among what is searched for",
  );
  await scene.learnKeys(page, id);
  const primes = scene.secrets.known.filter(({ name }) => /Paillier/.test(name));
  assert.deepEqual(
    primes.map(({ bytes }) => bytes.length),
    [128, 128],
    "and so are the primes",
  );
  const [profile] = scene.profiles;
  assert.deepEqual(await search(profile, mine), [], "nothing is there before");

  const [{ bytes }] = mine.known;
  const leaks = {
    "IndexedDB leak.records": secret =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open("leak", 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore("records");
        opening.onsuccess = () => {
          const transaction = opening.result.transaction("records", "readwrite");
          transaction
            .objectStore("records")
            .put({ deep: [{ share: new Uint8Array(secret) }] }, "x");
          transaction.oncomplete = () => {
            opening.result.close();
            resolve();
          };
          transaction.onerror = reject;
        };
      }),
    localStorage: secret =>
      localStorage.setItem("x", secret.map(byte => byte.toString(16).padStart(2, "0")).join("")),
    sessionStorage: secret =>
      sessionStorage.setItem("x", btoa(`ab${String.fromCharCode(...secret)}cd`)),
    console: secret => console.log("the share is", new Uint8Array(secret)),
    request: async secret => {
      const half = secret.slice(3, 28);
      await fetch("/healthz", { method: "POST", body: JSON.stringify({ half }) }).catch(() => {});
    },
    "websocket-sent": secret =>
      new Promise(resolve => {
        const socket = new WebSocket(`${location.origin.replace("http", "ws")}/v1/device`);
        socket.onopen = () => {
          socket.send(new Uint8Array([1, 2, 3, ...secret].reverse()));
          socket.onclose = resolve;
        };
        socket.onerror = resolve;
      }),
  };
  // It finds a prime as it finds a share.
  const leaky = await scene.open();
  await leaky.tab.evaluate(
    secret => localStorage.setItem("x", secret.join(",")),
    [...primes[0].bytes],
  );
  assert.match(
    (await search(scene.profiles.pop(), scene.secrets)).join(),
    /localStorage: a Paillier key's p/,
  );
  await leaky.tab.context().close();
  for (const [channel, leak] of Object.entries(leaks)) {
    // In a profile of its own, so that each place is found by itself.
    const tab = await scene.open();
    const other = scene.profiles.at(-1);
    await tab.tab.evaluate(leak, [...bytes]);
    const found = await search(other, mine);
    assert.ok(
      found.some(place => place.startsWith(channel)),
      `${channel} is searched: ${found.join("; ")}`,
    );
  }
});
