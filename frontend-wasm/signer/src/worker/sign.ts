/**
 * Signing: the orchestrator answers the owner's word with a session's manifest, which is checked
 * like by any party; then two trips to the responder, the gate, and the report.
 */

import { duetError, fail, Failure } from "../errors.js";
import { bytesToHex, payloadDocument } from "../payload.js";
import type { SignOrder } from "../protocol.js";
import type {
  BackendRole,
  DerivationPath,
  DevicePair,
  DuetError,
  Hex,
  JobId,
  Payload,
  RespondingParty,
  Signed,
  SigningStep,
  WalletId,
} from "../types.js";
import { firstSignature } from "./answers.js";
import type { Context } from "./context.js";
import { fetchCard } from "./create.js";
import { quarantined, requireTrusted, sortResponders } from "./culprits.js";
import { pauseMs } from "./backoff.js";
import { cancelled, checkpoint, pause, within } from "./deadline.js";
import type {
  Answered,
  ApprovalReply,
  DeviceWallet,
  Initiator,
  ManifestFacts,
  Opened,
  Verdict,
} from "./engine.js";
import {
  closedError,
  finishPending,
  passGate,
  requireReady,
  requireSamePayload,
  withoutKey,
  writePending,
} from "./gate.js";
import { revoke } from "./inbox.js";
import { isTransient, unexpected } from "./line.js";
import type { Call } from "./rpc.js";
import { requireKeyReady, type Unlocked } from "./wallets.js";

const DEFAULT_EXPIRY_S = 600;
const MAX_EXPIRY_S = 24 * 60 * 60;
/** A session takes no longer, up to its last message. */
const SESSION_MS = 30_000;
/** How long a finished signature waits for its report to be acknowledged; the report goes on by itself. */
const REPORT_WAIT_MS = 2_000;
const REPORT_MS = 30_000;
/** Sessions that one call may begin, when the connection breaks or no party answers. */
const ATTEMPTS = 3;
/** A call that has taken this long begins no other attempt. */
const ATTEMPTS_MS = 6_000;
const BACKOFF = { firstMs: 500, maxMs: 2_000 };

/** A step without its time. */
type Step = SigningStep extends infer S ? (S extends unknown ? Omit<S, "atMs"> : never) : never;
type Tell = (step: Step) => void;

function stopwatch(note: (step: SigningStep) => void): { tell: Tell; tookMs: () => number } {
  const startedAt = performance.now();
  const tookMs = (): number => Math.round((performance.now() - startedAt) * 10) / 10;
  return { tell: step => note({ ...step, atMs: tookMs() } as SigningStep), tookMs };
}

/** What is to be signed, as the owner saw it. */
interface Wanted {
  wallet: WalletId;
  job: JobId;
  digest: Hex;
  /** Where it is known: for the bytes to broadcast. */
  payload: Payload;
  path: DerivationPath;
}

/** The owner's own signature. */
export async function sign(
  context: Context,
  call: Call<"sign">,
  id: WalletId,
  payload: Payload,
  order: SignOrder,
): Promise<Signed> {
  const { engine, wallets } = context;
  const clock = stopwatch(call.note);
  const description = engine.describe(payload);
  const summary = await wallets.summary(id);
  return wallets.use(id, async unlocked => {
    const { device } = unlocked;
    requireKeyReady(summary);
    const path = order.path ?? "m";
    const pairs = await trustedPairs(context, device, order.pairs);
    const document = requestDocument(device, payload, path, { ...order, pairs });
    let job = "";
    const ask = (nowMs: number): Uint8Array => {
      const request = device.requestSignature(document, nowMs);
      job = request.job;
      return request.message;
    };
    // The job is named by the document: the first message fixes it for all attempts.
    ask(Date.now());
    const wanted: Wanted = { wallet: id, job, digest: description.digest, payload, path };
    return context.tabs.exclusively(id, () =>
      withAttempts(
        context,
        unlocked,
        call.signal,
        async () => {
          clock.tell({ step: "requested", job });
          const reply = await context.line.approval(id, ask, call.signal);
          return follow(context, unlocked, wanted, reply, clock, call.signal);
        },
        () => giveUp(context, device, wanted),
      ),
    );
  });
}

