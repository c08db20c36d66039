// Random typed data: mostly as applications send it, and some of it odd in ways that occur in
// practice.

const ELEMENTARY = [
  "address",
  "bool",
  "string",
  "bytes",
  "bytes1",
  "bytes4",
  "bytes20",
  "bytes32",
  "uint8",
  "uint64",
  "uint128",
  "uint256",
  "int8",
  "int64",
  "int256",
];
const ODD_TYPES = [
  "uint",
  "int",
  "uint7",
  "uint264",
  "bytes0",
  "bytes33",
  "byte",
  "function",
  "Nobody",
  "",
  "uint8[0]",
  "uint8[02]",
  "EIP712Domain",
];
const STRUCT_NAMES = ["Mail", "Person", "Order", "T", "A", "B_2", "$C", "Node"];
const ODD_NAMES = [
  "A:B",
  "Mail:Send",
  "My-T",
  "A.B",
  "größe",
  "T$",
  "A B",
  "A(B",
  "A,B",
  "",
  "int",
  "uint",
  "uint7",
  "bytes33",
  "address",
  "日本",
  "0",
  "tuple",
];
const MEMBER_NAMES = ["a", "b", "c", "to", "value", "from", "nonce", "deadline"];
const ODD_MEMBERS = ["a-b", "größe", "a.b", "a b", "", "0", "constructor", "EIP712Domain", "日本"];
const DOMAIN = [
  ["name", "string"],
  ["version", "string"],
  ["chainId", "uint256"],
  ["verifyingContract", "address"],
  ["salt", "bytes32"],
];
const CHECKSUMMED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
const ODD_VALUES = [
  null,
  true,
  false,
  0,
  1,
  -1,
  5,
  256,
  "",
  "0",
  "1",
  "-1",
  "-0",
  " 5",
  "5 ",
  "0x",
  "0x0",
  "0x1",
  "0X1f",
  "0b11",
  "0o7",
  "1e3",
  "1.0",
  "1_000",
  "+1",
  "true",
  "false",
  "text",
  "0x123",
  "0x0102",
  "00",
  [],
  {},
  [1],
  { a: 1 },
  CHECKSUMMED,
  CHECKSUMMED.toLowerCase(),
  CHECKSUMMED.toUpperCase(),
  `0x${CHECKSUMMED.slice(2).toUpperCase()}`,
  CHECKSUMMED.replace("ed", "Ed"),
  CHECKSUMMED.slice(2),
  "0x5aaeb6053f3e94c9b9a09f33669435e7ef1bea",
  "vitalik.eth",
  `0x${"ff".repeat(32)}`,
  `0x1${"00".repeat(32)}`,
  (2n ** 256n).toString(),
  (2n ** 255n).toString(),
  (-(2n ** 255n)).toString(),
  (-(2n ** 255n) - 1n).toString(),
  "\ud800",
  "ü",
  "\u0000",
  "127",
  "128",
  "-128",
  "-129",
  "0x80",
  "255",
  "0xff",
  "0x100",
];

/** The depth of nested structs, after which a value ends. */
const DEPTH = 4;

function typeName(random, names) {
  if (random.is(0.02)) return random.pick(ODD_TYPES);
  const stem = random.is(0.3) ? random.pick(names) : random.pick(ELEMENTARY);
  if (random.is(0.75)) return stem;
  return stem + random.pick(["[]", "[]", "[2]", "[1]", "[][]", "[2][]"]);
}

function integer(random, type) {
  const signed = type.startsWith("int");
  const bits = Number(type.replace(/^u?int/, "") || 256);
  let number = random.bits(signed ? bits - 1 : bits);
  if (signed && random.is(0.4)) number = -number;
  switch (random.below(3)) {
    case 0:
      return number >= -(2n ** 53n) + 1n && number < 2n ** 53n ? Number(number) : number.toString();
    case 1:
      return number < 0n ? number.toString() : `0x${number.toString(16)}`;
    default:
      return number.toString();
  }
}

