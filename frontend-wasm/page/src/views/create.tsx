import type {
  CreatedWallet,
  CreateProgress,
  DuetError,
  ProtectionKind,
  ShareRecipient,
} from "@duet/signer";
import { useEffect, useRef, useState } from "preact/hooks";

import { AddressQr, AddressText, CopyButton } from "../components/address";
import { BackupGate, isGated } from "../components/backup-gate";
import { Button, LinkButton } from "../components/button";
import { Choices } from "../components/choice";
import { TextArea, TextField } from "../components/field";
import { focusFirstProblem, Form } from "../components/form";
import { ErrorNotice } from "../components/notice";
import { Elapsed, ProgressList } from "../components/progress";
import { NewPassphrase, ProtectionChoice } from "../components/protection";
import { RecipientList, RecipientNotices } from "../components/recipients";
import { StepHeading, View } from "../components/view";
import { Holders, WaysBack } from "../components/wallet-parts";
import { href, reasonToStay } from "../router";
import { linkTokens, splitTokens } from "../state/admission";
import { created } from "../state/created";
import { duet, info, noteWallet, walletById } from "../state/duet";
import { passphraseProblem, repeatProblem } from "../text/passphrase";
import { keysOf, requestersProblem } from "../text/requesters";
import { advance, CREATE_STEPS, type CreateStepName, type Progress } from "../text/steps";

type Third = "partner" | "backup-file";

interface Draft {
  label: string;
  protection: ProtectionKind;
  passphrase: string;
  passphraseRepeat: string;
  third: Third;
  backupPassphrase: string;
  backupPassphraseRepeat: string;
  /** One key a line. */
  requesters: string;
  /** Admission tokens, one a line. */
  tokens: string;
}

const EMPTY: Draft = {
  label: "",
  protection: "passphrase",
  passphrase: "",
  passphraseRepeat: "",
  third: "partner",
  backupPassphrase: "",
  backupPassphraseRepeat: "",
  requesters: "",
  tokens: "",
};

type Problems = Partial<Record<keyof Draft, string | null>>;

/** Who keeps the third share: as the owner chose, or a file where no partner is named. */
function thirdOf({ third }: Draft): Third {
  const partnerless = info.value?.recipients.every(({ role }) => role !== "partner") ?? false;
  return partnerless ? "backup-file" : third;
}

/** The parties that get a share of this wallet. */
function recipientsOf(third: Third): ShareRecipient[] {
  const all = info.value?.recipients ?? [];
  return third === "partner" ? all : all.filter(({ role }) => role === "service");
}

function check(draft: Draft): Problems {
  const label = draft.label.trim();
  const problems: Problems = {
    label:
      label === ""
        ? "Give the wallet a name."
        : label.length > 64
          ? "At most 64 characters."
          : null,
    requesters: requestersProblem(draft.requesters),
    tokens: tokensProblem(draft),
  };
  if (draft.protection === "passphrase") {
    problems.passphrase = passphraseProblem(draft.passphrase);
    problems.passphraseRepeat = repeatProblem(draft.passphrase, draft.passphraseRepeat);
  }
  if (thirdOf(draft) === "backup-file") {
    problems.backupPassphrase =
      passphraseProblem(draft.backupPassphrase) ??
      (draft.protection === "passphrase" && draft.backupPassphrase === draft.passphrase
        ? "Use another passphrase than the wallet's, so that a thief of one passphrase does not get both shares."
        : null);
    problems.backupPassphraseRepeat = repeatProblem(
      draft.backupPassphrase,
      draft.backupPassphraseRepeat,
    );
  }
  return problems;
}

/** What keeps the wallet from being dealt: whose token is whose is for the library to say. */
function tokensProblem(draft: Draft): string | null {
  const lacking = recipientsOf(thirdOf(draft)).filter(({ admits }) => !admits);
  if (splitTokens(draft.tokens).length >= lacking.length) return null;
  return `Paste the admission token of ${lacking.map(({ party }) => party).join(" and of ")}.`;
}

