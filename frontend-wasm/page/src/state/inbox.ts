import { effect, signal } from "@preact/signals";
import type { DuetError, JobId, Signed, WaitingJob, WalletId } from "@duet/signer";

import { duet } from "./duet";

/** The jobs that wait for the owner, and the outcomes of those that were answered in this tab. */

export type JobOutcome =
  | { state: "waiting" }
  | { state: "signing" }
  | { state: "signed"; signed: Signed }
  | { state: "rejected" }
  | { state: "expired" }
  | { state: "failed"; error: DuetError };

export interface InboxEntry {
  job: WaitingJob;
  outcome: JobOutcome;
}

/** Answered jobs that are kept for looking at; older ones go. */
const MAX_ANSWERED = 20;

/** This tab's storage: what was answered is still there after a reload, and gone with the tab. */
const KEY = "duet.answered";

const isAnswered = ({ outcome }: InboxEntry): boolean =>
  outcome.state !== "waiting" && outcome.state !== "signing";

function recall(): ReadonlyMap<JobId, InboxEntry> {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "[]") as InboxEntry[];
    return new Map(kept.filter(isAnswered).map(entry => [entry.job.job, entry]));
  } catch {
    // Forbidden, or of another version of this page.
    return new Map();
  }
}

export const entries = signal<ReadonlyMap<JobId, InboxEntry>>(recall());
effect(() => {
  const answered = [...entries.value.values()].filter(isAnswered);
  try {
    const plain = (_: string, value: unknown): unknown =>
      typeof value === "bigint" ? value.toString() : value;
    sessionStorage.setItem(KEY, JSON.stringify(answered, plain));
  } catch {
    // Then a reload forgets them.
  }
});
export const inboxErrors = signal<ReadonlyMap<WalletId, DuetError>>(new Map());
/** Wallets whose jobs were read at least once. */
export const inboxRead = signal<ReadonlySet<WalletId>>(new Set());

export function settle(job: JobId, outcome: JobOutcome): void {
  const entry = entries.value.get(job);
  if (entry) entries.value = new Map(entries.value).set(job, { ...entry, outcome });
}

/** Reads the waiting jobs of an open wallet. */
export async function refreshInbox(wallet: WalletId): Promise<void> {
  const answer = await duet().inbox(wallet);
  const errors = new Map(inboxErrors.value);
  if (!answer.ok) {
    // A wallet that locked itself meanwhile says so in its own place.
    if (answer.error.kind !== "locked") errors.set(wallet, answer.error);
    inboxErrors.value = errors;
    return;
  }
  errors.delete(wallet);
  inboxErrors.value = errors;
  inboxRead.value = new Set(inboxRead.value).add(wallet);

  const listed = new Set(answer.value.map(({ job }) => job));
  const next = new Map(entries.value);
  for (const [id, entry] of next) {
    if (entry.job.wallet !== wallet || listed.has(id) || entry.outcome.state !== "waiting")
      continue;
    // It is no longer waiting: its time has passed, or it was answered elsewhere.
    if (entry.job.expiresAt <= Date.now())
      next.set(id, { ...entry, outcome: { state: "expired" } });
    else next.delete(id);
  }
  for (const job of answer.value) {
    if (!next.has(job.job)) next.set(job.job, { job, outcome: { state: "waiting" } });
  }
  const answered = [...next.values()].filter(isAnswered);
  for (const { job } of answered.slice(0, Math.max(0, answered.length - MAX_ANSWERED)))
    next.delete(job.job);
  entries.value = next;
}
