import type { Description, DuetError, WalletSummary } from "@duet/signer";
import { useEffect, useState } from "preact/hooks";

import { readTypedData } from "../chain/typed-data";
import { Button } from "../components/button";
import { ChainWarning, isForeign } from "../components/chain-warning";
import { FieldTree, NotSignedMembers } from "../components/described";
import { TextArea } from "../components/field";
import { Form } from "../components/form";
import { ErrorNotice } from "../components/notice";
import { SigningStages } from "../components/signing";
import { View } from "../components/view";
import { href } from "../router";
import { refreshNodeChain } from "../state/chain";
import { duet, node } from "../state/duet";
import { useSigning } from "../state/signing";

const PLACEHOLDER =
  '{\n  "types": { … },\n  "primaryType": "…",\n  "domain": { … },\n  "message": { … }\n}';
/** Typing pauses shorter than this are not worth reading the document again. */
const TYPING_PAUSE_MS = 200;

type Read =
  | { state: "empty" }
  | { state: "wrong"; problem: string }
  | { state: "read"; description: Description };

/** Reads the document with the code that would sign it. */
function useTypedData(text: string): Read {
  const [read, setRead] = useState<Read>({ state: "empty" });
  useEffect(() => {
    if (text.trim() === "") {
      setRead({ state: "empty" });
      return;
    }
    let current = true;
    const timer = setTimeout(() => {
      void (async () => {
        const reading = await readTypedData(text);
        if (!reading.ok) {
          if (current) setRead({ state: "wrong", problem: reading.problem });
          return;
        }
        const outcome = await duet().describe(reading.payload);
        if (!current) return;
        setRead(
          outcome.ok
            ? { state: "read", description: outcome.value }
            : { state: "wrong", problem: outcome.error.message },
        );
      })();
    }, TYPING_PAUSE_MS);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [text]);
  return read;
}

/** Signs a typed document under EIP-712. */
export function TypedDataView({ wallet }: { wallet: WalletSummary }) {
  const signing = useSigning(wallet);
  const [text, setText] = useState("");
  const [submitted, setSubmitted] = useState<string | null>(null);
  const [error, setError] = useState<DuetError | null>(null);
  const [accepted, setAccepted] = useState(false);
  const read = useTypedData(text);
  useEffect(() => void refreshNodeChain(), [node.value?.url]);

  const submit = async () => {
    setError(null);
    const reading = await readTypedData(text);
    if (!reading.ok) {
      setSubmitted(reading.problem);
      document.getElementById("typed-data-json")?.focus();
      return;
    }
    const failure = await signing.review(reading.payload);
    if (failure === null) setSubmitted(null);
    else if (failure.kind === "invalid" || failure.kind === "refused")
      setSubmitted(failure.message);
    else setError(failure);
  };

  return (
    <View
      name="typed-data"
      title="Sign typed data"
      lead="A document under EIP-712, which applications ask you to sign: orders, permits, votes. Some of them let an application move your money without asking again."
      back={{ href: href({ view: "wallet", wallet: wallet.id }), text: wallet.label }}
      narrow
    >
      <SigningStages
        signing={signing}
        wallet={wallet}
        summary={description => (
          <ChainWarning
            description={description}
            accepted={accepted}
            onAccept={setAccepted}
            testId="typed-data-chain-accept"
          />
        )}
        blocked={description => isForeign(description) && !accepted}
        onAnother={signed => {
          if (signed) setText("");
          setAccepted(false);
        }}
        canBroadcast={false}
      >
        <Form onSubmit={submit}>
          <TextArea
            id="typed-data-json"
            label="Document"
            hint="The JSON of eth_signTypedData_v4. The page reads it as you type."
            mono
            tall
            placeholder={PLACEHOLDER}
            value={text}
            onInput={value => {
              setText(value);
              setSubmitted(null);
              setAccepted(false);
            }}
            error={submitted ?? (read.state === "wrong" ? read.problem : null)}
          />
          {read.state === "read" && (
            <div class="payload">
              <p class="payload-kind">What it says</p>
              <FieldTree
                fields={read.description.fields}
                testPrefix="typed-data"
                testId="typed-data-tree"
              />
              <NotSignedMembers description={read.description} testId="typed-data-not-signed" />
              <ChainWarning
                description={read.description}
                accepted={accepted}
                onAccept={setAccepted}
                testId="typed-data-chain-accept"
              />
            </div>
          )}
          {error && <ErrorNotice error={error} />}
          <div class="actions">
            <Button testId="review-submit" tone="primary" type="submit">
              Review
            </Button>
          </div>
        </Form>
      </SigningStages>
    </View>
  );
}
