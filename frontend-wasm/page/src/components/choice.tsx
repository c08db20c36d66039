import type { ComponentChildren } from "preact";

export interface Choice<Value extends string> {
  value: Value;
  testId: string;
  title: string;
  text?: ComponentChildren;
  disabled?: boolean | undefined;
}

interface ChoicesProps<Value extends string> {
  name: string;
  legend: string;
  value: Value;
  choices: readonly Choice<Value>[];
  onChange: (value: Value) => void;
  /** Side by side, for short ones. */
  row?: boolean | undefined;
}

/** Radio buttons as cards. */
export function Choices<Value extends string>({
  name,
  legend,
  value,
  choices,
  onChange,
  row,
}: ChoicesProps<Value>) {
  return (
    <fieldset>
      <legend class="choices-legend">{legend}</legend>
      <div class={row === true ? "choices-row" : "choices"}>
        {choices.map(choice => (
          <label class="choice" key={choice.value}>
            <input
              type="radio"
              name={name}
              value={choice.value}
              data-testid={choice.testId}
              checked={choice.value === value}
              disabled={choice.disabled}
              onChange={() => onChange(choice.value)}
            />
            <span class="choice-title">{choice.title}</span>
            {choice.text && <span class="choice-text">{choice.text}</span>}
          </label>
        ))}
      </div>
    </fieldset>
  );
}

interface CheckProps {
  testId: string;
  checked: boolean;
  onChange: (checked: boolean) => void;
  children: ComponentChildren;
}

export function Check({ testId, checked, onChange, children }: CheckProps) {
  return (
    <label class="check">
      <input
        type="checkbox"
        data-testid={testId}
        checked={checked}
        onChange={event => onChange(event.currentTarget.checked)}
      />
      <span>{children}</span>
    </label>
  );
}
