/** Waiting, with an end. */

import { duetError, Failure } from "../errors.js";

export const cancelled = (): Failure => new Failure(duetError("cancelled", "It was cancelled."));

/** Throws when the caller has given up. */
export function checkpoint(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled();
}

/** Resolves after `ms`, or rejects at once when `signal` is aborted. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled());
    const done = (): void => {
      signal?.removeEventListener("abort", stop);
      resolve();
    };
    const timer = setTimeout(done, ms);
    const stop = (): void => {
      clearTimeout(timer);
      reject(cancelled());
    };
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** What `promise` gives, unless `ms` pass or `signal` is aborted first. `promise` itself goes on. */
export function within<T>(
  promise: Promise<T>,
  ms: number,
  late: () => Error,
  signal?: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled());
    const timer = setTimeout(() => finish(() => reject(late())), ms);
    const stop = (): void => finish(() => reject(cancelled()));
    const finish = (how: () => void): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      how();
    };
    signal?.addEventListener("abort", stop, { once: true });
    promise.then(
      value => finish(() => resolve(value)),
      (reason: unknown) =>
        finish(() => reject(reason instanceof Error ? reason : new Error(String(reason)))),
    );
  });
}
