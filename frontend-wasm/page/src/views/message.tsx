import type { DuetError, PersonalMessagePayload, WalletSummary } from "@duet/signer";
import { useState } from "preact/hooks";

import { readBytes } from "../chain/amount";
import { Button } from "../components/button";
import { Choices } from "../components/choice";
import { TextArea } from "../components/field";
import { Form } from "../components/form";
import { ErrorNotice } from "../components/notice";
import { SigningStages } from "../components/signing";
import { View } from "../components/view";
import { href } from "../router";
import { useSigning } from "../state/signing";

export type MessageFormat = "text" | "hex";

/** Reads what was typed as a message: its text, or bytes in hexadecimal digits. */
export function readMessage(
  text: string,
  format: MessageFormat,
): { ok: true; payload: PersonalMessagePayload } | { ok: false; problem: string } {
  if (format === "text") {
    return text === ""
      ? { ok: false, problem: "Write or paste the message." }
      : { ok: true, payload: { kind: "personal_message", text } };
  }
  if (text.trim() === "") return { ok: false, problem: "Paste the bytes, beginning with 0x." };
  const bytes = readBytes(text);
  return bytes.ok ? { ok: true, payload: { kind: "personal_message", hex: bytes.value } } : bytes;
}

/** Signs a message under EIP-191. */
export function MessageView({ wallet }: { wallet: WalletSummary }) {
  const signing = useSigning(wallet);
  const [text, setText] = useState("");
  const [format, setFormat] = useState<MessageFormat>("text");
  const [problem, setProblem] = useState<string | null>(null);
  const [error, setError] = useState<DuetError | null>(null);

  const submit = async () => {
    setError(null);
    const reading = readMessage(text, format);
    setProblem(reading.ok ? null : reading.problem);
    if (!reading.ok) {
      document.getElementById("message-text")?.focus();
      return;
    }
    const failure = await signing.review(reading.payload);
    if (failure?.kind === "invalid") setProblem(failure.message);
    else setError(failure);
  };

  return (
    <View
      name="message"
      title="Sign a message"
      lead="A signed message proves that you control this address. It moves no money by itself, but its text can bind you."
      back={{ href: href({ view: "wallet", wallet: wallet.id }), text: wallet.label }}
      narrow
    >
      <SigningStages
        signing={signing}
        wallet={wallet}
        summary={() => null}
        onAnother={signed => signed && setText("")}
        canBroadcast={false}
      >
        <Form onSubmit={submit}>
          <TextArea
            id="message-text"
            label="Message"
            mono={format === "hex"}
            placeholder={format === "hex" ? "0x…" : ""}
            value={text}
            onInput={value => {
              setText(value);
              setProblem(null);
            }}
            error={problem}
          />
          <Choices
            name="format"
            legend="Read it as"
            row
            value={format}
            onChange={value => {
              setFormat(value);
              setProblem(null);
            }}
            choices={[
              { value: "text", testId: "message-format-text", title: "Text" },
              { value: "hex", testId: "message-format-hex", title: "Bytes in hexadecimal" },
            ]}
          />
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
