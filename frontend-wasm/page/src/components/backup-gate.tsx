import type { DuetError, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { duet, noteWallet } from "../state/duet";
import { BackupFile } from "./backup-file";
import { Button } from "./button";
import { Check } from "./choice";
import { Dialog } from "./dialog";
import { ErrorNotice } from "./notice";

interface BackupGateProps {
  wallet: WalletSummary;
  /** What seals the file, if the owner has just chosen it; else the owner is asked. */
  passphrase?: string | undefined;
}

/**
 * The last step of a new wallet: its owner makes a backup file of the device's share, and opens it
 * again, before the address is shown. What is sent to an address whose first share is in this
 * browser alone is lost with the browser.
 */
export function BackupGate({ wallet, passphrase }: BackupGateProps) {
  const [error, setError] = useState<DuetError | null>(null);
  const [waiving, setWaiving] = useState(false);
  return (
    <div class="stack-loose" data-testid="backup-gate">
      <BackupFile wallet={wallet} passphrase={passphrase}>
        <h2>Save a backup before you use the address</h2>
        <p class="soft">
          Your share is in this browser only. If you lose the browser and have no backup file, everything at the address is lost. The
          other two shares cannot bring you back. {passphrase !== undefined && "The wallet's passphrase seals the file."}
        </p>
      </BackupFile>
      {error && <ErrorNotice error={error} onDismiss={() => setError(null)} />}
      <div class="actions">
        <Button testId="backup-waive" tone="quiet" onClick={() => setWaiving(true)}>
          Continue without a backup …
        </Button>
      </div>
      {waiving && <WaiveDialog wallet={wallet} onClose={() => setWaiving(false)} onError={setError} />}
    </div>
  );
}

interface WaiveDialogProps {
  wallet: WalletSummary;
  onClose: () => void;
  onError: (error: DuetError) => void;
}

function WaiveDialog({ wallet, onClose, onError }: WaiveDialogProps) {
  const [sure, setSure] = useState(false);

  const waive = async () => {
    const outcome = await duet().waiveBackup(wallet.id);
    onClose();
    if (outcome.ok) noteWallet(outcome.value);
    else onError(outcome.error);
  };

  return (
    <Dialog testId="waive-dialog" title="Continue without a backup?" onClose={onClose}>
      <p>
        Without a backup you lose everything at this address if the device is lost or stolen, if the browser clears its data, or if you
        forget the passphrase. You can make the backup later, in the wallet's settings.
      </p>
      <Check testId="waive-sure" checked={sure} onChange={setSure}>
        I understand that I lose this wallet if I lose this browser.
      </Check>
      <div class="actions">
        <Button testId="waive-confirm" tone="danger" disabled={!sure} onClick={() => void waive()}>
          Continue without
        </Button>
      </div>
    </Dialog>
  );
}
