/**
 * Making a wallet, so that it can be interrupted anywhere: what was dealt is stored, sealed, before
 * anything is sent; every message can be sent again; the address is shown last.
 */

import { fail } from "../errors.js";
import type { CreateOrder, KeySource } from "../protocol.js";
import type { CreatedWallet, CreateProgress, WalletId } from "../types.js";
import type { Context } from "./context.js";
import {
  type Database,
  type KeyRow,
  requireRecord,
  requireWallet,
  STRICT,
  type StoredProtection,
  type WalletRow,
} from "./database.js";
import { checkpoint, pause } from "./deadline.js";
import type { Backend, DeviceWallet, Handle, Pending, SealKey } from "./engine.js";
import { Helpers } from "./helpers.js";
import { askGateway } from "./info.js";
import {
  chooseRecipients,
  pin,
  readAdmissions,
  type Recipient,
  requireRecipients,
  requireSameRecipients,
  seenBefore,
} from "./recipients.js";
import type { Call } from "./rpc.js";

/** As what the owner's device takes part. */
export const DEVICE_PARTY = "device";
const MAX_LABEL_LENGTH = 64;
const MIN_PASSPHRASE_LENGTH = 8;

/** A step without its time. */
type Progress = CreateProgress extends infer P
  ? P extends unknown
    ? Omit<P, "atMs">
    : never
  : never;

/** Tells steps with the time since it was made. */
export function stopwatch(note: (progress: CreateProgress) => void): (progress: Progress) => void {
  const startedAt = performance.now();
  return progress =>
    note({ ...progress, atMs: Math.round(performance.now() - startedAt) } as CreateProgress);
}

export function readLabel(label: string): string {
  const trimmed = label.trim();
  if (trimmed === "" || [...trimmed].length > MAX_LABEL_LENGTH) {
    fail("invalid", `A name has 1 to ${MAX_LABEL_LENGTH} characters.`, { field: "label" });
  }
  return trimmed;
}

/** Refuses a passphrase that is too short. The page rates how good a longer one is. */
export function checkPassphrase(passphrase: string, field: string): void {
  if ([...passphrase].length < MIN_PASSPHRASE_LENGTH) {
    fail("invalid", `A passphrase has at least ${MIN_PASSPHRASE_LENGTH} characters.`, { field });
  }
}

export function protectionOf(source: KeySource, descriptor: string): StoredProtection {
  return source.kind === "passphrase"
    ? { kind: "passphrase", descriptor }
    : { kind: "passkey", descriptor, passkey: source.passkey };
}

/** Deals a wallet, stores it, and brings it to its end. */
export async function createWallet(
  context: Context,
  call: Call<"createWallet">,
  order: CreateOrder,
): Promise<CreatedWallet> {
  const { engine, database, settings } = context;
  const { signal } = call;
  const tell = stopwatch(call.note);
  const label = readLabel(order.label);
  if (order.source.kind === "passphrase")
    checkPassphrase(order.source.passphrase, "protection.passphrase");
  if (order.third.kind === "backup-file")
    checkPassphrase(order.third.passphrase, "third.passphrase");
  const answer = await askGateway(settings.gateway, signal);
  const named = requireRecipients(settings, answer);
  const { tenant, recipients } = chooseRecipients(
    named,
    order.third.kind === "partner" ? ["service", "partner"] : ["service"],
    readAdmissions(engine, settings, answer, order.tokens ?? []),
  );

  // The helpers search, and verify the cards meanwhile; both go on beside everything else.
  const helpers = new Helpers(signal);
  const primes = helpers.primes(candidates => tell({ step: "paillier-key", candidates }));
  const backends: Backend[] = [];
  let key: SealKey | undefined;
  let dealing: Handle | undefined;
  let pending: Pending | undefined;
  try {
    const cards = recipients.map(async recipient => {
      tell({ step: "card", party: recipient.party });
      const fetched = await recipientCard(context, recipient, signal);
      await helpers.verifyCard(fetched.card, fetched.fingerprint);
      return fetched;
    });
    // Each is waited for below; until then a failure is no news.
    for (const card of cards) card.catch(() => undefined);
    tell({ step: "protection" });
    await pause(0, signal);
    const made = engine.protect(order.source);
    key = made.key;
    for (const [at, { role, party, token }] of recipients.entries()) {
      const { card, fingerprint } = await (cards[at] as Promise<FetchedCard>);
      backends.push(engine.backend(card, fingerprint, token));
      await pin(database, { role, fingerprint, party }, card);
      tell({ step: "card-verified", party });
    }
    const found = await primes;
    checkpoint(signal);
    tell({ step: "shares" });
    const drawn = engine.draw(
      {
        tenant,
        device: DEVICE_PARTY,
        service: backends[0] as Backend,
        partner: backends[1] ?? null,
        requesters: order.requesters ?? [],
        primes: found,
      },
      Date.now(),
    );
    dealing = drawn;
    const partyOf = (share: 2 | 3): string => recipients[share - 2]?.party ?? "backup-file";
    const proofs = drawn.tasks.map(({ share, task }) => {
      tell({ step: "proofs", share, party: partyOf(share) });
      return helpers.prove(task);
    });
    const encrypted = drawn.encrypt();
    dealing = encrypted;
    const dealt = encrypted.assemble(await Promise.all(proofs), share =>
      tell({ step: "sealing", share, party: partyOf(share) }),
    );
    dealing = dealt;
    checkpoint(signal);
    pending = dealt.takePending();
    const backupFile =
      order.third.kind === "backup-file"
        ? dealt.backupFile(order.third.passphrase, Date.now())
        : null;
    dealt.free();
    dealing = undefined;
    checkpoint(signal);
    const row: WalletRow = {
      id: pending.id,
      label,
      createdAt: Date.now(),
      status: "pending",
      tenant,
      parties: pending.parties,
      address: null,
      publicKey: null,
      paillierKey: "",
      protection: protectionOf(order.source, made.descriptor),
      restored: false,
      exportedAt: null,
      checkedAt: null,
      backupDue: true,
      thirdDue: backupFile !== null,
      attempts: { failed: 0, nextAt: 0 },
    };
    await storePending(database, row, pending.seal(key), backupFile);
    tell({ step: "stored", wallet: row.id });
    await context.wallets.changed();
    const finishing = { pending, key };
    // From here on they are the finished wallet's.
    pending = key = undefined;
    return await finish(context, finishing, tell, signal);
  } finally {
    helpers.stop();
    dealing?.free();
    pending?.free();
    key?.free();
    for (const backend of backends) backend.free();
  }
}

