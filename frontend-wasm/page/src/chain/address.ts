import { getAddress, isAddress, type Address } from "viem";

export type AddressReading =
  { ok: true; address: Address; checked: boolean } | { ok: false; problem: string };

/**
 * Reads an address as a person pastes it. One of mixed case must have the checksum of EIP-55; one
 * of a single case has none, and `checked` says so.
 */
export function readAddress(text: string): AddressReading {
  const trimmed = text.trim();
  if (trimmed === "") return { ok: false, problem: "Paste the address." };
  if (/\.[a-z]{2,}$/i.test(trimmed)) {
    return {
      ok: false,
      problem:
        "Names are not looked up here: what a name points to can change. Paste the address itself.",
    };
  }
  if (!trimmed.startsWith("0x")) return { ok: false, problem: "An address starts with 0x." };
  const digits = trimmed.slice(2);
  if (!/^[0-9a-fA-F]*$/.test(digits))
    return { ok: false, problem: "An address has only the digits 0–9 and a–f after 0x." };
  if (digits.length !== 40)
    return { ok: false, problem: `An address has 40 digits after 0x; this has ${digits.length}.` };
  const checked = /[a-f]/.test(digits) && /[A-F]/.test(digits);
  if (checked && !isAddress(trimmed, { strict: true })) {
    return {
      ok: false,
      problem:
        "The checksum does not fit: a digit is wrong or was changed. Copy the address again.",
    };
  }
  return { ok: true, address: getAddress(trimmed.toLowerCase()), checked };
}
