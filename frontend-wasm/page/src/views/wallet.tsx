import type { WalletSummary } from "@duet/signer";

import { View } from "../components/view";

export function WalletView({ wallet }: { wallet: WalletSummary }) {
  return (
    <View name="wallet" title={wallet.label}>
      <p>Not here yet.</p>
    </View>
  );
}
