/**
 * The WebSocket to the gateway: frames as WebAssembly codes them, requests with deadlines,
 * reconnection with back-off and jitter, and the wallets that are authenticated on it.
 */

import { duetError, fail, Failure, refusalError } from "../errors.js";
import type { Connection, DuetError, WalletId } from "../types.js";
import { pauseMs } from "./backoff.js";
import type { Destination, Frames, ServerFrame } from "./frames.js";
import { within } from "./deadline.js";

const BACKOFF = { firstMs: 300, maxMs: 15_000 };
/** From the beginning of an attempt to the challenge. */
const CONNECT_MS = 8_000;
/** A connection that lasted so long was a good one: the next attempt does not wait long. */
const SETTLED_MS = 5_000;
/** How long a request waits for a connection. */
const ONLINE_MS = 5_000;
const AUTHENTICATE_MS = 8_000;
/** Requests under way at a time, each of at most half a mebibyte. */
const MAX_REQUESTS = 32;
const MAX_WAITERS = 64;

/** Makes the frame that proves, for this challenge, that the wallet's device key is here. */
export type Prover = (challenge: Uint8Array, nowMs: number) => Uint8Array;

export interface RequestOptions {
  deadlineMs: number;
  /** Who is asked, for errors. */
  by: string;
  signal?: AbortSignal | undefined;
}

interface Pending {
  by: string;
  resolve: (message: Uint8Array) => void;
  reject: (failure: Failure) => void;
}

interface Member {
  prove: Prover;
  /** Settles for the connection there is; replaced at the next. */
  joined: Promise<void>;
}

/** A refusal by the destination of a request, or by the gateway itself. */
export class Refused extends Failure {
  constructor(
    readonly code: string,
    error: DuetError,
  ) {
    super(error);
  }
}

export class Socket {
  #connection: Connection = "connecting";
  #socket: WebSocket | null = null;
  #challenge: Uint8Array | null = null;
  #attempt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #nextId = 1;
  readonly #pending = new Map<number, Pending>();
  readonly #members = new Map<WalletId, Member>();
  readonly #waiters = new Set<{ resolve: () => void; reject: (failure: Failure) => void }>();
  /** Proofs go out one at a time: a refusal of one does not say which it is about. */
  #proving: Promise<unknown> = Promise.resolve();
  #proof: { wallet: WalletId; resolve: () => void; reject: (failure: Failure) => void } | null =
    null;

