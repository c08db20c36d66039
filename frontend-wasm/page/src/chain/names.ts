/** Names of chains people meet; every other chain is shown by its number alone. */
const NAMES = new Map<number, string>([
  [1, "Ethereum"],
  [10, "OP Mainnet"],
  [56, "BNB Smart Chain"],
  [100, "Gnosis"],
  [137, "Polygon"],
  [8453, "Base"],
  [42161, "Arbitrum One"],
  [43114, "Avalanche"],
  [560048, "Hoodi (test network)"],
  [11155111, "Sepolia (test network)"],
  [31337, "a local development chain"],
]);

export function chainName(id: number): string {
  const name = NAMES.get(id);
  return name === undefined ? `chain ${id}` : `${name} (${id})`;
}