/** Signs a job that waits for its owner's approval. `digest` is what the owner saw. */
export async function approve(
  context: Context,
  call: Call<"approve">,
  id: WalletId,
  job: JobId,
  digest: Hex,
): Promise<Signed> {
  const { wallets } = context;
  const clock = stopwatch(call.note);
  const summary = await wallets.summary(id);
  return wallets.use(id, async unlocked => {
    const { device } = unlocked;
    requireKeyReady(summary);
    // The job is looked at once more: what is signed must be what the owner saw, and its payload is
    // needed.
    const listed = await context.line.approval(id, nowMs => device.listJobs(nowMs), call.signal);
    const found =
      listed.kind === "jobs" ? listed.jobs.find(waiting => waiting.job === job) : undefined;
    if (found && found.description.digest !== digest) {
      fail("refused", "The job is about something else than was shown.", {
        code: "peer-misbehaved",
        by: "orchestrator",
      });
    }
    if (!found) return alreadyDone(context, device, id, job, call.signal);
    const { description, path, pairs } = found;
    await trustedPairs(
      context,
      device,
      pairs.filter((pair): pair is DevicePair => pair.startsWith("device+")),
    );
    const wanted: Wanted = { wallet: id, job, digest, payload: description.payload, path };
    return context.tabs.exclusively(id, () =>
      withAttempts(context, unlocked, call.signal, async () => {
        clock.tell({ step: "requested", job });
        const reply = await context.line.approval(
          id,
          nowMs => device.approveJob(job, nowMs),
          call.signal,
        );
        return follow(context, unlocked, wanted, reply, clock, call.signal);
      }),
    );
  });
}

/** The outcome of a job whose end this page did not see. */
export async function outcome(
  context: Context,
  call: Call<"outcome">,
  id: WalletId,
  job: JobId,
  payload: Payload,
  path: DerivationPath,
): Promise<Signed> {
  const { engine, line, wallets } = context;
  const { digest } = engine.describe(payload);
  return wallets.use(id, async unlocked => {
    const { device } = unlocked;
    const reply = await line.approval(id, nowMs => device.askJob(job, nowMs), call.signal);
    if (reply.kind === "job" && reply.state === "awaiting_owner") {
      await revoke(line, device, id, job, call.signal);
      fail("rejected", "It was not signed, and is rejected so that it will not be.", {
        code: "rejected-by-owner",
      });
    }
    const wanted: Wanted = { wallet: id, job, digest, payload, path };
    return follow(
      context,
      unlocked,
      wanted,
      reply,
      stopwatch(() => undefined),
      call.signal,
    );
  });
}

/** The job does not wait any more: throws how it ended. */
async function alreadyDone(
  { line }: Context,
  device: DeviceWallet,
  id: WalletId,
  job: JobId,
  signal: AbortSignal,
): Promise<never> {
  const reply = await line.approval(id, nowMs => device.askJob(job, nowMs), signal);
  if (reply.kind !== "job") unexpected("orchestrator");
  throw new Failure(endedError(reply));
}

function endedError(reply: Extract<ApprovalReply, { kind: "job" }>): DuetError {
  const by = "orchestrator";
  switch (reply.state) {
    case "expired":
      return duetError("job-expired", "The job's time has passed.", { code: "job-expired", by });
    case "cancelled":
      return duetError("cancelled", "The job was cancelled.", { code: "cancelled", by });
    case "failed":
      return reply.code === "rejected-by-owner"
        ? duetError("rejected", "The owner has rejected the job.", { code: reply.code, by })
        : duetError("refused", reply.message ?? "The job has failed.", { code: reply.code, by });
    case "signed":
      return duetError("refused", "The job is signed already.", { code: "conflict", by });
    default:
      return duetError("refused", "The job does not wait for its owner now.", {
        code: "conflict",
        by,
      });
  }
}

