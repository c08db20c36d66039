import type { DuetError, ProtectionKind, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { AddressText } from "../components/address";
import { Button, LinkButton } from "../components/button";
import { BackupFileField, backupFileProblem, PassphraseField, TextField } from "../components/field";
import { focusFirstProblem, Form } from "../components/form";
import { ErrorNotice } from "../components/notice";
import { NewPassphrase, ProtectionChoice } from "../components/protection";
import { Rotation } from "../components/rotation";
import { SameSignature } from "../components/same-signature";
import { StepHeading, View } from "../components/view";
import { StateBadge } from "../components/wallet-parts";
import { href } from "../router";
import { duet, noteWallet, walletById } from "../state/duet";
import { passphraseProblem, repeatProblem } from "../text/passphrase";

interface Problems {
  file?: string | null;
  passphrase?: string | null;
  fresh?: string | null;
  repeat?: string | null;
}

/** Brings a wallet here from the backup of its device share. */
export function RestoreView() {
  const [file, setFile] = useState<File | null>(null);
  const [passphrase, setPassphrase] = useState("");
  const [label, setLabel] = useState("");
  const [protection, setProtection] = useState<ProtectionKind>("passphrase");
  const [fresh, setFresh] = useState("");
  const [repeat, setRepeat] = useState("");
  const [problems, setProblems] = useState<Problems>({});
  const [error, setError] = useState<DuetError | null>(null);
  const [busy, setBusy] = useState(false);
  const [restored, setRestored] = useState<string | null>(null);

  const submit = async () => {
    setError(null);
    const found: Problems = {
      file: backupFileProblem(file),
      passphrase: passphrase === "" ? "Type the passphrase of the file." : null,
      fresh: protection === "passphrase" ? passphraseProblem(fresh) : null,
      repeat: protection === "passphrase" ? repeatProblem(fresh, repeat) : null,
    };
    setProblems(found);
    if (file === null || Object.values(found).some((problem) => problem)) {
      focusFirstProblem();
      return;
    }
    setBusy(true);
    const bytes = new Uint8Array(await file.arrayBuffer());
    const outcome = await duet().restoreBackup(
      bytes,
      passphrase,
      protection === "passkey" ? { kind: "passkey" } : { kind: "passphrase", passphrase: fresh },
      label.trim() === "" ? {} : { label: label.trim() },
    );
    setBusy(false);
    if (!outcome.ok) {
      if (outcome.error.kind === "wrong-passphrase") {
        setProblems({ passphrase: "This passphrase does not open the file." });
        setError(outcome.error);
        setPassphrase("");
      } else if (outcome.error.kind === "invalid") {
        setProblems({ file: outcome.error.message });
      } else {
        setError(outcome.error);
      }
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
        <BackupFileField
          id="restore-file"
          label="Backup file"
          error={problems.file}
          onChoose={(chosen) => {
            setFile(chosen);
            setProblems({ ...problems, file: null });
          }}
        />
        <PassphraseField id="restore-passphrase" label="Passphrase of the file" value={passphrase} onInput={setPassphrase} error={problems.passphrase} />
        <TextField id="restore-label" label="Name" optional hint="Only you see it." value={label} onInput={setLabel} maxLength={64} />
        <ProtectionChoice prefix="restore" passphraseText="A new one, for this browser." value={protection} onChange={setProtection} />
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
        {error && <ErrorNotice error={error} onRetry={() => void submit()} />}
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
      <section class="card" data-testid="restore-done" data-address={wallet.address ?? ""} data-state={wallet.state}>
        <div class="row-between">
          <StepHeading>{wallet.label}</StepHeading>
          <StateBadge state={wallet.state} />
        </div>
        {wallet.address && <AddressText address={wallet.address} large />}
        <SameSignature testId="restore-same-signature" />
      </section>
      {rotation && <Rotation wallet={wallet} />}
      <div class="actions">
        <LinkButton testId="restore-open-wallet" tone={wallet.state === "unlocked" ? "primary" : "secondary"} href={href({ view: "wallet", wallet: wallet.id })}>
          Open the wallet
        </LinkButton>
      </div>
    </View>
  );
}
