import { batch, computed, signal } from "@preact/signals";
import type {
  Connection,
  DuetApi,
  DuetError,
  GatewayInfo,
  WalletId,
  WalletSummary,
} from "@duet/signer";

import { BUILD, ConfigProblem, readConfig } from "../config";
import { gatewayOverride, idleMinutes, rpcOverride } from "./settings";

/** The library as the page sees it: what it last said, as signals. */

export const opening = signal<"opening" | "ready" | DuetError>("opening");
export const connection = signal<Connection>("connecting");
export const wallets = signal<WalletSummary[]>([]);
export const gateway = signal<string>("");
export const info = signal<GatewayInfo | null>(null);
/** How many jobs wait, by wallet. */
export const waiting = signal<ReadonlyMap<WalletId, number>>(new Map());

export const waitingTotal = computed(() =>
  [...waiting.value.values()].reduce((sum, jobs) => sum + jobs, 0),
);

/** The Ethereum node to ask, if any is known. */
export const node = computed(() => {
  const url = rpcOverride.value ?? info.value?.rpc?.url;
  return url === undefined ? null : { url, expectedChainId: info.value?.rpc?.chainId ?? null };
});

let library: DuetApi | null = null;

/** The opened library. Views are shown only once there is one. */
export function duet(): DuetApi {
  if (library === null) throw new Error("the library is used before it was opened");
  return library;
}

export function walletById(id: WalletId): WalletSummary | undefined {
  return wallets.value.find(wallet => wallet.id === id);
}

/** Puts a wallet's new state into the list without waiting for the library's own notice of it. */
export function noteWallet(wallet: WalletSummary): void {
  const others = wallets.value.filter(other => other.id !== wallet.id);
  wallets.value = [...others, wallet].sort((a, b) => a.createdAt - b.createdAt);
}

async function refreshInfo(): Promise<void> {
  const answer = await duet().info();
  if (answer.ok) info.value = answer.value;
}

/** Opens the library; after a failure, or for another gateway, once more. */
export async function open(): Promise<void> {
  opening.value = "opening";
  try {
    const before = library;
    library = null;
    await before?.close();
    const [{ Duet }, config] = await Promise.all([import("@duet/signer"), readConfig()]);
    const address = gatewayOverride.value ?? config.gateway ?? location.origin;
    const opened = await Duet.open({
      gateway: address,
      ...(config.parties === undefined ? {} : { parties: config.parties }),
      idleLockMs: idleMinutes.value * 60_000,
      ...(BUILD === "" ? {} : { build: BUILD }),
    });
    library = opened;
    subscribe(opened);
    const list = await opened.wallets();
    batch(() => {
      gateway.value = address;
      connection.value = opened.connection;
      wallets.value = list;
      opening.value = "ready";
    });
    void refreshInfo();
  } catch (problem) {
    opening.value = await reason(problem);
  }
}

/** What the library said when it could not be opened; anything else is a failure inside. */
async function reason(problem: unknown): Promise<DuetError> {
  if (problem instanceof ConfigProblem)
    return { kind: "invalid", message: problem.message, field: problem.field };
  const { Failure } = await import("@duet/signer");
  if (problem instanceof Failure) return problem.error;
  return {
    kind: "internal",
    message: problem instanceof Error ? problem.message : "The library did not start.",
  };
}

function subscribe(opened: DuetApi): void {
  opened.onConnection(state => {
    connection.value = state;
    if (state === "online") void refreshInfo();
  });
  opened.onWallets(list => {
    wallets.value = list;
    // A locked wallet's jobs cannot be read, so their number would only grow old.
    const open = new Set(list.filter(wallet => wallet.state !== "locked").map(wallet => wallet.id));
    waiting.value = new Map([...waiting.value].filter(([id]) => open.has(id)));
  });
  opened.onInbox(({ wallet, jobs }) => {
    waiting.value = new Map(waiting.value).set(wallet, jobs);
  });
}
