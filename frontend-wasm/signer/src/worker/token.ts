/** Admission tokens as organisations hand them out. */

import { fail } from "../errors.js";

/** A token's bytes, from base64 or hexadecimal digits. */
export function readToken(text: string, field: string): Uint8Array {
  const trimmed = text.trim();
  try {
    if (/^([0-9a-fA-F]{2})+$/.test(trimmed)) {
      return Uint8Array.from(trimmed.match(/../g) ?? [], pair => Number.parseInt(pair, 16));
    }
    const plain = atob(trimmed.replaceAll("-", "+").replaceAll("_", "/"));
    return Uint8Array.from(plain, character => character.charCodeAt(0));
  } catch {
    fail("invalid", "An admission token is base64 or hexadecimal digits.", { field });
  }
}
