import { signal } from "@preact/signals";

import { node } from "./duet";

/** The chain of the node, as the node itself says. */
export const nodeChain = signal<
  { state: "unknown" } | { state: "known"; id: number } | { state: "unreachable"; why: string }
>({
  state: "unknown",
});

/** Asks the node which chain it is of. */
export async function refreshNodeChain(): Promise<void> {
  const url = node.value?.url;
  if (url === undefined) {
    nodeChain.value = {
      state: "unreachable",
      why: "No Ethereum node is known. One can be set in the settings.",
    };
    return;
  }
  const { chainId } = await import("../chain/node");
  const answer = await chainId(url);
  nodeChain.value = answer.ok
    ? { state: "known", id: answer.value }
    : { state: "unreachable", why: "The Ethereum node does not answer." };
}

/** The chain a payload should be for: the node's, or what the gateway says while the node is silent. */
export function expectedChain(): number | null {
  return nodeChain.value.state === "known"
    ? nodeChain.value.id
    : (node.value?.expectedChainId ?? null);
}
