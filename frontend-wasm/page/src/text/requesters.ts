/** The keys in a text that has one a line. */
export function keysOf(text: string): string[] {
  return text
    .split(/\s+/)
    .filter(word => word !== "")
    .map(word => word.replace(/^0x/, "").toLowerCase());
}

/** Why a text is no list of teams' keys, or nothing. */
export function requestersProblem(text: string): string | null {
  const keys = keysOf(text);
  const wrong = keys.find(key => !/^[0-9a-f]{64}$/.test(key));
  if (wrong !== undefined)
    return `“${wrong.slice(0, 20)}${wrong.length > 20 ? "…" : ""}” is not 64 hexadecimal digits.`;
  if (new Set(keys).size !== keys.length) return "The list has the same key twice.";
  return keys.length > 15 ? "At most 15 teams." : null;
}
