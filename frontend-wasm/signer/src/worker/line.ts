/** Questions to the parties and the orchestrator, over the gateway's socket, each with its deadline. */

import { fail, Failure } from "../errors.js";
import type { WalletId } from "../types.js";
import { pauseMs } from "./backoff.js";
import { checkpoint, pause } from "./deadline.js";
import type { ApprovalReply, Delivery, Engine, ProgressStep } from "./engine.js";
import { Refused, type Socket } from "./socket.js";

const CARD_MS = 10_000;
/** A party may take this long to verify a package or an enrolment. */
const PACKAGE_MS = 30_000;
/** The orchestrator may take this long: it invites the responder meanwhile. */
const APPROVAL_MS = 15_000;
/** From a message that was sent to its answer. */
const ROUND_MS = 10_000;
/** One report of an outcome; it is repeated. */
const OUTCOME_MS = 5_000;
/** Attempts at each message of a creation before it is left to be resumed. */
const ATTEMPTS = 4;
const BACKOFF = { firstMs: 600, maxMs: 5_000 };
/**
 * How often message 1 is sent while the responder does not listen: in a cluster, a subscription
 * takes a moment to be known.
 */
const FIRST_MESSAGE_ATTEMPTS = 5;
const FIRST_MESSAGE_BACKOFF = { firstMs: 50, maxMs: 400 };

export class Line {
  constructor(
    private readonly socket: Socket,
    private readonly engine: Engine,
  ) {}

  async card(party: string, signal?: AbortSignal): Promise<Uint8Array> {
    const ask = () =>
      this.socket.request({ kind: "card", party }, this.engine.askCard(), {
        deadlineMs: CARD_MS,
        by: party,
        signal,
      });
    return this.engine.readCard(await repeated(ask, signal), party);
  }

  /** Delivers a package; gives the receipt. */
  async prepare({ party, envelope }: Delivery, signal?: AbortSignal): Promise<Uint8Array> {
    return this.engine.readReceipt(
      await this.#share(party, this.engine.prepare(envelope), signal),
      party,
    );
  }

  /** Orders a party to commit; gives its acknowledgement. */
  async commit(party: string, bundle: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
    return this.engine.readAcknowledgement(
      await this.#share(party, this.engine.commit(bundle), signal),
      party,
    );
  }

  #share(party: string, message: Uint8Array, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const options = { deadlineMs: PACKAGE_MS, by: party, signal };
    return repeated(() => this.socket.request({ kind: "share", party }, message, options), signal);
  }

  /** Offers a party the wallet's new Paillier key. */
  async enrol(
    wallet: WalletId,
    party: string,
    offer: Uint8Array,
    signal?: AbortSignal,
  ): Promise<void> {
    const options = { deadlineMs: PACKAGE_MS, by: party, signal };
    const ask = () =>
      this.socket.request({ kind: "card", party }, this.engine.enrol(offer), options, wallet);
    this.engine.readEnrolled(await repeated(ask, signal), party);
  }

  /** Asks the orchestrator about a wallet's jobs. Made anew for each attempt: a request counts once. */
  async approval(
    wallet: WalletId,
    make: (nowMs: number) => Uint8Array,
    signal?: AbortSignal,
  ): Promise<ApprovalReply> {
    const options = { deadlineMs: APPROVAL_MS, by: "orchestrator", signal };
    const reply = await this.socket.request(
      { kind: "approval", wallet },
      make(Date.now()),
      options,
      wallet,
    );
    return this.engine.readApproval(reply);
  }

  /** Sends message 1 of a session, the same bytes again while the responder does not listen yet. */
  async first(
    session: string,
    to: string,
    message: Uint8Array,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#round(session, to, message, signal);
      } catch (thrown) {
        if (!isUnheard(thrown) || attempt >= FIRST_MESSAGE_ATTEMPTS) throw thrown;
        await pause(pauseMs(FIRST_MESSAGE_BACKOFF, attempt), signal);
      }
    }
  }

  /** Message 3: sent once and never again. */
  third(session: string, to: string, message: Uint8Array): Promise<Uint8Array> {
    return this.#round(session, to, message, undefined);
  }

  #round(
    session: string,
    to: string,
    message: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    return this.socket.request({ kind: "round", session, to }, message, {
      deadlineMs: ROUND_MS,
      by: to,
      signal,
    });
  }

  /**
   * Reports an outcome until the orchestrator has acknowledged or refused it, or `deadlineMs` have
   * passed.
   */
  async outcome(session: string, message: Uint8Array, deadlineMs: number): Promise<void> {
    const end = Date.now() + deadlineMs;
    for (let attempt = 1; ; attempt += 1) {
      const left = end - Date.now();
      try {
        const options = { deadlineMs: Math.min(OUTCOME_MS, left), by: "orchestrator" };
        return this.engine.readOutcomeReply(
          await this.socket.request({ kind: "outcome", session }, message, options),
        );
      } catch (thrown) {
        const pauseForMs = pauseMs(BACKOFF, attempt);
        if (!isTransient(thrown) || Date.now() + pauseForMs >= end) throw thrown;
        await pause(pauseForMs);
      }
    }
  }

  /** Tells the clients that follow a session's events how far it is. May be lost. */
  progress(session: string, step: ProgressStep): void {
    this.socket.tell(
      { kind: "event", session },
      this.engine.progressNote(session, step, Date.now()),
    );
  }
}

/** Repeats a request that is safe to repeat while neither the gateway nor a party answers. */
async function repeated<T>(ask: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await ask();
    } catch (thrown) {
      checkpoint(signal);
      if (!isTransient(thrown) || attempt >= ATTEMPTS) throw thrown;
      await pause(pauseMs(BACKOFF, attempt), signal);
    }
  }
}

/** Whether the same may succeed later. */
export function isTransient(thrown: unknown): boolean {
  return (
    thrown instanceof Failure &&
    (thrown.error.kind === "gateway-unreachable" || thrown.error.kind === "party-unreachable")
  );
}

/** Whether no party was subscribed, as gateway or orchestrator say: then no party took the message. */
function isUnheard(thrown: unknown): boolean {
  return thrown instanceof Refused && ["no-pair-available", "party-away"].includes(thrown.code);
}

/** For replies that make no sense. */
export function unexpected(by: string): never {
  fail("refused", `The answer of ${by} is not of the expected kind.`, {
    code: "peer-misbehaved",
    by,
  });
}
