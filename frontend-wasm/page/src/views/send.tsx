import type { WalletSummary } from "@duet/signer";
import { useEffect, useState } from "preact/hooks";

import { chainName } from "../chain/names";
import { Notice } from "../components/notice";
import { SendForm } from "../components/send-form";
import { Review, SigningRun } from "../components/signing";
import { Summary } from "../components/summary";
import { Ready } from "../components/unlock";
import { View } from "../components/view";
import { href } from "../router";
import { nodeChain, refreshNodeChain } from "../state/chain";
import { node } from "../state/duet";
import { EMPTY_DRAFT } from "../state/send-draft";
import { useSigning } from "../state/signing";

/** Sends ether or calls a contract. */
export function SendView({ wallet }: { wallet: WalletSummary }) {
  const { stage, review, back, sign, cancel } = useSigning(wallet);
  const [draft, setDraft] = useState(EMPTY_DRAFT);
  useEffect(() => void refreshNodeChain(), [node.value?.url]);
  // A wallet that locks itself meanwhile does not take away what is being signed or was.
  const running = stage.at === "run";

  return (
    <View
      name="send"
      title="Send a transaction"
      back={{ href: href({ view: "wallet", wallet: wallet.id }), text: wallet.label }}
      narrow
    >
      {!running && <ChainNotice />}
      {running ? (
        <SigningRun
          run={stage}
          wallet={wallet}
          summary={<Summary description={stage.description} wallet={wallet} />}
          onCancel={cancel}
          onRetry={sign}
          onAnother={() => {
            if (stage.state === "signed") setDraft(EMPTY_DRAFT);
            back();
          }}
          canBroadcast
        />
      ) : (
        <Ready wallet={wallet}>
          {stage.at === "edit" ? (
            <SendForm wallet={wallet} draft={draft} onChange={setDraft} onReview={review} />
          ) : (
            <Review
              description={stage.description}
              wallet={wallet}
              summary={<Summary description={stage.description} wallet={wallet} />}
              onSign={sign}
              onBack={back}
            />
          )}
        </Ready>
      )}
    </View>
  );
}

/** Says when the node is not of the chain the gateway works for. */
function ChainNotice() {
  const chain = nodeChain.value;
  const expected = node.value?.expectedChainId ?? null;
  if (chain.state === "unreachable") {
    return (
      <Notice tone="warn" title="No Ethereum node" testId="node-warning">
        <p>{chain.why} Nonce, gas and fees must then be filled in by hand.</p>
      </Notice>
    );
  }
  if (chain.state === "known" && expected !== null && chain.id !== expected) {
    return (
      <Notice tone="bad" title="The node is of another chain" testId="chain-warning">
        <p>
          The node is of {chainName(chain.id)}, and the gateway is set up for {chainName(expected)}. A transaction would be made for{" "}
          {chainName(chain.id)}. Check the node in the settings before you sign.
        </p>
      </Notice>
    );
  }
  return null;
}