/**
 * The pairs to sign with: those that are `wanted`, or else all, without quarantined responders. One
 * that has not taken the newest Paillier key comes last.
 *
 * @throws {Failure} `quarantined` when no pair is left. Then nothing was asked.
 */
async function trustedPairs(
  { database }: Context,
  device: DeviceWallet,
  wanted?: DevicePair[],
): Promise<DevicePair[]> {
  const { trusted, culprits } = await sortResponders(database, device);
  const pairOf = ({ role }: { role: BackendRole }): DevicePair => `device+${role}`;
  const isDue = ({ party }: RespondingParty): boolean =>
    device.unenrolled.some(one => one.party === party);
  const asked =
    wanted ?? [...trusted.filter(one => !isDue(one)), ...trusted.filter(isDue)].map(pairOf);
  const kept = asked.filter(pair => !culprits.some(one => pairOf(one) === pair));
  const [culprit] = culprits;
  if (kept.length === 0 && culprit && (wanted === undefined || wanted.length > 0))
    throw quarantined(culprit);
  return kept;
}

function requestDocument(
  device: DeviceWallet,
  payload: Payload,
  path: DerivationPath,
  order: SignOrder & Required<Pick<SignOrder, "pairs">>,
): string {
  const { expiresInS = DEFAULT_EXPIRY_S, pairs } = order;
  if (!Number.isInteger(expiresInS) || expiresInS < 1 || expiresInS > MAX_EXPIRY_S) {
    fail("invalid", `A request may be signed for 1 to ${MAX_EXPIRY_S} seconds.`, {
      field: "expiresInS",
    });
  }
  const nowS = Math.floor(Date.now() / 1000);
  const head = {
    version: 2,
    tenant: device.tenant,
    wallet: device.id,
    path,
    idempotency_key: `owner-${crypto.randomUUID()}`,
    issued_at: nowS,
    expires_at: nowS + expiresInS,
    pairs,
  };
  // The payload's own rules of writing numbers apply to it alone.
  return `${JSON.stringify(head).slice(0, -1)},"payload":${payloadDocument(payload)}}`;
}

/**
 * Begins again where a session failed for want of an answer. `abandon` runs when the call ends
 * without a signature and something had been asked.
 */
async function withAttempts(
  { database, wallets }: Context,
  { device, key }: Unlocked,
  signal: AbortSignal,
  attempt: () => Promise<Signed>,
  abandon: () => Promise<void> = () => Promise.resolve(),
): Promise<Signed> {
  const lastStartAt = Date.now() + ATTEMPTS_MS;
  let asked = false;
  for (let count = 1; ; count += 1) {
    try {
      checkpoint(signal);
      if (await finishPending(database, device.id, device, key)) await wallets.changed();
      if (device.newestKey === null)
        throw new Failure(
          closedError(
            (await wallets.summary(device.id)).key === "locked" ? "locked" : "needs-rotation",
          ),
        );
      await requireReady(database, device.newestKey);
      asked = true;
      return await attempt();
    } catch (thrown) {
      const again = isTransient(thrown) || isStale(thrown) || isQuarantined(thrown);
      if (!signal.aborted && again && count < ATTEMPTS && Date.now() < lastStartAt) {
        await pause(pauseMs(BACKOFF, count), signal);
        continue;
      }
      // Not awaited: the caller gets its answer now.
      if (asked) void abandon();
      throw thrown;
    }
  }
}

/** Whether the session was drawn up from what was true before a rotation: told so, the orchestrator looks again. */
function isStale(thrown: unknown): boolean {
  const code = thrown instanceof Failure ? thrown.error.code : undefined;
  return code === "stale-paillier-key" || code === "stale-epoch" || code === "not-enrolled";
}

/**
 * Whether the session was with a quarantined party: told so, the orchestrator takes another of the
 * job's pairs.
 */
function isQuarantined(thrown: unknown): boolean {
  return thrown instanceof Failure && thrown.error.kind === "quarantined";
}

