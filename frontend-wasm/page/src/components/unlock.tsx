import { useId, useState } from "preact/hooks";
import type { DuetError, Unlock, WalletSummary } from "@duet/signer";
import type { ComponentChildren } from "preact";

import { duet, noteWallet } from "../state/duet";
import { remaining } from "../text/format";
import { trustedParty } from "../text/locks";
import { Button } from "./button";
import { PassphraseField } from "./field";
import { Form } from "./form";
import { ErrorNotice } from "./notice";
import { Icon } from "./icon";
import { LockedKey } from "./locked-key";
import { Quarantine } from "./quarantine";
import { Rotation } from "./rotation";

interface UnlockFormProps {
  wallet: WalletSummary;
  title: string;
  text: string;
  action: string;
  /** What to do with the passphrase or passkey. */
  onUnlock: (unlock: Unlock) => Promise<DuetError | null>;
}

/** Asks for what opens a wallet: its passphrase or its passkey. */
export function UnlockForm({ wallet, title, text, action, onUnlock }: UnlockFormProps) {
  const [passphrase, setPassphrase] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const [error, setError] = useState<DuetError | null>(null);
  const [busy, setBusy] = useState(false);
  const headingId = useId();
  const passkey = wallet.protection === "passkey";

  const submit = async () => {
    if (!passkey && passphrase === "") {
      setProblem("Type the wallet's passphrase.");
      return;
    }
    setBusy(true);
    setError(null);
    setProblem(null);
    const failure = await onUnlock(
      passkey ? { kind: "passkey" } : { kind: "passphrase", passphrase },
    );
    setBusy(false);
    if (failure === null) return;
    setError(failure);
    if (failure.kind !== "wrong-passphrase") return;
    const wait = failure.retryAfterMs ?? 0;
    setPassphrase("");
    setProblem(wait > 0 ? `The next attempt is taken in ${remaining(wait)}.` : "Type it again.");
    document.getElementById("unlock-passphrase")?.focus();
  };

  return (
    <Form class="unlock" testId="unlock-form" labelledBy={headingId} busy={busy} onSubmit={submit}>
      <div class="stack-tight">
        <h2 id={headingId}>{title}</h2>
        <p class="soft">{text}</p>
      </div>
      {!passkey && (
        <>
          {/* Lets password managers keep the passphrases of several wallets apart. */}
          <input
            class="visually-hidden"
            type="text"
            autocomplete="username"
            value={wallet.label}
            readOnly
            tabIndex={-1}
            aria-hidden="true"
          />
          <PassphraseField
            id="unlock-passphrase"
            label="Passphrase"
            value={passphrase}
            onInput={setPassphrase}
            error={problem}
          />
        </>
      )}
      {error && <ErrorNotice error={error} />}
      <div class="actions">
        <Button
          testId={passkey ? "unlock-passkey" : "unlock-submit"}
          tone="primary"
          type="submit"
          icon={passkey ? "key" : "unlock"}
          busy={busy}
        >
          {passkey ? "Use passkey" : action}
        </Button>
      </div>
    </Form>
  );
}

/** Unlocks a wallet that is to be used here. */
export function UnlockWallet({ wallet }: { wallet: WalletSummary }) {
  return (
    <UnlockForm
      wallet={wallet}
      title="Unlock the wallet"
      text="Its share of the key is opened inside this browser only, and locked again after a while without use."
      action="Unlock"
      onUnlock={async unlock => {
        const outcome = await duet().unlock(wallet.id, unlock);
        if (!outcome.ok) return outcome.error;
        noteWallet(outcome.value);
        return null;
      }}
    />
  );
}

/** Shows what needs an open wallet that can sign, and otherwise what is missing. */
export function Ready({
  wallet,
  children,
}: {
  wallet: WalletSummary;
  children: ComponentChildren;
}) {
  switch (wallet.state) {
    case "unlocked":
      // What can sign with no party says so before a form is filled in.
      return trustedParty(wallet) ? <>{children}</> : <Quarantine wallet={wallet} />;
    case "locked":
      return <UnlockWallet wallet={wallet} />;
    case "needs-rotation":
      return <Rotation wallet={wallet} />;
    case "paillier-locked":
      return <LockedKey wallet={wallet} />;
    case "pending":
      return (
        <p class="soft">
          <Icon name="info" /> This wallet is not finished yet.
        </p>
      );
  }
}
