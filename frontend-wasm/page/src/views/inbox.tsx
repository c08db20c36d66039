import { View } from "../components/view";

export function InboxView() {
  return (
    <View name="inbox" title="Inbox">
      <p>Not here yet.</p>
    </View>
  );
}