/** Brings an interrupted creation to its end, wherever it was. */
export async function resumeCreation(
  context: Context,
  call: Call<"resumeCreation">,
  id: WalletId,
  source: KeySource,
): Promise<CreatedWallet> {
  const tell = stopwatch(call.note);
  const { status } = await requireWallet(context.database, id);
  if (status === "ready") fail("invalid", "The wallet's creation is finished.", { field: "id" });
  tell({ step: "protection" });
  const key = await context.wallets.derive(id, source);
  let pending: Pending;
  try {
    pending = context.engine.openPending(
      await requireRecord(context.database, id, "pending"),
      key,
      id,
    );
  } catch (thrown) {
    key.free();
    throw thrown;
  }
  const { settings } = context;
  try {
    const answer =
      settings.parties.length > 0 ? null : await askGateway(settings.gateway, call.signal);
    requireSameRecipients(pending.parties, settings, answer);
  } catch (thrown) {
    pending.free();
    key.free();
    throw thrown;
  }
  tell({ step: "stored", wallet: id });
  return finish(context, { pending, key }, tell, call.signal);
}

/**
 * Forgets a wallet whose creation is not finished, so its owner has not seen its address. Parties
 * that prepared a share let it expire.
 */
export async function discardPending(context: Context, id: WalletId): Promise<undefined> {
  const { status } = await requireWallet(context.database, id);
  if (status !== "pending")
    fail("invalid", "The wallet's creation is finished; it cannot be discarded.", { field: "id" });
  await context.tabs.exclusively(id, () => removeWallet(context.database, id));
  await context.wallets.changed();
}

export async function removeWallet(database: Database, id: WalletId): Promise<void> {
  const transaction = await database.transaction(
    ["wallets", "records", "keys", "pending"],
    "readwrite",
    STRICT,
  );
  const keys = await transaction.objectStore("keys").index("wallet").getAll(id);
  const pending = await transaction.objectStore("pending").index("wallet").getAllKeys(id);
  const records = await transaction
    .objectStore("records")
    .getAllKeys(IDBKeyRange.bound([id], [id, []]));
  // A lock is never forgotten: the wallet may come back from a backup.
  for (const key of keys)
    if (key.state !== "locked") await transaction.objectStore("keys").delete(key.id);
  for (const session of pending) await transaction.objectStore("pending").delete(session);
  for (const record of records) await transaction.objectStore("records").delete(record);
  await transaction.objectStore("wallets").delete(id);
  await transaction.done;
}

// ------------------------------------------------------------------------------------------- cards

interface FetchedCard {
  card: Uint8Array;
  fingerprint: string;
}

/** A party's card, which has to be the party's own and the one that is expected. */
export async function fetchCard(
  { line, engine }: Context,
  party: string,
  expected: string | undefined,
  signal?: AbortSignal,
): Promise<FetchedCard> {
  const card = await line.card(party, signal);
  const { party: named, fingerprint } = engine.cardFacts(card);
  if (expected !== undefined && fingerprint !== expected) {
    fail("refused", `${party} shows the card ${fingerprint}; expected is ${expected}.`, {
      code: "card-mismatch",
      by: party,
    });
  }
  if (named !== party) {
    fail("refused", `${party} shows the card of ${named}.`, { code: "card-mismatch", by: party });
  }
  return { card, fingerprint };
}

/**
 * The card of a party that is to get a share. Where only a gateway for trying out names it, it must
 * not differ from the one this browser dealt to before.
 */
