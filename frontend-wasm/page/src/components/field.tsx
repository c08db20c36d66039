import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import { strength } from "../text/passphrase";
import { IconButton } from "./button";
import { Icon } from "./icon";

interface FieldProps {
  /** The field's id, which is its test id too. */
  id: string;
  label: string;
  hint?: ComponentChildren;
  error?: string | null | undefined;
  optional?: boolean | undefined;
}

function describedBy({ id, hint, error }: FieldProps): string | undefined {
  const ids = [hint ? `${id}-hint` : "", error ? `${id}-error` : ""].filter(part => part !== "");
  return ids.length > 0 ? ids.join(" ") : undefined;
}

/** What every field that is typed into has: browsers keep out of it, and what is wrong with it is told. */
function typedAttributes(field: FieldProps) {
  return {
    id: field.id,
    "data-testid": field.id,
    autocapitalize: "off",
    spellcheck: false,
    "aria-invalid": field.error ? true : undefined,
    "aria-describedby": describedBy(field),
  } as const;
}

function Field({ field, children }: { field: FieldProps; children: ComponentChildren }) {
  const { id, label, hint, error, optional } = field;
  return (
    <div class="field">
      <label class="field-label" for={id}>
        {label}
        {optional === true && <span class="field-optional">optional</span>}
      </label>
      {children}
      {hint && (
        <p class="field-hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      <FieldError id={id} error={error} />
    </div>
  );
}

export function FieldError({ id, error }: { id: string; error: string | null | undefined }) {
  if (!error) return null;
  return (
    <p class="field-error" id={`${id}-error`} data-testid={`field-error-${id}`} role="alert">
      <Icon name="error" />
      <span>{error}</span>
    </p>
  );
}

interface TextFieldProps extends FieldProps {
  value: string;
  onInput: (value: string) => void;
  mono?: boolean | undefined;
  placeholder?: string | undefined;
  /** Digits, for the keyboard of a phone. */
  numeric?: boolean | undefined;
  disabled?: boolean | undefined;
  maxLength?: number | undefined;
  side?: ComponentChildren;
}

export function TextField(props: TextFieldProps) {
  const { value, onInput, mono, placeholder, numeric, disabled, maxLength, side } = props;
  const input = (
    <input
      class={mono === true ? "input input-mono" : "input"}
      {...typedAttributes(props)}
      type="text"
      value={value}
      placeholder={placeholder}
      inputMode={numeric === true ? "decimal" : undefined}
      disabled={disabled}
      maxLength={maxLength}
      autocomplete="off"
      onInput={event => onInput(event.currentTarget.value)}
    />
  );
  return (
    <Field field={props}>
      {side ? (
        <div class="input-with-side">
          {input}
          {side}
        </div>
      ) : (
        input
      )}
    </Field>
  );
}

interface TextAreaProps extends FieldProps {
  value: string;
  onInput: (value: string) => void;
  mono?: boolean | undefined;
  tall?: boolean | undefined;
  placeholder?: string | undefined;
}

export function TextArea(props: TextAreaProps) {
  const { value, onInput, mono, tall, placeholder } = props;
  return (
    <Field field={props}>
      <textarea
        class={`input${mono === true ? " input-mono" : ""}${tall === true ? " input-tall" : ""}`}
        {...typedAttributes(props)}
        value={value}
        placeholder={placeholder}
        autocomplete="off"
        onInput={event => onInput(event.currentTarget.value)}
      />
    </Field>
  );
}

interface PassphraseFieldProps extends FieldProps {
  value: string;
  onInput: (value: string) => void;
  /** A passphrase that is being chosen, not one that exists. */
  fresh?: boolean | undefined;
}

export function PassphraseField(props: PassphraseFieldProps) {
  const { id, value, onInput, fresh } = props;
  const [shown, setShown] = useState(false);
  const attributes = {
    ...typedAttributes(props),
    class: "input",
    value,
    autocomplete: fresh === true ? "new-password" : "current-password",
    onInput: (event: { currentTarget: HTMLInputElement }) => onInput(event.currentTarget.value),
  } as const;
  return (
    <Field field={props}>
      <div class="input-with-side">
        {shown ? <input {...attributes} type="text" /> : <input {...attributes} type="password" />}
        <IconButton
          testId={`${id}-show`}
          icon="eye"
          label={shown ? "Hide the passphrase" : "Show the passphrase"}
          pressed={shown}
          onClick={() => setShown(!shown)}
        />
      </div>
    </Field>
  );
}

/** How well a passphrase would resist guessing, as bars and words. */
export function StrengthHint({ testId, passphrase }: { testId: string; passphrase: string }) {
  const { score, text } = strength(passphrase);
  return (
    <div class="strength" data-testid={testId} data-score={score}>
      <div class="strength-bars" aria-hidden="true">
        <span />
        <span />
        <span />
        <span />
      </div>
      <p class="field-hint" aria-live="polite">
        {text}
      </p>
    </div>
  );
}

interface SelectProps {
  id: string;
  label: string;
  value: string;
  options: readonly { value: string; text: string }[];
  onChange: (value: string) => void;
  hint?: ComponentChildren;
  /** The label is only for screen readers: the field stands beside another one. */
  bare?: boolean | undefined;
}

export function Select({ id, label, value, options, onChange, hint, bare }: SelectProps) {
  const select = (
    <select
      class="input"
      id={id}
      data-testid={id}
      aria-label={bare === true ? label : undefined}
      aria-describedby={hint ? `${id}-hint` : undefined}
      onChange={event => onChange(event.currentTarget.value)}
    >
      {options.map(option => (
        <option key={option.value} value={option.value} selected={option.value === value}>
          {option.text}
        </option>
      ))}
    </select>
  );
  return bare === true ? select : <Field field={{ id, label, hint }}>{select}</Field>;
}

/** The largest backup that is looked at, in bytes; real ones have some ten kilobytes. */
const MAX_BACKUP_BYTES = 1024 * 1024;

/** Why a chosen file cannot be a backup, or `null`. */
export function backupFileProblem(file: File | null): string | null {
  if (file === null) return "Choose the backup file.";
  if (file.size > MAX_BACKUP_BYTES) return "This is too large to be a backup of Duet.";
  return file.size === 0 ? "The file is empty." : null;
}

interface BackupFileFieldProps {
  id: string;
  label: string;
  error: string | null | undefined;
  onChoose: (file: File | null) => void;
}

/** Asks for a backup file. */
export function BackupFileField({ id, label, error, onChoose }: BackupFileFieldProps) {
  return (
    <div class="field">
      <label class="field-label" for={id}>
        {label}
      </label>
      <input
        class="input"
        id={id}
        data-testid={id}
        type="file"
        accept=".age"
        aria-invalid={error ? true : undefined}
        aria-describedby={error ? `${id}-error` : undefined}
        onChange={event => onChoose(event.currentTarget.files?.[0] ?? null)}
      />
      <FieldError id={id} error={error} />
    </div>
  );
}
