/**
 * A new Paillier key for a wallet: ends a lock, and is due after a restore. It is stored before it
 * is first offered, and the old key goes on with a responder that has not taken the new one. An
 * interrupted rotation is simply repeated. A quarantined card is left out: its holder is offered no
 * key.
 */

import { fail } from "../errors.js";
import type { CreateProgress, WalletId, WalletSummary } from "../types.js";
import type { Context } from "./context.js";
import { fetchCard, readyKey, stopwatch } from "./create.js";
import { STRICT } from "./database.js";
import { quarantined, sortResponders } from "./culprits.js";
import { checkpoint } from "./deadline.js";
import type { DeviceWallet, SealKey } from "./engine.js";
import { finishPending } from "./gate.js";
import { Helpers } from "./helpers.js";
import type { Call } from "./rpc.js";

export async function rotate(
  context: Context,
  call: Call<"rotate">,
  id: WalletId,
): Promise<WalletSummary> {
  const tell = stopwatch(call.note as (progress: CreateProgress) => void);
  await context.wallets.use(id, ({ device, key }) =>
    context.tabs.exclusively(id, async () => {
      const helpers = new Helpers(call.signal);
      try {
        await replaceKey(context, helpers, device, key, tell, call.signal);
      } finally {
        helpers.stop();
      }
      tell({ step: "ready", wallet: id });
    }),
  );
  await context.wallets.changed();
  return context.wallets.summary(id);
}

async function replaceKey(
  context: Context,
  helpers: Helpers,
  device: DeviceWallet,
  key: SealKey,
  tell: ReturnType<typeof stopwatch>,
  signal: AbortSignal,
): Promise<void> {
  await finishPending(context.database, device.id, device, key);
  for (const id of device.paillierKeys) {
    // Another tab locked it while this one had it in memory.
    if ((await context.database.get("keys", id))?.state === "locked") device.forgetKey(id);
  }
  const {
    trusted,
    culprits: [culprit],
  } = await sortResponders(context.database, device);
  if (trusted.length === 0 && culprit) throw quarantined(culprit);
  const due = () =>
    device.unenrolled.filter(({ party }) => trusted.some(one => one.party === party));
  const interrupted = device.newestKey !== null && due().length > 0;
  const newest =
    interrupted && device.newestKey
      ? await context.database.get("keys", device.newestKey)
      : undefined;
  // One that was begun is brought to its end, unless its own key was locked meanwhile.
  if (newest?.state !== "ready") {
    device.beginRotation(
      await helpers.primes(candidates => tell({ step: "paillier-key", candidates })),
    );
    await store(context, device, key);
  }
  // What is made for the parties is made at the same time; they take it one after the other.
  const made = due().map(async ({ share, party }) => {
    tell({ step: "card", party });
    const { card, fingerprint } = await fetchCard(
      context,
      party,
      fingerprintOf(device, party),
      signal,
    );
    await helpers.verifyCard(card, fingerprint);
    tell({ step: "card-verified", party });
    const responder = context.engine.responder(card, fingerprint);
    try {
      tell({ step: "proofs", share, party });
      const proofs = await helpers.prove(device.proofTask(responder));
      return {
        share,
        party,
        card,
        fingerprint,
        offer: device.offer(responder, proofs, Date.now()),
      };
    } finally {
      responder.free();
    }
  });
  // Each is waited for below; until then a failure is no news.
  for (const one of made) one.catch(() => undefined);
  for (const one of made) {
    const { share, party, card, fingerprint, offer } = await one;
    checkpoint(signal);
    tell({ step: "enrolling", share, party });
    await context.line.enrol(device.id, party, offer, signal);
    await context.database.put("cards", { fingerprint, party, card });
    device.agree(party);
    await store(context, device, key);
    tell({ step: "enrolled", share, party });
  }
}

function fingerprintOf(device: DeviceWallet, party: string): string {
  const holder = device.parties.find(one => "fingerprint" in one && one.party === party);
  return holder && "fingerprint" in holder
    ? holder.fingerprint
    : fail("internal", `${party} holds no share of this wallet.`);
}

/** The wallet's record and its newest key, together. Rows of keys that are gone stay: a lock is never forgotten. */
async function store({ database }: Context, device: DeviceWallet, key: SealKey): Promise<void> {
  const { id, newestKey } = device;
  const sealed = device.seal(key);
  const transaction = await database.transaction(
    ["wallets", "records", "keys"],
    "readwrite",
    STRICT,
  );
  const row = await transaction.objectStore("wallets").get(id);
  if (row && newestKey !== null) {
    const keys = transaction.objectStore("keys");
    if ((await keys.get(newestKey)) === undefined) await keys.put(readyKey(newestKey, id));
    // The wallet goes by its new key once at least one party has enrolled it.
    const taken =
      device.unenrolled.length < device.parties.filter(one => "fingerprint" in one).length;
    await transaction.objectStore("wallets").put(taken ? { ...row, paillierKey: newestKey } : row);
    await transaction.objectStore("records").put({ wallet: id, kind: "device", sealed });
  }
  await transaction.done;
}
