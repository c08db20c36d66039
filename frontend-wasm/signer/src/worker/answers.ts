/**
 * The first signatures of messages and typed data. Sites derive keys from signatures and expect the
 * one of yesterday; a signature that two parties make is another one each time.
 *
 * A kept signature is told only after a session has made a new one: the other party has then
 * decided about this very request, by today's policy, and the owner has approved it. What is
 * refused, rejected or expired gets no old signature either. Transactions are never answered from
 * here.
 */

import { bytesToHex, hexToBytes } from "../payload.js";
import type { DerivationPath, Hex, Payload, WalletId } from "../types.js";
import type { Context } from "./context.js";
import { STRICT } from "./database.js";
import type { Unlocked } from "./wallets.js";

/** Messages per wallet; the one that was used longest ago makes way. */
const MOST = 512;
/** How the record's content is laid out. */
const VERSION = 1;
/** What the record is sealed as, beside the wallet. */
const ITEM = "answers";

interface Answer {
  path: DerivationPath;
  digest: Hex;
  signature: Hex;
}

/** The one used last comes last. */
interface Answers {
  version: typeof VERSION;
  answers: Answer[];
}

/** What was signed, and by which of the wallet's keys. */
export interface Signable {
  wallet: WalletId;
  payload: Payload;
  path: DerivationPath;
  digest: Hex;
}

/**
 * The signature that is told: the first that was made of the same message by the same key. `made`
 * is the session's, and the first unless there is another here, or `asked`, which the orchestrator
 * keeps for what others have signed.
 */
export async function firstSignature(
  { database, engine }: Context,
  { device, key }: Unlocked,
  { wallet, payload, path, digest }: Signable,
  made: Uint8Array,
  asked: () => Promise<Uint8Array | undefined>,
): Promise<Uint8Array> {
  if (payload.kind !== "personal_message" && payload.kind !== "typed_data") return made;
  const is = (answer: Answer): boolean => answer.path === path && answer.digest === digest;
  const read = (sealed: Uint8Array | undefined): Answer[] => {
    if (sealed === undefined) return [];
    const opened = JSON.parse(
      new TextDecoder().decode(engine.openItem(key, wallet, ITEM, sealed)),
    ) as Answers;
    return opened.version === VERSION ? opened.answers : [];
  };
  const held = async (): Promise<Answer | undefined> => {
    const row = await database.get("records", [wallet, "answers"]);
    return read(row?.sealed).find(is);
  };
  try {
    const first = (await held()) === undefined ? ((await asked()) ?? made) : made;
    // Sealing takes no turn of the event loop, so reading and writing are one transaction.
    const transaction = await database.transaction(["records"], "readwrite", STRICT);
    const records = transaction.objectStore("records");
    const answers = read((await records.get([wallet, "answers"]))?.sealed);
    const known = answers.find(is);
    const kept =
      known !== undefined && device.holds(path, digest, hexToBytes(known.signature, "signature"))
        ? known
        : {
            path,
            digest,
            signature: bytesToHex(first),
          };
    const others = answers.filter(answer => !is(answer)).slice(1 - MOST);
    const text: Answers = { version: VERSION, answers: [...others, kept] };
    const sealed = engine.sealItem(
      key,
      wallet,
      ITEM,
      new TextEncoder().encode(JSON.stringify(text)),
    );
    await records.put({ wallet, kind: "answers", sealed });
    await transaction.done;
    return hexToBytes(kept.signature, "signature");
  } catch {
    // The store is full, or its record was changed: there is a signature, and nothing to compare it
    // with.
    return made;
  }
}
