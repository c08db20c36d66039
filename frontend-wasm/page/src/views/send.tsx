import type { WalletSummary } from "@duet/signer";
import { useEffect, useState } from "preact/hooks";

import { chainName } from "../chain/names";
import { Notice } from "../components/notice";
import { SendForm } from "../components/send-form";
import { SigningStages } from "../components/signing";
import { Summary } from "../components/summary";
import { View } from "../components/view";
import { href } from "../router";
import { nodeChain, refreshNodeChain } from "../state/chain";
import { node } from "../state/duet";
import { EMPTY_DRAFT } from "../state/send-draft";
import { useSigning } from "../state/signing";

/** Sends ether or calls a contract. */
export function SendView({ wallet }: { wallet: WalletSummary }) {
  const signing = useSigning(wallet);
  const [draft, setDraft] = useState(EMPTY_DRAFT);
  useEffect(() => void refreshNodeChain(), [node.value?.url]);

  return (
    <View
      name="send"
      title="Send a transaction"
      back={{ href: href({ view: "wallet", wallet: wallet.id }), text: wallet.label }}
      narrow
    >
      {signing.stage.at !== "run" && <ChainNotice />}
      <SigningStages
        signing={signing}
        wallet={wallet}
        summary={description => <Summary description={description} wallet={wallet} />}
        onAnother={signed => signed && setDraft(EMPTY_DRAFT)}
        canBroadcast
      >
        <SendForm wallet={wallet} draft={draft} onChange={setDraft} onReview={signing.review} />
      </SigningStages>
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
        <p>{chain.why} Fill in nonce, gas and fees by hand.</p>
      </Notice>
    );
  }
  if (chain.state === "known" && expected !== null && chain.id !== expected) {
    return (
      <Notice tone="bad" title="The node is on another chain" testId="chain-warning">
        <p>
          The node is on {chainName(chain.id)}, but the gateway is set up for {chainName(expected)}.
          A transaction would be for {chainName(chain.id)}. Check the node in the settings before
          you sign.
        </p>
      </Notice>
    );
  }
  return null;
}
