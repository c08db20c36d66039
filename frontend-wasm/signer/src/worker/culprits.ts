/**
 * Responders whose bad answers locked a Paillier key of this browser, and what the locks may have
 * cost.
 *
 * A lock is worth bits of the device's share, and no new key takes them back. So the device
 * initiates nothing with the culprit's card, in any wallet, until the owner says to go on with it.
 * That word counts once: a second lock by the card is final.
 */

import { duetError, fail, Failure } from "../errors.js";
import type { Culprit, RespondingParty, WalletId, WalletLosses, WalletParty } from "../types.js";
import type { Context } from "./context.js";
import {
  type CulpritRow,
  type Database,
  type KeyRow,
  requireWallet,
  respondersOf,
  STRICT,
} from "./database.js";
import type { DeviceWallet } from "./engine.js";

/** From so many locks on, a wallet's funds are to be moved to a new one. */
const MOVE_FUNDS_AFTER = 3;

/** What this browser thinks of a card that locked a key. */
function standingOf({ locks, acceptedAt }: CulpritRow): Culprit["standing"] {
  if (locks.length > 1) return "final";
  return acceptedAt === null ? "quarantined" : "accepted";
}

/** The culprits among a wallet's holders. */
export function culpritsAmong(
  rows: readonly CulpritRow[],
  parties: readonly WalletParty[],
): Culprit[] {
  return respondersOf(parties).flatMap(({ role, party, fingerprint }) => {
    const row = rows.find(one => one.fingerprint === fingerprint);
    return row
      ? [{ role, party, fingerprint, locks: row.locks.length, standing: standingOf(row) }]
      : [];
  });
}

/**
 * What locks may have cost a wallet. `verdicts` counts the bad answer too: `T` good ones and it
 * name one of `T + 2` intervals at most.
 */
export function lossesOf(keys: readonly KeyRow[]): WalletLosses {
  const locked = keys.filter(({ state }) => state === "locked");
  return {
    failures: locked.length,
    maxBits: locked.reduce((sum, { verdicts }) => sum + bitsOfALock(verdicts), 0),
    moveFunds: locked.length >= MOVE_FUNDS_AFTER,
  };
}

/** The bits of a share that a lock tells at most, after so many verdicts with the bad one. */
function bitsOfALock(verdicts: number): number {
  return 1 + Math.floor(Math.log2(Math.max(verdicts, 1)));
}

/** A wallet's responders, parted by whether this device may initiate with them. */
export async function sortResponders(
  database: Database,
  { parties }: Pick<DeviceWallet, "parties">,
): Promise<{ trusted: RespondingParty[]; culprits: Culprit[] }> {
  const rows = await database.getAll("culprits");
  const culprits = culpritsAmong(rows, parties).filter(({ standing }) => standing !== "accepted");
  const trusted = respondersOf(parties).filter(
    ({ party }) => !culprits.some(one => one.party === party),
  );
  return { trusted, culprits };
}

/**
 * Refuses unless this device may initiate with a card.
 *
 * @throws {Failure} `quarantined`
 */
export async function requireTrusted(database: Database, fingerprint: string): Promise<void> {
  const row = await database.get("culprits", fingerprint);
  if (row === undefined) return;
  const standing = standingOf(row);
  if (standing !== "accepted") throw quarantined({ party: row.party, standing });
}

/** Why nothing is initiated with a card. */
export function quarantined({ party, standing }: Pick<Culprit, "party" | "standing">): Failure {
  const message =
    standing === "final"
      ? `Bad signatures of ${party} locked two keys in this browser, which is final: ${party} has to be replaced.`
      : `A bad signature of ${party} locked a key in this browser. Nothing is signed with ${party} until the owner says so.`;
  return new Failure(duetError("quarantined", message, { code: "locked", by: party }));
}

/**
 * Notes the owner's word to go on with a card after its first lock.
 *
 * @returns whether its holder has yet to take the wallet's newest Paillier key.
 * @throws {Failure} `invalid` when the card locked nothing here; `quarantined` when it locked two.
 */
export async function acceptCulprit(
  context: Context,
  id: WalletId,
  fingerprint: string,
): Promise<boolean> {
  const { database, wallets } = context;
  await requireWallet(database, id);
  // The word of an owner who has opened the wallet.
  const isDue = await wallets.use(id, async ({ device }) => {
    const transaction = await database.transaction(["culprits"], "readwrite", STRICT);
    const culprits = transaction.objectStore("culprits");
    const row = await culprits.get(fingerprint);
    if (row === undefined)
      fail("invalid", "This card locked no key in this browser.", { field: "card" });
    const accepted = { ...row, acceptedAt: Date.now() };
    const standing = standingOf(accepted);
    if (standing === "final") throw quarantined({ party: row.party, standing });
    await culprits.put(accepted);
    await transaction.done;
    return device.unenrolled.some(({ party }) => party === row.party);
  });
  await wallets.changed();
  return isDue;
}
