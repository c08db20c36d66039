/** The page's end of the line to the worker. */

import { duetError } from "./errors.js";
import type { FromWorker, MethodName, Methods, ToWorker, WorkerEvent } from "./protocol.js";
import type { DuetError, Outcome } from "./types.js";

/** Calls under way at a time; the page's own mistake beyond that. */
const MAX_CALLS = 256;

interface Pending {
  settle: (outcome: Outcome<unknown>) => void;
  note: ((note: never) => void) | undefined;
}

export interface CallOptions<Name extends MethodName> {
  signal?: AbortSignal | undefined;
  onNote?: ((note: Methods[Name]["note"]) => void) | undefined;
  transfer?: Transferable[];
}

export class Remote {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #broken: DuetError | undefined;

  constructor(worker: Worker, onEvent: (event: WorkerEvent) => void) {
    this.#worker = worker;
    worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => {
      switch (data.type) {
        case "answer": {
          const pending = this.#pending.get(data.id);
          this.#pending.delete(data.id);
          pending?.settle(data.outcome);
          return;
        }
        case "note":
          // What a listener throws is its own affair, and shows in the console as such.
          this.#pending.get(data.id)?.note?.(data.note as never);
          return;
        case "event":
          onEvent(data.event);
          return;
        case "broken":
          this.end(data.error);
      }
    });
    worker.addEventListener("error", event => {
      event.preventDefault();
      this.end(
        duetError(
          "internal",
          `The worker did not start: ${event.message || "its script did not load"}.`,
        ),
      );
    });
  }

  call<Name extends MethodName>(
    method: Name,
    args: Methods[Name]["args"],
    options: CallOptions<Name> = {},
  ): Promise<Outcome<Methods[Name]["value"]>> {
    const { signal, onNote, transfer = [] } = options;
    if (this.#broken) return Promise.resolve({ ok: false, error: this.#broken });
    if (signal?.aborted)
      return Promise.resolve({ ok: false, error: duetError("cancelled", "It was cancelled.") });
    if (this.#pending.size >= MAX_CALLS) {
      return Promise.resolve({
        ok: false,
        error: duetError("internal", "Too many calls are under way."),
      });
    }
    const id = this.#nextId++;
    return new Promise(resolve => {
      const abort = (): void => this.#send({ type: "abort", id });
      signal?.addEventListener("abort", abort, { once: true });
      this.#pending.set(id, {
        note: onNote,
        settle: outcome => {
          signal?.removeEventListener("abort", abort);
          resolve(outcome as Outcome<Methods[Name]["value"]>);
        },
      });
      try {
        this.#send({ type: "call", id, method, args } as ToWorker, transfer);
      } catch (thrown) {
        // Something in the arguments cannot be cloned: a function, a proxy.
        this.#pending.delete(id);
        const message = `An argument cannot be sent to the worker: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
        resolve({ ok: false, error: duetError("invalid", message) });
      }
    });
  }

  /** Ends the worker. Calls under way fail with `error`. */
  end(error: DuetError): void {
    if (this.#broken) return;
    this.#broken = error;
    this.#worker.terminate();
    for (const pending of this.#pending.values()) pending.settle({ ok: false, error });
    this.#pending.clear();
  }

  #send(message: ToWorker, transfer: Transferable[] = []): void {
    if (!this.#broken) this.#worker.postMessage(message, transfer);
  }
}
