import type { WalletSummary } from "@duet/signer";
import { useEffect, useState } from "preact/hooks";

import { AddressQr, AddressText, CopyButton } from "../components/address";
import { BackupGate, isGated } from "../components/backup-gate";
import { Button, LinkButton } from "../components/button";
import { Dialog } from "../components/dialog";
import { LockedKey } from "../components/locked-key";
import { Losses } from "../components/losses";
import { Notice } from "../components/notice";
import { Quarantine } from "../components/quarantine";
import { Rotation } from "../components/rotation";
import { UnlockWallet } from "../components/unlock";
import { View } from "../components/view";
import { Balance, Holders, StateBadge, WaysBack } from "../components/wallet-parts";
import { chainName } from "../chain/names";
import { href } from "../router";
import { nodeChain, refreshNodeChain } from "../state/chain";
import { duet, node, waiting } from "../state/duet";

/** One wallet: what it has, and what can be done with it. */
export function WalletView({ wallet }: { wallet: WalletSummary }) {
  const [receiving, setReceiving] = useState(false);
  const mustRotate =
    wallet.state === "needs-rotation" || wallet.state === "paillier-locked" ? wallet.state : null;
  // Stays once shown, to say that it is done.
  const [rotation, setRotation] = useState(mustRotate);
  if (mustRotate && mustRotate !== rotation) setRotation(mustRotate);
  useEffect(() => void refreshNodeChain(), [node.value?.url]);
  const address = wallet.address;
  const jobs = waiting.value.get(wallet.id) ?? 0;
  const chain = nodeChain.value;
  if (address === null) {
    return (
      <View
        name="wallet"
        title={wallet.label}
        back={{ href: href({ view: "home" }), text: "Wallets" }}
      >
        <Notice tone="warn" title="This wallet is not finished">
          <p>
            Its creation was interrupted. Resume or discard it{" "}
            <a href={href({ view: "home" })}>in the list of wallets</a>.
          </p>
        </Notice>
      </View>
    );
  }
  if (isGated(wallet)) {
    return (
      <View
        name="wallet"
        title={wallet.label}
        lead="One step is left before the page shows the address."
        back={{ href: href({ view: "home" }), text: "Wallets" }}
        narrow
      >
        <div data-testid="wallet" data-id={wallet.id} data-state={wallet.state} data-backup="due">
          {wallet.state === "locked" ? (
            <UnlockWallet wallet={wallet} />
          ) : (
            <BackupGate wallet={wallet} />
          )}
        </div>
      </View>
    );
  }
  return (
    <View
      name="wallet"
      title={wallet.label}
      back={{ href: href({ view: "home" }), text: "Wallets" }}
    >
      <div
        class="wallet-columns"
        data-testid="wallet"
        data-id={wallet.id}
        data-state={wallet.state}
        data-address={address}
      >
        <div class="stack-loose">
          <section class="card wallet-hero" aria-label="Balance and address">
            <div class="row-between">
              <StateBadge state={wallet.state} />
              {chain.state === "known" && <span class="soft small">On {chainName(chain.id)}</span>}
            </div>
            <Balance wallet={wallet} withRefresh />
            <div class="row-between wallet-address">
              <AddressText address={address} testId="wallet-address" />
              <CopyButton testId="wallet-address-copy" text={address} what="the address" />
            </div>
            <div class="wallet-actions">
              <LinkButton
                testId="wallet-send"
                tone="primary"
                icon="send"
                href={href({ view: "send", wallet: wallet.id })}
              >
                Send
              </LinkButton>
              <Button testId="wallet-receive" icon="receive" onClick={() => setReceiving(true)}>
                Receive
              </Button>
              <LinkButton
                testId="wallet-sign-message"
                icon="pen"
                href={href({ view: "message", wallet: wallet.id })}
              >
                Message
              </LinkButton>
              <LinkButton
                testId="wallet-sign-typed-data"
                icon="document"
                href={href({ view: "typed-data", wallet: wallet.id })}
              >
                Typed data
              </LinkButton>
            </div>
          </section>
          {jobs > 0 && (
            <Notice
              title={jobs === 1 ? "One request waits for you" : `${jobs} requests wait for you`}
            >
              <p>
                <a href={href({ view: "inbox" })} data-testid="wallet-inbox">
                  Look at them in the inbox
                </a>
              </p>
            </Notice>
          )}
          {wallet.state === "locked" && <UnlockWallet wallet={wallet} />}
          {wallet.state !== "locked" && rotation === "needs-rotation" && (
            <Rotation wallet={wallet} />
          )}
          {wallet.state !== "locked" && rotation === "paillier-locked" && (
            <LockedKey wallet={wallet} />
          )}
          {rotation !== "paillier-locked" && <Losses wallet={wallet} testId="wallet-losses" />}
          {(wallet.state === "locked" || rotation !== "paillier-locked") && (
            <Quarantine wallet={wallet} />
          )}
        </div>
        <aside class="stack-loose">
          <section class="card" aria-labelledby="wallet-shares">
            <div class="stack-tight">
              <h2 id="wallet-shares">Three shares</h2>
              <p class="soft small">Any two sign together. No single one can.</p>
            </div>
            <Holders wallet={wallet} />
            <WaysBack wallet={wallet} />
            <div class="actions">
              <LinkButton
                testId="wallet-settings"
                small
                icon="settings"
                href={href({ view: "wallet-settings", wallet: wallet.id })}
              >
                Backup and settings
              </LinkButton>
              {wallet.state !== "locked" && (
                <Button
                  testId="wallet-lock"
                  small
                  icon="lock"
                  onClick={() => void duet().lock(wallet.id)}
                >
                  Lock now
                </Button>
              )}
            </div>
          </section>
        </aside>
      </div>
      {receiving && (
        <Dialog testId="receive-dialog" title="Receive" onClose={() => setReceiving(false)}>
          <div class="receive receive-dialog">
            <AddressQr address={address} testId="receive-qr" />
            <div class="stack">
              <p class="soft">
                The address of {wallet.label}
                {chain.state === "known" && <> on {chainName(chain.id)}</>}. It is the same on every
                Ethereum-compatible chain.
              </p>
              <AddressText address={address} testId="receive-address" large />
              <div class="actions">
                <CopyButton testId="receive-copy" text={address} what="the address" />
              </div>
            </div>
          </div>
        </Dialog>
      )}
    </View>
  );
}
