import type { DuetError, Payload, WalletSummary } from "@duet/signer";
import { useEffect, useState } from "preact/hooks";

import { readAddress } from "../chain/address";
import { inEther, inGwei, plain, readBytes, UNITS, type Unit } from "../chain/amount";
import { chainName } from "../chain/names";
import type { Estimate, NodeAnswer } from "../chain/node";
import { expectedChain } from "../state/chain";
import { node } from "../state/duet";
import { readCall, readDraft, type SendDraft, type SendProblems } from "../state/send-draft";
import { AddressText } from "./address";
import { Button } from "./button";
import { Select, TextField } from "./field";
import { focusFirstProblem, Form } from "./form";
import { ErrorNotice, Notice } from "./notice";
import { TokenCallNotice } from "./token-call";

interface SendFormProps {
  wallet: WalletSummary;
  draft: SendDraft;
  onChange: (draft: SendDraft) => void;
  /** Shows the review, or says why not. */
  onReview: (payload: Payload) => Promise<DuetError | null>;
}

type EstimateState =
  | { state: "idle" | "loading" }
  | { state: "known"; estimate: Estimate }
  | { state: "failed"; why: string };

/** Typing pauses shorter than this are not worth asking the node about. */
const TYPING_PAUSE_MS = 250;

/** What the node suggests for the draft, asked anew whenever the call changes. */
function useEstimate(wallet: WalletSummary, draft: SendDraft): EstimateState {
  const [state, setState] = useState<EstimateState>({ state: "idle" });
  const url = node.value?.url ?? null;
  const call = readCall(draft);
  const key = call === null ? null : `${call.to}/${call.value}/${call.data}`;
  useEffect(() => {
    const from = wallet.address;
    if (call === null || from === null || url === null) {
      setState({ state: "idle" });
      return;
    }
    let current = true;
    setState(before => (before.state === "known" ? before : { state: "loading" }));
    const timer = setTimeout(() => {
      void import("../chain/node").then(async ({ estimate }) => {
        const answer: NodeAnswer<Estimate> = await estimate(url, { from, ...call });
        if (current)
          setState(
            answer.ok
              ? { state: "known", estimate: answer.value }
              : { state: "failed", why: answer.message },
          );
      });
    }, TYPING_PAUSE_MS);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [key, url, wallet.address]);
  return state;
}

const ADVANCED = ["data", "nonce", "gas", "maxFee", "priorityFee", "chainId"] as const;

export function SendForm({ wallet, draft, onChange, onReview }: SendFormProps) {
  const [checked, setChecked] = useState(false);
  const [advanced, setAdvanced] = useState(() => ADVANCED.some(name => draft[name] !== ""));
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<DuetError | null>(null);
  const estimating = useEstimate(wallet, draft);
  const estimate = estimating.state === "known" ? estimating.estimate : null;
  const chain = estimate?.chainId ?? expectedChain();
  const reading = readDraft(draft, estimate, chain);
  const problems: SendProblems = checked && !reading.ok ? reading.problems : {};
  const set =
    <Key extends keyof SendDraft>(key: Key) =>
    (value: SendDraft[Key]) =>
      onChange({ ...draft, [key]: value });

  const address = readAddress(draft.to);
  const data = readBytes(draft.data);

  const submit = async () => {
    setChecked(true);
    setError(null);
    if (!reading.ok) {
      if (ADVANCED.some(name => reading.problems[name] !== undefined)) setAdvanced(true);
      focusFirstProblem();
      return;
    }
    setBusy(true);
    const failure = await onReview(reading.payload);
    setBusy(false);
    setError(failure);
  };

  return (
    <Form busy={busy} onSubmit={submit}>
      <div class="stack-tight">
        <TextField
          id="send-to"
          label="To"
          mono
          placeholder="0x…"
          value={draft.to}
          onInput={set("to")}
          error={
            problems.to ??
            (!address.ok && draft.to.trim().length >= 42 ? address.problem : undefined)
          }
        />
        <p class="field-hint form-line" aria-live="polite">
          {address.ok && (
            <>
              <AddressText address={address.address} testId="send-to-checksum" />
              {!address.checked && " This was typed without a checksum: compare it digit by digit."}
            </>
          )}
        </p>
      </div>
      <TextField
        id="send-amount"
        label="Amount"
        numeric
        placeholder="0.0"
        value={draft.amount}
        onInput={set("amount")}
        error={problems.amount}
        side={
          <Select
            id="send-unit"
            label="Unit"
            bare
            value={draft.unit}
            options={UNITS}
            onChange={unit => set("unit")(unit as Unit)}
          />
        }
      />
      <EstimateLine state={estimating} draft={draft} />
      <details
        class="advanced"
        open={advanced}
        onToggle={event => setAdvanced(event.currentTarget.open)}
      >
        <summary data-testid="send-advanced">Data, nonce, gas and fees</summary>
        <div class="stack advanced-body">
          <TextField
            id="send-data"
            label="Data"
            optional
            mono
            placeholder="0x"
            value={draft.data}
            onInput={set("data")}
            error={problems.data}
            hint="Call data for a contract, as hexadecimal digits."
          />
          {data.ok && (
            <TokenCallNotice
              to={address.ok ? address.address : null}
              data={data.value}
              testId="send-decoded"
            />
          )}
          <div class="form-grid">
            <TextField
              id="send-nonce"
              label="Nonce"
              optional
              numeric
              placeholder={estimate ? String(estimate.nonce) : "as the node says"}
              value={draft.nonce}
              onInput={set("nonce")}
              error={problems.nonce}
            />
            <TextField
              id="send-gas"
              label="Gas limit"
              optional
              numeric
              placeholder={
                estimate?.gas.ok === true ? String(estimate.gas.value) : "as the node says"
              }
              value={draft.gas}
              onInput={set("gas")}
              error={problems.gas}
            />
            <TextField
              id="send-max-fee"
              label="Highest fee, gwei per gas"
              optional
              numeric
              placeholder={estimate ? plain(estimate.maxFeePerGas, "gwei") : "as the node says"}
              value={draft.maxFee}
              onInput={set("maxFee")}
              error={problems.maxFee}
            />
            <TextField
              id="send-priority-fee"
              label="Priority fee, gwei per gas"
              optional
              numeric
              placeholder={
                estimate ? plain(estimate.maxPriorityFeePerGas, "gwei") : "as the node says"
              }
              value={draft.priorityFee}
              onInput={set("priorityFee")}
              error={problems.priorityFee}
            />
            <TextField
              id="send-chain-id"
              label="Chain id"
              optional
              numeric
              placeholder={chain === null ? "as the node says" : String(chain)}
              value={draft.chainId}
              onInput={set("chainId")}
              error={problems.chainId}
              hint={chain === null ? undefined : chainName(chain)}
            />
          </div>
        </div>
      </details>
      {error && <ErrorNotice error={error} />}
      <div class="actions">
        <Button testId="review-submit" tone="primary" type="submit" busy={busy}>
          Review
        </Button>
      </div>
    </Form>
  );
}

/** The fee in a line. Its place is kept, so that nothing jumps when the answer comes. */
function EstimateLine({ state, draft }: { state: EstimateState; draft: SendDraft }) {
  const failedCall =
    state.state === "known" && !state.estimate.gas.ok && draft.gas === ""
      ? state.estimate.gas.message
      : null;
  return (
    <div
      class="stack-tight"
      data-testid="send-estimate"
      data-state={failedCall === null ? state.state : "failed"}
      aria-live="polite"
    >
      <p class="field-hint form-line number">
        {state.state === "idle" &&
          "The node estimates the fee when recipient and amount are filled in."}
        {state.state === "loading" && "Asking the node for gas and fees …"}
        {state.state === "known" && state.estimate.gas.ok && (
          <>
            Fee at most {inEther(state.estimate.gas.value * state.estimate.maxFeePerGas)} (
            {state.estimate.gas.value.toString()} gas at up to {inGwei(state.estimate.maxFeePerGas)}
            ). Available: {inEther(state.estimate.balance)}.
          </>
        )}
        {state.state === "known" && !state.estimate.gas.ok && (
          <>Available: {inEther(state.estimate.balance)}.</>
        )}
      </p>
      {failedCall !== null && (
        <Notice tone="warn" title="The node expects this to fail">
          <p>{failedCall}</p>
        </Notice>
      )}
      {state.state === "failed" && (
        <Notice tone="warn" title="No estimate">
          <p>{state.why} You can fill in nonce, gas and fees yourself.</p>
        </Notice>
      )}
    </div>
  );
}
