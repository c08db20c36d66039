/** How long to wait before the next attempt at something that failed. */

export interface Backoff {
  /** The upper bound of the first pause, in milliseconds. */
  firstMs: number;
  /** The upper bound of any pause, in milliseconds. */
  maxMs: number;
}

/**
 * A pause before attempt `attempt` (from 1, the first repetition), in milliseconds: uniform between
 * nothing and a bound that doubles each time, so that many pages that lost one gateway do not come
 * back all at once.
 */
export function pauseMs(
  { firstMs, maxMs }: Backoff,
  attempt: number,
  random: () => number = Math.random,
): number {
  const bound = Math.min(maxMs, firstMs * 2 ** Math.min(attempt - 1, 30));
  return Math.round(random() * bound);
}

/** How long after `failed` wrong attempts in a row the next is taken, in milliseconds. */
export function attemptPauseMs(failed: number): number {
  const FREE = 3;
  const MAX_MS = 60_000;
  return failed < FREE ? 0 : Math.min(MAX_MS, 1000 * 2 ** Math.min(failed - FREE, 10));
}
