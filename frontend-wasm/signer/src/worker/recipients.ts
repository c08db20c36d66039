/**
 * Whom a new wallet's shares go to. The page's configuration decides, by role and fingerprint. A
 * gateway's word counts only where there is no configuration, the gateway is on this machine, and
 * it says that it is for trying out. Otherwise a gateway that is broken into could name its own
 * parties, and would hold two shares of every wallet.
 */

import { fail } from "../errors.js";
import { isLoopback } from "../parties.js";
import type { BackendRole, GatewayInfo, PartyPin, ShareRecipient, WalletParty } from "../types.js";
import { type Database, type PinRow, STRICT } from "./database.js";
import type { Admission, Engine } from "./engine.js";
import { askGateway, type GatewayAnswer, type NamedBackend } from "./info.js";

/** What decides: the worker's settings. */
interface Deciding {
  gateway: string;
  parties: PartyPin[];
}

/** A party before its card is there, and on whose word it gets a share. */
export interface NamedRecipient extends NamedBackend {
  source: ShareRecipient["source"];
}

/** A party that gets a share, with its admission token. */
export interface Recipient extends NamedRecipient {
  token: Uint8Array;
}

/** Whether a gateway's own word about the parties counts. */
export function isTrial({ gateway }: Deciding, answer: GatewayAnswer): boolean {
  return answer.trial && isLoopback(new URL(gateway).hostname);
}

/** The parties that new wallets' shares would go to; none when nothing pins them and the gateway's word does not count. */
export function nameRecipients(settings: Deciding, answer: GatewayAnswer): NamedRecipient[] {
  if (settings.parties.length > 0) {
    return settings.parties.map(({ role, name, fingerprint }) => ({
      role,
      party: name,
      fingerprint,
      source: "configuration",
    }));
  }
  return isTrial(settings, answer)
    ? answer.backends.map(backend => ({ ...backend, source: "trial-gateway" }))
    : [];
}

/**
 * Refuses to deal where no party is pinned, and through a gateway that names other parties than the
 * configuration.
 *
 * @throws {Failure} `invalid`; `refused` with `card-mismatch`.
 */
export function requireRecipients(settings: Deciding, answer: GatewayAnswer): NamedRecipient[] {
  const named = nameRecipients(settings, answer);
  if (named.length === 0) {
    fail(
      "invalid",
      "This page's configuration names no parties, and a gateway's word does not decide who gets a share. The page's operator lists role, name and fingerprint of each party under `parties` in config.json.",
      { field: "parties" },
    );
  }
  for (const pin of settings.parties) {
    const other = answer.backends.find(
      ({ role, party, fingerprint = pin.fingerprint }) =>
        role === pin.role && (party !== pin.name || fingerprint !== pin.fingerprint),
    );
    if (other === undefined) continue;
    const { party, fingerprint = "an unstated card" } = other;
    fail(
      "refused",
      `The gateway names ${party} with ${fingerprint} as the ${pin.role}; this page's configuration names ${pin.name} with ${pin.fingerprint}. One of the two is out of date, or the gateway lies.`,
      { code: "card-mismatch", by: "gateway" },
    );
  }
  return named;
}

/**
 * Those of `named` that the wallet takes, each with its token, and the tenant that the tokens name.
 *
 * @throws {Failure} `invalid` when a role or a token is missing, or the tokens are of two tenants.
 */
export function chooseRecipients(
  named: NamedRecipient[],
  roles: BackendRole[],
  admissions: Admission[],
): { tenant: string; recipients: Recipient[] } {
  const stray = admissions.find(({ party }) => !named.some(one => one.party === party));
  if (stray) {
    fail(
      "invalid",
      `An admission token is for ${stray.party}, which gets no share here. Take that token out.`,
      { field: "tokens" },
    );
  }
  const tenants = new Set<string>();
  const recipients = roles.map((role): Recipient => {
    const recipient = named.find(one => one.role === role);
    if (recipient === undefined) {
      fail(
        "invalid",
        `No ${role} is named for new wallets. Choose a backup file for the third share, or ask the page's operator.`,
        { field: role },
      );
    }
    const { party } = recipient;
    const admission = admissions.find(one => one.party === party);
    if (admission === undefined) {
      fail(
        "invalid",
        `${party} takes new wallets only with an admission token of its own; ask the organisation that runs it.`,
        { field: "tokens" },
      );
    }
    tenants.add(admission.tenant);
    return { ...recipient, token: admission.token };
  });
  const [tenant, other] = tenants;
  if (tenant === undefined || other !== undefined) {
    fail(
      "invalid",
      `The admission tokens are for two tenants, ${[...tenants].join(" and ")}; a wallet belongs to one.`,
      { field: "tokens" },
    );
  }
  return { tenant, recipients };
}

