import type { ProtectionKind, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { AddressText } from "../components/address";
import { Button, LinkButton } from "../components/button";
import { TextField } from "../components/field";
import { focusFirstProblem, Form } from "../components/form";
import { OpenedFileError, OpenedFileFields, useOpenedFile } from "../components/opened-file";
import { NewPassphrase, ProtectionChoice } from "../components/protection";
import { Rotation } from "../components/rotation";
import { SameSignature } from "../components/same-signature";
import { StepHeading, View } from "../components/view";
import { StateBadge } from "../components/wallet-parts";
import { href } from "../router";
import { duet, noteWallet, walletById } from "../state/duet";
import { passphraseProblem, repeatProblem } from "../text/passphrase";

interface Problems {
  fresh?: string | null;
  repeat?: string | null;
}

/** Brings a wallet here from the backup of its device share. */
export function RestoreView() {
  const opened = useOpenedFile();
  const [label, setLabel] = useState("");
  const [protection, setProtection] = useState<ProtectionKind>("passphrase");
  const [fresh, setFresh] = useState("");
  const [repeat, setRepeat] = useState("");
  const [problems, setProblems] = useState<Problems>({});
  const [busy, setBusy] = useState(false);
  const [restored, setRestored] = useState<string | null>(null);

  const submit = async () => {
    const found: Problems = {
      fresh: protection === "passphrase" ? passphraseProblem(fresh) : null,
      repeat: protection === "passphrase" ? repeatProblem(fresh, repeat) : null,
    };
    setProblems(found);
    const ready = opened.check();
    if (!ready || Object.values(found).some(problem => problem)) {
      focusFirstProblem();
      return;
    }
    setBusy(true);
    const read = await opened.read();
    const outcome =
      read &&
      (await duet().restoreBackup(
        read.bytes,
        read.passphrase,
        protection === "passkey" ? { kind: "passkey" } : { kind: "passphrase", passphrase: fresh },
        label.trim() === "" ? {} : { label: label.trim() },
      ));
    setBusy(false);
    if (!outcome) return;
    if (!outcome.ok) {
      opened.refuse(outcome.error);
      return;
    }
    noteWallet(outcome.value);
    setRestored(outcome.value.id);
  };

  const wallet = restored === null ? undefined : walletById(restored);
  if (wallet) return <Restored wallet={wallet} />;
  return (
    <View
      name="restore"
      title="Restore from a backup"
      lead="This brings your share into this browser. Before the wallet signs here, you replace its Paillier key once, together with the other parties."
      back={{ href: href({ view: "home" }), text: "Wallets" }}
      narrow
    >
      <Form busy={busy} onSubmit={submit}>
        <OpenedFileFields id="restore" label="Backup file" opened={opened} />
        <TextField
          id="restore-label"
          label="Name"
          optional
          hint="Only you see it."
          value={label}
          onInput={setLabel}
          maxLength={64}
        />
        <ProtectionChoice
          prefix="restore"
          passphraseText="A new one, for this browser."
          value={protection}
          onChange={setProtection}
        />
        {protection === "passphrase" && (
          <div class="stack">
            <NewPassphrase
              id="restore-new-passphrase"
              label="New passphrase"
              passphrase={fresh}
              onPassphrase={setFresh}
              problem={problems.fresh}
              repeat={repeat}
              onRepeat={setRepeat}
              repeatProblem={problems.repeat}
            />
          </div>
        )}
        <OpenedFileError opened={opened} onRetry={() => void submit()} />
        <div class="actions">
          <Button testId="restore-submit" tone="primary" type="submit" busy={busy}>
            Restore
          </Button>
        </div>
      </Form>
    </View>
  );
}

function Restored({ wallet }: { wallet: WalletSummary }) {
  // Stays once shown, to say that it is done.
  const [rotation] = useState(wallet.state !== "unlocked");
  return (
    <View name="restore" title="The wallet is here" narrow>
      <section
        class="card"
        data-testid="restore-done"
        data-address={wallet.address ?? ""}
        data-state={wallet.state}
      >
        <div class="row-between">
          <StepHeading>{wallet.label}</StepHeading>
          <StateBadge state={wallet.state} />
        </div>
        {wallet.address && <AddressText address={wallet.address} large />}
        <SameSignature testId="restore-same-signature" />
      </section>
      {rotation && <Rotation wallet={wallet} />}
      <div class="actions">
        <LinkButton
          testId="restore-open-wallet"
          tone={wallet.state === "unlocked" ? "primary" : "secondary"}
          href={href({ view: "wallet", wallet: wallet.id })}
        >
          Open the wallet
        </LinkButton>
      </div>
    </View>
  );
}
