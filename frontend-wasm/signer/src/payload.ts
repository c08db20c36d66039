/** Between the values of the libraries people use and the JSON document that the parties read. */

import { duetError, Failure } from "./errors.js";
import type { Payload, Quantity } from "./types.js";

/** The largest integer that JSON carries exactly. */
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * The payload's document. Integers that JSON cannot carry become text, bytes become `0x…`, and what
 * is `undefined` is left out. Nothing else is changed: what is wrong with it, the code that makes
 * the digest says.
 *
 * @throws {Failure} `invalid`, for a number that JavaScript may have rounded already.
 */
export function payloadDocument(payload: Payload): string {
  return plainDocument(payload as unknown as Record<string, unknown>);
}

/** The document of any object, by the rules of {@link payloadDocument}. */
export function plainDocument(object: Record<string, unknown>): string {
  return JSON.stringify(object, (key, value: unknown) => {
    if (typeof value === "bigint") return plainInteger(value);
    if (value instanceof Uint8Array) return bytesToHex(value);
    if (typeof value === "number" && !Number.isSafeInteger(value)) {
      const message = `The number ${value} may have lost digits, or is no integer; give a bigint or a string of its digits.`;
      throw new Failure(duetError("invalid", message, { field: key }));
    }
    return value;
  });
}

function plainInteger(value: bigint): number | string {
  return value <= MAX_SAFE && value >= -MAX_SAFE ? Number(value) : value.toString();
}

export function bytesToHex(bytes: Uint8Array): `0x${string}` {
  return `0x${Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** The bytes of `0x` and hexadecimal digits, or of the digits alone. `field` names it in the refusal. */
export function hexToBytes(text: string, field: string): Uint8Array {
  const digits = text.startsWith("0x") || text.startsWith("0X") ? text.slice(2) : text;
  if (digits.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(digits)) {
    throw new Failure(
      duetError("invalid", "Expected an even number of hexadecimal digits.", { field }),
    );
  }
  return Uint8Array.from({ length: digits.length / 2 }, (_, at) =>
    Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16),
  );
}

/** A number of the JSON-RPC interface as `0x` and digits without leading zeros. `field` names it in the refusal. */
export function quantityHex(value: Quantity, field: string): `0x${string}` {
  try {
    const number = BigInt(value);
    if (number >= 0n) return `0x${number.toString(16)}`;
  } catch {
    // Said below.
  }
  throw new Failure(duetError("invalid", "Expected a number, not negative.", { field }));
}
