import type { WalletSummary } from "@duet/signer";

import { View } from "../components/view";

export function TypedDataView({ wallet }: { wallet: WalletSummary }) {
  return (
    <View name="typed-data" title={wallet.label}>
      <p>Not here yet.</p>
    </View>
  );
}
