import type { WalletSummary } from "@duet/signer";

import { View } from "../components/view";

export function SendView({ wallet }: { wallet: WalletSummary }) {
  return (
    <View name="send" title={wallet.label}>
      <p>Not here yet.</p>
    </View>
  );
}
