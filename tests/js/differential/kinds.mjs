// The intended kinds of differences, each with its reason. `docs/adapters.md` has the same list for
// readers.
//
// Typed data that MetaMask and another library sign and Duet refuses, by Duet's message. The
// reverse has no kinds: Duet never signs another digest, or what they refuse.

export const TYPED_DATA = [
  {
    name: "undeclared members",
    refusal: /unknown field; `types` declares/,
    reason:
      "The libraries leave them out of the digest without a word. They are dropped by choice only.",
  },
  {
    name: "members of the document or of a declaration that EIP-712 does not know",
    refusal: /unknown field; the fields here are/,
    reason: "The libraries pass over them. What they were meant to say is not known.",
  },
  {
    name: "the domain as the primary type",
    refusal: /^primaryType: expected one of the structs/,
    reason: "Such a signature says nothing, and no policy can tell it from another.",
  },
  {
    name: "numbers for text, text for truth values",
    refusal: /: expected (a string|true or false), found/,
    reason: 'JavaScript takes "false" for true, and hashes the number 5 as the byte 0x05.',
  },
  {
    name: "odd spellings of numbers",
    refusal: /: (expected a non-negative integer|expected an integer:)/,
    reason:
      "JavaScript reads an empty text as 0, and blanks, signs, 0X, 0b and 0o; no other way in does.",
  },
  {
    name: "bytes that are not 0x and pairs of digits",
    refusal: /: expected 0x and an even number of hexadecimal digits/,
    reason: "Half a byte is guessed at, and other text is hashed as UTF-8.",
  },
  {
    name: "arrays of another length than declared",
    refusal: /does not fit its type: \d+ elements/,
    reason: "eth-sig-util and viem do not count; no contract can verify such a signature.",
  },
  {
    name: "array lengths that Solidity does not know",
    refusal: /the length of an array is a decimal number from 1/,
    reason: "No contract declares an array of length 0 or 02.",
  },
  {
    name: "names with which one list of types could be spelt as another",
    refusal: /a name has 1 to 128 bytes/,
    reason:
      "Brackets, commas, quotes, blanks and control characters make one list of types read as another.",
  },
  {
    name: "structs that have the name of a type of Solidity",
    refusal: /a struct cannot have the name of a type of Solidity|libraries hash `int` and `uint`/,
    reason: "Libraries do not agree on whether `uint7` is the struct or the type.",
  },
  {
    name: "members that are declared twice",
    refusal: /the struct has this member twice/,
    reason: "One value would be shown, and two be signed.",
  },
  {
    name: "values in the place of a struct without members",
    refusal: /: expected an object, found/,
    reason: "The libraries do not look at it.",
  },
  {
    name: "text that is not Unicode",
    refusal: /lone leading surrogate|unexpected end of hex escape|invalid unicode/,
    reason: "eth-sig-util and viem sign another character in its place.",
  },
];

// Transactions that ethers and viem sign and Duet refuses.

export const TRANSACTIONS = [
  {
    name: "members that are not understood",
    refusal: /: unknown field/,
    reason: "The libraries leave them out, so that another transaction is signed.",
  },
  {
    name: "no recipient and no code",
    refusal: /^(payload\.)?to: there is no recipient/,
    reason: "The ether would be locked in a contract without code.",
  },
  {
    name: "members that contradict each other",
    refusal: /: (does not go with|not a field of|contradicts)/,
    reason: "The libraries sign one of them and leave the other out.",
  },
  {
    name: "missing members",
    refusal: /: missing$/,
    reason: "The libraries sign 0 in their place.",
  },
  {
    name: "odd spellings of numbers",
    refusal: /: expected a non-negative integer/,
    reason:
      "JavaScript reads an empty text as 0, and blanks, signs, 0X, 0b and 0o; no other way in does.",
  },
  {
    name: "numbers beyond what nodes take",
    refusal: /: expected at most \d+ bits|: a chain id is from 1 to/,
    reason: "Gas and nonces have 64 bits and fees 128 with every node; EIP-2294 bounds chain ids.",
  },
  {
    name: "bytes that are not 0x and pairs of digits",
    refusal: /: expected 0x and (an even number of|\d+) hexadecimal digits/,
    reason: "Half a byte is guessed at.",
  },
  {
    name: "`input` or `gasLimit` beside the other name, in a form that it cannot have",
    refusal: /^(input|gasLimit): (expected a string|a number must be an integer)/,
    reason: "The libraries do not look at it.",
  },
  {
    name: "access lists that are no list",
    refusal: /^accessList: expected an array/,
    reason: "JSON-RPC knows lists only; the account for ethers turns its maps into one.",
  },
  {
    name: "types by other names",
    refusal: /^type: expected 0x0, 0x1 or 0x2/,
    reason: "Blob transactions and those that set code are not signed.",
  },
];
