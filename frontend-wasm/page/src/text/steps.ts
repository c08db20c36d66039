import type { CreateProgress, SigningStep, WalletParty } from "@duet/signer";

/** The steps of long work, in the order people see them, and what each event says about them. */

export type StepState = "waiting" | "active" | "done" | "failed";

export interface StepRow<Name extends string = string> {
  name: Name;
  title: string;
  text: string;
}

// --------------------------------------------------------------------------------------- creation

export type CreateStepName =
  | "protection"
  | "card"
  | "shares"
  | "paillier-key"
  | "proofs"
  | "sealing"
  | "stored"
  | "preparing"
  | "committing"
  | "enrolling"
  | "ready";

const CREATE_TEXTS: Record<CreateStepName, Omit<StepRow, "name">> = {
  protection: {
    title: "Strengthen the protection",
    text: "Turning your passphrase or passkey into the key that seals everything here.",
  },
  card: {
    title: "Check who holds the other shares",
    text: "This browser compares their fingerprints and verifies the proofs of their parameters.",
  },
  shares: {
    title: "Draw the three shares",
    text: "This browser draws the key at random, splits it, and erases it.",
  },
  "paillier-key": {
    title: "Search two large primes",
    text: "For this device's encryption key. How long it takes depends on chance.",
  },
  proofs: {
    title: "Prove that the shares are sound",
    text: "Each party gets a proof that its share belongs to your address.",
  },
  sealing: { title: "Seal the shares", text: "Only the party that receives a share can read it." },
  stored: {
    title: "Store your share",
    text: "Sealed, in this browser. From here on, a reload loses nothing.",
  },
  preparing: {
    title: "The other parties verify",
    text: "Each party checks every proof and signs a receipt.",
  },
  committing: {
    title: "All parties commit",
    text: "The page shows the address only after all of them have.",
  },
  enrolling: {
    title: "The other parties accept the new key",
    text: "Each party verifies the new encryption key and signs for it.",
  },
  ready: { title: "Ready", text: "The wallet can sign." },
};

const rows = (names: readonly CreateStepName[]): StepRow<CreateStepName>[] =>
  names.map(name => ({ name, ...CREATE_TEXTS[name] }));

export const CREATE_STEPS = rows([
  "protection",
  "card",
  "shares",
  "paillier-key",
  "proofs",
  "sealing",
  "stored",
  "preparing",
  "committing",
  "ready",
]);
export const RESUME_STEPS = rows(["preparing", "committing", "ready"]);
export const ROTATE_STEPS = rows(["card", "paillier-key", "proofs", "enrolling", "ready"]);

const CREATE_STEP_OF: Record<CreateProgress["step"], { name: CreateStepName; ends: boolean }> = {
  protection: { name: "protection", ends: false },
  card: { name: "card", ends: false },
  "card-verified": { name: "card", ends: true },
  shares: { name: "shares", ends: false },
  "paillier-key": { name: "paillier-key", ends: false },
  proofs: { name: "proofs", ends: false },
  sealing: { name: "sealing", ends: false },
  stored: { name: "stored", ends: true },
  preparing: { name: "preparing", ends: false },
  prepared: { name: "preparing", ends: true },
  committing: { name: "committing", ends: false },
  committed: { name: "committing", ends: true },
  enrolling: { name: "enrolling", ends: false },
  enrolled: { name: "enrolling", ends: true },
  ready: { name: "ready", ends: true },
};

export interface StepProgress {
  state: StepState;
  startedAtMs: number;
  ms: number | null;
  detail: string | null;
  /** The parties that were asked and have not answered. */
  asked: ReadonlySet<string>;
}

export type Progress<Name extends string> = ReadonlyMap<Name, StepProgress>;

/**
 * What is known after one more event. Steps may overlap (two parties are asked at once); a step is
 * over when an event says so of every party that was asked, or when a later one has begun.
 */