/** Makes a wallet: the form, the steps, and at the end its address. */
export function CreateView() {
  const [running, setRunning] = useState<Progress<CreateStepName> | null>(null);
  const [error, setError] = useState<DuetError | null>(null);
  const [draft, setDraft] = useState<Draft>({ ...EMPTY, tokens: linkTokens.value.join("\n") });
  const abort = useRef<AbortController | null>(null);
  // What the owner chose for the wallet seals its backup file too, until that file is made.
  const passphrase = useRef<string | undefined>(undefined);
  const thirdPassphrase = useRef<string | undefined>(undefined);
  const done = created.value;

  // Leaving the view ends what it shows: the finished wallet is in the list, an unfinished one can
  // be resumed there.
  useEffect(
    () => () => {
      abort.current?.abort();
      created.value = null;
    },
    [],
  );
  // A link may come while the view is open.
  useEffect(() => {
    if (linkTokens.value.length > 0)
      setDraft(before => ({ ...before, tokens: linkTokens.value.join("\n") }));
  }, [linkTokens.value]);

  const start = async () => {
    setError(null);
    setRunning(new Map());
    abort.current = new AbortController();
    const third = thirdOf(draft);
    const outcome = await duet().createWallet({
      label: draft.label.trim(),
      protection:
        draft.protection === "passkey"
          ? { kind: "passkey" }
          : { kind: "passphrase", passphrase: draft.passphrase },
      third:
        third === "partner"
          ? { kind: "partner" }
          : { kind: "backup-file", passphrase: draft.backupPassphrase },
      requesters: keysOf(draft.requesters).map(key => ({
        key,
        kinds: ["transaction", "personal_message", "typed_data"],
      })),
      tokens: splitTokens(draft.tokens),
      signal: abort.current.signal,
      onProgress: (event: CreateProgress) =>
        setRunning(before => advance(CREATE_STEPS, before ?? new Map(), event)),
    });
    setRunning(null);
    if (!outcome.ok) {
      setError(outcome.error);
      return;
    }
    passphrase.current = draft.protection === "passphrase" ? draft.passphrase : undefined;
    thirdPassphrase.current = third === "backup-file" ? draft.backupPassphrase : undefined;
    setDraft(EMPTY);
    linkTokens.value = [];
    noteWallet(outcome.value.wallet);
    created.value = outcome.value;
  };

  if (done)
    return (
      <Created
        result={done}
        passphrase={passphrase.current}
        thirdPassphrase={thirdPassphrase.current}
      />
    );
  return (
    <View
      name="create"
      title="Create a wallet"
      lead="This browser makes the key, which takes a few seconds. It seals every share before sending it."
      back={{ href: href({ view: "home" }), text: "Wallets" }}
      narrow
    >
      {error && (
        <ErrorNotice error={error} onRetry={() => void start()} onDismiss={() => setError(null)} />
      )}
      {running ? (
        <section class="card" data-testid="create-progress-card">
          <div class="row-between">
            <StepHeading>Making “{draft.label.trim()}”</StepHeading>
            <span class="soft">
              <Elapsed />
            </span>
          </div>
          <ProgressList
            rowId="create-step"
            testId="create-progress"
            steps={CREATE_STEPS}
            progress={running}
            label="Progress of the creation"
          />
          <p class="soft small">
            Keep this page open. Primes and proofs take most of the time. Each step shows how long
            it took.
          </p>
          <div class="actions">
            <Button testId="create-cancel" onClick={() => abort.current?.abort()}>
              Cancel
            </Button>
          </div>
        </section>
      ) : (
        <CreateForm draft={draft} onChange={setDraft} onSubmit={() => void start()} />
      )}
    </View>
  );
}

interface CreateFormProps {
  draft: Draft;
  onChange: (change: (before: Draft) => Draft) => void;
  onSubmit: () => void;
}

