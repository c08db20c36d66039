import type { WalletSummary } from "@duet/signer";

import { View } from "../components/view";

export function WalletSettingsView({ wallet }: { wallet: WalletSummary }) {
  return (
    <View name="wallet-settings" title={wallet.label}>
      <p>Not here yet.</p>
    </View>
  );
}
