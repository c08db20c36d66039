import { decodeFunctionData, encodeFunctionData, parseAbi, type Address, type Hex } from "viem";

/** The calls of token contracts that people are asked to sign, decoded. */

const ABI = parseAbi([
  "function transfer(address to, uint256 amount)",
  "function approve(address spender, uint256 amount)",
  "function transferFrom(address from, address to, uint256 amount)",
  "function safeTransferFrom(address from, address to, uint256 tokenId)",
  "function safeTransferFrom(address from, address to, uint256 tokenId, bytes data)",
  "function safeTransferFrom(address from, address to, uint256 id, uint256 amount, bytes data)",
  "function safeBatchTransferFrom(address from, address to, uint256[] ids, uint256[] amounts, bytes data)",
  "function setApprovalForAll(address operator, bool approved)",
]);

export interface CallArgument {
  name: string;
  value:
    | { kind: "address"; address: Address }
    | { kind: "amount"; amount: bigint }
    | { kind: "text"; text: string };
}

export interface TokenCall {
  function: string;
  /** What it does, in a sentence. */
  summary: string;
  arguments: CallArgument[];
  /** What a careful person should know before signing. */
  warning: string | null;
}

/** From here on an allowance is meant to be without limit. */
const UNLIMITED = 2n ** 255n;

const address = (name: string, value: Address): CallArgument => ({
  name,
  value: { kind: "address", address: value },
});
const amount = (name: string, value: bigint): CallArgument => ({
  name,
  value: { kind: "amount", amount: value },
});
const text = (name: string, value: string): CallArgument => ({
  name,
  value: { kind: "text", text: value },
});

/** Decodes call data if it is exactly one of the known calls, not merely begins like it. */
export function decodeCall(data: Hex): TokenCall | null {
  if (data.length < 10) return null;
  try {
    const call = decodeFunctionData({ abi: ABI, data });
    // Contracts ignore bytes that follow; people should not.
    if (
      encodeFunctionData({ abi: ABI, ...call } as Parameters<typeof encodeFunctionData>[0]) !==
      data.toLowerCase()
    )
      return null;
    return describeCall(call);
  } catch {
    return null;
  }
}

function describeCall(call: ReturnType<typeof decodeFunctionData<typeof ABI>>): TokenCall {
  switch (call.functionName) {
    case "transfer":
      return {
        function: "transfer",
        summary: "Sends tokens of this contract.",
        arguments: [address("To", call.args[0]), amount("Amount", call.args[1])],
        warning: null,
      };
    case "approve":
      return {
        function: "approve",
        summary:
          call.args[1] === 0n
            ? "Takes an allowance back."
            : "Allows another address to spend tokens, or to move one item, of this contract.",
        arguments: [address("Spender", call.args[0]), amount("Amount or item", call.args[1])],
        warning:
          call.args[1] >= UNLIMITED
            ? "This allowance has no limit: the spender can take all of these tokens, at any time."
            : null,
      };
    case "transferFrom":
      return {
        function: "transferFrom",
        summary: "Moves tokens, or one item, from one address to another.",
        arguments: [
          address("From", call.args[0]),
          address("To", call.args[1]),
          amount("Amount or item", call.args[2]),
        ],
        warning: null,
      };
    case "safeTransferFrom":
      return call.args.length === 5
        ? {
            function: "safeTransferFrom",
            summary: "Moves items of one kind from one address to another (ERC-1155).",
            arguments: [
              address("From", call.args[0]),
              address("To", call.args[1]),
              text("Item", call.args[2].toString()),
              text("Number of items", call.args[3].toString()),
              text("Data", call.args[4]),
            ],
            warning: null,
          }
        : {
            function: "safeTransferFrom",
            summary: "Moves one item from one address to another (ERC-721).",
            arguments: [
              address("From", call.args[0]),
              address("To", call.args[1]),
              text("Item", call.args[2].toString()),
              ...(call.args[3] === undefined ? [] : [text("Data", call.args[3])]),
            ],
            warning: null,
          };
    case "safeBatchTransferFrom":
      return {
        function: "safeBatchTransferFrom",
        summary: "Moves items of several kinds from one address to another (ERC-1155).",
        arguments: [
          address("From", call.args[0]),
          address("To", call.args[1]),
          text("Items", call.args[2].join(", ")),
          text("Numbers", call.args[3].join(", ")),
          text("Data", call.args[4]),
        ],
        warning: null,
      };
    case "setApprovalForAll":
      return {
        function: "setApprovalForAll",
        summary: call.args[1]
          ? "Lets another address move everything you own in this contract."
          : "Takes that permission back.",
        arguments: [
          address("Operator", call.args[0]),
          text("Allowed", call.args[1] ? "yes, for all" : "no"),
        ],
        warning: call.args[1]
          ? "The operator could take every item of this contract from you, now and later."
          : null,
      };
  }
}
