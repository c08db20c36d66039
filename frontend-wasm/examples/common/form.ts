/** A form that opens a wallet and sends from it. How it is sent is the example. */

import { Duet, type Outcome, type PartyPin, type WalletSummary } from "@duet/signer";

/**
 * The parties that shares are dealt to: role, name and fingerprint of each, from the organisations
 * that run them. Fill it in for your deployment. While it is empty, wallets are made only through a
 * gateway on this machine that says it is for trying out.
 */
const PARTIES: PartyPin[] = [];

export interface Opened {
  duet: Duet;
  wallet: WalletSummary;
  rpcUrl: string;
  chainId: number;
}

/** Sends `value` wei; gives the transaction's hash. */
export type Send = (to: string, value: bigint) => Promise<string>;

function element<T extends HTMLElement>(id: string): T {
  const found = document.querySelector<T>(`[data-testid="${id}"]`);
  if (!found) throw new Error(`there is no ${id}`);
  return found;
}

function valueOf<T>(outcome: Outcome<T>): T {
  if (!outcome.ok) throw new Error(outcome.error.message);
  return outcome.value;
}

/** The first wallet of this browser, unlocked; made if there is none. */
async function openWallet(
  gateway: string,
  passphrase: string,
  tell: (text: string) => void,
): Promise<Opened> {
  const duet = await Duet.open({ gateway, parties: PARTIES });
  const { rpc } = valueOf(await duet.info());
  if (!rpc) throw new Error("the gateway names no Ethereum node");
  const [known] = await duet.wallets();
  const protection = { kind: "passphrase", passphrase } as const;
  let wallet: WalletSummary;
  if (known) {
    wallet = valueOf(await duet.unlock(known.id, protection));
  } else {
    const made = await duet.createWallet({
      label: "Example",
      protection,
      third: { kind: "partner" },
      onProgress: ({ step }) => tell(`Making a wallet: ${step}`),
    });
    wallet = valueOf(made).wallet;
  }
  return { duet, wallet, rpcUrl: rpc.url, chainId: rpc.chainId };
}

/** Wires the form of `index.html`. `prepare` makes an account of the library that the example is about. */
export function run(prepare: (opened: Opened) => Promise<Send> | Send): void {
  const status = element("status");
  const tell = (text: string, state = "busy"): void => {
    status.textContent = text;
    status.dataset["state"] = state;
  };
  const attempt = (button: HTMLButtonElement, work: () => Promise<void>): void => {
    button.disabled = true;
    work()
      .catch((thrown: unknown) =>
        tell(thrown instanceof Error ? thrown.message : String(thrown), "failed"),
      )
      .finally(() => (button.disabled = false));
  };
  let send: Send | undefined;
  const gateway = element<HTMLInputElement>("gateway");
  gateway.value = new URLSearchParams(location.search).get("gateway") ?? location.origin;
  const open = element<HTMLButtonElement>("open");
  open.addEventListener("click", () =>
    attempt(open, async () => {
      tell("Opening …");
      const passphrase = element<HTMLInputElement>("passphrase").value;
      const opened = await openWallet(gateway.value, passphrase, text => tell(text));
      send = await prepare(opened);
      element("address").textContent = opened.wallet.address;
      element<HTMLButtonElement>("send").disabled = false;
      tell("Open", "open");
    }),
  );
  const button = element<HTMLButtonElement>("send");
  button.addEventListener("click", () =>
    attempt(button, async () => {
      if (!send) return;
      tell("Signing …");
      const value = BigInt(element<HTMLInputElement>("value").value);
      element("hash").textContent = await send(element<HTMLInputElement>("to").value, value);
      tell("Sent", "sent");
    }),
  );
}
