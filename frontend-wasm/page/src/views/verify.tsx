import { View } from "../components/view";

export function VerifyView() {
  return (
    <View name="verify" title="Verify">
      <p>Not here yet.</p>
    </View>
  );
}
