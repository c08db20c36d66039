import type { TransactionPayload } from "@duet/signer";
import type { Address, Hex } from "viem";

import { readAddress } from "../chain/address";
import {
  inEther,
  readAmount,
  readBytes,
  readWhole,
  type Reading,
  type Unit,
} from "../chain/amount";
import type { Estimate } from "../chain/node";

/** The transaction form: what was typed, and what it means. Empty optional fields mean “as the node suggests”. */
export interface SendDraft {
  to: string;
  amount: string;
  unit: Unit;
  data: string;
  nonce: string;
  gas: string;
  maxFee: string;
  priorityFee: string;
  chainId: string;
}

export const EMPTY_DRAFT: SendDraft = {
  to: "",
  amount: "",
  unit: "ether",
  data: "",
  nonce: "",
  gas: "",
  maxFee: "",
  priorityFee: "",
  chainId: "",
};

export type SendProblems = Partial<Record<keyof SendDraft, string>>;

const MAX_UINT64 = 2n ** 64n - 1n;
const GWEI: Unit = "gwei";

/** What the node needs to know for its estimate; nothing until it can be read. */
export function readCall(draft: SendDraft): { to: Address; value: bigint; data: Hex } | null {
  const to = readAddress(draft.to);
  const value = readAmount(
    draft.amount === "" && draft.data !== "" ? "0" : draft.amount,
    draft.unit,
  );
  const data = readBytes(draft.data);
  return to.ok && value.ok && data.ok
    ? { to: to.address, value: value.value, data: data.value }
    : null;
}

type Suggested = { of: string; suggested: bigint | null; read: (text: string) => Reading<bigint> };

function choose({ of, suggested, read }: Suggested, missing: string): Reading<bigint> {
  if (of.trim() !== "") return read(of);
  return suggested === null ? { ok: false, problem: missing } : { ok: true, value: suggested };
}

/** The payload, or what is wrong with which field. */
export function readDraft(
  draft: SendDraft,
  estimate: Estimate | null,
  chainId: number | null,
): { ok: true; payload: TransactionPayload } | { ok: false; problems: SendProblems } {
  const problems: SendProblems = {};
  const take = <T>(field: keyof SendDraft, reading: Reading<T>): T | null => {
    if (reading.ok) return reading.value;
    problems[field] = reading.problem;
    return null;
  };
  const address = readAddress(draft.to);
  const to = take("to", address.ok ? { ok: true, value: address.address } : address);
  const value = take(
    "amount",
    readAmount(draft.amount === "" && draft.data !== "" ? "0" : draft.amount, draft.unit),
  );
  const data = take("data", readBytes(draft.data));
  const silent = "The node gave no answer: fill this in yourself.";
  const nonce = take(
    "nonce",
    choose(
      {
        of: draft.nonce,
        suggested: estimate && BigInt(estimate.nonce),
        read: text => readWhole(text, "The nonce", MAX_UINT64),
      },
      silent,
    ),
  );
  const suggestedGas = estimate?.gas.ok === true ? estimate.gas.value : null;
  const gas = take(
    "gas",
    choose(
      {
        of: draft.gas,
        suggested: suggestedGas,
        read: text => readWhole(text, "The gas limit", MAX_UINT64),
      },
      estimate?.gas.ok === false
        ? `The node expects this to fail: ${estimate.gas.message}`
        : silent,
    ),
  );
  const maxFee = take(
    "maxFee",
    choose(
      {
        of: draft.maxFee,
        suggested: estimate?.maxFeePerGas ?? null,
        read: text => readAmount(text, GWEI),
      },
      silent,
    ),
  );
  const priorityFee = take(
    "priorityFee",
    choose(
      {
        of: draft.priorityFee,
        suggested: estimate?.maxPriorityFeePerGas ?? null,
        read: text => readAmount(text, GWEI),
      },
      silent,
    ),
  );
  const chain = take(
    "chainId",
    choose(
      {
        of: draft.chainId,
        suggested: chainId === null ? null : BigInt(chainId),
        read: text => readWhole(text, "The chain id", MAX_UINT64 / 2n - 36n),
      },
      silent,
    ),
  );
  if (chain === 0n) problems.chainId = "A chain id is at least 1.";
  if (gas !== null && gas < 21_000n) problems.gas = "No transaction takes less than 21000.";
  if (maxFee !== null && priorityFee !== null && priorityFee > maxFee) {
    problems.priorityFee = "The priority fee is part of the highest fee and cannot exceed it.";
  }
  if (
    value !== null &&
    gas !== null &&
    maxFee !== null &&
    estimate !== null &&
    Object.keys(problems).length === 0
  ) {
    const needed = value + gas * maxFee;
    if (needed > estimate.balance) {
      problems.amount = `Not enough: with the fee this takes up to ${inEther(needed)}, and the wallet has ${inEther(estimate.balance)}.`;
    }
  }
  if (Object.keys(problems).length > 0) return { ok: false, problems };
  return {
    ok: true,
    payload: {
      kind: "transaction",
      type: "eip1559",
      chainId: Number(chain),
      nonce: hex(nonce),
      to,
      value: hex(value),
      gas: hex(gas),
      maxFeePerGas: hex(maxFee),
      maxPriorityFeePerGas: hex(priorityFee),
      data: data ?? "0x",
    },
  };
}

const hex = (value: bigint | null): string => `0x${(value ?? 0n).toString(16)}`;
