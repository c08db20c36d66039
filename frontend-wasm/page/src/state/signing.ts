import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type {
  Description,
  DuetError,
  Outcome,
  Payload,
  Signed,
  SigningStep,
  Verification,
  WalletSummary,
} from "@duet/signer";

import { duet } from "./duet";
import { rememberSigning } from "./interrupted";

/** One signature from the form to its end. */
export type Stage =
  | { at: "edit"; error: DuetError | null }
  | { at: "review"; description: Description }
  | {
      at: "run";
      description: Description;
      state: "signing" | "signed" | "failed";
      steps: readonly SigningStep[];
      signed: Signed | null;
      verification: Verification | null;
      error: DuetError | null;
    };

export type Run = Extract<Stage, { at: "run" }>;

const WHAT: Record<Description["kind"], string> = {
  transaction: "a transaction",
  personal_message: "a message",
  typed_data: "typed data",
  digest: "a digest",
};

export interface RunHooks {
  signal: AbortSignal;
  onStep: (step: SigningStep) => void;
}

/** Runs a signature and keeps what is shown of it. `begin` is `sign` or `approve`. */
export function useRun(wallet: WalletSummary) {
  const [run, setRun] = useState<Run | null>(null);
  const abort = useRef<AbortController | null>(null);
  const mounted = useRef(true);
  useEffect(() => {
    mounted.current = true;
    return () => {
      mounted.current = false;
      abort.current?.abort();
    };
  }, []);

  const start = useCallback(
    async (
      description: Description,
      begin: (hooks: RunHooks) => Promise<Outcome<Signed>>,
      path = "m",
    ): Promise<Outcome<Signed>> => {
      const controller = new AbortController();
      abort.current = controller;
      const remembered = rememberSigning({
        wallet: wallet.id,
        what: WHAT[description.kind],
        payload: description.payload,
        path,
      });
      const update = (change: (before: Run) => Partial<Run>) => {
        if (mounted.current) setRun(before => (before ? { ...before, ...change(before) } : before));
      };
      setRun({
        at: "run",
        description,
        state: "signing",
        steps: [],
        signed: null,
        verification: null,
        error: null,
      });
      const outcome = await begin({
        signal: controller.signal,
        onStep: step => {
          if (step.step === "requested") remembered.asked(step.job);
          update(({ steps }) => ({ steps: [...steps, step] }));
        },
      });
      remembered.forget();
      if (!outcome.ok) {
        update(() => ({ state: "failed", error: outcome.error }));
        return outcome;
      }
      // The signature was verified where it was made; any program could repeat this check with the
      // public parts.
      const signed = outcome.value;
      const verification = await duet().verify({
        payload: description.payload,
        signature: signed.signature,
        address: signed.address,
      });
      update(() => ({
        state: "signed",
        signed,
        verification: verification.ok ? verification.value : null,
      }));
      return outcome;
    },
    [wallet.id],
  );

  return { run, start, cancel: () => abort.current?.abort(), reset: () => setRun(null) };
}

/** Where a form that ends in a signature is, and how it goes on. */
export type Signing = ReturnType<typeof useSigning>;

/** The stages of a form that ends in a signature. */
export function useSigning(wallet: WalletSummary) {
  const [edit, setEdit] = useState<Exclude<Stage, Run>>({ at: "edit", error: null });
  const { run, start, cancel, reset } = useRun(wallet);

  const review = useCallback(async (payload: Payload): Promise<DuetError | null> => {
    const outcome = await duet().describe(payload);
    if (!outcome.ok) return outcome.error;
    setEdit({ at: "review", description: outcome.value });
    return null;
  }, []);

  const stage: Stage = run ?? edit;
  return {
    stage,
    review,
    back: () => {
      reset();
      setEdit({ at: "edit", error: null });
    },
    /** Signs what the review shows: the payload as the signing code wrote it again. */
    sign: () => {
      if (stage.at === "edit") return;
      const { description } = stage;
      void start(description, hooks => duet().sign(wallet.id, description.payload, hooks));
    },
    cancel,
  };
}
