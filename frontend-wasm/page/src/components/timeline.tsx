import type { SigningStep, WalletSummary } from "@duet/signer";

import { duration } from "../text/format";
import {
  responderOf,
  roleOf,
  SIGNING_STEPS,
  signingStepName,
  type Actor,
  type SigningStepName,
  type StepState,
} from "../text/steps";
import { Icon } from "./icon";

interface TimelineProps {
  wallet: WalletSummary;
  steps: readonly SigningStep[];
  state: "signing" | "signed" | "failed";
}

/** The rounds of one signature as they happen: who proved what to whom, and when. */
export function Timeline({ wallet, steps, state }: TimelineProps) {
  const at = new Map<SigningStepName, SigningStep>(
    steps.map(step => [signingStepName(step), step]),
  );
  const party = steps.map(responderOf).find(name => name !== null) ?? null;
  const role = party === null ? "service" : roleOf(wallet.parties, party);
  const names: Record<Actor, string> = {
    device: "This device",
    responder: party ?? "Service",
    orchestrator: "Orchestrator",
  };
  // Steps arrive in order but for the last, which may come after the signature.
  const last = SIGNING_STEPS.reduce((found, row, index) => (at.has(row.name) ? index : found), -1);
  let previous = 0;
  return (
    <div data-testid="timeline">
      <ol class="steps timeline" aria-label="Rounds of the signature">
        {SIGNING_STEPS.map((row, index) => {
          const step = at.get(row.name);
          const skipped = step === undefined && index < last;
          const shown: StepState =
            step || skipped
              ? "done"
              : index === last + 1 && state !== "signed"
                ? state === "failed"
                  ? "failed"
                  : "active"
                : "waiting";
          const took = step ? step.atMs - previous : null;
          if (step) previous = step.atMs;
          return (
            <li
              key={row.name}
              class="step"
              data-state={shown}
              data-testid={`timeline-${row.name}`}
              {...(step ? { "data-ms": Math.round(step.atMs) } : {})}
            >
              <span class={`step-mark actor-${row.from === "responder" ? role : row.from}`}>
                {shown === "done" && <Icon name="check" />}
                {shown === "failed" && <Icon name="close" />}
              </span>
              <div class="step-body">
                <p class="step-title">
                  {row.title}
                  <span class="step-route">
                    <span class={`actor actor-${row.from === "responder" ? role : row.from}`}>
                      {names[row.from]}
                    </span>
                    {row.to && (
                      <>
                        <span aria-label="to"> → </span>
                        <span class={`actor actor-${row.to === "responder" ? role : row.to}`}>
                          {names[row.to]}
                        </span>
                      </>
                    )}
                  </span>
                </p>
                <p class="step-text">{row.text}</p>
              </div>
              <span class="step-time">
                {took !== null && (took < 1 ? duration(took) : `+${duration(took)}`)}
              </span>
            </li>
          );
        })}
      </ol>
    </div>
  );
}