function CreateForm({ draft, onChange, onSubmit }: CreateFormProps) {
  const [checked, setChecked] = useState(false);

  const problems = checked ? check(draft) : {};
  const set =
    <Key extends keyof Draft>(key: Key) =>
    (value: Draft[Key]) =>
      onChange(before => ({ ...before, [key]: value }));
  const service =
    info.value?.recipients.find(({ role }) => role === "service")?.party ?? "the service";
  const partner = info.value?.recipients.find(({ role }) => role === "partner")?.party ?? null;
  const third = thirdOf(draft);
  const recipients = recipientsOf(third);
  const lacking = recipients.filter(({ admits }) => !admits);

  const submit = () => {
    setChecked(true);
    if (Object.values(check(draft)).some(problem => problem)) {
      focusFirstProblem();
    } else {
      onSubmit();
    }
  };

  return (
    <Form onSubmit={submit}>
      <TextField
        id="create-label"
        label="Name"
        hint="Only you see it."
        value={draft.label}
        onInput={set("label")}
        error={problems.label}
        maxLength={64}
      />
      <ProtectionChoice
        prefix="create"
        passphraseText="Works in every browser. It cannot be reset if you forget it."
        value={draft.protection}
        onChange={set("protection")}
      />
      {draft.protection === "passphrase" && (
        <div class="stack">
          <NewPassphrase
            id="create-passphrase"
            label="Passphrase"
            passphrase={draft.passphrase}
            onPassphrase={set("passphrase")}
            problem={problems.passphrase}
            repeat={draft.passphraseRepeat}
            onRepeat={set("passphraseRepeat")}
            repeatProblem={problems.passphraseRepeat}
          />
        </div>
      )}
      <Choices
        name="third"
        legend="Who keeps the third share?"
        value={third}
        onChange={set("third")}
        choices={[
          {
            value: "partner",
            testId: "create-third-partner",
            title:
              partner === null || partner === "partner" ? "A partner" : `The partner, ${partner}`,
            text: `${service === "service" ? "The service" : service} and the partner can sign what your teams queue, without this browser. They cannot bring you back if you lose it: for that you need the backup file of your own share.`,
            disabled: info.value !== null && partner === null,
          },
          {
            value: "backup-file",
            testId: "create-third-backup-file",
            title: "A backup file",
            text: "You keep the third share yourself, sealed by a separate passphrase. It is a spare. It cannot bring you back yet if you lose this browser: for that you need the backup file of your own share.",
          },
        ]}
      />
      {third === "backup-file" && (
        <div class="stack">
          <NewPassphrase
            id="create-backup-passphrase"
            label="Passphrase of the file"
            passphrase={draft.backupPassphrase}
            onPassphrase={set("backupPassphrase")}
            problem={problems.backupPassphrase}
            repeat={draft.backupPassphraseRepeat}
            onRepeat={set("backupPassphraseRepeat")}
            repeatProblem={problems.backupPassphraseRepeat}
          />
        </div>
      )}
      {info.value !== null && (
        <section class="stack" aria-labelledby="create-recipients-title">
          <div class="stack-tight">
            <h2 id="create-recipients-title">Who gets the other shares</h2>
            <p class="soft">
              Any two of the three shares are the key. Before you create the wallet, compare these
              names and fingerprints with those that the organisations publish.
            </p>
          </div>
          <RecipientList recipients={recipients} testId="create-recipients" />
          <RecipientNotices recipients={recipients} />
          {(lacking.length > 0 || draft.tokens !== "") && (
            <TextArea
              id="create-tokens"
              label="Admission tokens"
              mono
              optional={lacking.length === 0}
              hint={`One a line, from ${lacking.map(({ party }) => party).join(" and ") || "the organisations"}. A token lets you store a share at its organisation.`}
              value={draft.tokens}
              onInput={set("tokens")}
              error={problems.tokens}
            />
          )}
        </section>
      )}
      <details class="advanced" open={draft.requesters !== "" || undefined}>
        <summary data-testid="create-advanced">Teams that may queue payments</summary>
        <div class="stack advanced-body">
          <TextArea
            id="create-requesters"
            label="Keys of the teams"
            mono
            optional
            hint={
              third === "partner"
                ? `One Ed25519 key a line, 64 hexadecimal digits. The teams' requests wait in your inbox, unless they ask ${service} and the partner to sign without you. You cannot change this list later.`
                : "One Ed25519 key a line, 64 hexadecimal digits. The teams' requests wait in your inbox. You cannot change this list later."
            }
            value={draft.requesters}
            onInput={set("requesters")}
            error={problems.requesters}
          />
        </div>
      </details>
      <div class="actions">
        <Button testId="create-submit" tone="primary" type="submit">
          Create the wallet
        </Button>
      </div>
    </Form>
  );
}

interface CreatedProps {
  result: CreatedWallet;
  /** What seals the wallet in this browser, if it is a passphrase. */
  passphrase: string | undefined;
  /** What seals the file of the third share, if there is one. */
  thirdPassphrase: string | undefined;
}

/**
 * The finished wallet. Its address shows once the owner has opened its files again, or has waived
 * the backup of this share.
 */
function Created({ result: { wallet: made }, passphrase, thirdPassphrase }: CreatedProps) {
  const wallet = walletById(made.id) ?? made;
  const { due, thirdDue } = wallet.backup;
  useEffect(() => {
    reasonToStay.value = due
      ? "There is no backup of your share yet. If this browser is lost, the wallet is lost."
      : thirdDue
        ? "You have not opened the saved file of the third share yet. The address is shown once you have."
        : null;
    return () => {
      reasonToStay.value = null;
    };
  }, [due, thirdDue]);

  if (isGated(wallet)) {
    return (
      <View
        key="secured"
        name="create"
        title="One step is left"
        lead="All parties have verified and committed their shares. Now make sure that you can come back if you lose this browser."
        narrow
      >
        <div class="stack-loose" data-testid="create-secured" data-id={wallet.id}>
          <BackupGate wallet={wallet} passphrase={passphrase} thirdPassphrase={thirdPassphrase} />
        </div>
      </View>
    );
  }
  const address = wallet.address ?? "";
  return (
    <View key="ready" name="create" title="Your wallet is ready" lead="This is its address:" narrow>
      <section class="card" data-testid="create-done" data-address={address}>
        <div class="receive">
          <AddressQr address={address} testId="create-qr" />
          <div class="stack">
            <StepHeading>{wallet.label}</StepHeading>
            <AddressText address={address} testId="create-address" large />
            <div class="actions">
              <CopyButton testId="create-address-copy" text={address} what="the address" />
            </div>
          </div>
        </div>
        <Holders wallet={wallet} />
        <WaysBack wallet={wallet} />
      </section>
      <div class="actions">
        <LinkButton
          testId="create-open-wallet"
          tone="primary"
          href={href({ view: "wallet", wallet: wallet.id })}
        >
          Open the wallet
        </LinkButton>
      </div>
    </View>
  );
}
