import type { Description } from "@duet/signer";

import { chainName } from "../chain/names";
import { expectedChain } from "../state/chain";
import { Check } from "./choice";
import { Notice } from "./notice";

/** Whether a payload is for another chain than the node's. */
export function isForeign(description: Description): boolean {
  const expected = expectedChain();
  return description.chainId !== undefined && expected !== null && description.chainId !== expected;
}

interface ChainWarningProps {
  description: Description;
  accepted: boolean;
  onAccept: (accepted: boolean) => void;
  testId: string;
}

/** Says when a payload is for another chain than the node's; the owner may want exactly that. */
export function ChainWarning({ description, accepted, onAccept, testId }: ChainWarningProps) {
  const expected = expectedChain();
  if (!isForeign(description) || expected === null || description.chainId === undefined)
    return null;
  return (
    <Notice tone="warn" title="This is for another chain" testId="chain-warning">
      <p>
        It is for {chainName(description.chainId)}, but you are connected to {chainName(expected)}.
      </p>
      <Check testId={testId} checked={accepted} onChange={onAccept}>
        I want to sign for {chainName(description.chainId)}.
      </Check>
    </Notice>
  );
}
