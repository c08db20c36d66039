import { useEffect, useState } from "preact/hooks";
import type { Hex } from "viem";

import { tokens } from "../chain/amount";
import { decodeCall } from "../chain/calls";
import type { TokenFacts } from "../chain/node";
import { node } from "../state/duet";
import { AddressText } from "./address";
import { Notice } from "./notice";

interface TokenCallProps {
  /** The contract that is called. */
  to: Hex | null;
  data: Hex;
  testId: string;
}

/** Call data in plain words, if it is one of the common calls of token contracts. */
export function TokenCallNotice({ to, data, testId }: TokenCallProps) {
  const call = decodeCall(data);
  const facts = useTokenFacts(call === null ? null : to);
  if (data === "0x") return null;
  if (call === null) {
    return (
      <Notice
        tone="warn"
        title="A contract call this page does not know"
        testId={`${testId}-unknown`}
      >
        <p>
          The page cannot show what the contract does with this data. Sign only if you trust the
          author of the request.
        </p>
      </Notice>
    );
  }
  return (
    <div class="token-call" data-testid={testId} data-function={call.function}>
      <p>
        <code class="token-function">{call.function}</code> {call.summary}
      </p>
      <dl class="definition">
        {call.arguments.map(({ name, value }) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              {value.kind === "address" && <AddressText address={value.address} />}
              {value.kind === "text" && value.text}
              {value.kind === "amount" && (
                <>
                  {value.amount.toString()}
                  {facts && (
                    <span class="tree-note">
                      {tokens(value.amount, facts.decimals)} {facts.symbol}, according to the
                      contract
                    </span>
                  )}
                </>
              )}
            </dd>
          </div>
        ))}
      </dl>
      {call.warning && (
        <Notice tone="warn" testId={`${testId}-warning`}>
          <p>{call.warning}</p>
        </Notice>
      )}
    </div>
  );
}

function useTokenFacts(contract: Hex | null): TokenFacts | null {
  const [facts, setFacts] = useState<TokenFacts | null>(null);
  const url = node.value?.url ?? null;
  useEffect(() => {
    setFacts(null);
    if (contract === null || url === null) return;
    let current = true;
    void import("../chain/node").then(async ({ tokenFacts }) => {
      const answer = await tokenFacts(url, contract);
      if (current && answer.ok) setFacts(answer.value);
    });
    return () => {
      current = false;
    };
  }, [contract, url]);
  return facts;
}