/**
 * The caller is told that nothing was signed, so the owner must not sign the job later by accident.
 * While the orchestrator still has a session of it, the job cannot be rejected. The inbox rejects
 * it when it comes back.
 */
async function giveUp(
  { line, abandoned }: Context,
  device: DeviceWallet,
  { wallet, job }: Wanted,
): Promise<void> {
  abandoned.add(job);
  try {
    await revoke(line, device, wallet, job);
    abandoned.delete(job);
  } catch {
    // It was never taken, or not yet returned.
  }
}

/** From the orchestrator's answer to the signature. */
async function follow(
  context: Context,
  unlocked: Unlocked,
  wanted: Wanted,
  reply: ApprovalReply,
  clock: { tell: Tell; tookMs: () => number },
  signal: AbortSignal,
): Promise<Signed> {
  const { device } = unlocked;
  if (reply.kind === "job") {
    // The same request, done by an attempt that this device did not hear the end of.
    if (reply.state === "signed" && reply.signature) {
      // The orchestrator's word is not taken for it.
      if (!device.holds(wanted.path, wanted.digest, reply.signature)) unexpected("orchestrator");
      const told = await firstSignature(context, unlocked, wanted, reply.signature, () =>
        Promise.resolve(undefined),
      );
      return signedOf(
        context,
        device,
        wanted,
        told,
        { session: "", responder: "" },
        clock.tookMs(),
      );
    }
    if (reply.state === "running" || reply.state === "queued") {
      // Of an attempt that broke; the orchestrator takes a while to see that.
      const message = "An earlier attempt at this signature has not ended yet.";
      throw new Failure(
        duetError("party-unreachable", message, { code: "deadline", by: "orchestrator" }),
      );
    }
    throw new Failure(endedError(reply));
  }
  if (reply.kind !== "session") unexpected("orchestrator");
  const session = new Session(context, unlocked, wanted, reply.manifest, clock.tell, signal);
  const { signature, facts, reported } = await session.run();
  const asked = (): Promise<Uint8Array | undefined> =>
    reported ? resultOf(context, device, wanted) : Promise.resolve(undefined);
  const told = await firstSignature(context, unlocked, wanted, signature, asked);
  return signedOf(context, device, wanted, told, facts, clock.tookMs());
}

/** The signature in the orchestrator's result: of a message, the first that any of the wallet's pairs made. */
async function resultOf(
  { line }: Context,
  device: DeviceWallet,
  { wallet, job, path, digest }: Wanted,
): Promise<Uint8Array | undefined> {
  const asking = line.approval(wallet, nowMs => device.askJob(job, nowMs));
  const reply = await within(asking, REPORT_WAIT_MS, cancelled).catch(() => undefined);
  if (reply?.kind !== "job" || reply.state !== "signed" || !reply.signature) return undefined;
  // The orchestrator's word is not taken for it.
  return device.holds(path, digest, reply.signature) ? reply.signature : undefined;
}

function signedOf(
  { engine }: Context,
  device: DeviceWallet,
  { wallet, job, digest, payload, path }: Wanted,
  signature: Uint8Array,
  { session, responder }: Pick<ManifestFacts, "session" | "responder">,
  tookMs: number,
): Signed {
  const [r, s] = [signature.subarray(0, 32), signature.subarray(32, 64)];
  const last = signature[64] ?? 0;
  const yParity = (last >= 27 ? last - 27 : last) === 1 ? 1 : 0;
  const address = device.addressAt(path);
  return {
    wallet,
    job,
    session,
    address,
    path,
    digest,
    responder,
    yParity,
    tookMs,
    signature: `${bytesToHex(signature.subarray(0, 64))}${yParity === 1 ? "1c" : "1b"}`,
    r: bytesToHex(r),
    s: bytesToHex(s),
    ...(payload.kind === "transaction" && {
      transaction: engine.signedTransaction(payload, signature),
    }),
  };
}

/** One session, from its manifest to its report. */
class Session {
  /** Set once the manifest is known to be one. */
  #facts: ManifestFacts | undefined;

