import type { Hex } from "@duet/signer";
import { useEffect, useRef, useState } from "preact/hooks";

import { node } from "../state/duet";
import { inEther } from "../chain/amount";
import { Button } from "./button";
import { CopyButton } from "./address";
import { Notice } from "./notice";

type Sent =
  | { state: "idle" | "sending" }
  | { state: "pending" }
  | { state: "confirmed" | "reverted"; block: string; gasUsed: string; fee: string }
  | { state: "failed"; why: string };

const TEXTS: Record<Sent["state"], string> = {
  idle: "Signed, and not yet sent.",
  sending: "Sending to the node …",
  pending: "Sent. Waiting for a block …",
  confirmed: "Included in a block.",
  reverted: "Included in a block, but the transaction failed there. The fee was paid.",
  failed: "Not sent.",
};

/** Sends a signed transaction to the node and waits for its receipt. */
export function Broadcast({ transaction }: { transaction: { raw: Hex; hash: Hex } }) {
  const [sent, setSent] = useState<Sent>({ state: "idle" });
  const mounted = useRef(true);
  useEffect(() => () => void (mounted.current = false), []);
  const url = node.value?.url ?? null;

  const update = (next: Sent) => {
    if (mounted.current) setSent(next);
  };

  const wait = async (target: string) => {
    const { receipt } = await import("../chain/node");
    update({ state: "pending" });
    const answer = await receipt(target, transaction.hash);
    if (!answer.ok) {
      update({
        state: "failed",
        why: `It was sent, but no receipt came: ${answer.message} Look up the hash before you send anything again.`,
      });
      return;
    }
    const { status, blockNumber, gasUsed, effectiveGasPrice } = answer.value;
    update({
      state: status === "success" ? "confirmed" : "reverted",
      block: blockNumber.toString(),
      gasUsed: gasUsed.toString(),
      fee: inEther(gasUsed * effectiveGasPrice),
    });
  };

  const send = async () => {
    if (url === null) return;
    update({ state: "sending" });
    const { broadcast } = await import("../chain/node");
    const answer = await broadcast(url, transaction.raw);
    // A node that has it already is as good as one that takes it now.
    if (answer.ok || /already (known|imported)/i.test(answer.message)) await wait(url);
    else update({ state: "failed", why: answer.message });
  };

  return (
    <div class="stack" data-testid="broadcast-state" data-state={sent.state}>
      <div class="stack-tight">
        <h3>Broadcast</h3>
        <p class="soft" role="status">
          {url === null
            ? "No Ethereum node is known: copy the signed transaction and send it elsewhere."
            : TEXTS[sent.state]}
        </p>
        <div class="row-between">
          <code class="small break" data-testid="transaction-hash">
            {transaction.hash}
          </code>
          <CopyButton
            testId="transaction-hash-copy"
            text={transaction.hash}
            what="the transaction's hash"
          />
        </div>
      </div>
      {sent.state === "failed" && (
        <Notice tone="bad" title="The node refused it">
          <p>{sent.why}</p>
        </Notice>
      )}
      {(sent.state === "confirmed" || sent.state === "reverted") && (
        <dl
          class="definition receipt"
          data-testid="receipt"
          data-status={sent.state === "confirmed" ? "success" : "reverted"}
          data-block={sent.block}
        >
          <div>
            <dt>Status</dt>
            <dd>{sent.state === "confirmed" ? "Success" : "Reverted"}</dd>
          </div>
          <div>
            <dt>Block</dt>
            <dd>{sent.block}</dd>
          </div>
          <div>
            <dt>Gas used</dt>
            <dd>{sent.gasUsed}</dd>
          </div>
          <div>
            <dt>Fee paid</dt>
            <dd>{sent.fee}</dd>
          </div>
        </dl>
      )}
      {(sent.state === "idle" ||
        sent.state === "sending" ||
        sent.state === "pending" ||
        sent.state === "failed") &&
        url !== null && (
          <div class="actions">
            <Button
              testId="broadcast"
              tone="primary"
              icon="send"
              busy={sent.state === "sending" || sent.state === "pending"}
              onClick={() => void send()}
            >
              {sent.state === "failed" ? "Try again" : "Broadcast"}
            </Button>
          </div>
        )}
    </div>
  );
}
