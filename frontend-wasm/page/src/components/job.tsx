import { useEffect, useState } from "preact/hooks";

import { duet, walletById } from "../state/duet";
import { settle, refreshInbox, type InboxEntry } from "../state/inbox";
import { useRun } from "../state/signing";
import { dateTime, remaining } from "../text/format";
import { CopyButton } from "./address";
import { Button } from "./button";
import { ChainWarning, isForeign } from "./chain-warning";
import { KIND_NAMES } from "./described";
import { Dialog } from "./dialog";
import { ErrorNotice } from "./notice";
import { Payload } from "./signing";
import { Summary } from "./summary";
import { Timeline } from "./timeline";
import { Icon } from "./icon";
import type { WalletSummary } from "@duet/signer";

/** The time now, once a second. */
function useNow(): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

/** One request for a signature: its requester, payload, expiry and outcome. */
export function JobCard({ entry }: { entry: InboxEntry }) {
  const wallet = walletById(entry.job.wallet);
  return wallet ? <Job entry={entry} wallet={wallet} /> : null;
}

function Job({ entry: { job, outcome }, wallet }: { entry: InboxEntry; wallet: WalletSummary }) {
  const { run, start, cancel } = useRun(wallet);
  const [shown, setShown] = useState(outcome.state === "waiting");
  const [rejecting, setRejecting] = useState(false);
  const [accepted, setAccepted] = useState(false);
  const now = useNow();
  const { description } = job;
  const waits = outcome.state === "waiting";

  useEffect(() => {
    if (waits && job.expiresAt <= now) settle(job.job, { state: "expired" });
  }, [waits, now, job.expiresAt]);

  const approve = async () => {
    settle(job.job, { state: "signing" });
    const result = await start(
      description,
      hooks => duet().approve(wallet.id, job.job, description.digest, hooks),
      job.path,
    );
    settle(
      job.job,
      result.ok
        ? { state: "signed", signed: result.value }
        : { state: "failed", error: result.error },
    );
    setShown(false);
  };

  const reject = async () => {
    setRejecting(false);
    const result = await duet().reject(wallet.id, job.job);
    settle(job.job, result.ok ? { state: "rejected" } : { state: "failed", error: result.error });
    setShown(false);
    void refreshInbox(wallet.id);
  };

  return (
    <article
      class="card"
      data-testid={`job-${job.job}`}
      data-state={outcome.state}
      aria-label={`${KIND_NAMES[description.kind]} for ${wallet.label}`}
    >
      <div class="stack-tight">
        <div class="row-between">
          <h2 class="job-title">
            {KIND_NAMES[description.kind]} with {wallet.label}
          </h2>
          {waits && (
            <span class="badge">
              expires in <span class="number">{remaining(job.expiresAt - now)}</span>
            </span>
          )}
        </div>
        <p class="soft small break">
          Asked by {job.tenant} on {dateTime(job.createdAt)} · reference{" "}
          <span class="mono">{job.idempotencyKey}</span>
          {job.path !== "m" && (
            <>
              {" "}
              · key <span class="mono">{job.path}</span>
            </>
          )}
        </p>
      </div>

      <Summary description={description} wallet={wallet} />
      {waits && (
        <ChainWarning
          description={description}
          accepted={accepted}
          onAccept={setAccepted}
          testId={`job-chain-accept-${job.job}`}
        />
      )}
      {outcome.state !== "signing" && (
        <div class="stack-tight">
          <div>
            <Button
              testId={`job-open-${job.job}`}
              tone="secondary"
              small
              expanded={shown}
              onClick={() => setShown(!shown)}
            >
              {shown ? "Hide the fields" : "Show the fields"}
            </Button>
          </div>
          {shown && <Payload description={description} testPrefix={`job-${job.job}`} />}
        </div>
      )}

      {run && outcome.state === "signing" && (
        <Timeline wallet={wallet} steps={run.steps} state={run.state} />
      )}
      {outcome.state === "signing" && (
        <div class="actions">
          <Button testId="signing-cancel" onClick={cancel}>
            Cancel
          </Button>
        </div>
      )}
      {(waits || outcome.state === "failed") && (
        <>
          {outcome.state === "failed" && (
            <div data-testid={`job-outcome-${job.job}`}>
              <ErrorNotice error={outcome.error} />
            </div>
          )}
          {(waits || canTryAgain(outcome.error.kind)) && (
            <div class="actions">
              <Button
                testId={`job-approve-${job.job}`}
                tone="primary"
                icon="pen"
                disabled={
                  wallet.state !== "unlocked" || (isForeign(description) && !accepted && waits)
                }
                onClick={() => void approve()}
              >
                Approve and sign
              </Button>
              <Button
                testId={`job-reject-${job.job}`}
                tone="danger"
                disabled={wallet.state === "locked"}
                onClick={() => setRejecting(true)}
              >
                Reject
              </Button>
            </div>
          )}
        </>
      )}
      {outcome.state === "signed" && (
        <div class="stack-tight" data-testid={`job-outcome-${job.job}`}>
          <p class="verified">
            <Icon name="good" />
            <span>Signed and verified. The requester has the signature.</span>
          </p>
          <div class="row-between">
            <code class="hex hex-line" data-testid="signature" tabIndex={0}>
              {outcome.signed.signature}
            </code>
            <CopyButton
              testId="signature-copy"
              text={outcome.signed.signature}
              what="the signature"
            />
          </div>
        </div>
      )}
      {outcome.state === "rejected" && (
        <p class="soft" data-testid={`job-outcome-${job.job}`}>
          You rejected this request. It will not be signed, and the requester is told.
        </p>
      )}
      {outcome.state === "expired" && (
        <p class="soft" data-testid={`job-outcome-${job.job}`}>
          This request has expired. It can no longer be signed.
        </p>
      )}
      {rejecting && (
        <Dialog
          testId="reject-dialog"
          title="Reject this request?"
          onClose={() => setRejecting(false)}
        >
          <p>
            This request will never be signed, and the requester is told. The requester can send a
            new request.
          </p>
          <div class="actions">
            <Button testId="job-reject-confirm" tone="danger" onClick={() => void reject()}>
              Reject it
            </Button>
            <Button testId="job-reject-keep" onClick={() => setRejecting(false)}>
              Keep it
            </Button>
          </div>
        </Dialog>
      )}
    </article>
  );
}

/** Failures after which the same job can still be signed. */
function canTryAgain(kind: string): boolean {
  return [
    "gateway-unreachable",
    "party-unreachable",
    "cancelled",
    "busy-elsewhere",
    "locked",
  ].includes(kind);
}
