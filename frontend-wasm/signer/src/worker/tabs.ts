/** Several tabs on one store: one at a time uses a wallet's Paillier key, and all of them see changes. */

import { duetError, fail, Failure } from "../errors.js";
import type { WalletId } from "../types.js";

/** A signature takes less. A caller that waits longer is told that another tab is at work. */
const WAIT_MS = 2_000;
/** Uses of one wallet that wait for each other in one tab. */
const MAX_WAITING = 16;

const CHANNEL = "duet";

/** Tells the other tabs that something in the store changed, and hears it from them. */
export class Tabs {
  readonly #channel = new BroadcastChannel(CHANNEL);
  readonly #turns = new Map<WalletId, { last: Promise<unknown>; waiting: number }>();

  constructor(onChange: () => void) {
    this.#channel.addEventListener("message", onChange);
  }

  announce(): void {
    this.#channel.postMessage("changed");
  }

  /**
   * Runs `work` while no other tab, and nothing else in this one, uses the wallet.
   *
   * @throws {Failure} `busy-elsewhere`
   */
  async exclusively<T>(wallet: WalletId, work: () => Promise<T>): Promise<T> {
    const turn = this.#turns.get(wallet) ?? { last: Promise.resolve(), waiting: 0 };
    if (turn.waiting >= MAX_WAITING)
      fail("refused", "Too many things are waiting for this wallet.", { code: "overloaded" });
    turn.waiting += 1;
    const mine = turn.last.then(() => alone(wallet, work));
    turn.last = mine.catch(() => undefined);
    this.#turns.set(wallet, turn);
    try {
      return await mine;
    } finally {
      turn.waiting -= 1;
      if (turn.waiting === 0) this.#turns.delete(wallet);
    }
  }
}

async function alone<T>(wallet: WalletId, work: () => Promise<T>): Promise<T> {
  let granted = false;
  const signal = AbortSignal.timeout(WAIT_MS);
  try {
    return await navigator.locks.request(`duet:${wallet}`, { signal }, () => {
      granted = true;
      return work();
    });
  } catch (thrown) {
    if (granted) throw thrown;
    throw new Failure(
      duetError("busy-elsewhere", "Another tab is using this wallet; try again when it is done."),
      { cause: thrown },
    );
  }
}