function leaf(random, type) {
  if (type === "bool") return random.is(0.5);
  if (type === "address")
    return random.pick([CHECKSUMMED, `0x${random.hex(20)}`, `0x${random.hex(20).toUpperCase()}`]);
  if (type === "string")
    return random.pick(["", "hello", "Grüße", "\u{1f600}", '"\\', `line\n${random.hex(3)}`]);
  if (type === "bytes") return `0x${random.hex(random.below(40))}`;
  if (/^bytes\d+$/.test(type)) return `0x${random.hex(Math.min(Number(type.slice(5)), 40))}`;
  if (/^u?int\d*$/.test(type)) return integer(random, type);
  return random.pick(ODD_VALUES);
}

function valueOf(random, types, type, depth) {
  if (random.is(0.015)) return random.pick(ODD_VALUES);
  const array = /^(.*)\[(\d*)\]$/s.exec(type);
  if (array) {
    const exact =
      array[2] !== "" && !random.is(0.03) ? Number(array[2]) : random.below(depth > 0 ? 3 : 1);
    return Array.from({ length: Math.min(exact, 4) }, () =>
      valueOf(random, types, array[1], depth - 1),
    );
  }
  const members = Object.hasOwn(types, type) ? types[type] : undefined;
  if (!members) return leaf(random, type);
  if (depth < 0) return {};
  const value = {};
  for (const { name, type: kind } of members) {
    if (!random.is(0.005)) value[name] = valueOf(random, types, kind, depth - 1);
  }
  if (random.is(0.02))
    value[random.pick(["__typename", "extra", "a", "value"])] ??= random.pick(ODD_VALUES);
  return value;
}

function domainOf(random, types) {
  const present = DOMAIN.filter(() => random.is(0.6));
  const domain = Object.fromEntries(
    present.map(([name, type]) => [name, valueOf(random, {}, type, 0)]),
  );
  if (random.is(0.75)) {
    const declared = present.filter(() => !random.is(0.04)).map(([name, type]) => ({ name, type }));
    if (random.is(0.08)) declared.sort(() => (random.is(0.5) ? 1 : -1));
    if (random.is(0.03)) declared.push({ name: "extra", type: random.pick(ELEMENTARY) });
    if (random.is(0.03) && declared.length > 0)
      random.pick(declared).type = random.pick([...ELEMENTARY, "uint8[]", "T"]);
    types.EIP712Domain = declared;
    if (random.is(0.05)) domain.extra = random.pick(ODD_VALUES);
  } else if (random.is(0.02)) {
    domain.url = "https://example.org";
  }
  if (random.is(0.03)) domain[random.pick(DOMAIN)[0]] = null;
  return domain;
}

/** A document of `eth_signTypedData_v4`. */
export function typedData(random) {
  const names = [];
  for (let count = 1 + random.below(3); count > 0; count -= 1) {
    const name = random.is(0.08) ? random.pick(ODD_NAMES) : random.pick(STRUCT_NAMES);
    if (!names.includes(name)) names.push(name);
  }
  const types = {};
  for (const [at, name] of names.entries()) {
    // Mostly the structs after it, so that most types end somewhere.
    const reachable = random.is(0.15) ? names : names.slice(at + 1);
    const members = new Map();
    for (let count = random.below(5); count > 0; count -= 1) {
      const member = random.is(0.04) ? random.pick(ODD_MEMBERS) : random.pick(MEMBER_NAMES);
      members.set(member, typeName(random, reachable.length > 0 ? reachable : ELEMENTARY));
    }
    // So that all structs are used, as ethers requires.
    if (at + 1 < names.length && random.is(0.8))
      members.set("next", names[at + 1] + random.pick(["", "[]"]));
    types[name] = [...members].map(([member, type]) => ({ name: member, type }));
    if (random.is(0.005) && types[name].length > 0) types[name].push({ ...types[name][0] });
    if (random.is(0.005) && types[name].length > 0) types[name][0].internalType = "uint256";
  }
  const domain = domainOf(random, types);
  const primaryType = random.is(0.01)
    ? random.pick(["EIP712Domain", "Nobody", "Mail[]"])
    : names[0];
  const message = valueOf(random, types, primaryType, DEPTH);
  const document = { types, primaryType, domain, message };
  if (random.is(0.005)) document.version = "V4";
  return document;
}
