// The hashes that ethers and viem sign for a transaction. Each is called as its users call it.

import { Transaction } from "ethers";
import { keccak256, serializeTransaction } from "viem";

const TYPES = ["legacy", "eip2930", "eip1559"];

function attempt(work) {
  try {
    return work();
  } catch {
    return null;
  }
}

/** The names of JSON-RPC, in ethers' form. */
export function forEthers({ gas, input, type, ...members }) {
  return {
    ...members,
    ...(gas !== undefined && { gasLimit: gas }),
    ...(members.data == null && { data: input ?? undefined }),
    ...(type !== undefined && {
      type: TYPES.includes(type) ? TYPES.indexOf(type) : type == null ? null : Number(type),
    }),
  };
}

/** The names and values of JSON-RPC, in viem's form. */
export function forViem({ gas, gasLimit, input, type, ...members }) {
  const number = (name, read) => (members[name] == null ? {} : { [name]: read(members[name]) });
  const limit = gas ?? gasLimit;
  return {
    ...members,
    ...number("chainId", Number),
    ...number("nonce", Number),
    ...number("value", BigInt),
    ...number("gasPrice", BigInt),
    ...number("maxFeePerGas", BigInt),
    ...number("maxPriorityFeePerGas", BigInt),
    ...(limit != null && { gas: BigInt(limit) }),
    ...(members.data == null && { data: input ?? undefined }),
    ...(type != null && { type: TYPES.includes(type) ? type : TYPES[Number(type)] }),
  };
}

/**
 * Adds the implied type: without one, ethers takes a gas price for EIP-2930. Nodes and viem take it
 * for a legacy transaction.
 */
function impliedType({ type, gasPrice, maxFeePerGas, maxPriorityFeePerGas, accessList }) {
  const isPriced = gasPrice != null && maxFeePerGas == null && maxPriorityFeePerGas == null;
  return type == null && isPriced ? { type: accessList == null ? 0 : 1 } : {};
}

/** The hash that ethers signs for its own form, with the type that it infers. */
export const ethersHash = document =>
  attempt(() => Transaction.from(forEthers(document)).unsignedHash);

/** The hash that each library signs, or `null` where it refuses. */
export function judge(document) {
  return {
    ethers: attempt(
      () => Transaction.from({ ...forEthers(document), ...impliedType(document) }).unsignedHash,
    ),
    viem: attempt(() => keccak256(serializeTransaction(forViem(document)))),
  };
}
