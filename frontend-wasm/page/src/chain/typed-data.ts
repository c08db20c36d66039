import type { TypedDataPayload } from "@duet/signer";

export type TypedDataReading = { ok: true; payload: TypedDataPayload } | { ok: false; problem: string };

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * Parses JSON without losing digits: a whole number that JavaScript cannot hold becomes text, which the signing
 * code reads as the same number.
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

/** Reads a pasted EIP-712 document as far as its outer form; the signing code checks the rest. */
export function readTypedData(text: string): TypedDataReading {
  if (text.trim() === "") return { ok: false, problem: "Paste the document." };
  let value: unknown;
  try {
    value = parseExactly(text);
  } catch (problem) {
    return { ok: false, problem: jsonProblem(problem, text) };
  }
  if (!isObject(value)) return { ok: false, problem: "The document is an object with types, primaryType, domain and message." };
  const { types, primaryType, domain, message, ...rest } = value;
  if (!isObject(types)) return { ok: false, problem: "types is missing, or not an object." };
  if (typeof primaryType !== "string") return { ok: false, problem: "primaryType is missing, or not text." };
  if (!isObject(domain)) return { ok: false, problem: "domain is missing, or not an object." };
  if (!isObject(message)) return { ok: false, problem: "message is missing, or not an object." };
  const surplus = Object.keys(rest)[0];
  if (surplus !== undefined) return { ok: false, problem: `${surplus} does not belong into such a document.` };
  // What its types contain is checked, with the path of what is wrong, by the code that signs.
  return { ok: true, payload: { kind: "typed_data", types: types as TypedDataPayload["types"], primaryType, domain, message } };
}
