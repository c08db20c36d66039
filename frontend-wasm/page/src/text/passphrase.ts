/** A hint how well a passphrase would resist guessing. Only a hint: it knows no dictionary. */

export const MIN_PASSPHRASE_LENGTH = 10;

export interface Strength {
  /** 0 (not enough) to 4. */
  score: 0 | 1 | 2 | 3 | 4;
  text: string;
}

const COMMON = /pass ?word|123|qwert|abc|letmein|welcome|admin|iloveyou|duet|wallet|ethereum/gi;

/** Roughly the bits that a guesser who knows how people choose would need. */
function bits(passphrase: string): number {
  // Runs and common words say little: each counts as one character.
  const reduced = passphrase
    .replace(COMMON, "~")
    .replace(/(.)\1{2,}/g, "$1")
    .replace(/(.{2,})\1+/g, "$1");
  const classes: [RegExp, number][] = [
    [/[a-z]/, 26],
    [/[A-Z]/, 26],
    [/[0-9]/, 10],
    [/[^A-Za-z0-9]/, 33],
  ];
  const alphabet = classes.reduce(
    (sum, [pattern, size]) => sum + (pattern.test(reduced) ? size : 0),
    0,
  );
  const distinct = new Set(reduced).size;
  const perCharacter = Math.min(
    Math.log2(Math.max(alphabet, 2)),
    Math.log2(Math.max(distinct, 2)) + 0.6,
  );
  // Letters of words carry less than letters drawn at random.
  const words = reduced.split(/[\s\-_.]+/).filter(word => /^[A-Za-z]{3,}$/.test(word));
  const inWords = words.join("").length;
  return words.length * 11 + (reduced.length - inWords) * perCharacter * 0.8;
}

export function strength(passphrase: string): Strength {
  if (passphrase.length < MIN_PASSPHRASE_LENGTH) {
    return {
      score: 0,
      text: `At least ${MIN_PASSPHRASE_LENGTH} characters; four or five unrelated words are good.`,
    };
  }
  const estimate = bits(passphrase);
  if (estimate < 35) return { score: 1, text: "Easy to guess. Add unrelated words." };
  if (estimate < 50) return { score: 2, text: "Fair. One more word would help." };
  if (estimate < 65) return { score: 3, text: "Good." };
  return { score: 4, text: "Strong." };
}

/** Why a new passphrase cannot be taken, or nothing. */
export function passphraseProblem(passphrase: string): string | null {
  if (passphrase === "") return "Choose a passphrase.";
  if (passphrase.length < MIN_PASSPHRASE_LENGTH)
    return `Use at least ${MIN_PASSPHRASE_LENGTH} characters.`;
  if (passphrase.length > 1024) return "Use at most 1024 characters.";
  return null;
}

export function repeatProblem(passphrase: string, repeat: string): string | null {
  if (repeat === "") return "Type it once more.";
  return passphrase === repeat ? null : "The two passphrases differ.";
}
