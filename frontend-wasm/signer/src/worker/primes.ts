/**
 * The search for the two primes of a Paillier key, in two helpers beside the worker: the longest part of a creation,
 * and the only one that two cores share well.
 */

import { duetError, Failure } from "../errors.js";
import { cancelled } from "./deadline.js";

/** The helpers run the worker's own script under this name. */
export const HELPER_NAME = "duet-primes";
/** How often a helper tells how far it is. */
const REPORT_EVERY_MS = 100;
/** Far beyond any search: some 60 candidates of 20 ms each. */
const DEADLINE_MS = 120_000;

type FromHelper = { type: "candidates"; count: number } | { type: "prime"; prime: Uint8Array } | { type: "failed"; message: string };

export interface PrimeSearch {
  primes: Promise<[Uint8Array, Uint8Array]>;
  stop(): void;
}

/** Starts both helpers. `onCandidates` hears how many candidates both have tried. */
export function searchPrimes(onCandidates: (count: number) => void, signal?: AbortSignal): PrimeSearch {
  const counts = [0, 0];
  const helpers: Worker[] = [];
  let stop = (): void => undefined;
  const stopped = new Promise<never>((_, reject) => {
    stop = () => reject(cancelled());
  });
  const search = (at: number): Promise<Uint8Array> =>
    new Promise((resolve, reject) => {
      const helper = new Worker(self.location.href, { type: "module", name: HELPER_NAME });
      helpers.push(helper);
      const broken = (why: string): void => reject(new Failure(duetError("internal", `The search for a prime failed: ${why}.`)));
      helper.addEventListener("error", (event) => broken(event.message || "its script did not load"));
      helper.addEventListener("message", ({ data }: MessageEvent<FromHelper>) => {
        switch (data.type) {
          case "candidates":
            counts[at] = data.count;
            return onCandidates(counts.reduce((sum, count) => sum + count, 0));
          case "prime":
            return resolve(data.prime);
          case "failed":
            return broken(data.message);
        }
      });
    });
  const timer = setTimeout(() => stop(), DEADLINE_MS);
  const onAbort = (): void => stop();
  signal?.addEventListener("abort", onAbort, { once: true });
  const primes = Promise.race([Promise.all([search(0), search(1)]), stopped]).finally(() => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    // Their memory goes with them.
    for (const helper of helpers) helper.terminate();
  });
  // Whoever awaits it hears of a failure; nobody may.
  primes.catch(() => undefined);
  if (signal?.aborted) stop();
  return { primes, stop };
}

/** What a helper does: searches one prime and hands it over. */
export function help(searchPrime: (onCandidate: () => void) => Uint8Array): void {
  const scope = self as unknown as DedicatedWorkerGlobalScope;
  const send = (message: FromHelper, transfer: Transferable[] = []): void => scope.postMessage(message, transfer);
  let count = 0;
  let reportedAt = 0;
  try {
    const prime = searchPrime(() => {
      count += 1;
      const now = performance.now();
      if (now - reportedAt < REPORT_EVERY_MS) return;
      reportedAt = now;
      send({ type: "candidates", count });
    });
    send({ type: "candidates", count });
    send({ type: "prime", prime }, [prime.buffer as ArrayBuffer]);
  } catch (thrown) {
    send({ type: "failed", message: thrown instanceof Error ? thrown.message : String(thrown) });
  }
}
