import type { ProtectionKind } from "@duet/signer";
import { useEffect, useState } from "preact/hooks";

import { duet } from "../state/duet";
import { Choices } from "./choice";
import { PassphraseField, StrengthHint } from "./field";

interface ProtectionChoiceProps {
  /** Before the choices' test ids. */
  prefix: string;
  /** What to say of a passphrase. */
  passphraseText: string;
  value: ProtectionKind;
  onChange: (value: ProtectionKind) => void;
}

/** Asks what is to open a wallet in this browser. */
export function ProtectionChoice({
  prefix,
  passphraseText,
  value,
  onChange,
}: ProtectionChoiceProps) {
  const [passkeys, setPasskeys] = useState(false);
  useEffect(() => void duet().passkeysAvailable().then(setPasskeys), []);
  return (
    <Choices
      name="protection"
      legend="What opens the wallet in this browser?"
      value={value}
      onChange={onChange}
      choices={[
        {
          value: "passphrase",
          testId: `${prefix}-protection-passphrase`,
          title: "A passphrase",
          text: passphraseText,
        },
        {
          value: "passkey",
          testId: `${prefix}-protection-passkey`,
          title: "A passkey",
          text: passkeys
            ? "Fingerprint, face or security key."
            : "This browser has no passkeys that can protect data.",
          disabled: !passkeys,
        },
      ]}
    />
  );
}

interface NewPassphraseProps {
  id: string;
  label: string;
  passphrase: string;
  onPassphrase: (value: string) => void;
  problem: string | null | undefined;
  repeat: string;
  onRepeat: (value: string) => void;
  repeatProblem: string | null | undefined;
}

/** Asks twice for a passphrase that is being chosen, and hints how strong it is. */
export function NewPassphrase({
  id,
  label,
  passphrase,
  onPassphrase,
  problem,
  repeat,
  onRepeat,
  repeatProblem,
}: NewPassphraseProps) {
  return (
    <>
      <PassphraseField
        id={id}
        label={label}
        fresh
        value={passphrase}
        onInput={onPassphrase}
        error={problem}
      />
      <StrengthHint testId={`${id}-strength`} passphrase={passphrase} />
      <PassphraseField
        id={`${id}-repeat`}
        label="Once more"
        fresh
        value={repeat}
        onInput={onRepeat}
        error={repeatProblem}
      />
    </>
  );
}
