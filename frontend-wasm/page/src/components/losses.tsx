import type { WalletSummary } from "@duet/signer";

import { href } from "../router";
import { costText } from "../text/locks";
import { LinkButton } from "./button";
import { Notice } from "./notice";

/** What locked keys may have cost a wallet, and whether its funds are to be moved. */
export function Losses({ wallet, testId }: { wallet: WalletSummary; testId: string }) {
  const { failures, maxBits, moveFunds } = wallet.losses;
  if (failures === 0) return null;
  return (
    <div
      data-testid={testId}
      data-failures={failures}
      data-bits={maxBits}
      data-move-funds={String(moveFunds)}
    >
      {moveFunds ? (
        <Notice tone="bad" title="Move the funds to a new wallet" testId={`${testId}-move-funds`}>
          <p>
            {costText(wallet.losses)} Create a new wallet, and send everything from here to its
            address.
          </p>
          <div class="actions">
            <LinkButton testId={`${testId}-create`} small href={href({ view: "create" })}>
              Create a wallet
            </LinkButton>
          </div>
        </Notice>
      ) : (
        <Notice tone="warn">
          <p>{costText(wallet.losses)}</p>
        </Notice>
      )}
    </div>
  );
}
