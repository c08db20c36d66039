import {
  createPublicClient,
  defineChain,
  http,
  type Address,
  type Hash,
  type Hex,
  type PublicClient,
  type TransactionReceipt,
} from "viem";

/** The Ethereum node: what the page reads from it and sends to it. */

/** How long one answer may take. */
const TIMEOUT_MS = 10_000;
/** How long to wait for a receipt. */
const RECEIPT_TIMEOUT_MS = 180_000;

export type NodeAnswer<T> = { ok: true; value: T } | { ok: false; message: string };

let client: { url: string; client: PublicClient } | null = null;

function connect(url: string): PublicClient {
  if (client?.url !== url) {
    const chain = defineChain({
      id: 0,
      name: "the node's chain",
      nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
      rpcUrls: { default: { http: [url] } },
    });
    client = {
      url,
      client: createPublicClient({
        chain,
        transport: http(url, { timeout: TIMEOUT_MS, retryCount: 1 }),
        pollingInterval: 500,
      }),
    };
  }
  return client.client;
}

/** What a node says when it refuses, without the library's decoration. */
function reason(problem: unknown): string {
  if (typeof problem === "object" && problem !== null) {
    if ("details" in problem && typeof problem.details === "string" && problem.details !== "")
      return problem.details;
    if ("shortMessage" in problem && typeof problem.shortMessage === "string")
      return problem.shortMessage;
    if ("message" in problem && typeof problem.message === "string") return problem.message;
  }
  return "no answer";
}

async function ask<T>(
  url: string,
  question: (client: PublicClient) => Promise<T>,
): Promise<NodeAnswer<T>> {
  try {
    return { ok: true, value: await question(connect(url)) };
  } catch (problem) {
    return { ok: false, message: reason(problem) };
  }
}

export const chainId = (url: string) => ask(url, node => node.getChainId());
export const balance = (url: string, address: Address) =>
  ask(url, node => node.getBalance({ address }));
export const broadcast = (url: string, raw: Hex): Promise<NodeAnswer<Hash>> =>
  ask(url, node => node.sendRawTransaction({ serializedTransaction: raw }));
export const receipt = (url: string, hash: Hash): Promise<NodeAnswer<TransactionReceipt>> =>
  ask(url, node => node.waitForTransactionReceipt({ hash, timeout: RECEIPT_TIMEOUT_MS }));

/** What the node suggests for a transaction. */
export interface Estimate {
  chainId: number;
  nonce: number;
  /** Refused when the call would fail, which the node then explains. */
  gas: NodeAnswer<bigint>;
  maxFeePerGas: bigint;
  maxPriorityFeePerGas: bigint;
  balance: bigint;
}

export interface Draft {
  from: Address;
  to: Address;
  value: bigint;
  data: Hex;
}

export function estimate(url: string, draft: Draft): Promise<NodeAnswer<Estimate>> {
  return ask(url, async node => {
    const call = { account: draft.from, to: draft.to, value: draft.value, data: draft.data };
    const [id, nonce, fees, funds, gas] = await Promise.all([
      node.getChainId(),
      node.getTransactionCount({ address: draft.from, blockTag: "pending" }),
      node.estimateFeesPerGas({ type: "eip1559", chain: null }),
      node.getBalance({ address: draft.from }),
      ask(url, () => node.estimateGas(call)),
    ]);
    const { maxFeePerGas, maxPriorityFeePerGas } = fees;
    return { chainId: id, nonce, gas, maxFeePerGas, maxPriorityFeePerGas, balance: funds };
  });
}

/** What a token contract says of itself; it is unverified. */
export interface TokenFacts {
  symbol: string;
  decimals: number;
}

const FACTS_ABI = [
  {
    type: "function",
    name: "symbol",
    stateMutability: "view",
    inputs: [],
    outputs: [{ name: "", type: "string" }],
  },
  {
    type: "function",
    name: "decimals",
    stateMutability: "view",
    inputs: [],
    outputs: [{ name: "", type: "uint8" }],
  },
] as const;

export function tokenFacts(url: string, address: Address): Promise<NodeAnswer<TokenFacts>> {
  return ask(url, async node => {
    const [symbol, decimals] = await Promise.all([
      node.readContract({ address, abi: FACTS_ABI, functionName: "symbol" }),
      node.readContract({ address, abi: FACTS_ABI, functionName: "decimals" }),
    ]);
    // A contract may call itself anything; control characters and long names could disturb what is
    // read.
    return { symbol: symbol.replace(/[^\x20-\x7e]/g, "").slice(0, 16), decimals };
  });
}
