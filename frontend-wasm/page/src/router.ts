import { computed, signal } from "@preact/signals";

import { takeLinkTokens } from "./state/admission";

/** Where in the page one is. Kept in the hash, so that the page works under any path without a server's help. */
export type Route =
  | { view: "home" }
  | { view: "create" }
  | { view: "restore" }
  | { view: "inbox" }
  | { view: "verify" }
  | { view: "settings" }
  | { view: WalletView; wallet: string }
  | { view: "not-found" };

export type WalletView = "wallet" | "send" | "message" | "typed-data" | "wallet-settings";

const SIMPLE = ["create", "restore", "inbox", "verify", "settings"] as const;
const OF_A_WALLET: Record<string, WalletView> = {
  "": "wallet",
  send: "send",
  message: "message",
  "typed-data": "typed-data",
  settings: "wallet-settings",
};

export function parseRoute(hash: string): Route {
  const [first = "", second, third = "", ...rest] = hash.replace(/^#?\/?/, "").split("/");
  if (rest.length > 0) return { view: "not-found" };
  if (first === "") return { view: "home" };
  if (first === "wallet" && second !== undefined && /^[0-9a-f]{1,64}$/.test(second)) {
    const view = Object.hasOwn(OF_A_WALLET, third) ? OF_A_WALLET[third] : undefined;
    return view ? { view, wallet: second } : { view: "not-found" };
  }
  const simple = SIMPLE.find(name => name === first);
  return simple && second === undefined ? { view: simple } : { view: "not-found" };
}

/** The link to a route. */
export function href(route: Route): string {
  switch (route.view) {
    case "home":
    case "not-found":
      return "#/";
    case "wallet":
      return `#/wallet/${route.wallet}`;
    case "wallet-settings":
      return `#/wallet/${route.wallet}/settings`;
    case "send":
    case "message":
    case "typed-data":
      return `#/wallet/${route.wallet}/${route.view}`;
    default:
      return `#/${route.view}`;
  }
}

const hash = signal(location.hash);
/** How often the view changed; a new view moves the focus to its heading, the first one does not. */
export const navigations = signal(0);

/** Why the owner loses something by leaving the view now. While it is set, the page asks before it leaves. */
export const reasonToStay = signal<string | null>(null);
/** The hash that the owner wants to go to, while the page asks. */
export const leavingFor = signal<string | null>(null);

addEventListener("beforeunload", event => {
  if (reasonToStay.value !== null) event.preventDefault();
});

addEventListener("hashchange", () => {
  takeLinkTokens();
  if (reasonToStay.value !== null && location.hash !== hash.value) {
    leavingFor.value = location.hash;
    history.replaceState(null, "", hash.value === "" ? "#/" : hash.value);
    return;
  }
  navigations.value += 1;
  hash.value = location.hash;
  scrollTo({ top: 0, behavior: "instant" });
});

export const route = computed(() => parseRoute(hash.value));

export function go(target: Route): void {
  location.hash = href(target).slice(1);
}

/** Goes where the owner wanted to go, whatever is lost. */
export function leave(): void {
  const target = leavingFor.value;
  reasonToStay.value = null;
  leavingFor.value = null;
  if (target !== null) location.hash = target;
}
