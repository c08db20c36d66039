import { signal } from "@preact/signals";

/**
 * Admission tokens that came in a link: `#token=…`, one or several, separated by commas. They are
 * kept in memory only. They are taken out of the address bar and of the tab's history before
 * anything else runs, and the page goes on to the creation of a wallet.
 */

export const linkTokens = signal<readonly string[]>([]);

/** Takes the tokens out of the address. */
export function takeLinkTokens(): void {
  if (!location.hash.startsWith("#token=")) return;
  const given = new URLSearchParams(location.hash.slice(1)).getAll("token");
  history.replaceState(null, "", `${location.pathname}${location.search}#/create`);
  linkTokens.value = given.flatMap(splitTokens);
}

/** Tokens as people paste them: one a line, or separated by commas or blanks. */
export function splitTokens(text: string): string[] {
  return text.split(/[\s,]+/).filter(token => token !== "");
}

takeLinkTokens();
