import type { DuetError, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { duet } from "../state/duet";
import { save } from "../state/save";
import { fileName } from "../text/format";
import { Button } from "./button";
import { ErrorNotice, Notice } from "./notice";
import { SavedFile } from "./saved-file";

interface ThirdShareFileProps {
  wallet: WalletSummary;
  /** What seals the file, if the owner has just chosen it; else the owner is asked. */
  passphrase?: string | undefined;
}

/** Saves the file of the third share, and opens it again. Until then this browser keeps it. */
export function ThirdShareFile({ wallet, passphrase }: ThirdShareFileProps) {
  const [state, setState] = useState<"new" | "saved" | "checked">("new");
  const [error, setError] = useState<DuetError | null>(null);

  const download = async () => {
    setError(null);
    const outcome = await duet().thirdShareFile(wallet.id);
    if (!outcome.ok) {
      setError(outcome.error);
      return;
    }
    save(outcome.value, fileName(wallet.label, "-share-3.age"));
    setState("saved");
  };

  return (
    <>
      <section class="card">
        <div class="stack-tight">
          <h2>Save the file of the third share</h2>
          <p class="soft">
            Keep it apart from this computer and from the backup of your own share: both files
            together are the whole key. Once you opened the saved file here, it exists nowhere else.
          </p>
        </div>
        {error && <ErrorNotice error={error} onDismiss={() => setError(null)} />}
        {state !== "checked" && (
          <div class="actions">
            <Button
              testId="create-download"
              tone={state === "new" ? "primary" : "secondary"}
              icon="download"
              data={{ "data-saved": String(state !== "new") }}
              onClick={() => void download()}
            >
              {state === "new" ? "Save the file" : "Save again"}
            </Button>
          </div>
        )}
      </section>
      {state === "saved" && (
        <SavedFile
          id="third"
          passphrase={passphrase}
          check={(file, known) => duet().checkThirdShare(wallet.id, file, known)}
          onChecked={() => setState("checked")}
        />
      )}
      {state === "checked" && (
        <Notice tone="good" testId="third-checked">
          <p>The file opens, and holds the third share of this wallet.</p>
        </Notice>
      )}
    </>
  );
}