/** Every token that there is, the owner's first: given with the order, configured, or told by a gateway for trying out. */
export function readAdmissions(
  engine: Engine,
  settings: Deciding,
  answer: GatewayAnswer,
  given: string[],
): Admission[] {
  const admissions = given.map((token, at) => engine.readAdmission(token, `tokens[${at}]`));
  const more = [
    ...settings.parties.map(({ name, token }) => [name, token] as const),
    ...(isTrial(settings, answer) ? answer.admission : []),
  ];
  for (const [party, token] of more) {
    if (token === undefined || admissions.some(one => one.party === party)) continue;
    const admission = engine.readAdmission(token, "parties");
    if (admission.party === party) admissions.push(admission);
    else
      fail("invalid", `The admission token configured for ${party} is for ${admission.party}.`, {
        field: "parties",
      });
  }
  return admissions;
}

/**
 * Refuses to go on with a creation that was begun for other parties than count now: it may have
 * been dealt to whom a gateway named.
 */
export function requireSameRecipients(
  parties: WalletParty[],
  settings: Deciding,
  answer: GatewayAnswer | null,
): void {
  for (const party of parties) {
    if (party.role !== "service" && party.role !== "partner") continue;
    const pin = settings.parties.find(({ role }) => role === party.role);
    const counts =
      settings.parties.length === 0
        ? answer !== null && isTrial(settings, answer)
        : pin?.name === party.party && pin.fingerprint === party.fingerprint;
    if (counts) continue;
    fail(
      "refused",
      `This creation was begun for the ${party.role} ${party.party} with ${party.fingerprint}, which this page's configuration does not name. Discard it and create the wallet anew.`,
      { code: "card-mismatch", by: party.party },
    );
  }
}

// -------------------------------------------------------------------------------------------- pins

/** Whether a card of this role was dealt to before: by its fingerprint, never by a name. */
export function seenBefore(
  pins: PinRow[],
  role: BackendRole,
  fingerprint: string | undefined,
): ShareRecipient["seen"] {
  if (
    pins.some(
      pin => pin.fingerprint === fingerprint && (pin.role === role || pin.role === "unknown"),
    )
  )
    return "this";
  return pins.some(pin => pin.role === role) ? "other" : "never";
}

/** Keeps that a verified card was dealt to in a role. */
export async function pin(database: Database, row: PinRow, card: Uint8Array): Promise<void> {
  const transaction = await database.transaction(["cards", "recipients"], "readwrite", STRICT);
  await transaction
    .objectStore("cards")
    .put({ fingerprint: row.fingerprint, party: row.party, card });
  await transaction.objectStore("recipients").put(row);
  await transaction.done;
}

/** What the page may know of a gateway, and whom new wallets' shares go to. */
export async function describeGateway(
  settings: Deciding,
  database: Database,
  signal?: AbortSignal,
): Promise<GatewayInfo> {
  const answer = await askGateway(settings.gateway, signal);
  const { build, protocol, tenant, rpc } = answer;
  const trial = isTrial(settings, answer);
  const pins = await database.getAll("recipients");
  const recipients = nameRecipients(settings, answer).map((one): ShareRecipient => ({
    ...one,
    admits:
      settings.parties.some(({ role, token }) => role === one.role && token !== undefined) ||
      (trial && answer.admission.has(one.party)),
    seen: seenBefore(pins, one.role, one.fingerprint),
  }));
  return { build, protocol, ...(tenant && { tenant }), trial, recipients, ...(rpc && { rpc }) };
}