export function advance(
  steps: readonly StepRow<CreateStepName>[],
  progress: Progress<CreateStepName>,
  event: CreateProgress,
): Progress<CreateStepName> {
  const next = new Map(progress);
  const { name, ends } = CREATE_STEP_OF[event.step];
  const position = steps.findIndex(row => row.name === name);
  if (position < 0) return progress;
  for (const earlier of steps.slice(0, position)) {
    const state = next.get(earlier.name);
    if (state?.state === "active") {
      next.set(earlier.name, { ...state, state: "done", ms: event.atMs - state.startedAtMs });
    }
  }
  const before = next.get(name) ?? {
    state: "active",
    startedAtMs: event.atMs,
    ms: null,
    detail: null,
    asked: new Set<string>(),
  };
  const detail =
    event.step === "paillier-key"
      ? `For this device's encryption key: ${event.candidates} candidates tried, about 120 are usual.`
      : "party" in event
        ? `${event.party}: ${CREATE_TEXTS[name].text}`
        : before.detail;
  const asked = new Set(before.asked);
  if ("party" in event) {
    if (ends) asked.delete(event.party);
    else asked.add(event.party);
  }
  const over = ends && asked.size === 0;
  next.set(name, {
    ...before,
    asked,
    detail,
    state: over ? "done" : "active",
    ms: over ? event.atMs - before.startedAtMs : null,
  });
  return next;
}

// ---------------------------------------------------------------------------------------- signing

export type SigningStepName =
  | "requested"
  | "invited"
  | "checked"
  | "sent-1"
  | "received-2"
  | "sent-3"
  | "received-4"
  | "verified"
  | "reported";

/** Who does a step, and to whom. */
export type Actor = "device" | "responder" | "orchestrator";

export interface SigningRow extends StepRow<SigningStepName> {
  from: Actor;
  to: Actor | null;
}

export const SIGNING_STEPS: readonly SigningRow[] = [
  {
    name: "requested",
    from: "device",
    to: "orchestrator",
    title: "You asked",
    text: "Your signed request left this browser.",
  },
  {
    name: "invited",
    from: "responder",
    to: "device",
    title: "The other party agreed",
    text: "It computed the digest itself, and accepted.",
  },
  {
    name: "checked",
    from: "device",
    to: null,
    title: "Checked here",
    text: "The other party's identity, the digest, and your key's lock.",
  },
  {
    name: "sent-1",
    from: "device",
    to: "responder",
    title: "Promise",
    text: "A commitment to this device's half nonce.",
  },
  {
    name: "received-2",
    from: "responder",
    to: "device",
    title: "The other half, proved",
    text: "With a proof that the other party knows it, verified here.",
  },
  {
    name: "sent-3",
    from: "device",
    to: "responder",
    title: "Promise opened",
    text: "With the same kind of proof, for the other party to verify.",
  },
  {
    name: "received-4",
    from: "responder",
    to: "device",
    title: "Encrypted signature",
    text: "Only this device can decrypt it.",
  },
  {
    name: "verified",
    from: "device",
    to: null,
    title: "Decrypted and verified",
    text: "The signature is valid for your address.",
  },
  {
    name: "reported",
    from: "device",
    to: "orchestrator",
    title: "Reported",
    text: "The outcome is on record.",
  },
];

export function signingStepName(step: SigningStep): SigningStepName {
  switch (step.step) {
    case "sent":
      return step.message === 1 ? "sent-1" : "sent-3";
    case "received":
      return step.message === 2 ? "received-2" : "received-4";
    default:
      return step.step;
  }
}

/** The party's name, and which role it has in the wallet. */
export function responderOf(step: SigningStep): string | null {
  switch (step.step) {
    case "invited":
      return step.responder;
    case "sent":
      return step.to;
    case "received":
      return step.from;
    default:
      return null;
  }
}

export function roleOf(parties: readonly WalletParty[], party: string): "service" | "partner" {
  const found = parties.find(one => "party" in one && one.party === party);
  return found?.role === "partner" ? "partner" : "service";
}
