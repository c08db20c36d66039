import type { Description, WalletSummary } from "@duet/signer";

import { inEther } from "../chain/amount";
import { chainName } from "../chain/names";
import { AddressText } from "./address";
import { Notice } from "./notice";
import { TokenCallNotice } from "./token-call";

/** Longer messages are cut here; they are shown in full with the fields. */
const MAX_QUOTED_CHARACTERS = 160;

/** A payload in a sentence, from what the signing code wrote again. The fields say the rest. */
export function Summary({
  description,
  wallet,
}: {
  description: Description;
  wallet: WalletSummary;
}) {
  const { payload } = description;
  switch (payload.kind) {
    case "transaction":
      return <TransactionSummary description={description} wallet={wallet} />;
    case "personal_message": {
      if (!("text" in payload)) return null;
      const { text } = payload;
      return (
        <p class="summary">
          “
          {text.length > MAX_QUOTED_CHARACTERS ? `${text.slice(0, MAX_QUOTED_CHARACTERS)} …` : text}
          ”
        </p>
      );
    }
    case "typed_data": {
      const name = payload.domain["name"];
      return (
        <p class="summary">
          <strong>{payload.primaryType}</strong>
          {typeof name === "string" && <> for {name}</>}
          {description.chainId !== undefined && <> on {chainName(description.chainId)}</>}
        </p>
      );
    }
    case "digest":
      return null;
  }
}

function TransactionSummary({
  description,
  wallet,
}: {
  description: Description;
  wallet: WalletSummary;
}) {
  const { payload } = description;
  if (payload.kind !== "transaction") return null;
  const value = BigInt(payload.value ?? 0);
  const fee = BigInt(payload.gas) * BigInt(payload.maxFeePerGas ?? payload.gasPrice ?? 0);
  const data = (payload.data ?? "0x") as `0x${string}`;
  const to = payload.to as `0x${string}` | null;
  return (
    <div class="stack">
      <p class="summary">
        {data === "0x" || value > 0n ? (
          <>
            Sends <strong class="number">{inEther(value)}</strong> to
          </>
        ) : (
          "Calls the contract"
        )}{" "}
        {to === null ? "no address: this creates a contract" : <AddressText address={to} />}
        {description.chainId !== undefined && <> on {chainName(description.chainId)}</>}, for a fee
        of at most <strong class="number">{inEther(fee)}</strong>.
      </p>
      {to !== null && to === wallet.address && (
        <Notice tone="warn">
          <p>The recipient is this wallet itself.</p>
        </Notice>
      )}
      <TokenCallNotice to={to} data={data} testId="send-decoded" />
    </div>
  );
}
