// A Duet wallet as an account of viem: everything of a wallet client works with it.

import { run } from "@duet/example-common";
import { toDuetAccount } from "@duet/signer/viem";
import { createWalletClient, defineChain, getAddress, http } from "viem";

run(({ duet, wallet, rpcUrl, chainId }) => {
  const chain = defineChain({
    id: chainId,
    name: "Local",
    nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [rpcUrl] } },
  });
  const account = toDuetAccount(duet, wallet);
  const client = createWalletClient({ account, chain, transport: http() });
  return (to, value) => client.sendTransaction({ to: getAddress(to), value });
});
