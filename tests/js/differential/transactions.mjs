// Random transactions in the JSON of the JSON-RPC interface: mostly as libraries send them, and
// some of them odd.

const CHECKSUMMED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
const ODD_VALUES = [
  null,
  "",
  "0",
  "0x",
  "0x0",
  "-1",
  " 1",
  "1 ",
  "1e3",
  "0X1",
  "+1",
  true,
  false,
  [],
  {},
  "text",
  "0x123",
  "0x00",
  0,
  1,
  -1,
  1.5,
  "01",
  "0x01",
  (2n ** 64n).toString(),
  (2n ** 128n).toString(),
  (2n ** 256n).toString(),
  CHECKSUMMED,
  CHECKSUMMED.replace("ed", "Ed"),
  CHECKSUMMED.slice(2),
];
const MEMBERS = [
  "type",
  "chainId",
  "nonce",
  "to",
  "value",
  "gas",
  "gasLimit",
  "data",
  "input",
  "gasPrice",
  "maxFeePerGas",
  "maxPriorityFeePerGas",
  "accessList",
];
const FOREIGN = [
  ["authorizationList", [{ chainId: 1, address: CHECKSUMMED, nonce: 0 }]],
  ["blobVersionedHashes", [`0x01${"00".repeat(31)}`]],
  ["maxFeePerBlobGas", "0x1"],
  ["memo", "x"],
  ["customData", {}],
  ["feeCurrency", CHECKSUMMED],
  ["from", CHECKSUMMED],
];

function quantity(random, bits) {
  const number = random.bits(bits);
  switch (random.below(3)) {
    case 0:
      return number < 2n ** 53n ? Number(number) : number.toString();
    case 1:
      return `0x${number.toString(16)}`;
    default:
      return number.toString();
  }
}

const address = random =>
  random.pick([CHECKSUMMED, `0x${random.hex(20)}`, `0x${random.hex(20).toUpperCase()}`]);

function accessList(random) {
  return Array.from({ length: random.below(3) }, () => ({
    address: address(random),
    storageKeys: Array.from({ length: random.below(3) }, () => `0x${random.hex(32)}`),
  }));
}

/** A transaction with the names of the JSON-RPC interface. */
export function transaction(random) {
  const document = {
    chainId: random.is(0.9) ? 1 + random.below(100_000) : quantity(random, 62),
    nonce: quantity(random, 32),
    to: random.is(0.85) ? address(random) : null,
    value: quantity(random, 100),
    [random.is(0.7) ? "gas" : "gasLimit"]: quantity(random, 40),
    [random.is(0.7) ? "data" : "input"]: `0x${random.hex(random.below(70))}`,
  };
  const kind = random.below(3);
  if (random.is(0.6))
    document.type = random.pick([
      `0x${kind}`,
      `0x0${kind}`,
      kind,
      ["legacy", "eip2930", "eip1559"][kind],
    ]);
  if (kind === 2) {
    const tip = random.bits(60);
    document.maxPriorityFeePerGas = `0x${tip.toString(16)}`;
    document.maxFeePerGas = (tip + random.bits(60)).toString();
  } else {
    document.gasPrice = quantity(random, 60);
  }
  if (kind > 0 && random.is(kind === 1 ? 1 : 0.4)) document.accessList = accessList(random);
  if (random.is(0.06)) delete document[random.pick(Object.keys(document))];
  if (random.is(0.08)) document[random.pick(MEMBERS)] = random.pick(ODD_VALUES);
  if (random.is(0.03)) document.input = `0x${random.hex(random.below(4))}`;
  if (random.is(0.03)) document.gasPrice = quantity(random, 40);
  if (random.is(0.05)) {
    const [name, value] = random.pick(FOREIGN);
    document[name] = value;
  }
  return document;
}