  constructor(
    private readonly url: string,
    private readonly build: string,
    private readonly frames: Frames,
    private readonly onConnection: (connection: Connection) => void,
    private readonly onWaiting: (wallet: WalletId, jobs: number) => void,
    /** Asks why there is no connection: a browser does not tell what a refused socket was answered. */
    private readonly whyRefused: () => Promise<Failure | undefined>,
  ) {
    // The browser knows before a timer does that the network is back.
    self.addEventListener("online", () => this.#hasten());
    this.#connect();
  }

  get connection(): Connection {
    return this.#connection;
  }

  /** Authenticates a wallet, on this connection and on all that follow. */
  join(wallet: WalletId, prove: Prover): void {
    const member: Member = { prove, joined: Promise.resolve() };
    this.#members.set(wallet, member);
    if (this.#challenge) this.#prove(wallet, member);
  }

  /** The opposite of `join`. */
  leave(wallet: WalletId): void {
    if (this.#members.delete(wallet) && this.#challenge) this.#send(this.frames.leave(wallet));
  }

  /**
   * Sends a request to `to`, about `wallet` if one is given.
   *
   * @throws {Refused} when the answer is no, {@link Failure} when there is none.
   */
  async request(
    to: Destination,
    message: Uint8Array,
    options: RequestOptions,
    wallet?: WalletId,
  ): Promise<Uint8Array> {
    await this.#online(Math.min(ONLINE_MS, options.deadlineMs), options.signal);
    if (wallet !== undefined) await this.#joined(wallet, options.signal);
    if (this.#pending.size >= MAX_REQUESTS) {
      fail("refused", "Too many requests are under way.", { code: "overloaded", by: "gateway" });
    }
    const id = this.#nextId;
    this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
    const reply = new Promise<Uint8Array>((resolve, reject) => {
      this.#pending.set(id, { by: options.by, resolve, reject });
    });
    const late = (): Failure =>
      new Failure(
        duetError("party-unreachable", `${options.by} did not answer in time.`, {
          by: options.by,
          code: "deadline",
        }),
      );
    try {
      this.#send(this.frames.request(id, to, message));
      return await within(reply, options.deadlineMs, late, options.signal);
    } finally {
      this.#pending.delete(id);
      // No caller waits for the reply any more.
      reply.catch(() => undefined);
    }
  }

  /** Sends a message that gets no answer, if there is a connection. */
  tell(to: Destination, message: Uint8Array): void {
    if (!this.#challenge) return;
    const id = this.#nextId;
    this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
    this.#send(this.frames.request(id, to, message));
  }

  #online(deadlineMs: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#challenge) return Promise.resolve();
    if (this.#connection === "stale-page") return Promise.reject(new Failure(staleError()));
    if (this.#waiters.size >= MAX_WAITERS) {
      return Promise.reject(
        new Failure(duetError("gateway-unreachable", "Too many requests wait for the gateway.")),
      );
    }
    this.#hasten();
    let waiter: { resolve: () => void; reject: (failure: Failure) => void } | undefined;
    const online = new Promise<void>((resolve, reject) => {
      waiter = { resolve, reject };
      this.#waiters.add(waiter);
    });
    return within(online, deadlineMs, () => new Failure(unreachableError()), signal)
      .catch(async (thrown: unknown) => {
        const unreachable =
          thrown instanceof Failure && thrown.error.kind === "gateway-unreachable";
        throw (unreachable ? await this.whyRefused() : undefined) ?? thrown;
      })
      .finally(() => {
        if (waiter) this.#waiters.delete(waiter);
      });
  }

  async #joined(wallet: WalletId, signal: AbortSignal | undefined): Promise<void> {
    const member = this.#members.get(wallet);
    if (!member) fail("locked", "The wallet is locked; unlock it first.");
    const late = (): Failure =>
      new Failure(
        duetError("party-unreachable", "The gateway could not check this device's key in time.", {
          by: "gateway",
        }),
      );
    try {
      await within(member.joined, AUTHENTICATE_MS, late, signal);
    } catch (thrown) {
      // The next request tries once more: the party that vouches for the key may be back.
      if (this.#challenge && this.#members.get(wallet) === member) this.#prove(wallet, member);
      throw thrown;
    }
  }

  #prove(wallet: WalletId, member: Member): void {
    const socket = this.#socket;
    member.joined = this.#proving.then(
      () =>
        new Promise<void>((resolve, reject) => {
          const challenge = this.#challenge;
          if (!challenge || this.#socket !== socket || this.#members.get(wallet) !== member) {
            return reject(new Failure(unreachableError()));
          }
          const timer = setTimeout(() => {
            this.#proof = null;
            reject(
              new Failure(
                duetError(
                  "party-unreachable",
                  "The gateway could not check this device's key in time.",
                  { by: "gateway" },
                ),
              ),
            );
          }, AUTHENTICATE_MS);
          const ended = (settle: () => void): void => {
            clearTimeout(timer);
            this.#proof = null;
            settle();
          };
          this.#proof = {
            wallet,
            resolve: () => ended(resolve),
            reject: failure => ended(() => reject(failure)),
          };
          try {
            this.#send(member.prove(challenge, Date.now()));
          } catch (thrown) {
            this.#proof.reject(
              thrown instanceof Failure
                ? thrown
                : new Failure(duetError("internal", String(thrown))),
            );
          }
        }),
    );
    // The next request about this wallet gets the error. Without a request it is not reported.
    this.#proving = member.joined.catch(() => undefined);
  }

