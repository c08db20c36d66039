/** The worker's end of the line to the page. */

import { outcomeOf } from "../errors.js";
import type { DuetError } from "../types.js";
import type { FromWorker, MethodName, Methods, ToWorker, WorkerEvent } from "../protocol.js";

/** What a method has besides its arguments. */
export interface Call<Name extends MethodName> {
  /** Aborted when the caller gives up. */
  signal: AbortSignal;
  /** Tells the caller how far it is. */
  note: (note: Methods[Name]["note"]) => void;
}

export type Handlers = {
  [Name in MethodName]: (
    call: Call<Name>,
    ...args: Methods[Name]["args"]
  ) => Promise<Methods[Name]["value"]>;
};

type AnyHandler = (call: Call<MethodName>, ...args: unknown[]) => Promise<unknown>;

const scope = self as unknown as DedicatedWorkerGlobalScope;

const send = (message: FromWorker): void => scope.postMessage(message);

export function sendEvent(event: WorkerEvent): void {
  send({ type: "event", event });
}

/** Tells the page that this worker is of no more use. */
export function sendBroken(error: DuetError): void {
  send({ type: "broken", error });
}

/** Answers the page's calls with `handlers`. */
export function serve(handlers: Handlers): void {
  const running = new Map<number, AbortController>();
  scope.addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
    if (data.type === "abort") {
      running.get(data.id)?.abort();
      return;
    }
    const { id, method, args } = data;
    const controller = new AbortController();
    running.set(id, controller);
    const call: Call<MethodName> = {
      signal: controller.signal,
      note: note => send({ type: "note", id, note }),
    };
    const handler = handlers[method] as AnyHandler;
    void outcomeOf(() => handler(call, ...args)).then(outcome => {
      running.delete(id);
      send({ type: "answer", id, outcome });
    });
  });
}
