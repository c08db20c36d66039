import type { WalletState, WalletSummary } from "@duet/signer";
import { useEffect, useState } from "preact/hooks";

import { node } from "../state/duet";
import { date, groups } from "../text/format";
import type { IconName } from "./icon";
import { Icon } from "./icon";
import { IconButton } from "./button";
import { Notice } from "./notice";

const STATES: Record<WalletState, { text: string; tone: string; icon: IconName }> = {
  unlocked: { text: "Unlocked", tone: "badge-good", icon: "unlock" },
  locked: { text: "Locked", tone: "", icon: "lock" },
  pending: { text: "Not finished", tone: "badge-warn", icon: "warning" },
  "needs-rotation": { text: "Needs a new key", tone: "badge-warn", icon: "warning" },
  "paillier-locked": { text: "Protected itself", tone: "badge-bad", icon: "error" },
};

export function StateBadge({ state }: { state: WalletState }) {
  const { text, tone, icon } = STATES[state];
  return (
    <span class={`badge ${tone}`}>
      <Icon name={icon} />
      {text}
    </span>
  );
}

type BalanceState =
  | { state: "loading" }
  | { state: "known"; wei: bigint; text: string }
  | { state: "unavailable"; why: string };

/** What the node says the address holds. */
export function Balance({ wallet, withRefresh }: { wallet: WalletSummary; withRefresh?: boolean }) {
  const [balance, setBalance] = useState<BalanceState>({ state: "loading" });
  const [round, setRound] = useState(0);
  const url = node.value?.url ?? null;

  useEffect(() => {
    let current = true;
    const { address } = wallet;
    const read = async () => {
      if (url === null || address === null) {
        setBalance({ state: "unavailable", why: "No Ethereum node is known." });
        return;
      }
      // The node's client is large; it is fetched only here.
      const [{ balance: ask }, { etherShort }] = await Promise.all([
        import("../chain/node"),
        import("../chain/amount"),
      ]);
      const answer = await ask(url, address);
      if (!current) return;
      setBalance(
        answer.ok
          ? { state: "known", wei: answer.value, text: etherShort(answer.value) }
          : { state: "unavailable", why: "The Ethereum node does not answer." },
      );
    };
    void read();
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void read();
    }, 15_000);
    return () => {
      current = false;
      clearInterval(timer);
    };
  }, [url, wallet.address, round]);

  return (
    <div class="balance">
      <p
        class="balance-value"
        data-testid="wallet-balance"
        data-state={balance.state}
        {...(balance.state === "known" ? { "data-wei": balance.wei.toString() } : {})}
      >
        {balance.state === "known" ? (
          <>
            {balance.text} <span class="balance-unit">ETH</span>
          </>
        ) : balance.state === "loading" ? (
          <span class="soft">…</span>
        ) : (
          <span class="balance-none">{balance.why}</span>
        )}
      </p>
      {withRefresh === true && (
        <IconButton
          testId="wallet-refresh"
          icon="refresh"
          label="Read the balance again"
          onClick={() => setRound(round + 1)}
        />
      )}
    </div>
  );
}

/** What the owner loses with this browser, and which way back there is. */
export function WaysBack({ wallet }: { wallet: WalletSummary }) {
  const { exportedAt, checkedAt } = wallet.backup;
  const state = checkedAt !== null ? "checked" : exportedAt !== null ? "unchecked" : "none";
  const storage = wallet.persistent
    ? null
    : " The browser has not promised to keep this page's storage, so it may delete your share.";
  return (
    <div data-testid="ways-back" data-state={state} data-persistent={String(wallet.persistent)}>
      <Notice
        tone={
          state === "none" ? "bad" : state === "unchecked" || storage !== null ? "warn" : "info"
        }
        title={
          state === "none"
            ? "Lost with this browser: everything at this address"
            : "Your way back: the backup file"
        }
      >
        <p>
          {checkedAt !== null
            ? `You opened the backup file of your share on ${date(checkedAt)}.`
            : exportedAt !== null
              ? `A backup file of your share was made on ${date(exportedAt)}, but you have not opened it here since. It is not known to work.`
              : "There is no backup file of your share. The other two shares cannot bring you back."}
          {storage}
        </p>
      </Notice>
    </div>
  );
}

/** Who holds which share. */
export function Holders({ wallet }: { wallet: WalletSummary }) {
  return (
    <ul class="holders">
      {wallet.parties.map(party => (
        <li key={party.share} class={`holder actor-${party.role}`}>
          <Icon
            name={
              party.role === "device"
                ? "device"
                : party.role === "backup-file"
                  ? "file"
                  : party.role === "service"
                    ? "server"
                    : "person"
            }
          />
          <div>
            <p class="holder-name">
              {party.role === "device"
                ? "This browser"
                : party.role === "backup-file"
                  ? "Backup file"
                  : party.party}
            </p>
            <p class="small soft">
              {party.role === "device"
                ? "Share 1, sealed"
                : party.role === "backup-file"
                  ? "Share 3, in your hands"
                  : party.party === party.role
                    ? `Share ${party.share}, sealed to it`
                    : `Share ${party.share}, the ${party.role}`}
            </p>
            {"fingerprint" in party && (
              <p class="small soft mono holder-fingerprint">{groups(party.fingerprint)}</p>
            )}
          </div>
        </li>
      ))}
    </ul>
  );
}
