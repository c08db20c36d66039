import type { WalletSummary } from "@duet/signer";

import { View } from "../components/view";

export function MessageView({ wallet }: { wallet: WalletSummary }) {
  return (
    <View name="message" title={wallet.label}>
      <p>Not here yet.</p>
    </View>
  );
}
