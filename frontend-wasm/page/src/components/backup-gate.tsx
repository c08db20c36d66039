import type { DuetError, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { duet, noteWallet } from "../state/duet";
import { BackupFile } from "./backup-file";
import { Button } from "./button";
import { Check } from "./choice";
import { Dialog } from "./dialog";
import { ErrorNotice } from "./notice";
import { ThirdShareFile } from "./third-share-file";

interface BackupGateProps {
  wallet: WalletSummary;
  /** What seals the backup file, if the owner has just chosen it; else the owner is asked. */
  passphrase?: string | undefined;
  /** What seals the file of the third share, likewise. */
  thirdPassphrase?: string | undefined;
}

/**
 * Whether files of a new wallet have yet to be saved and opened again. Until then its address is
 * not shown.
 */
export function isGated({ backup }: WalletSummary): boolean {
  return backup.due || backup.thirdDue;
}

/**
 * The last step of a new wallet: its owner saves the files, and opens them again, before the
 * address is shown. What is sent to an address whose first share is in this browser alone is lost
 * with the browser.
 */
export function BackupGate({ wallet, passphrase, thirdPassphrase }: BackupGateProps) {
  // Each stays once shown, to say that it is done.
  const [{ due, thirdDue }] = useState(wallet.backup);
  return (
    <div class="stack-loose" data-testid="backup-gate">
      {thirdDue && <ThirdShareFile wallet={wallet} passphrase={thirdPassphrase} />}
      {due && <OwnBackup wallet={wallet} passphrase={passphrase} />}
    </div>
  );
}

/** The backup file of the device's share, which the owner may do without. */
function OwnBackup({ wallet, passphrase }: Omit<BackupGateProps, "thirdPassphrase">) {
  const [error, setError] = useState<DuetError | null>(null);
  const [waiving, setWaiving] = useState(false);
  return (
    <>
      <BackupFile wallet={wallet} passphrase={passphrase}>
        <h2>Save a backup before you use the address</h2>
        <p class="soft">
          Your share is in this browser only. If you lose the browser and have no backup file,
          everything at the address is lost. The other two shares cannot bring you back.{" "}
          {passphrase !== undefined && "The wallet's passphrase seals the file."}
        </p>
      </BackupFile>
      {error && <ErrorNotice error={error} onDismiss={() => setError(null)} />}
      {wallet.backup.due && (
        <div class="actions">
          <Button testId="backup-waive" tone="quiet" onClick={() => setWaiving(true)}>
            Continue without a backup …
          </Button>
        </div>
      )}
      {waiving && (
        <WaiveDialog wallet={wallet} onClose={() => setWaiving(false)} onError={setError} />
      )}
    </>
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
        Without a backup you lose everything at this address if the device is lost or stolen, if the
        browser clears its data, or if you forget the passphrase. You can make the backup later, in
        the wallet's settings.
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