  #connect(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#turn("connecting");
    const startedAt = Date.now();
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    const slow = setTimeout(() => socket.close(), CONNECT_MS);
    socket.addEventListener("open", () =>
      socket.send(this.frames.hello(this.build) as Uint8Array<ArrayBuffer>),
    );
    socket.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
      if (this.#socket !== socket) return;
      const frame = data instanceof ArrayBuffer ? this.frames.read(new Uint8Array(data)) : null;
      if (frame === null) {
        // No gateway of ours, or a newer one. Nothing that came with it is believed.
        socket.close(4000, "malformed frame");
        return;
      }
      if (frame.kind === "challenge") clearTimeout(slow);
      this.#hear(frame);
    });
    socket.addEventListener("close", () => {
      clearTimeout(slow);
      if (this.#socket !== socket) return;
      if (Date.now() - startedAt > SETTLED_MS && this.#challenge) this.#attempt = 0;
      this.#broken();
    });
  }

  #hear(frame: ServerFrame): void {
    switch (frame.kind) {
      case "challenge":
        return this.#greeted(frame);
      case "authenticated":
        if (this.#proof?.wallet === frame.wallet) this.#proof.resolve();
        return;
      case "reply":
        this.#pending.get(frame.id)?.resolve(frame.message);
        return;
      case "refused": {
        const pending = frame.id === undefined ? undefined : this.#pending.get(frame.id);
        const refused = new Refused(
          frame.refusal.code,
          refusalError(frame.refusal, pending?.by ?? "gateway"),
        );
        if (pending) pending.reject(refused);
        else if (frame.id === undefined) this.#proof?.reject(refused);
        return;
      }
      case "waiting":
        if (this.#members.has(frame.wallet)) this.onWaiting(frame.wallet, frame.jobs);
    }
  }

  #greeted(frame: Extract<ServerFrame, { kind: "challenge" }>): void {
    const stale =
      frame.protocol !== this.frames.protocol ||
      (this.build !== "" && frame.build !== "" && frame.build !== this.build);
    if (stale) {
      this.#turn("stale-page");
      this.#broken();
      return;
    }
    this.#challenge = frame.nonce;
    this.#turn("online");
    for (const [wallet, member] of this.#members) this.#prove(wallet, member);
    for (const waiter of this.#waiters) waiter.resolve();
    this.#waiters.clear();
  }

  /** The connection is over; unless the page is stale, another follows. */
  #broken(): void {
    const socket = this.#socket;
    this.#socket = null;
    this.#challenge = null;
    socket?.close();
    const stale = this.#connection === "stale-page";
    const failure = new Failure(stale ? staleError() : unreachableError());
    for (const pending of this.#pending.values()) pending.reject(failure);
    this.#pending.clear();
    this.#proof?.reject(failure);
    if (stale) {
      for (const waiter of this.#waiters) waiter.reject(failure);
      this.#waiters.clear();
      return;
    }
    this.#turn("offline");
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.#connect(), pauseMs(BACKOFF, this.#attempt));
  }

  /** Connects again soon, though never more often than the first pause, because a request waits. */
  #hasten(): void {
    if (this.#connection !== "offline" || this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => this.#connect(),
      pauseMs({ ...BACKOFF, maxMs: BACKOFF.firstMs * 2 }, 2),
    );
  }

  #turn(connection: Connection): void {
    if (this.#connection === connection) return;
    this.#connection = connection;
    this.onConnection(connection);
  }

  #send(frame: Uint8Array): void {
    // A frame for a connection that has just broken is lost with it; its request fails with the
    // connection.
    if (this.#socket?.readyState === WebSocket.OPEN)
      this.#socket.send(frame as Uint8Array<ArrayBuffer>);
  }
}

function unreachableError(): DuetError {
  return duetError("gateway-unreachable", "The gateway cannot be reached.", { by: "gateway" });
}

function staleError(): DuetError {
  return duetError("stale-page", "This page is older than the gateway; reload it.", {
    by: "gateway",
  });
}
