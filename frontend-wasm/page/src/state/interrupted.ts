import { signal } from "@preact/signals";

/** A signature that was running when the page went away, so that the page can say so when it comes back. */

const KEY = "duet.signing";

export interface Interrupted {
  wallet: string;
  /** What was being signed, in words: “a transaction”. */
  what: string;
}

/** Begins to remember; the answer forgets again, when the signature has ended in whatever way. */
export function rememberSigning(running: Interrupted): () => void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(running));
  } catch {
    // Then a reload goes unmentioned.
  }
  return forget;
}

function forget(): void {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // It could not be written either.
  }
}

function recall(): Interrupted | null {
  try {
    const value: unknown = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    forget();
    if (typeof value !== "object" || value === null || !("wallet" in value) || !("what" in value)) return null;
    return typeof value.wallet === "string" && typeof value.what === "string" ? { wallet: value.wallet, what: value.what } : null;
  } catch {
    return null;
  }
}

export const interrupted = signal<Interrupted | null>(recall());

export function clearInterrupted(): void {
  interrupted.value = null;
}
