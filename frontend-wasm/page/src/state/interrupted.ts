import { signal } from "@preact/signals";
import type { JobId, Payload, WalletId } from "@duet/signer";

/**
 * A signature that was running when the page went away. The page shows its outcome when it comes
 * back. It is kept in this tab's storage: it is no secret, and no other tab needs it.
 */

const KEY = "duet.signing";
/** Whether what is in the storage is about a signature that runs here. */
let remembering = false;

export interface Interrupted {
  wallet: WalletId;
  /** What was being signed, in words: “a transaction”. */
  what: string;
  payload: Payload;
  path: string;
  /** Known once it was asked for. */
  job: JobId | null;
}

export interface Remembered {
  /** It was asked for, as this job. */
  asked: (job: JobId) => void;
  /** It has ended, in whatever way. */
  forget: () => void;
}

/** Begins to remember. */
export function rememberSigning(running: Omit<Interrupted, "job">): Remembered {
  const write = (job: JobId | null) => {
    try {
      sessionStorage.setItem(
        KEY,
        JSON.stringify({ ...running, job }, (_, value) =>
          typeof value === "bigint" ? value.toString() : value,
        ),
      );
    } catch {
      // Then a reload goes unmentioned.
    }
  };
  remembering = true;
  write(null);
  return { asked: write, forget };
}

function forget(): void {
  remembering = false;
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // It could not be written either.
  }
}

function recall(): Interrupted | null {
  try {
    const value = JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Partial<Interrupted> | null;
    if (
      typeof value?.wallet !== "string" ||
      typeof value.what !== "string" ||
      typeof value.path !== "string"
    )
      return null;
    if (typeof value.payload !== "object" || value.payload === null) return null;
    const { wallet, what, payload, path, job } = value;
    return { wallet, what, payload, path, job: typeof job === "string" ? job : null };
  } catch {
    return null;
  }
}

/** It stays in the storage until it is dismissed: another reload asks again. */
export const interrupted = signal<Interrupted | null>(recall());

export function clearInterrupted(): void {
  if (!remembering) forget();
  interrupted.value = null;
}
