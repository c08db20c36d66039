import type { DescribedField } from "@duet/signer";

import { inEther, inGwei } from "../chain/amount";
import { chainName } from "../chain/names";

/** What a transaction's field means in units people think in. */
export function annotateTransaction({ path, value }: DescribedField): string | null {
  if (!/^\d+$/.test(value)) return null;
  switch (path) {
    case "value":
      return inEther(BigInt(value));
    case "gasPrice":
    case "maxFeePerGas":
    case "maxPriorityFeePerGas":
      return inGwei(BigInt(value));
    case "chainId":
      return chainName(Number(value));
    default:
      return null;
  }
}
