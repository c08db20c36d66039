/** Texts for durations, dates and sizes. */

export function duration(ms: number): string {
  if (ms < 1) return "< 1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  const minutes = Math.floor(ms / 60_000);
  return `${minutes} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** How long until something, coarsely. */
export function remaining(ms: number): string {
  if (ms <= 0) return "now";
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`;
}

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const DATE_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export const date = (ms: number): string => DATE.format(ms);
export const dateTime = (ms: number): string => DATE_TIME.format(ms);

export function shortAddress(address: string): string {
  return `${address.slice(0, 6)} … ${address.slice(-4)}`;
}

/** A name that may be used for a file. */
export function fileName(label: string, suffix: string): string {
  const safe = label
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "");
  return `duet-${safe || "wallet"}${suffix}`;
}

/** A fingerprint in groups that can be compared by eye. */
export function groups(fingerprint: string): string {
  return fingerprint.replace(/(.{8})(?=.)/g, "$1 ");
}
