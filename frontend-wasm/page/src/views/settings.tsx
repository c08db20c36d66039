import { View } from "../components/view";

export function SettingsView() {
  return (
    <View name="settings" title="Settings">
      <p>Not here yet.</p>
    </View>
  );
}
