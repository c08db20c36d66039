import type { WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { namesOf, trustedParty } from "../text/locks";
import { Button } from "./button";
import { Losses } from "./losses";
import { Quarantine } from "./quarantine";
import { RotationProgress, useRotation } from "./rotation";

/**
 * After a lock: what happened, what it may have cost, and the way that is left. With another party
 * that is a new key of this device, at the owner's click; the culprit is offered none.
 */
export function LockedKey({ wallet }: { wallet: WalletSummary }) {
  const rotation = useRotation(wallet);
  // What is said stays when the key is replaced.
  const [said] = useState(wallet);
  const culprits = said.culprits.filter(({ standing }) => standing !== "accepted");
  const other = trustedParty(said);
  const title = "This wallet protected itself";
  return (
    <>
      <section
        class="card"
        data-testid="paillier-locked"
        data-other={other?.role ?? "none"}
        aria-label={title}
      >
        <div class="stack-tight">
          <h2>{title}</h2>
          <p class="soft">
            A signature that {namesOf(culprits)} answered with is wrong. This device stopped using
            its Paillier key at once, and deleted it.
            {culprits.length > 0 &&
              ` It asks ${namesOf(culprits)} for nothing any more, in any wallet of this browser.`}
          </p>
        </div>
        <Losses wallet={said} testId="lock-losses" />
        {other ? (
          <p>
            Go on with {other.party}: this device makes a new key, and {other.party} takes it. That
            takes a few seconds. The address stays the same.
          </p>
        ) : (
          <NoOtherPair wallet={said} />
        )}
        {other && (
          <RotationProgress
            rotation={rotation}
            doneText={`The key was replaced. The wallet signs with ${other.party}.`}
          />
        )}
        {other && !rotation.done && (
          <div class="actions">
            <Button
              testId="rotate-submit"
              tone="primary"
              icon="refresh"
              busy={rotation.running}
              onClick={() => void rotation.rotate()}
            >
              Make a new device key and go on with {other.party}
            </Button>
          </div>
        )}
      </section>
      <Quarantine wallet={wallet} />
    </>
  );
}

/** The owner's options when the device signs with no party any more. */
function NoOtherPair({ wallet: { parties, culprits } }: { wallet: WalletSummary }) {
  const isFile = parties.some(({ role }) => role === "backup-file");
  const canAccept = culprits.some(({ standing }) => standing === "quarantined");
  return (
    <div class="stack-tight" data-testid="no-other-pair">
      <p>
        {isFile
          ? "This wallet has no other pair: its third share is your file, and a file answers nothing."
          : "This wallet has no other pair: both other parties answered with wrong signatures."}
      </p>
      <p>What is left:</p>
      <ul>
        {canAccept && (
          <li>
            Ask {namesOf(culprits)} what happened. Then go on at your own word, below, and move the
            funds to a new wallet with other parties.
          </li>
        )}
        {isFile && (
          <li>
            Keep the file of the third share and the backup file of your own share: together they
            are the whole key. No page or command puts them together yet.
          </li>
        )}
        {!canAccept && !isFile && (
          <li>The other two parties sign together what your teams queue, without this browser.</li>
        )}
      </ul>
    </div>
  );
}
