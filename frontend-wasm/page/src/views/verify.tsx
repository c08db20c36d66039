import type {
  DuetError,
  Payload,
  PayloadKind,
  TransactionPayload,
  Verification,
} from "@duet/signer";
import { useState } from "preact/hooks";

import { readAddress } from "../chain/address";
import { readBytes } from "../chain/amount";
import { jsonProblem, parseExactly, readTypedData } from "../chain/typed-data";
import { AddressText } from "../components/address";
import { Button } from "../components/button";
import { Choices } from "../components/choice";
import { Select, TextArea, TextField } from "../components/field";
import { focusFirstProblem, Form } from "../components/form";
import { ErrorNotice, Notice } from "../components/notice";
import { View } from "../components/view";
import { duet } from "../state/duet";
import { readMessage, type MessageFormat } from "./message";

const KINDS = [
  { value: "personal_message", text: "Message (EIP-191)" },
  { value: "typed_data", text: "Typed data (EIP-712)" },
  { value: "transaction", text: "Transaction" },
  { value: "digest", text: "Digest of 32 bytes" },
] as const satisfies readonly { value: PayloadKind; text: string }[];

const LABELS: Record<PayloadKind, { label: string; hint: string }> = {
  personal_message: { label: "Message", hint: "Every character counts, spaces and line ends too." },
  typed_data: { label: "Document", hint: "The JSON with types, primaryType, domain and message." },
  transaction: {
    label: "Transaction",
    hint: "JSON with the names of the JSON-RPC interface: chainId, nonce, to, value, gas, maxFeePerGas …",
  },
  digest: { label: "Digest", hint: "32 bytes as 0x and 64 digits." },
};

type Reading = { ok: true; payload: Payload } | { ok: false; problem: string };

function readPayload(
  kind: PayloadKind,
  text: string,
  format: MessageFormat,
): Reading | Promise<Reading> {
  switch (kind) {
    case "personal_message":
      return readMessage(text, format);
    case "typed_data":
      return readTypedData(text);
    case "digest": {
      const bytes = readBytes(text);
      if (!bytes.ok) return bytes;
      return bytes.value.length === 66
        ? { ok: true, payload: { kind, digest: bytes.value } }
        : { ok: false, problem: "A digest has 32 bytes: 0x and 64 digits." };
    }
    case "transaction": {
      if (text.trim() === "") return { ok: false, problem: "Paste the transaction." };
      try {
        const value = parseExactly(text);
        if (typeof value !== "object" || value === null || Array.isArray(value)) {
          return { ok: false, problem: "A transaction is a JSON object." };
        }
        // Which fields it must have is checked, with the path of what is wrong, by the code that
        // signs.
        return { ok: true, payload: { ...(value as Omit<TransactionPayload, "kind">), kind } };
      } catch (problem) {
        return { ok: false, problem: jsonProblem(problem, text) };
      }
    }
  }
}

interface Problems {
  payload?: string;
  signature?: string;
  address?: string;
}

/** Checks a signature of any signer, with the library verifier, in this browser. */
export function VerifyView() {
  const [kind, setKind] = useState<PayloadKind>("personal_message");
  const [format, setFormat] = useState<MessageFormat>("text");
  const [text, setText] = useState("");
  const [signature, setSignature] = useState("");
  const [address, setAddress] = useState("");
  const [problems, setProblems] = useState<Problems>({});
  const [error, setError] = useState<DuetError | null>(null);
  const [result, setResult] = useState<Verification | null>(null);
  const [busy, setBusy] = useState(false);

  const clear = () => {
    setResult(null);
    setError(null);
  };

  const submit = async () => {
    clear();
    const found: Problems = {};
    const payload = await readPayload(kind, text, format);
    if (!payload.ok) found.payload = payload.problem;
    const bytes = readBytes(signature);
    if (signature.trim() === "") found.signature = "Paste the signature.";
    else if (!bytes.ok) found.signature = bytes.problem;
    else if (bytes.value.length !== 132)
      found.signature = `A signature has 65 bytes; this has ${(bytes.value.length - 2) / 2}.`;
    const reading = readAddress(address);
    if (!reading.ok) found.address = reading.problem;
    setProblems(found);
    if (!payload.ok || !bytes.ok || !reading.ok || found.signature !== undefined) {
      focusFirstProblem();
      return;
    }
    setBusy(true);
    const outcome = await duet().verify({
      payload: payload.payload,
      signature: bytes.value,
      address: reading.address,
    });
    setBusy(false);
    if (outcome.ok) setResult(outcome.value);
    else if (outcome.error.kind === "invalid") setProblems(place(outcome.error));
    else setError(outcome.error);
  };

  return (
    <View
      name="verify"
      title="Verify a signature"
      lead="You can check any signature, not only your own. The check runs in this browser and needs no wallet."
      narrow
    >
      <Form busy={busy} onSubmit={submit}>
        <Select
          id="verify-kind"
          label="What was signed?"
          value={kind}
          options={KINDS}
          onChange={value => {
            clear();
            setProblems({});
            setKind(KINDS.find(option => option.value === value)?.value ?? "personal_message");
          }}
        />
        <TextArea
          id="verify-payload"
          label={LABELS[kind].label}
          hint={LABELS[kind].hint}
          mono={kind !== "personal_message"}
          value={text}
          onInput={value => {
            clear();
            setText(value);
          }}
          error={problems.payload}
        />
        {kind === "personal_message" && (
          <Choices
            name="verify-format"
            legend="Read it as"
            row
            value={format}
            onChange={value => {
              clear();
              setFormat(value);
            }}
            choices={[
              { value: "text", testId: "verify-format-text", title: "Text" },
              { value: "hex", testId: "verify-format-hex", title: "Bytes in hexadecimal" },
            ]}
          />
        )}
        <TextField
          id="verify-signature"
          label="Signature"
          mono
          placeholder="0x…"
          value={signature}
          onInput={value => {
            clear();
            setSignature(value);
          }}
          error={problems.signature}
        />
        <TextField
          id="verify-address"
          label="Address of the signer"
          mono
          placeholder="0x…"
          value={address}
          onInput={value => {
            clear();
            setAddress(value);
          }}
          error={problems.address}
        />
        <div class="actions">
          <Button testId="verify-submit" tone="primary" type="submit" icon="shield" busy={busy}>
            Verify
          </Button>
        </div>
        <div role="status" class="verify-result">
          {error && <ErrorNotice error={error} />}
          {result && <Result result={result} />}
        </div>
      </Form>
    </View>
  );
}

/** Where in the form a wrong argument is shown. */
function place(error: DuetError): Problems {
  const field = error.field ?? "";
  if (field.startsWith("signature")) return { signature: error.message };
  if (field.startsWith("address")) return { address: error.message };
  return { payload: error.message };
}

function Result({ result }: { result: Verification }) {
  const signer = result.signer;
  return (
    <div data-testid="verify-result" data-valid={String(result.valid)}>
      <Notice
        tone={result.valid ? "good" : "bad"}
        title={result.valid ? "Valid: it is by this address" : "Not valid for this address"}
      >
        {!result.valid && <p>{result.reason}</p>}
        {signer && (
          <p>
            {result.valid ? "Signer: " : "Whose it is: "}
            <AddressText address={signer} testId="verify-recovered" />
          </p>
        )}
        <p class="small soft break">
          Digest <code>{result.digest}</code>
        </p>
      </Notice>
    </div>
  );
}
