import type { TypedDataPayload } from "@duet/signer";

import { duet } from "../state/duet";

export type TypedDataReading =
  { ok: true; payload: TypedDataPayload } | { ok: false; problem: string };

/**
 * Parses JSON without losing digits: a whole number that JavaScript cannot hold becomes text, which
 * the signing code reads as the same number.
 */
export function parseExactly(text: string): unknown {
  const revive = (_key: string, value: unknown, context?: { source?: string }): unknown => {
    if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
    const source = context?.source;
    if (source !== undefined && /^-?\d+$/.test(source)) return source;
    throw new SyntaxError(`write the number ${source ?? value} in quotes`);
  };
  return JSON.parse(text, revive as (key: string, value: unknown) => unknown) as unknown;
}

/** Where in a text a parser stopped, in words. */
export function jsonProblem(problem: unknown, text: string): string {
  const message = problem instanceof Error ? problem.message : "it does not parse";
  const position = /position (\d+)/.exec(message)?.[1];
  if (position === undefined) return `This is not JSON: ${message}.`;
  const before = text.slice(0, Number(position)).split("\n");
  return `This is not JSON: line ${before.length}, character ${(before.at(-1) ?? "").length + 1}.`;
}

/** Reads a pasted EIP-712 document with the code that signs, which keeps all digits of its numbers. */
export async function readTypedData(text: string): Promise<TypedDataReading> {
  if (text.trim() === "") return { ok: false, problem: "Paste the document." };
  const outcome = await duet().readTypedData(text);
  return outcome.ok
    ? { ok: true, payload: outcome.value }
    : { ok: false, problem: outcome.error.message };
}
