/**
 * Two helpers beside the worker, for what takes longest and what two cores share well: the search
 * for the two primes of a Paillier key, the proofs on the parties' cards, and the proofs for the
 * parties. They live as long as one creation or rotation, share no memory with the worker, and
 * learn the Paillier key and nothing of a share.
 */

import { duetError, Failure, outcomeOf, unwrap } from "../errors.js";
import type { Outcome } from "../types.js";
import { cancelled, within } from "./deadline.js";
import type { Engine } from "./engine.js";

/** The helpers run the worker's own script under this name. */
export const HELPER_NAME = "duet-helper";
/** A helper searches this long before it looks for other work, and tells how far it is. */
const SLICE_MS = 100;
/** Far beyond any search, some 60 candidates of 10 ms each, and any proof. */
const DEADLINE_MS = 120_000;

/** Work with one answer. It goes before the search. */
type Task =
  | { type: "verify-card"; card: Uint8Array; fingerprint: string }
  /** `task` is secret. */
  | { type: "prove"; task: Uint8Array };
type ToHelper = { type: "search" } | { type: "rest" } | { type: "task"; id: number; task: Task };
type FromHelper =
  | { type: "candidates"; count: number }
  | { type: "prime"; prime: Uint8Array }
  | { type: "answer"; id: number; outcome: Outcome<Uint8Array> };

const NOTHING = new Uint8Array();

interface Helper {
  worker: Worker;
  waiting: Map<number, (outcome: Outcome<Uint8Array>) => void>;
  onSearch: (message: FromHelper) => void;
}

export class Helpers {
  readonly #helpers: Helper[];
  readonly #stopped: Promise<never>;
  #reject: (reason: Error) => void = () => undefined;
  #tasks = 0;

  constructor(private readonly signal: AbortSignal) {
    this.#stopped = new Promise((_, reject) => {
      this.#reject = reject;
    });
    // A caller that waits for an answer gets this rejection. There may be no such caller.
    this.#stopped.catch(() => undefined);
    this.#helpers = [0, 1].map(() => this.#start());
    signal.addEventListener("abort", () => this.stop(), { once: true });
    if (signal.aborted) this.stop();
  }

  #start(): Helper {
    const worker = new Worker(self.location.href, { type: "module", name: HELPER_NAME });
    const helper: Helper = { worker, waiting: new Map(), onSearch: () => undefined };
    worker.addEventListener("error", event => {
      const why = event.message || "its script did not load";
      this.#reject(new Failure(duetError("internal", `A helper failed: ${why}.`)));
    });
    worker.addEventListener("message", ({ data }: MessageEvent<FromHelper>) => {
      if (data.type !== "answer") return helper.onSearch(data);
      helper.waiting.get(data.id)?.(data.outcome);
      helper.waiting.delete(data.id);
    });
    return helper;
  }

  /** Two primes of a Paillier key, whichever helpers find them. `onCandidates` hears how many candidates were tried. */
  primes(onCandidates: (count: number) => void): Promise<[Uint8Array, Uint8Array]> {
    const counts = this.#helpers.map(() => 0);
    const found: Uint8Array[] = [];
    const searched = new Promise<[Uint8Array, Uint8Array]>(resolve => {
      for (const [at, helper] of this.#helpers.entries()) {
        helper.onSearch = message => {
          if (message.type === "candidates") {
            counts[at] = message.count;
            onCandidates(counts.reduce((sum, count) => sum + count, 0));
          } else if (message.type === "prime") {
            found.push(message.prime);
            const [p, q, ...spare] = found;
            for (const prime of spare) prime.fill(0);
            if (!p || !q || spare.length > 0) return;
            for (const { worker } of this.#helpers)
              worker.postMessage({ type: "rest" } satisfies ToHelper);
            resolve([p, q]);
          }
        };
        helper.worker.postMessage({ type: "search" } satisfies ToHelper);
      }
    });
    return this.#awaited(searched);
  }

  /** Verifies the proof on a party's card. */
  async verifyCard(card: Uint8Array, fingerprint: string): Promise<void> {
    await this.#ask({ type: "verify-card", card, fingerprint }, []);
  }

  /** Makes the proofs of a task. Its bytes are gone from here at once. */
  prove(task: Uint8Array): Promise<Uint8Array> {
    return this.#ask({ type: "prove", task }, [task.buffer as ArrayBuffer]);
  }

  /** Ends whatever the helpers do; their memory goes with them. */
  stop(): void {
    this.#reject(cancelled());
    for (const { worker } of this.#helpers) worker.terminate();
  }

  #ask(task: Task, transfer: Transferable[]): Promise<Uint8Array> {
    const id = this.#tasks++;
    const [first, second] = this.#helpers as [Helper, Helper];
    const helper = second.waiting.size < first.waiting.size ? second : first;
    const answered = new Promise<Outcome<Uint8Array>>(resolve => helper.waiting.set(id, resolve));
    helper.worker.postMessage({ type: "task", id, task } satisfies ToHelper, transfer);
    return this.#awaited(answered.then(unwrap));
  }

  #awaited<T>(promise: Promise<T>): Promise<T> {
    const late = (): Error => new Failure(duetError("internal", "A helper took too long."));
    const awaited = within(Promise.race([promise, this.#stopped]), DEADLINE_MS, late, this.signal);
    // Several are waited for at once: the first failure is the one that is told.
    awaited.catch(() => undefined);
    return awaited;
  }
}

/** What a helper does until it is ended: the tasks it is given, and between them the search. */
export async function help(load: () => Promise<Engine>): Promise<never> {
  const scope = self as unknown as DedicatedWorkerGlobalScope;
  const send = (message: FromHelper, transfer: Transferable[] = []): void =>
    scope.postMessage(message, transfer);
  const tasks: { id: number; task: Task }[] = [];
  let searching = false;
  let wake = (): void => undefined;
  scope.addEventListener("message", ({ data }: MessageEvent<ToHelper>) => {
    if (data.type === "task") tasks.push(data);
    else searching = data.type === "search";
    wake();
  });
  const engine = await load();
  let candidates = 0;
  const search = (): void => {
    const until = performance.now() + SLICE_MS;
    const prime = engine.searchPrime(() => {
      candidates += 1;
      return performance.now() < until;
    });
    send({ type: "candidates", count: candidates });
    if (prime) send({ type: "prime", prime }, [prime.buffer as ArrayBuffer]);
  };
  for (;;) {
    const next = tasks.shift();
    if (next)
      send({
        type: "answer",
        id: next.id,
        outcome: await outcomeOf(async () => done(engine, next.task)),
      });
    else if (searching) search();
    else await new Promise<void>(resolve => (wake = resolve));
    await messagesHeard();
  }
}

function done(engine: Engine, task: Task): Uint8Array {
  if (task.type === "verify-card") {
    engine.verifyCard(task.card, task.fingerprint);
    return NOTHING;
  }
  try {
    return engine.makeProofs(task.task);
  } finally {
    task.task.fill(0);
  }
}

/** Lets in what was sent meanwhile. */
function messagesHeard(): Promise<void> {
  return new Promise(resolve => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
