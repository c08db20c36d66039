import type { BackendRole, ShareRecipient } from "@duet/signer";

import { info } from "../state/duet";
import { groups } from "../text/format";
import { Notice } from "./notice";

const SHARES: Record<BackendRole, 2 | 3> = { service: 2, partner: 3 };

/** Names and fingerprints of the parties that get shares, to be compared with what their organisations publish. */
export function RecipientList({
  recipients,
  testId,
}: {
  recipients: readonly ShareRecipient[];
  testId: string;
}) {
  return (
    <dl class="definition" data-testid={testId}>
      {recipients.map(({ role, party, fingerprint, seen, source }) => (
        <div
          key={role}
          data-testid={`${testId}-${role}`}
          data-party={party}
          data-fingerprint={fingerprint}
          data-seen={seen}
          data-source={source}
        >
          <dt>
            {party === role ? party : `${party}, the ${role}`}
            <br />
            <span class="small">share {SHARES[role]}</span>
          </dt>
          <dd class="mono small">
            {fingerprint === undefined ? "no fingerprint given" : groups(fingerprint)}
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** On whose word these parties get shares, and what is new about them. */
export function RecipientNotices({ recipients }: { recipients: readonly ShareRecipient[] }) {
  const changed = recipients.filter(({ seen }) => seen === "other");
  return (
    <>
      {recipients.some(({ source }) => source === "trial-gateway") && (
        <Notice tone="warn" title="Trial gateway" testId="recipients-trial">
          <p>
            The gateway on this machine chose these parties. Its operator decides who gets the
            shares, so keep no money in such a wallet.
          </p>
        </Notice>
      )}
      {changed.length > 0 && (
        <Notice tone="warn" title="The parties have changed" testId="recipients-changed">
          <p>
            For earlier wallets in this browser, the{" "}
            {changed.map(({ role }) => role).join(" and the ")} had another card. Before you
            continue, ask the organisation whether it has a new card.
          </p>
        </Notice>
      )}
      {info.value !== null && recipients.length === 0 && (
        <Notice tone="bad" title="No parties for the other shares" testId="recipients-none">
          <p>
            This page&apos;s configuration names no parties, and the page does not let a gateway
            choose them. The page&apos;s operator has to list the parties in{" "}
            <code>config.json</code>.
          </p>
        </Notice>
      )}
    </>
  );
}
