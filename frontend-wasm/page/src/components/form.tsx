import type { ComponentChildren } from "preact";

interface FormProps {
  onSubmit: () => void | Promise<void>;
  /** Whether the last submission is still under way: until it has ended, another does nothing. */
  busy?: boolean;
  /** Beside `card`. */
  class?: string;
  testId?: string;
  labelledBy?: string;
  children: ComponentChildren;
}

/** A card that asks for something. Fields say themselves what is wrong with them, not the browser. */
export function Form({
  onSubmit,
  busy = false,
  class: extra,
  testId,
  labelledBy,
  children,
}: FormProps) {
  return (
    <form
      class={extra === undefined ? "card" : `card ${extra}`}
      data-testid={testId}
      aria-labelledby={labelledBy}
      noValidate
      onSubmit={event => {
        event.preventDefault();
        if (!busy) void onSubmit();
      }}
    >
      {children}
    </form>
  );
}

/** Leads to the first field with a problem, once the problems are shown. */
export function focusFirstProblem(): void {
  requestAnimationFrame(() =>
    document.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus(),
  );
}
