/** How refusals and failures, wherever they come from, become the library's errors. */

import type { DuetError, DuetErrorKind, Outcome } from "./types.js";

type Details = { code?: string; by?: string; field?: string; retryAfterMs?: number };

/** An error as a value. Details that are `undefined` are left out. */
export function duetError(
  kind: DuetErrorKind,
  message: string,
  details: Partial<Record<keyof Details, Details[keyof Details] | undefined>> = {},
): DuetError {
  const present = Object.fromEntries(
    Object.entries(details).filter(([, value]) => value !== undefined),
  );
  return { kind, message, ...present } as DuetError;
}

/** Carries a `DuetError` up the stack, inside the library only: its methods give outcomes. */
export class Failure extends Error {
  override readonly name = "Failure";
  constructor(
    readonly error: DuetError,
    options?: ErrorOptions,
  ) {
    super(error.message, options);
  }
}

export function fail(
  kind: DuetErrorKind,
  message: string,
  details: Parameters<typeof duetError>[2] = {},
): never {
  throw new Failure(duetError(kind, message, details));
}

/** What was thrown, as an error of the library. Foreign exceptions keep only their message. */
export function toError(thrown: unknown): DuetError {
  if (thrown instanceof Failure) return thrown.error;
  if (thrown instanceof DOMException) {
    switch (thrown.name) {
      case "AbortError":
        return duetError("cancelled", "It was cancelled.");
      case "QuotaExceededError":
        return duetError("storage", "The browser's storage is full.");
      case "InvalidStateError":
      case "TransactionInactiveError":
      case "UnknownError":
      case "DataError":
      case "VersionError":
        return duetError("storage", `The browser's storage failed: ${thrown.message}`);
    }
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return duetError("internal", message || "The signer failed, and gave no reason.");
}

/** Runs `work`; what it throws becomes an outcome. */
export async function outcomeOf<T>(work: () => Promise<T> | T): Promise<Outcome<T>> {
  try {
    return { ok: true, value: await work() };
  } catch (thrown) {
    return { ok: false, error: toError(thrown) };
  }
}

/** The value of an outcome, or its error thrown as a `Failure`. */
export function unwrap<T>(outcome: Outcome<T>): T {
  if (!outcome.ok) throw new Failure(outcome.error);
  return outcome.value;
}

/** Codes of docs/errors.md that a program of the owner can act on. All others are `refused`. */
const KINDS: Readonly<Record<string, DuetErrorKind>> = {
  locked: "paillier-locked",
  "needs-rotation": "needs-rotation",
  "job-expired": "job-expired",
  "rejected-by-owner": "rejected",
  cancelled: "cancelled",
  "chain-id-mismatch": "wrong-chain",
  "wrong-passphrase": "wrong-passphrase",
  deadline: "party-unreachable",
  "no-seat": "party-unreachable",
  overloaded: "party-unreachable",
  "party-away": "party-unreachable",
  "no-pair-available": "party-unreachable",
  "broker-unreachable": "party-unreachable",
  "unsafe-broker": "party-unreachable",
  "storage-unavailable": "party-unreachable",
};

/** A refusal that came over the wire: `by` is who said it. */
export function refusalError(refusal: { code: string; message: string }, by: string): DuetError {
  const kind = KINDS[refusal.code] ?? "refused";
  return duetError(kind, sentence(refusal.message), { code: refusal.code, by });
}

/** An error of the WebAssembly bindings. */
export type BindingError = {
  kind: string;
  message: string;
  code?: string | undefined;
  path?: string | undefined;
  culprit?: string | undefined;
};

/** Codes about a document of ours, which its author can correct. */
const INPUT = new Set([
  "malformed-json",
  "invalid-payload",
  "too-large",
  "malformed-message",
  "unsupported-version",
]);

/** A refusal by our own code, in WebAssembly. `field` is where the argument is, if it says nothing itself. */
export function bindingError(error: BindingError, field?: string): DuetError {
  const message = sentence(error.message);
  const { code } = error;
  switch (error.kind) {
    case "malformed":
      return duetError("invalid", message, { field: error.path ?? field });
    case "refused":
      if (code !== undefined && INPUT.has(code)) {
        return duetError("invalid", message, { code, field: error.path ?? field });
      }
      return duetError(KINDS[code ?? ""] ?? "refused", message, { code, field: error.path });
    case "wrong-passphrase":
      return duetError("wrong-passphrase", message);
    case "card":
      return duetError("refused", message, { code: "card-mismatch" });
    case "record":
      return duetError("storage", message);
    case "needs-rotation":
      return duetError("needs-rotation", message, { code: "needs-rotation" });
    case "cancelled":
      return duetError("cancelled", message);
    case "not-authentic":
    case "bad-signature":
      return duetError("refused", message, { code: "peer-misbehaved" });
    case "paper":
    case "peer-misbehaved":
      return duetError("refused", message, { code: "peer-misbehaved", by: error.culprit });
    default:
      return duetError("internal", message);
  }
}

/** Messages from Rust begin small and end open. */
function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") return "No reason was given.";
  const first = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
