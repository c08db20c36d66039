import { formatUnits, parseUnits } from "viem";

export type Unit = "wei" | "gwei" | "ether";

export const UNITS: readonly { value: Unit; text: string; decimals: number }[] = [
  { value: "ether", text: "ETH", decimals: 18 },
  { value: "gwei", text: "gwei", decimals: 9 },
  { value: "wei", text: "wei", decimals: 0 },
];

export type Reading<T> = { ok: true; value: T } | { ok: false; problem: string };

const decimalsOf = (unit: Unit): number =>
  UNITS.find(({ value }) => value === unit)?.decimals ?? 18;
const MAX_UINT256 = 2n ** 256n - 1n;

/** Reads an amount exactly: nothing is rounded. */
export function readAmount(text: string, unit: Unit): Reading<bigint> {
  const trimmed = text.trim();
  if (trimmed === "") return { ok: false, problem: "Say how much." };
  if (trimmed.includes(","))
    return { ok: false, problem: "Use a point for decimals, and nothing between thousands." };
  if (!/^(\d+\.?\d*|\.\d+)$/.test(trimmed))
    return { ok: false, problem: "Write a number, for example 0.25." };
  const decimals = decimalsOf(unit);
  const fraction = trimmed.split(".")[1] ?? "";
  if (fraction.replace(/0+$/, "").length > decimals) {
    return {
      ok: false,
      problem:
        decimals === 0
          ? "Wei is the smallest unit: no decimals."
          : `At most ${decimals} decimals in this unit.`,
    };
  }
  const value = parseUnits(decimals === 0 ? (trimmed.split(".")[0] ?? "0") : trimmed, decimals);
  if (value > MAX_UINT256) return { ok: false, problem: "That is more than can be expressed." };
  return { ok: true, value };
}

/** Reads a whole number between bounds. */
export function readWhole(text: string, what: string, max: bigint): Reading<bigint> {
  const trimmed = text.trim();
  if (!/^\d+$/.test(trimmed)) return { ok: false, problem: `${what} is a whole number.` };
  const value = BigInt(trimmed);
  return value > max ? { ok: false, problem: `${what} is too large.` } : { ok: true, value };
}

/** Reads bytes in hexadecimal digits. */
export function readBytes(text: string): Reading<`0x${string}`> {
  const trimmed = text.trim();
  if (trimmed === "" || trimmed === "0x") return { ok: true, value: "0x" };
  if (!trimmed.startsWith("0x")) return { ok: false, problem: "Data starts with 0x." };
  if (!/^0x[0-9a-fA-F]*$/.test(trimmed))
    return { ok: false, problem: "Data has only the digits 0–9 and a–f after 0x." };
  if (trimmed.length % 2 !== 0)
    return { ok: false, problem: "A digit is missing: two make a byte." };
  return { ok: true, value: trimmed.toLowerCase() as `0x${string}` };
}

export const inEther = (wei: bigint): string => `${formatUnits(wei, 18)} ETH`;
export const inGwei = (wei: bigint): string => `${formatUnits(wei, 9)} gwei`;
export const plain = (wei: bigint, unit: Unit): string => formatUnits(wei, decimalsOf(unit));
export const tokens = (amount: bigint, decimals: number): string => formatUnits(amount, decimals);

/** For reading at a glance: at most six decimals, never rounded up. */
export function etherShort(wei: bigint): string {
  const [whole = "0", fraction = ""] = formatUnits(wei, 18).split(".");
  const cut = fraction.slice(0, 6).replace(/0+$/, "");
  if (whole === "0" && cut === "" && wei > 0n) return "< 0.000001";
  return `${whole.replace(/\B(?=(\d{3})+$)/g, "\u202f")}${cut ? `.${cut}` : ""}`;
}
