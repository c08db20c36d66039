import type { Description, WalletSummary } from "@duet/signer";
import type { ComponentChildren } from "preact";

import type { Run, Signing } from "../state/signing";
import { duration } from "../text/format";
import { CopyButton } from "./address";
import { Broadcast } from "./broadcast";
import { Button } from "./button";
import { FieldTree, KIND_NAMES, NotSignedMembers } from "./described";
import { LockedKey } from "./locked-key";
import { ErrorNotice, Notice } from "./notice";
import { SameSignature } from "./same-signature";
import { Summary } from "./summary";
import { Timeline } from "./timeline";
import { Ready } from "./unlock";
import { StepHeading } from "./view";
import { annotateTransaction } from "../text/annotate";
import { Icon } from "./icon";

interface SigningProps {
  signing: Signing;
  wallet: WalletSummary;
  /** In plain words, above the fields of the review. */
  summary: (description: Description) => ComponentChildren;
  /** What must be settled before the signature, for example another chain. */
  blocked?: (description: Description) => boolean;
  /** The owner goes back to the form for another, after this one was signed or not. */
  onAnother: (signed: boolean) => void;
  /** Whether the signed transaction is the owner's own to broadcast. */
  canBroadcast: boolean;
  /** The form. */
  children: ComponentChildren;
}

/** A form, the review of what it makes, and the signature. */
export function SigningStages({
  signing,
  wallet,
  summary,
  blocked,
  onAnother,
  canBroadcast,
  children,
}: SigningProps) {
  const { stage, sign, cancel, back } = signing;
  // A wallet that locks itself meanwhile does not take away what is being signed or was.
  if (stage.at === "run") {
    return (
      <SigningRun
        run={stage}
        wallet={wallet}
        summary={<Summary description={stage.description} wallet={wallet} />}
        onCancel={cancel}
        onRetry={sign}
        onAnother={() => {
          onAnother(stage.state === "signed");
          back();
        }}
        canBroadcast={canBroadcast}
      />
    );
  }
  return (
    <Ready wallet={wallet}>
      {stage.at === "edit" ? (
        children
      ) : (
        <Review
          description={stage.description}
          wallet={wallet}
          summary={summary(stage.description)}
          blocked={blocked?.(stage.description)}
          onSign={sign}
          onBack={back}
        />
      )}
    </Ready>
  );
}

interface ReviewProps {
  description: Description;
  wallet: WalletSummary;
  /** In plain words, above the fields. */
  summary?: ComponentChildren;
  /** What must be settled first, for example another chain. */
  blocked?: boolean | undefined;
  onSign: () => void;
  onBack: () => void;
}

/** Exactly what will be signed, as the signing code itself reads it. */
function Review({ description, wallet, summary, blocked, onSign, onBack }: ReviewProps) {
  return (
    <section class="card" data-testid="review" data-digest={description.digest}>
      <div class="stack-tight">
        <StepHeading>Check before you sign</StepHeading>
        <p class="soft">
          You sign with <strong>{wallet.label}</strong>. The code that signs has read these fields
          itself, and they are exactly what you sign.
        </p>
      </div>
      {summary}
      <Payload description={description} testPrefix="review" />
      {(description.kind === "personal_message" || description.kind === "typed_data") && (
        <SameSignature testId="review-same-signature" />
      )}
      <div class="actions">
        <Button testId="review-sign" tone="primary" icon="pen" disabled={blocked} onClick={onSign}>
          Sign
        </Button>
        <Button testId="review-back" onClick={onBack}>
          Back
        </Button>
      </div>
    </section>
  );
}

