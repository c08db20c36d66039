import { View } from "../components/view";

export function RestoreView() {
  return (
    <View name="restore" title="Restore">
      <p>Not here yet.</p>
    </View>
  );
}
