import type { WalletSummary } from "@duet/signer";
import { useEffect, useState } from "preact/hooks";

import { Button } from "../components/button";
import { Icon } from "../components/icon";
import { JobCard } from "../components/job";
import { ErrorNotice, Notice } from "../components/notice";
import { UnlockWallet } from "../components/unlock";
import { View } from "../components/view";
import { StateBadge } from "../components/wallet-parts";
import { refreshNodeChain } from "../state/chain";
import { connection, node, waiting, wallets } from "../state/duet";
import { entries, inboxErrors, inboxRead, refreshInbox } from "../state/inbox";

/** What others ask the owner to sign. */
export function InboxView() {
  useEffect(() => void refreshNodeChain(), [node.value?.url]);
  const finished = wallets.value.filter(wallet => wallet.state !== "pending");
  const open = finished.filter(wallet => wallet.state !== "locked");
  const locked = finished.filter(wallet => wallet.state === "locked");
  const openIds = open.map(wallet => wallet.id).join();
  const counts = open.map(wallet => waiting.value.get(wallet.id) ?? -1).join();
  const online = connection.value === "online";
  // Whenever a number changes, a wallet opens, or the connection is back, the jobs themselves are
  // read.
  useEffect(() => {
    for (const wallet of open) void refreshInbox(wallet.id);
  }, [openIds, counts, online]);

  const all = [...entries.value.values()].sort((a, b) => a.job.createdAt - b.job.createdAt);
  const pending = all.filter(
    ({ outcome }) => outcome.state === "waiting" || outcome.state === "signing",
  );
  const answered = all
    .filter(({ outcome }) => outcome.state !== "waiting" && outcome.state !== "signing")
    .reverse();
  const allRead = open.length > 0 && open.every(wallet => inboxRead.value.has(wallet.id));

  return (
    <View
      name="inbox"
      title="Inbox"
      lead="Signatures that others request from you. Nothing is signed before you approve it here."
      narrow
    >
      <p class="visually-hidden" role="status">
        {pending.length === 1
          ? "One request waits for you."
          : `${pending.length} requests wait for you.`}
      </p>
      {[...inboxErrors.value].map(([id, error]) => (
        <ErrorNotice key={id} error={error} onRetry={() => void refreshInbox(id)} />
      ))}
      {finished.length === 0 && (
        <p class="soft" data-testid="inbox-empty">
          There is no wallet in this browser yet.
        </p>
      )}
      {pending.map(entry => (
        <JobCard key={entry.job.job} entry={entry} />
      ))}
      {pending.length === 0 && allRead && (
        <div class="empty" data-testid="inbox-empty">
          <Icon name="inbox" />
          <p>No request waits for you.</p>
          <p class="soft small">New requests appear here without a reload.</p>
        </div>
      )}
      {locked.map(wallet => (
        <LockedInbox key={wallet.id} wallet={wallet} alone={locked.length === 1} />
      ))}
      {answered.length > 0 && (
        <section class="stack" aria-label="Answered requests">
          {answered.map(entry => (
            <JobCard key={entry.job.job} entry={entry} />
          ))}
        </section>
      )}
      {open.some(
        wallet => wallet.state === "needs-rotation" || wallet.state === "paillier-locked",
      ) && (
        <Notice tone="warn">
          <p>
            One of your wallets cannot sign until you replace its key. Open the wallet to do that.
          </p>
        </Notice>
      )}
    </View>
  );
}

/** A locked wallet's jobs can be read only after it was opened: the list is authenticated by its key. */
function LockedInbox({ wallet, alone }: { wallet: WalletSummary; alone: boolean }) {
  const [opening, setOpening] = useState(false);
  return (
    <div class="stack" data-testid={`inbox-locked-${wallet.id}`}>
      {opening || alone ? (
        <UnlockWallet wallet={wallet} />
      ) : (
        <div class="card card-row">
          <div class="row">
            <h2>{wallet.label}</h2>
            <StateBadge state={wallet.state} />
          </div>
          <Button
            testId={`inbox-unlock-${wallet.id}`}
            icon="unlock"
            onClick={() => setOpening(true)}
          >
            Unlock to see its requests
          </Button>
        </div>
      )}
    </div>
  );
}
