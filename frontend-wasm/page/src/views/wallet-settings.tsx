import type { DuetError, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { BackupFile } from "../components/backup-file";
import { Button } from "../components/button";
import { Check } from "../components/choice";
import { Dialog } from "../components/dialog";
import { TextField } from "../components/field";
import { Form } from "../components/form";
import { ErrorNotice } from "../components/notice";
import { LockedKey } from "../components/locked-key";
import { Rotation } from "../components/rotation";
import { SameSignature } from "../components/same-signature";
import { UnlockWallet } from "../components/unlock";
import { View } from "../components/view";
import { WaysBack } from "../components/wallet-parts";
import { go, href } from "../router";
import { duet, noteWallet, wallets } from "../state/duet";
import { date } from "../text/format";

/** A wallet's backup, key, name, and removal. */
export function WalletSettingsView({ wallet }: { wallet: WalletSummary }) {
  return (
    <View
      name="wallet-settings"
      title="Backup and settings"
      back={{ href: href({ view: "wallet", wallet: wallet.id }), text: wallet.label }}
      narrow
    >
      {wallet.state === "locked" ? (
        <UnlockWallet wallet={wallet} />
      ) : (
        <>
          <Backup wallet={wallet} />
          {wallet.state === "paillier-locked" ? (
            <LockedKey wallet={wallet} />
          ) : (
            <Rotation wallet={wallet} />
          )}
        </>
      )}
      <Name wallet={wallet} />
      <Removal wallet={wallet} />
    </View>
  );
}

function Backup({ wallet }: { wallet: WalletSummary }) {
  return (
    <BackupFile wallet={wallet}>
      <h2>Back up your share</h2>
      <p class="soft">
        The file brings this wallet to another browser. A separate passphrase seals it. It holds one
        share, which cannot sign alone.
      </p>
      <SameSignature testId="backup-same-signature" />
      <WaysBack wallet={wallet} />
    </BackupFile>
  );
}

function Name({ wallet }: { wallet: WalletSummary }) {
  const [label, setLabel] = useState(wallet.label);
  const [problem, setProblem] = useState<string | null>(null);
  const [done, setDone] = useState(false);

  const submit = async () => {
    setDone(false);
    const name = label.trim();
    if (name === "" || name.length > 64) {
      setProblem(name === "" ? "Give the wallet a name." : "At most 64 characters.");
      return;
    }
    const outcome = await duet().rename(wallet.id, name);
    setProblem(outcome.ok ? null : outcome.error.message);
    if (!outcome.ok) return;
    noteWallet(outcome.value);
    setDone(true);
  };

  return (
    <Form onSubmit={submit}>
      <TextField
        id="wallet-rename"
        label="Name"
        hint="Only you see it."
        value={label}
        onInput={setLabel}
        error={problem}
        maxLength={64}
        side={
          <Button testId="wallet-rename-save" type="submit">
            Save
          </Button>
        }
      />
      <p class="visually-hidden" role="status">
        {done && "Saved."}
      </p>
    </Form>
  );
}

function Removal({ wallet }: { wallet: WalletSummary }) {
  const [asking, setAsking] = useState(false);
  const [sure, setSure] = useState(false);
  const [error, setError] = useState<DuetError | null>(null);

  const forget = async () => {
    const outcome = await duet().forget(wallet.id);
    setAsking(false);
    if (!outcome.ok) {
      setError(outcome.error);
      return;
    }
    go({ view: "home" });
    wallets.value = wallets.value.filter(other => other.id !== wallet.id);
  };

  return (
    <section class="card">
      <div class="stack-tight">
        <h2>Remove from this browser</h2>
        <p class="soft">
          This deletes your share from this browser. You come back with a backup file of your share.
          Without one, everything at the address is lost.
        </p>
      </div>
      {error && <ErrorNotice error={error} onDismiss={() => setError(null)} />}
      <div class="actions">
        <Button testId="forget-open" tone="danger" onClick={() => setAsking(true)}>
          Remove …
        </Button>
      </div>
      {asking && (
        <Dialog
          testId="forget-dialog"
          title={`Remove “${wallet.label}”?`}
          onClose={() => {
            setAsking(false);
            setSure(false);
          }}
        >
          <p>
            {wallet.backup.exportedAt === null
              ? "Your share was never backed up from this browser. Deleting it cannot be undone."
              : `Your share was backed up on ${date(wallet.backup.exportedAt)}. Make sure that you have the file and its passphrase.`}
          </p>
          <Check testId="forget-sure" checked={sure} onChange={setSure}>
            I understand that my share is deleted from this browser.
          </Check>
          <div class="actions">
            <Button
              testId="forget-confirm"
              tone="danger"
              disabled={!sure}
              onClick={() => void forget()}
            >
              Remove it
            </Button>
          </div>
        </Dialog>
      )}
    </section>
  );
}
