import type { DuetError, WalletSummary } from "@duet/signer";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import { duet } from "../state/duet";
import { save } from "../state/save";
import { fileName } from "../text/format";
import { passphraseProblem, repeatProblem } from "../text/passphrase";
import { Button } from "./button";
import { focusFirstProblem, Form } from "./form";
import { ErrorNotice, Notice } from "./notice";
import { NewPassphrase } from "./protection";
import { SavedFile } from "./saved-file";

interface BackupFileProps {
  wallet: WalletSummary;
  /** What seals the file, if the owner has just chosen it; else the owner is asked. */
  passphrase?: string | undefined;
  /** The heading, and what the file is for. */
  children: ComponentChildren;
}

/** Makes the backup file of the device's share, and opens it again: only a file that opens is a backup. */
export function BackupFile({ wallet, passphrase: known, children }: BackupFileProps) {
  const [passphrase, setPassphrase] = useState(known ?? "");
  const [repeat, setRepeat] = useState(known ?? "");
  const [problems, setProblems] = useState<{ passphrase?: string | null; repeat?: string | null }>(
    {},
  );
  const [state, setState] = useState<"new" | "saved" | "checked">("new");
  const [error, setError] = useState<DuetError | null>(null);
  const [busy, setBusy] = useState(false);

  const make = async () => {
    setError(null);
    const found = {
      passphrase: passphraseProblem(passphrase),
      repeat: repeatProblem(passphrase, repeat),
    };
    setProblems(found);
    if (found.passphrase !== null || found.repeat !== null) {
      focusFirstProblem();
      return;
    }
    setBusy(true);
    const outcome = await duet().exportBackup(wallet.id, passphrase);
    setBusy(false);
    if (!outcome.ok) {
      setError(outcome.error);
      return;
    }
    save(outcome.value, fileName(wallet.label, "-share-1.age"));
    setState("saved");
  };

  return (
    <>
      <Form busy={busy} onSubmit={make}>
        <div class="stack-tight">{children}</div>
        {known === undefined && (
          <NewPassphrase
            id="backup-passphrase"
            label="Passphrase of the file"
            passphrase={passphrase}
            onPassphrase={setPassphrase}
            problem={problems.passphrase}
            repeat={repeat}
            onRepeat={setRepeat}
            repeatProblem={problems.repeat}
          />
        )}
        {error && <ErrorNotice error={error} onDismiss={() => setError(null)} />}
        <div class="actions">
          <Button
            testId="backup-export"
            tone={state === "new" ? "primary" : "secondary"}
            type="submit"
            icon="download"
            busy={busy && state === "new"}
          >
            {state === "new" ? "Save a backup" : "Save another"}
          </Button>
        </div>
      </Form>
      {state === "saved" && (
        <SavedFile
          id="backup"
          passphrase={passphrase}
          check={(file, known) => duet().checkBackup(wallet.id, file, known)}
          onChecked={() => {
            setState("checked");
            setPassphrase("");
            setRepeat("");
          }}
        />
      )}
      {state === "checked" && (
        <Notice tone="good" testId="backup-checked">
          <p>The file opens and contains this wallet's share.</p>
        </Notice>
      )}
    </>
  );
}
