/**
 * A new Paillier key for a wallet: ends a lock, and is due after a restore. It is stored before it is first offered, and
 * the old key goes on with a responder that has not taken the new one. An interrupted rotation is simply repeated.
 */

import type { CreateProgress, WalletId, WalletSummary } from "../types.js";
import type { Context } from "./context.js";
import { fetchCard, readyKey, stopwatch } from "./create.js";
import { STRICT } from "./database.js";
import { checkpoint } from "./deadline.js";
import type { DeviceWallet, SealKey } from "./engine.js";
import { searchPrimes } from "./primes.js";
import type { Call } from "./rpc.js";

export async function rotate(context: Context, call: Call<"rotate">, id: WalletId): Promise<WalletSummary> {
  const { signal } = call;
  const tell = stopwatch(call.note as (progress: CreateProgress) => void);
  await context.wallets.use(id, ({ device, key }) =>
    context.tabs.exclusively(id, async () => {
      const interrupted = device.newestKey !== null && device.unenrolled.length > 0;
      const newest = interrupted && device.newestKey ? await context.database.get("keys", device.newestKey) : undefined;
      // One that was begun is brought to its end, unless its own key was locked meanwhile.
      if (newest?.state !== "ready") {
        const search = searchPrimes((candidates) => tell({ step: "paillier-key", candidates }), signal);
        device.beginRotation(await search.primes);
        await store(context, device, key);
      }
      for (const { share, party } of device.unenrolled) {
        checkpoint(signal);
        tell({ step: "card", party });
        const expected = fingerprintOf(device, party);
        const { card, fingerprint } = await fetchCard(context, party, expected, signal);
        const responder = context.engine.verifyResponder(card, fingerprint);
        try {
          tell({ step: "card-verified", party });
          tell({ step: "proofs", share, party });
          const offer = device.offer(responder, Date.now());
          tell({ step: "enrolling", share, party });
          await context.line.enrol(id, party, offer, signal);
        } finally {
          responder.free();
        }
        await context.database.put("cards", { fingerprint, party, card });
        device.agree(party);
        await store(context, device, key);
        tell({ step: "enrolled", share, party });
      }
      tell({ step: "ready", wallet: id });
    }),
  );
  await context.wallets.changed();
  return context.wallets.summary(id);
}

function fingerprintOf(device: DeviceWallet, party: string): string | undefined {
  const holder = device.parties.find((one) => "fingerprint" in one && one.party === party);
  return holder && "fingerprint" in holder ? holder.fingerprint : undefined;
}

/** The wallet's record and its newest key, together. Rows of keys that are gone stay: a lock is never forgotten. */
async function store({ database }: Context, device: DeviceWallet, key: SealKey): Promise<void> {
  const { id, newestKey } = device;
  const sealed = device.seal(key);
  const transaction = database.transaction(["wallets", "records", "keys"], "readwrite", STRICT);
  const row = await transaction.objectStore("wallets").get(id);
  if (row && newestKey !== null) {
    const keys = transaction.objectStore("keys");
    if ((await keys.get(newestKey)) === undefined) await keys.put(readyKey(newestKey, id));
    // The wallet goes by its new key once somebody answers to it.
    const taken = device.unenrolled.length < device.parties.filter((one) => "fingerprint" in one).length;
    await transaction.objectStore("wallets").put(taken ? { ...row, paillierKey: newestKey } : row);
    await transaction.objectStore("records").put({ wallet: id, kind: "device", sealed });
  }
  await transaction.done;
}