  private get device(): DeviceWallet {
    return this.unlocked.device;
  }

  constructor(
    private readonly context: Context,
    private readonly unlocked: Unlocked,
    private readonly wanted: Wanted,
    private readonly manifest: Uint8Array,
    private readonly tell: Tell,
    private readonly signal: AbortSignal,
  ) {}

  async run(): Promise<{ signature: Uint8Array; facts: ManifestFacts; reported: boolean }> {
    let facts: ManifestFacts;
    let verdict: Verdict;
    let exchange: Promise<Verdict> | undefined;
    try {
      facts = this.#checked();
      exchange = this.#exchange(facts);
      verdict = await within(
        exchange,
        SESSION_MS,
        () =>
          new Failure(
            duetError("party-unreachable", "The session took too long.", {
              code: "deadline",
              by: facts.responder,
            }),
          ),
      );
    } catch (thrown) {
      // A late verdict is wiped unread.
      void exchange?.then(
        late => late.free(),
        () => undefined,
      );
      // Told at once, the orchestrator need not wait until the session expires.
      await this.#reportFailure(thrown);
      throw thrown;
    }
    // No deadline, no progress and no giving up from here until the store has spoken.
    const signature = await this.#released(facts, verdict);
    this.tell({ step: "verified" });
    this.context.line.progress(facts.session, { step: "signed" });
    const reported = await this.#reported(
      facts,
      this.device.reportSigned(this.manifest, signature),
    );
    return { signature, facts, reported };
  }

  #checked(): ManifestFacts {
    const { device, wanted } = this;
    const startedAt = performance.now();
    const facts = device.readManifest(this.manifest, Date.now());
    this.#facts = facts;
    this.tell({ step: "invited", session: facts.session, responder: facts.responder });
    if (facts.job !== wanted.job || facts.digest !== wanted.digest || facts.path !== wanted.path) {
      fail("refused", "The session is about something else than was approved.", {
        code: "peer-misbehaved",
        by: "orchestrator",
      });
    }
    this.tell({ step: "checked", tookMs: elapsed(startedAt) });
    return facts;
  }

  /** Up to message 4. Whatever happens, the nonce is gone afterwards. */
  async #exchange(facts: ManifestFacts): Promise<Verdict> {
    const { context, device, signal } = this;
    const { session, responder, responderFingerprint, paillierKey } = facts;
    await requireTrusted(context.database, responderFingerprint);
    const row = await context.database.get("keys", paillierKey);
    if (
      row?.state === "locked" &&
      paillierKey !== device.newestKey &&
      !device.unenrolled.some(({ party }) => party === responder)
    ) {
      // The rotation that ended the lock came after what the session was drawn up from.
      fail("paillier-locked", "The session names a key that was locked and replaced.", {
        code: "stale-paillier-key",
      });
    }
    if (row === undefined) {
      fail(
        "needs-rotation",
        "This wallet's Paillier key was replaced on another device; make a new one here to sign here.",
        {
          code: "stale-paillier-key",
        },
      );
    }
    await requireReady(context.database, paillierKey);
    await requireSamePayload(context.database, facts);
    const card = await this.#responderCard(facts);
    checkpoint(signal);
    let state: Initiator | Opened | Answered | undefined;
    try {
      let startedAt = performance.now();
      const first = device.start(this.manifest, card, Date.now());
      state = first.state;
      this.tell({ step: "sent", message: 1, to: responder, tookMs: elapsed(startedAt) });
      context.line.progress(session, { step: "sent", message: 1 });
      const message2 = await context.line.first(session, responder, first.message, signal);
      startedAt = performance.now();
      state = undefined;
      const second = first.state.receive(message2);
      state = second.state;
      this.tell({ step: "received", message: 2, from: responder, tookMs: elapsed(startedAt) });
      context.line.progress(session, { step: "received", message: 2 });
      checkpoint(signal);
      this.tell({ step: "sent", message: 3, to: responder });
      // From here on giving up changes nothing: the responder may have answered message 3.
      const message4 = await context.line.third(session, responder, second.message);
      startedAt = performance.now();
      state = undefined;
      const answered = second.state.receive(message4);
      state = answered;
      // Without this on its way to the disk nothing is decrypted: a tab that ends now must not take
      // a bad verdict with it.
      const sealed = answered.pendingVerdict(this.unlocked.key);
      const pending = { session, wallet: device.id, paillierKey, responder, sealed };
      await writePending(context.database, pending, facts);
      state = undefined;
      const verdict = answered.decrypt();
      this.tell({ step: "received", message: 4, from: responder, tookMs: elapsed(startedAt) });
      return verdict;
    } finally {
      state?.free();
    }
  }

  async #responderCard({ responder, responderFingerprint }: ManifestFacts): Promise<Uint8Array> {
    const { context } = this;
    const stored = await context.database.get("cards", responderFingerprint);
    if (stored) return stored.card;
    // After a restore: the wallet itself knows which card it must be.
    const { card, fingerprint } = await fetchCard(
      context,
      responder,
      responderFingerprint,
      this.signal,
    );
    await context.database.put("cards", { fingerprint, party: responder, card });
    return card;
  }

  async #released(
    { session, responder, paillierKey }: ManifestFacts,
    verdict: Verdict,
  ): Promise<Uint8Array> {
    const evidence = verdict.lockEvidence;
    const { device, key } = this.unlocked;
    const bad =
      evidence === null ? null : { evidence, record: withoutKey(device, paillierKey, key) };
    const pending = { session, wallet: device.id, paillierKey, responder };
    let gate: Awaited<ReturnType<typeof passGate>>;
    try {
      gate = await passGate(this.context.database, pending, bad);
    } catch (thrown) {
      // Nothing may be said, not even that it failed.
      verdict.free();
      throw thrown;
    }
    if (gate === "open") return verdict.release(paillierKey);
    let error: DuetError;
    if (gate === "locked-now") {
      const culprit = verdict.settle(paillierKey);
      error = duetError(
        "paillier-locked",
        `${culprit} answered with a bad signature; the Paillier key is locked, and ${culprit} is not asked again.`,
        { code: "peer-misbehaved", by: culprit || responder },
      );
    } else {
      verdict.free();
      error = closedError(gate);
    }
    await this.context.wallets.changed();
    const failure = new Failure(error);
    await this.#reportFailure(failure);
    throw failure;
  }

  /**
   * Whether the orchestrator acknowledged the report within a moment. After that the worker goes on
   * sending it, and the caller does not wait.
   */
  async #reported({ session }: ManifestFacts, report: Uint8Array): Promise<boolean> {
    const acknowledged = this.context.line.outcome(session, report, REPORT_MS).then(
      () => {
        this.tell({ step: "reported" });
        return true;
      },
      // The orchestrator finds out by itself that the session has ended.
      () => false,
    );
    return within(acknowledged, REPORT_WAIT_MS, cancelled).catch(() => false);
  }

  async #reportFailure(thrown: unknown): Promise<void> {
    if (!this.#facts) return;
    const { session } = this.#facts;
    const error =
      thrown instanceof Failure
        ? thrown.error
        : duetError("internal", "Something failed in the device.");
    const code =
      error.code ??
      (error.kind === "cancelled"
        ? "cancelled"
        : error.kind === "internal"
          ? "internal"
          : "deadline");
    const culprit =
      error.kind === "paillier-locked" && code === "peer-misbehaved" ? error.by : undefined;
    try {
      const report = this.device.reportFailed(this.manifest, code, error.message, culprit);
      this.context.line.progress(session, { step: "failed", code });
      const acknowledged = this.context.line
        .outcome(session, report, REPORT_MS)
        .catch(() => undefined);
      await within(acknowledged, REPORT_WAIT_MS, cancelled);
    } catch {
      // Not acknowledged yet, or a code that is none of the parties': the session expires by
      // itself.
    }
  }
}

const elapsed = (startedAt: number): number =>
  Math.round((performance.now() - startedAt) * 10) / 10;
