import type { Outcome, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { noteWallet } from "../state/duet";
import { Button } from "./button";
import { focusFirstProblem, Form } from "./form";
import { OpenedFileError, OpenedFileFields, useOpenedFile } from "./opened-file";

interface SavedFileProps {
  /** Before the ids: `<id>-file`, `<id>-passphrase`, `<id>-check`, `<id>-done`. */
  id: string;
  /** What opens the file, where the owner need not type it. */
  passphrase: string | undefined;
  /** Opens the bytes and compares them with the wallet. */
  check: (file: Uint8Array, passphrase: string) => Promise<Outcome<WalletSummary>>;
  onChecked: () => void;
}

/**
 * Asks for a file that was just saved, and reads it back from the disk: only a file that opens is
 * worth something.
 */
export function SavedFile({ id, passphrase, check, onChecked }: SavedFileProps) {
  const opened = useOpenedFile(passphrase);
  const [busy, setBusy] = useState(false);

  const submit = async () => {
    if (!opened.check()) {
      focusFirstProblem();
      return;
    }
    setBusy(true);
    const read = await opened.read();
    const outcome = read && (await check(read.bytes, read.passphrase));
    setBusy(false);
    if (!outcome) return;
    if (!outcome.ok) {
      opened.refuse(outcome.error);
      return;
    }
    onChecked();
    noteWallet(outcome.value);
  };

  return (
    <div data-testid={`${id}-done`} data-saved="true">
      <Form busy={busy} onSubmit={submit}>
        <p>
          Handed to the browser. Open the file that you saved: only a file that opens is worth
          something. Keep its passphrase apart from it.
        </p>
        <OpenedFileFields id={id} label="The saved file" opened={opened} />
        <OpenedFileError opened={opened} />
        <div class="actions">
          <Button testId={`${id}-check`} tone="primary" type="submit" busy={busy}>
            Check the file
          </Button>
        </div>
      </Form>
    </div>
  );
}
