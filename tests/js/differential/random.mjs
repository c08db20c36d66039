// Repeatable random choices: the same seed gives the same choices on every machine.

/** A generator of choices (mulberry32). */
export function chance(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = bound => Math.floor(next() * bound);
  return {
    below,
    /** Returns true with this probability. */
    is: probability => next() < probability,
    pick: list => list[below(list.length)],
    /** This many random bytes, as hexadecimal digits. */
    hex: bytes =>
      Array.from({ length: bytes }, () => below(256).toString(16).padStart(2, "0")).join(""),
    /** An integer of at most this many bits. */
    bits: most => {
      const width = below(most + 1);
      let number = 0n;
      for (let at = 0; at < width; at += 1) number = (number << 1n) | BigInt(below(2));
      return number;
    },
  };
}
