import { useState } from "preact/hooks";

import { Button } from "../components/button";
import { Choices } from "../components/choice";
import { Select, TextField } from "../components/field";
import { View } from "../components/view";
import { BUILD, gatewayProblem } from "../config";
import { chainName } from "../chain/names";
import { gateway, info, node, open } from "../state/duet";
import { refreshNodeChain } from "../state/chain";
import { gatewayOverride, IDLE_MINUTES, idleMinutes, rpcOverride, theme, type Theme } from "../state/settings";
import { useEffect } from "preact/hooks";

/** What this browser remembers, and where the page connects to. */
export function SettingsView() {
  return (
    <View name="settings" title="Settings" narrow>
      <section class="card">
        <Choices<Theme>
          name="theme"
          legend="Appearance"
          row
          value={theme.value}
          onChange={(value) => {
            theme.value = value;
          }}
          choices={[
            { value: "system", testId: "settings-theme-system", title: "As the system" },
            { value: "light", testId: "settings-theme-light", title: "Light" },
            { value: "dark", testId: "settings-theme-dark", title: "Dark" },
          ]}
        />
        <Select
          id="settings-idle-minutes"
          label="Lock wallets after"
          hint="Time without use. Changing it locks all wallets now."
          value={String(idleMinutes.value)}
          options={IDLE_MINUTES.map((minutes) => ({ value: String(minutes), text: minutes === 1 ? "1 minute" : `${minutes} minutes` }))}
          onChange={(value) => {
            idleMinutes.value = Number(value);
            void open();
          }}
        />
      </section>
      <Gateway />
      <EthereumNode />
      <Parties />
      <p class="soft small break">
        Build <code data-testid="settings-build">{BUILD || "development"}</code>. The same sources give the same build; compare it with the published one.
      </p>
    </View>
  );
}

function Gateway() {
  const [address, setAddress] = useState(gateway.value);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => setAddress(gateway.value), [gateway.value]);

  const change = (to: string | null) => {
    const found = to === null ? null : gatewayProblem(to);
    setProblem(found);
    if (found !== null) return;
    gatewayOverride.value = to;
    void open();
  };

  return (
    <form
      class="card"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        change(address.trim());
      }}
    >
      <TextField
        id="settings-gateway"
        label="Gateway"
        mono
        hint="What carries sealed messages to the other parties. Changing it locks all wallets now. It must be one this page's server allows."
        value={address}
        onInput={setAddress}
        error={problem}
      />
      <div class="actions">
        <Button testId="settings-gateway-save" type="submit">
          Save
        </Button>
        {gatewayOverride.value !== null && (
          <Button testId="settings-gateway-reset" tone="quiet" onClick={() => change(null)}>
            Use the default
          </Button>
        )}
      </div>
    </form>
  );
}

function EthereumNode() {
  const [url, setUrl] = useState(node.value?.url ?? "");
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => setUrl(node.value?.url ?? ""), [node.value?.url]);

  const change = (to: string | null) => {
    // The same holds as for the gateway: in the clear only on this machine.
    const found = to === null ? null : gatewayProblem(to.replace(/\?.*$/, ""));
    setProblem(found === null ? null : found.replaceAll("gateway", "node"));
    if (found !== null) return;
    rpcOverride.value = to;
    void refreshNodeChain();
  };

  return (
    <form
      class="card"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        change(url.trim() === "" ? null : url.trim());
      }}
    >
      <TextField
        id="settings-rpc"
        label="Ethereum node"
        mono
        hint={
          info.value?.rpc
            ? `Balances and fees come from here, and transactions go there. The gateway suggests ${info.value.rpc.url} for ${chainName(info.value.rpc.chainId)}.`
            : "Balances and fees come from here, and transactions go there. The gateway suggests none."
        }
        value={url}
        onInput={setUrl}
        error={problem}
      />
      <div class="actions">
        <Button testId="settings-rpc-save" type="submit">
          Save
        </Button>
        {rpcOverride.value !== null && (
          <Button testId="settings-rpc-reset" tone="quiet" onClick={() => change(null)}>
            Use the default
          </Button>
        )}
      </div>
    </form>
  );
}

function Parties() {
  const backends = info.value?.backends ?? [];
  if (backends.length === 0) return null;
  return (
    <section class="card" aria-labelledby="settings-parties">
      <div class="stack-tight">
        <h2 id="settings-parties">Parties</h2>
        <p class="soft">Who can hold the other shares, as this gateway says. Compare the fingerprints with what the organisations publish.</p>
      </div>
      <dl class="definition">
        {backends.map((backend) => (
          <div key={`${backend.role}/${backend.party}`}>
            <dt>
              {backend.party === backend.role ? backend.party : `${backend.party}, the ${backend.role}`}
            </dt>
            <dd class="mono small">{backend.fingerprint?.replace(/(.{8})(?=.)/g, "$1 ") ?? "no fingerprint given"}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
