// A Duet wallet as a signer of ethers: it goes wherever ethers takes a Signer.

import { run } from "@duet/example-common";
import { DuetSigner } from "@duet/signer/ethers";
import { JsonRpcProvider } from "ethers";

run(({ duet, wallet, rpcUrl }) => {
  const signer = new DuetSigner(duet, wallet, new JsonRpcProvider(rpcUrl));
  return async (to, value) => (await signer.sendTransaction({ to, value })).hash;
});
