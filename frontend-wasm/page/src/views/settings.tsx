import { useEffect, useState } from "preact/hooks";

import { Button } from "../components/button";
import { Choices } from "../components/choice";
import { Select, TextField } from "../components/field";
import { Form } from "../components/form";
import { RecipientList, RecipientNotices } from "../components/recipients";
import { View } from "../components/view";
import { BUILD, gatewayProblem } from "../config";
import { chainName } from "../chain/names";
import { gateway, info, node, open } from "../state/duet";
import { refreshNodeChain } from "../state/chain";
import {
  gatewayOverride,
  IDLE_MINUTES,
  idleMinutes,
  rpcOverride,
  theme,
  type Theme,
} from "../state/settings";

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
          onChange={value => {
            theme.value = value;
          }}
          choices={[
            { value: "system", testId: "settings-theme-system", title: "Like the system" },
            { value: "light", testId: "settings-theme-light", title: "Light" },
            { value: "dark", testId: "settings-theme-dark", title: "Dark" },
          ]}
        />
        <Select
          id="settings-idle-minutes"
          label="Lock wallets after"
          hint="Time without use. A change locks all wallets now."
          value={String(idleMinutes.value)}
          options={IDLE_MINUTES.map(minutes => ({
            value: String(minutes),
            text: minutes === 1 ? "1 minute" : `${minutes} minutes`,
          }))}
          onChange={value => {
            idleMinutes.value = Number(value);
            void open();
          }}
        />
      </section>
      <Gateway />
      <EthereumNode />
      <Parties />
      <p class="soft small break">
        Build <code data-testid="settings-build">{BUILD || "development"}</code>. The same sources
        give the same build. Compare this id with the published one.
      </p>
    </View>
  );
}

interface ServerProps {
  id: string;
  label: string;
  hint: string;
  /** The address in use. */
  current: string;
  isOverridden: boolean;
  /** Goes over to what was typed, or back to the default. Says what is wrong with it instead. */
  change: (to: string | null) => string | null;
}

/** A server that the page talks to. */
function Server({ id, label, hint, current, isOverridden, change }: ServerProps) {
  const [address, setAddress] = useState(current);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => setAddress(current), [current]);
  return (
    <Form onSubmit={() => setProblem(change(address.trim()))}>
      <TextField
        id={id}
        label={label}
        mono
        hint={hint}
        value={address}
        onInput={setAddress}
        error={problem}
      />
      <div class="actions">
        <Button testId={`${id}-save`} type="submit">
          Save
        </Button>
        {isOverridden && (
          <Button testId={`${id}-reset`} tone="quiet" onClick={() => setProblem(change(null))}>
            Use the default
          </Button>
        )}
      </div>
    </Form>
  );
}

function Gateway() {
  return (
    <Server
      id="settings-gateway"
      label="Gateway"
      hint="The gateway carries sealed messages to the other parties. A change locks all wallets now. This page's server must allow the address."
      current={gateway.value}
      isOverridden={gatewayOverride.value !== null}
      change={to => {
        const problem = to === null ? null : gatewayProblem(to);
        if (problem !== null) return problem;
        gatewayOverride.value = to;
        void open();
        return null;
      }}
    />
  );
}

function EthereumNode() {
  return (
    <Server
      id="settings-rpc"
      label="Ethereum node"
      hint={
        info.value?.rpc
          ? `The page reads balances and fees from this node, and sends transactions to it. The gateway suggests ${info.value.rpc.url} for ${chainName(info.value.rpc.chainId)}.`
          : "The page reads balances and fees from this node, and sends transactions to it. The gateway suggests none."
      }
      current={node.value?.url ?? ""}
      isOverridden={rpcOverride.value !== null}
      change={typed => {
        const to = typed === "" ? null : typed;
        // The same holds as for the gateway: in the clear only on this machine.
        const problem = to === null ? null : gatewayProblem(to.replace(/\?.*$/, ""));
        if (problem !== null) return problem.replaceAll("gateway", "node");
        rpcOverride.value = to;
        void refreshNodeChain();
        return null;
      }}
    />
  );
}

function Parties() {
  const recipients = info.value?.recipients ?? [];
  if (recipients.length === 0) return null;
  return (
    <section class="card" aria-labelledby="settings-parties">
      <div class="stack-tight">
        <h2 id="settings-parties">Parties</h2>
        <p class="soft">
          These parties get the other shares of new wallets. Compare the fingerprints with those
          that the organisations publish.
        </p>
      </div>
      <RecipientList recipients={recipients} testId="settings-recipients" />
      <RecipientNotices recipients={recipients} />
    </section>
  );
}
