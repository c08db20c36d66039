import type { RespondingParty, WalletLosses, WalletSummary } from "@duet/signer";

/** What the page says of locked keys and of the parties whose bad signatures locked them. */

/** A party that this wallet may sign with. The service comes first. */
export function trustedParty({ parties, culprits }: WalletSummary): RespondingParty | undefined {
  return parties.find(
    (party): party is RespondingParty =>
      "fingerprint" in party &&
      !culprits.some(
        ({ fingerprint, standing }) => fingerprint === party.fingerprint && standing !== "accepted",
      ),
  );
}

/** Names in a sentence. */
export function namesOf(parties: readonly { party: string }[]): string {
  return parties.map(({ party }) => party).join(" and ") || "the other party";
}

/** What locks may have cost, in one sentence. */
export function costText({ failures, maxBits }: WalletLosses): string {
  const keys = failures === 1 ? "One key" : `${failures} keys`;
  const bits = maxBits === 1 ? "1 bit" : `${maxBits} bits`;
  return `${keys} of this wallet locked so far: at most ${bits} of this browser's share became known. No new key takes them back.`;
}