export function Payload({
  description,
  testPrefix,
}: {
  description: Description;
  testPrefix: string;
}) {
  return (
    <div class="payload">
      <p class="payload-kind">{KIND_NAMES[description.kind]}</p>
      <FieldTree
        fields={description.fields}
        testPrefix={testPrefix}
        testId={`${testPrefix}-fields`}
        annotate={description.kind === "transaction" ? annotateTransaction : undefined}
      />
      <NotSignedMembers description={description} testId={`${testPrefix}-not-signed`} />
      <div class="payload-digest">
        <span class="tree-name">Digest</span>
        <code class="tree-value">{description.digest}</code>
      </div>
    </div>
  );
}

interface SigningRunProps {
  run: Run;
  wallet: WalletSummary;
  /** What is being signed, in plain words. */
  summary?: ComponentChildren;
  onCancel: () => void;
  onRetry?: (() => void) | undefined;
  onAnother?: (() => void) | undefined;
  /** Whether the signed transaction is the owner's own to broadcast. */
  canBroadcast: boolean;
}

const HEADINGS = {
  signing: "Signing together",
  signed: "Signed and verified",
  failed: "Not signed",
} as const;

/** A signature while it is made, and its result. The places of all parts are taken from the start. */
function SigningRun({
  run,
  wallet,
  summary,
  onCancel,
  onRetry,
  onAnother,
  canBroadcast,
}: SigningRunProps) {
  const { state, signed, error, verification } = run;
  return (
    <section class="card signing" data-testid="signing" data-state={state}>
      <div class="signing-head">
        <StepHeading>{HEADINGS[state]}</StepHeading>
        <p class="soft" role="status">
          {state === "signing" &&
            "This device and the other party take turns. Neither sees the other's share."}
          {signed &&
            `In ${duration(signed.tookMs)}, together with ${signed.responder || "the other party"}.`}
          {state === "failed" && "There is no signature."}
        </p>
      </div>
      <Timeline wallet={wallet} steps={run.steps} state={state} />
      <div class="signing-result">
        {summary}
        {state === "signing" && (
          <div class="actions">
            <Button testId="signing-cancel" onClick={onCancel}>
              Cancel
            </Button>
          </div>
        )}
        {error && (
          <>
            <ErrorNotice error={error} onRetry={onRetry} />
            {error.kind === "paillier-locked" && <LockedKey wallet={wallet} />}
            {onAnother && (
              <div class="actions">
                <Button testId="sign-another" onClick={onAnother}>
                  Back to the form
                </Button>
              </div>
            )}
          </>
        )}
        {signed && (
          <>
            {verification?.valid === true ? (
              <p class="verified" data-testid="signature-verified" data-valid="true">
                <Icon name="good" />
                <span>The signature is valid and belongs to this wallet.</span>
              </p>
            ) : (
              <Notice
                tone="bad"
                testId="signature-verified"
                title="The signature could not be verified again"
              >
                <p>
                  {verification?.valid === false
                    ? verification.reason
                    : "The verifier gave no answer."}{" "}
                  Do not use it.
                </p>
              </Notice>
            )}
            <div class="stack-tight">
              <div class="row-between">
                <h3>Signature</h3>
                <CopyButton testId="signature-copy" text={signed.signature} what="the signature" />
              </div>
              <code class="hex" data-testid="signature" tabIndex={0}>
                {signed.signature}
              </code>
            </div>
            {signed.transaction && (
              <details>
                <summary>Signed transaction</summary>
                <div class="stack-tight raw">
                  <code class="hex" data-testid="signed-transaction" tabIndex={0}>
                    {signed.transaction.raw}
                  </code>
                  <div class="actions">
                    <CopyButton
                      testId="signed-transaction-copy"
                      text={signed.transaction.raw}
                      what="the signed transaction"
                    />
                  </div>
                </div>
              </details>
            )}
            {signed.transaction && canBroadcast && <Broadcast transaction={signed.transaction} />}
            {onAnother && (
              <div class="actions">
                <Button testId="sign-another" tone="quiet" onClick={onAnother}>
                  Sign another
                </Button>
              </div>
            )}
          </>
        )}
      </div>
    </section>
  );
}
