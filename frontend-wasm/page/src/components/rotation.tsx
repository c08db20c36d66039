import type { DuetError, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { duet, noteWallet } from "../state/duet";
import { advance, ROTATE_STEPS, type CreateStepName, type Progress } from "../text/steps";
import { Button } from "./button";
import { ErrorNotice, Notice } from "./notice";
import { ProgressList } from "./progress";

const WHY = {
  "needs-rotation": {
    title: "This wallet came from a backup",
    text: "Before the wallet signs here, you must replace its Paillier key, because the old key may have been locked after the backup. This takes a few seconds, once. The address stays the same.",
  },
  unlocked: {
    title: "Replace the Paillier key",
    text: "This makes a new encryption key for this device, which the other parties then accept. You need not do this now, but it does no harm. The address stays the same.",
  },
} as const;

/** A replacement of the device's Paillier key, and how far it is. */
export function useRotation(wallet: WalletSummary) {
  const [progress, setProgress] = useState<Progress<CreateStepName> | null>(null);
  const [error, setError] = useState<DuetError | null>(null);
  const [done, setDone] = useState(false);

  const rotate = async () => {
    setError(null);
    setDone(false);
    setProgress(new Map());
    const outcome = await duet().rotate(wallet.id, {
      onProgress: event => setProgress(before => advance(ROTATE_STEPS, before ?? new Map(), event)),
    });
    if (outcome.ok) {
      setDone(true);
      noteWallet(outcome.value);
    } else {
      setError(outcome.error);
    }
  };

  return { progress, error, done, running: progress !== null && !done && error === null, rotate };
}

/** How far a replacement is, and its end. */
export function RotationProgress({
  rotation: { progress, error, done },
  doneText,
}: {
  rotation: ReturnType<typeof useRotation>;
  doneText: string;
}) {
  return (
    <>
      {progress && (
        <ProgressList
          rowId="rotate-step"
          testId="rotate-progress"
          steps={ROTATE_STEPS}
          progress={progress}
          label="Progress of the replacement"
        />
      )}
      {error && <ErrorNotice error={error} />}
      {done && (
        <Notice tone="good" testId="rotate-done">
          <p>{doneText}</p>
        </Notice>
      )}
    </>
  );
}

/**
 * Replaces the device's Paillier key, because the wallet was restored or because the owner wants
 * it.
 */
export function Rotation({ wallet }: { wallet: WalletSummary }) {
  const rotation = useRotation(wallet);
  // What it was for is still said once it is done.
  const [why] = useState<keyof typeof WHY>(() =>
    wallet.state === "needs-rotation" ? wallet.state : "unlocked",
  );
  return (
    <section
      class="card"
      data-testid={why === "unlocked" ? "rotation" : why}
      aria-label={WHY[why].title}
    >
      <div class="stack-tight">
        <h2>{WHY[why].title}</h2>
        <p class="soft">{WHY[why].text}</p>
      </div>
      <RotationProgress
        rotation={rotation}
        doneText="The key was replaced. The wallet signs with the new one."
      />
      {!rotation.done && (
        <div class="actions">
          <Button
            testId="rotate-submit"
            tone={why === "unlocked" ? "secondary" : "primary"}
            icon="refresh"
            busy={rotation.running}
            onClick={() => void rotation.rotate()}
          >
            Replace the key
          </Button>
        </div>
      )}
    </section>
  );
}
