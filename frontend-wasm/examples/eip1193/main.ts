// A Duet wallet as an Ethereum provider: the part of the page that is the dApp knows nothing of
// Duet.

import { run } from "@duet/example-common";
import { announce, DuetProvider } from "@duet/signer/eip1193";
import { BrowserProvider, type Eip1193Provider } from "ethers";

/** The first provider that announces itself, as any dApp finds the wallets of a browser. */
function discover(): Promise<Eip1193Provider> {
  return new Promise(resolve => {
    window.addEventListener(
      "eip6963:announceProvider",
      event => resolve((event as CustomEvent<{ provider: Eip1193Provider }>).detail.provider),
      { once: true },
    );
    window.dispatchEvent(new Event("eip6963:requestProvider"));
  });
}

run(async ({ duet, rpcUrl, chainId }) => {
  // The wallet's part.
  announce(new DuetProvider({ duet, chains: [{ chainId, rpcUrl }] }));

  // The dApp's part.
  const provider = new BrowserProvider(await discover());
  const signer = await provider.getSigner();
  return async (to, value) => (await signer.sendTransaction({ to, value })).hash;
});