async function recipientCard(
  context: Context,
  recipient: Recipient,
  signal: AbortSignal,
): Promise<FetchedCard> {
  const { role, party, source } = recipient;
  const fetched = await fetchCard(context, party, recipient.fingerprint, signal);
  if (source === "configuration") return fetched;
  if (
    seenBefore(await context.database.getAll("recipients"), role, fetched.fingerprint) === "other"
  ) {
    fail(
      "refused",
      `${party} shows the card ${fetched.fingerprint}, and this browser has dealt to another ${role} before. If you set up the parties anew, remove this site's data first, or list them in the page's configuration.`,
      { code: "card-mismatch", by: party },
    );
  }
  return fetched;
}

// -------------------------------------------------------------------------------- store and finish

async function storePending(
  database: Database,
  row: WalletRow,
  sealed: Uint8Array,
  backup: Uint8Array | null,
): Promise<void> {
  const transaction = await database.transaction(["wallets", "records"], "readwrite", STRICT);
  if ((await transaction.objectStore("wallets").get(row.id)) !== undefined) {
    fail("storage", "There is a wallet with this id already.");
  }
  await transaction.objectStore("records").put({ wallet: row.id, kind: "pending", sealed });
  // Sealed by a passphrase of its own. It is there until its owner opened the saved file, and no
  // longer.
  if (backup)
    await transaction
      .objectStore("records")
      .put({ wallet: row.id, kind: "backup", sealed: backup });
  await transaction.objectStore("wallets").put(row);
  await transaction.done;
}

/** Prepare, commit, store. Frees what it is given. */
async function finish(
  context: Context,
  { pending, key }: { pending: Pending; key: SealKey },
  tell: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<CreatedWallet> {
  const { id } = pending;
  let device: DeviceWallet | undefined;
  try {
    const backupFile = await context.tabs.exclusively(id, async () => {
      await requireStillPending(context, id);
      device = await establish(context, pending, tell, signal);
      return storeFinished(context.database, device, device.seal(key));
    });
    context.wallets.hold(device as DeviceWallet, key);
    device = undefined;
    await context.wallets.changed();
    tell({ step: "ready", wallet: id });
    const wallet = await context.wallets.summary(id);
    return { wallet, ...(backupFile && { backupFile }) };
  } catch (thrown) {
    device?.free();
    key.free();
    throw thrown;
  } finally {
    pending.free();
  }
}

/** Another tab may have finished or discarded it while this one waited for its turn. */
async function requireStillPending({ database }: Context, id: WalletId): Promise<void> {
  const row = await requireWallet(database, id);
  if (row.status !== "pending")
    fail("busy-elsewhere", "Another tab has finished this wallet; unlock it.");
}

async function establish(
  { line }: Context,
  pending: Pending,
  tell: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<DeviceWallet> {
  const { deliveries } = pending;
  const receipts = await all(deliveries, async delivery => {
    const { share, party } = delivery;
    tell({ step: "preparing", share, party });
    const receipt = await line.prepare(delivery, signal);
    tell({ step: "prepared", share, party });
    return receipt;
  });
  const bundle = pending.bundle(receipts);
  const acknowledgements = await all(deliveries, async ({ share, party }) => {
    tell({ step: "committing", share, party });
    const acknowledgement = await line.commit(party, bundle, signal);
    tell({ step: "committed", share, party });
    return acknowledgement;
  });
  return pending.finish(bundle, acknowledgements);
}

/** At the same time, in order; when one fails, the others are waited for, so that nothing goes on behind the caller. */
async function all<T, R>(items: T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const settled = await Promise.allSettled(items.map(work));
  return settled.map(one => {
    if (one.status === "rejected") throw one.reason;
    return one.value;
  });
}

/**
 * The finished wallet in the place of the pending one, in one step. Gives the file of the third
 * share, if there is one.
 */
async function storeFinished(
  database: Database,
  device: DeviceWallet,
  sealed: Uint8Array,
): Promise<Uint8Array | undefined> {
  const { id, address, publicKey, newestKey } = device;
  if (newestKey === null) fail("internal", "A new wallet has no Paillier key.");
  const transaction = await database.transaction(
    ["wallets", "records", "keys"],
    "readwrite",
    STRICT,
  );
  const [wallets, records, keys] = [
    transaction.objectStore("wallets"),
    transaction.objectStore("records"),
    transaction.objectStore("keys"),
  ];
  const row = await wallets.get(id);
  if (row === undefined) fail("storage", "The wallet is not in the browser's storage any more.");
  const backup = await records.get([id, "backup"]);
  await records.put({ wallet: id, kind: "device", sealed });
  await records.delete([id, "pending"]);
  // Never over a key that is known already: it might be locked.
  if ((await keys.get(newestKey)) === undefined) await keys.put(readyKey(newestKey, id));
  const thirdDue = backup !== undefined;
  await wallets.put({
    ...row,
    status: "ready",
    address,
    publicKey,
    parties: device.parties,
    paillierKey: newestKey,
    thirdDue,
  });
  await transaction.done;
  return backup?.sealed;
}

export function readyKey(id: string, wallet: WalletId): KeyRow {
  return { id, wallet, state: "ready", verdicts: 0, lock: null };
}
