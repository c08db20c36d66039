import type { Culprit, DuetError, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { duet } from "../state/duet";
import { costText } from "../text/locks";
import { groups } from "../text/format";
import { Button } from "./button";
import { Check } from "./choice";
import { Dialog } from "./dialog";
import { ErrorNotice } from "./notice";
import { RotationProgress, useRotation } from "./rotation";

const STANDINGS: Record<Culprit["standing"], (party: string) => string> = {
  quarantined: party =>
    `A wrong signature of ${party} locked a key in this browser. Nothing is signed with ${party} here until you say that you go on with it.`,
  accepted: party =>
    `A wrong signature of ${party} locked a key in this browser, and you went on with it. Another one is final.`,
  final: party =>
    `Wrong signatures of ${party} locked two keys in this browser. That is final: ${party} has to be replaced.`,
};

/**
 * The wallet's parties whose wrong signatures locked a key in this browser, and the owner's word to
 * go on with one.
 */
export function Quarantine({ wallet }: { wallet: WalletSummary }) {
  const rotation = useRotation(wallet);
  const [asking, setAsking] = useState<Culprit | null>(null);
  const [error, setError] = useState<DuetError | null>(null);
  if (wallet.culprits.length === 0) return null;

  const accept = async ({ fingerprint }: Culprit) => {
    setAsking(null);
    setError(null);
    const outcome = await duet().acceptCulprit(wallet.id, fingerprint);
    if (!outcome.ok) setError(outcome.error);
    else if (outcome.value) await rotation.rotate();
  };

  return (
    <section class="card" data-testid="quarantine" aria-labelledby="quarantine-title">
      <h2 id="quarantine-title">Wrong signatures</h2>
      {wallet.culprits.map(culprit => {
        const { role, party, fingerprint, locks, standing } = culprit;
        return (
          <div
            key={fingerprint}
            class="stack-tight"
            data-testid={`culprit-${role}`}
            data-standing={standing}
            data-locks={locks}
          >
            <p>{STANDINGS[standing](party)}</p>
            <p class="small soft mono">{groups(fingerprint)}</p>
            {standing === "quarantined" && wallet.state !== "locked" && (
              <div class="actions">
                <Button
                  testId={`culprit-accept-${role}`}
                  tone="danger"
                  small
                  busy={rotation.running}
                  onClick={() => setAsking(culprit)}
                >
                  Go on with {party} …
                </Button>
              </div>
            )}
          </div>
        );
      })}
      {error && <ErrorNotice error={error} onDismiss={() => setError(null)} />}
      <RotationProgress
        rotation={rotation}
        doneText="The key was replaced, and the party took it."
      />
      {asking && (
        <AcceptDialog
          wallet={wallet}
          culprit={asking}
          onClose={() => setAsking(null)}
          onAccept={() => void accept(asking)}
        />
      )}
    </section>
  );
}

interface AcceptDialogProps {
  wallet: WalletSummary;
  culprit: Culprit;
  onClose: () => void;
  onAccept: () => void;
}

function AcceptDialog({
  wallet: { losses },
  culprit: { party },
  onClose,
  onAccept,
}: AcceptDialogProps) {
  const [sure, setSure] = useState(false);
  return (
    <Dialog testId="culprit-dialog" title={`Go on with ${party}?`} onClose={onClose}>
      <p>
        A party that answers wrongly on purpose learns a part of this device&apos;s share with each
        locked key. {losses.failures > 0 && costText(losses)} Ask {party} what happened first. Your
        word counts once, in every wallet of this browser: the next wrong signature is final.
      </p>
      <Check testId="culprit-sure" checked={sure} onChange={setSure}>
        I asked {party}, and go on with it.
      </Check>
      <div class="actions">
        <Button testId="culprit-confirm" tone="danger" disabled={!sure} onClick={onAccept}>
          Go on with {party}
        </Button>
      </div>
    </Dialog>
  );
}
