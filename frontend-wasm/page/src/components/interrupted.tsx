import type { DuetError, Signed } from "@duet/signer";
import { useEffect, useState } from "preact/hooks";

import { href } from "../router";
import { connection, duet, walletById } from "../state/duet";
import { clearInterrupted, type Interrupted } from "../state/interrupted";
import { CopyButton } from "./address";
import { Broadcast } from "./broadcast";
import { Button } from "./button";

type Fate =
  /** Nothing was heard yet: the wallet is locked, the gateway out of reach, or it has not ended. */
  | { state: "unknown" }
  | { state: "signed"; signed: Signed }
  | { state: "not-signed"; error: DuetError | null };

/**
 * The pause before the banner asks again about a signature that has not ended. The session ends by
 * itself within a minute.
 */
const AGAIN_MS = 3_000;

/** Failures of the asking, which say nothing about the signature. */
const UNHEARD = ["party-unreachable", "gateway-unreachable", "locked", "cancelled", "internal"];

/** Shows the outcome of a signature that was running when the page was closed or reloaded. */
export function InterruptedBanner({ running }: { running: Interrupted }) {
  const { what, job, payload, path } = running;
  // One that was never asked for cannot have been signed.
  const [fate, setFate] = useState<Fate>(
    job === null ? { state: "not-signed", error: null } : { state: "unknown" },
  );
  const [asked, setAsked] = useState(0);
  const wallet = walletById(running.wallet);
  const open = wallet !== undefined && wallet.state !== "locked" && wallet.state !== "pending";
  const ask = job !== null && fate.state === "unknown" && open && connection.value === "online";

  useEffect(() => {
    if (!ask || job === null) return undefined;
    let here = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    void duet()
      .outcome(running.wallet, job, payload, path)
      .then(outcome => {
        if (!here) return;
        if (outcome.ok) setFate({ state: "signed", signed: outcome.value });
        else if (UNHEARD.includes(outcome.error.kind))
          timer = setTimeout(() => setAsked(count => count + 1), AGAIN_MS);
        else setFate({ state: "not-signed", error: outcome.error });
      });
    return () => {
      here = false;
      clearTimeout(timer);
    };
  }, [ask, asked]);

  const signed = fate.state === "signed" ? fate.signed : null;
  return (
    <div class="banner" data-testid="interrupted-banner" data-state={fate.state}>
      <span>
        The page was closed or reloaded while {what} was being signed.{" "}
        {fate.state === "unknown" && !open && wallet && (
          <>
            <a href={href({ view: "wallet", wallet: running.wallet })}>Unlock {wallet.label}</a> to
            learn whether it was signed. Nothing was broadcast from here.
          </>
        )}
        {fate.state === "unknown" &&
          (open || !wallet) &&
          "Nothing was broadcast from here. The page is asking whether it was signed."}
        {fate.state === "not-signed" &&
          `It was not signed. You can sign again.${fate.error ? ` ${fate.error.message}` : ""}`}
        {signed &&
          (signed.transaction
            ? "It was signed nevertheless. Nothing was broadcast from here."
            : "It was signed nevertheless, and the signature is valid.")}
      </span>
      {signed && (
        <span class="row">
          <code class="hex hex-line" data-testid="interrupted-signature" tabIndex={0}>
            {signed.signature}
          </code>
          <CopyButton
            testId="interrupted-copy"
            text={signed.transaction?.raw ?? signed.signature}
            what={signed.transaction ? "the signed transaction" : "the signature"}
          />
        </span>
      )}
      {signed?.transaction && <Broadcast transaction={signed.transaction} />}
      <Button testId="interrupted-dismiss" small onClick={clearInterrupted}>
        Understood
      </Button>
    </div>
  );
}
