import { effect, signal } from "@preact/signals";

/** What this browser remembers of its user's taste. None of it is secret. */

export type Theme = "system" | "light" | "dark";

const PREFIX = "duet.";
export const IDLE_MINUTES = [1, 5, 15, 30, 60] as const;
const DEFAULT_IDLE_MINUTES = 5;

/** Storage may be forbidden; the page then simply forgets. */
function remember(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, value);
  } catch {
    // Nothing to do: the setting holds until the page is closed.
  }
}

function recall(name: string): string | null {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}

function recallTheme(): Theme {
  const text = recall("theme");
  return text === "light" || text === "dark" ? text : "system";
}

function recallIdleMinutes(): number {
  const minutes = Number(recall("idle-minutes"));
  return IDLE_MINUTES.find(choice => choice === minutes) ?? DEFAULT_IDLE_MINUTES;
}

export const theme = signal<Theme>(recallTheme());
export const idleMinutes = signal<number>(recallIdleMinutes());
/** The gateway the user chose instead of the deployment's. */
export const gatewayOverride = signal<string | null>(recall("gateway"));
/** The Ethereum node the user chose instead of the gateway's. */
export const rpcOverride = signal<string | null>(recall("rpc"));

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const systemTheme = signal<"light" | "dark">(systemDark.matches ? "dark" : "light");
systemDark.addEventListener("change", event => {
  systemTheme.value = event.matches ? "dark" : "light";
});

export function shownTheme(): "light" | "dark" {
  return theme.value === "system" ? systemTheme.value : theme.value;
}

effect(() => {
  document.documentElement.dataset["theme"] = shownTheme();
});
effect(() => remember("theme", theme.value === "system" ? null : theme.value));
effect(() => remember("idle-minutes", String(idleMinutes.value)));
effect(() => remember("gateway", gatewayOverride.value));
effect(() => remember("rpc", rpcOverride.value));
