import { duration } from "../text/format";
import type { Progress, StepRow } from "../text/steps";
import { Icon } from "./icon";
import { useEffect, useState } from "preact/hooks";

interface ProgressListProps<Name extends string> {
  /** Prefix of the rows' test ids: `create-step` makes `create-step-shares`. */
  rowId: string;
  testId: string;
  steps: readonly StepRow<Name>[];
  progress: Progress<Name>;
  label: string;
}

/** Long work, step by step: what happens, how far it is, how long each took. All rows are there from the start. */
export function ProgressList<Name extends string>({
  rowId,
  testId,
  steps,
  progress,
  label,
}: ProgressListProps<Name>) {
  const active = steps.find(step => progress.get(step.name)?.state === "active") ?? null;
  const furthest = steps.reduce(
    (last, step, index) => (progress.has(step.name) ? index : last),
    -1,
  );
  return (
    <div class="stack" data-testid={testId} data-step={active?.name}>
      <ol class="steps" aria-label={label}>
        {steps.map((step, index) => {
          const at = progress.get(step.name);
          // A step that was skipped, because a later one has begun, is done.
          const state = at?.state ?? (index < furthest ? "done" : "waiting");
          return (
            <li
              key={step.name}
              class="step"
              data-state={state}
              data-testid={`${rowId}-${step.name}`}
              {...(at?.ms == null ? {} : { "data-ms": Math.round(at.ms) })}
            >
              <span class="step-mark">{state === "done" && <Icon name="check" />}</span>
              <div class="step-body">
                <p class="step-title">{step.title}</p>
                <p class="step-text">{(state === "active" ? at?.detail : null) ?? step.text}</p>
              </div>
              <span class="step-time">
                {at?.ms != null ? duration(at.ms) : state === "active" ? <Elapsed /> : ""}
              </span>
            </li>
          );
        })}
      </ol>
      <p class="visually-hidden" role="status">
        {active?.title}
      </p>
    </div>
  );
}

/** Seconds since it appeared. */
export function Elapsed() {
  const [since] = useState(() => performance.now());
  const [now, setNow] = useState(since);
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 100);
    return () => clearInterval(timer);
  }, []);
  return <span aria-hidden="true">{((now - since) / 1000).toFixed(1)} s</span>;
}
