import type { DuetError, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { AddressText } from "../components/address";
import { isGated } from "../components/backup-gate";
import { Button, LinkButton } from "../components/button";
import { Dialog } from "../components/dialog";
import { ErrorNotice } from "../components/notice";
import { ProgressList } from "../components/progress";
import { UnlockForm } from "../components/unlock";
import { View } from "../components/view";
import { Balance, StateBadge } from "../components/wallet-parts";
import { go, href } from "../router";
import { created } from "../state/created";
import { duet, noteWallet, wallets } from "../state/duet";
import { date } from "../text/format";
import { advance, RESUME_STEPS, type CreateStepName, type Progress } from "../text/steps";

/** All wallets of this browser. */
export function WalletsView() {
  const list = wallets.value;
  const finished = list.filter(wallet => wallet.state !== "pending");
  const pending = list.filter(wallet => wallet.state === "pending");
  return (
    <View name="wallets" title="Wallets">
      {pending.map(wallet => (
        <PendingWallet key={wallet.id} wallet={wallet} />
      ))}
      {finished.length > 0 && (
        <ul class="wallet-grid">
          {finished.map(wallet => (
            <li key={wallet.id}>
              <WalletCard wallet={wallet} />
            </li>
          ))}
        </ul>
      )}
      <div class="actions">
        <LinkButton
          testId="wallets-create"
          href={href({ view: "create" })}
          icon="plus"
          tone={finished.length > 0 ? "secondary" : "primary"}
        >
          Create a wallet
        </LinkButton>
        <LinkButton testId="wallets-restore" href={href({ view: "restore" })} icon="refresh">
          Restore from a backup
        </LinkButton>
      </div>
    </View>
  );
}

function WalletCard({ wallet }: { wallet: WalletSummary }) {
  const gated = isGated(wallet);
  return (
    <article
      class="card wallet-card"
      data-testid={`wallet-card-${wallet.id}`}
      data-state={wallet.state}
      data-address={gated ? "" : (wallet.address ?? "")}
    >
      <div class="row-between">
        <h2>
          <a
            class="wallet-link"
            href={href({ view: "wallet", wallet: wallet.id })}
            data-testid={`wallet-open-${wallet.id}`}
          >
            {wallet.label}
          </a>
        </h2>
        <StateBadge state={wallet.state} />
      </div>
      <Balance wallet={wallet} />
      {gated && (
        <p class="small soft">
          Its files are due. The address is shown once they are saved and opened again.
        </p>
      )}
      {wallet.address && !gated && (
        <p class="small">
          <AddressText address={wallet.address} />
        </p>
      )}
    </article>
  );
}

/** A creation that a reload or a crash interrupted. */
function PendingWallet({ wallet }: { wallet: WalletSummary }) {
  const [resuming, setResuming] = useState(false);
  const [discarding, setDiscarding] = useState(false);
  const [progress, setProgress] = useState<Progress<CreateStepName> | null>(null);
  const [error, setError] = useState<DuetError | null>(null);

  const discard = async () => {
    const outcome = await duet().discardPending(wallet.id);
    setDiscarding(false);
    if (outcome.ok) wallets.value = wallets.value.filter(other => other.id !== wallet.id);
    else setError(outcome.error);
  };

  return (
    <article
      class="card"
      data-testid={`wallet-card-${wallet.id}`}
      data-state="pending"
      data-address=""
    >
      <div class="row-between">
        <h2>{wallet.label}</h2>
        <StateBadge state="pending" />
      </div>
      <p class="soft">
        Its creation on {date(wallet.createdAt)} was interrupted. What was made is stored here,
        sealed. Resume it, or discard it: nothing can have been sent to it, because its address was
        never shown.
      </p>
      {error && <ErrorNotice error={error} onDismiss={() => setError(null)} />}
      {progress && (
        <ProgressList
          rowId="resume-step"
          testId="resume-progress"
          steps={RESUME_STEPS}
          progress={progress}
          label="Progress of the creation"
        />
      )}
      {resuming ? (
        <UnlockForm
          wallet={wallet}
          title="Resume the creation"
          text="The stored part of the wallet is sealed. Open it first."
          action="Resume"
          onUnlock={async unlock => {
            setError(null);
            const outcome = await duet().resumeCreation(wallet.id, unlock, {
              onProgress: event =>
                setProgress(before => advance(RESUME_STEPS, before ?? new Map(), event)),
            });
            if (!outcome.ok) {
              setProgress(null);
              return outcome.error;
            }
            noteWallet(outcome.value.wallet);
            created.value = outcome.value;
            go({ view: "create" });
            return null;
          }}
        />
      ) : (
        <div class="actions">
          <Button
            testId={`pending-resume-${wallet.id}`}
            tone="primary"
            onClick={() => setResuming(true)}
          >
            Resume
          </Button>
          <Button
            testId={`pending-discard-${wallet.id}`}
            tone="danger"
            onClick={() => setDiscarding(true)}
          >
            Discard
          </Button>
        </div>
      )}
      {discarding && (
        <Dialog
          testId="discard-dialog"
          title="Discard the unfinished wallet?"
          onClose={() => setDiscarding(false)}
        >
          <p>
            This deletes the stored part of “{wallet.label}” from this browser. The wallet has no
            address yet, so no funds can be lost with it.
          </p>
          <div class="actions">
            <Button testId="pending-discard-confirm" tone="danger" onClick={() => void discard()}>
              Discard it
            </Button>
            <Button testId="pending-discard-keep" onClick={() => setDiscarding(false)}>
              Keep it
            </Button>
          </div>
        </Dialog>
      )}
    </article>
  );
}
