/** The parties of a page's configuration, read strictly: what is not understood is refused. */

import { fail } from "./errors.js";
import type { BackendRole, PartyPin } from "./types.js";

/** The rule of the parties' own names, which become part of the broker's subjects. */
const NAME = /^[a-z][a-z0-9-]{0,31}$/;
const FINGERPRINT = /^[0-9a-f]{64}$/;
const MEMBERS: readonly string[] = ["role", "name", "fingerprint", "token"];

/** Whether a host is this machine, as a browser writes hosts in URLs. */
export function isLoopback(hostname: string): boolean {
  return ["localhost", "127.0.0.1", "[::1]"].includes(hostname);
}

export function isRole(role: unknown): role is BackendRole {
  return role === "service" || role === "partner";
}

export function isPartyName(name: unknown): name is string {
  return typeof name === "string" && NAME.test(name);
}

/** A fingerprint in lower case, or nothing when the text is none. */
export function readFingerprint(text: unknown): string | undefined {
  const digits = typeof text === "string" ? text.toLowerCase() : "";
  return FINGERPRINT.test(digits) ? digits : undefined;
}

/**
 * Reads the list of parties that shares may be dealt to. An empty list pins nothing.
 *
 * @throws {Failure} `invalid`, with the path of the member that is wrong as `field`.
 */
export function readParties(given: unknown): PartyPin[] {
  if (!Array.isArray(given)) {
    fail("invalid", "The parties are a list: one service, and one partner if there is one.", {
      field: "parties",
    });
  }
  const pins = given.map((entry: unknown, at) => readPin(entry, `parties[${at}]`));
  for (const [at, { role }] of pins.entries()) {
    if (pins.findIndex(other => other.role === role) !== at) {
      fail(
        "invalid",
        `The configuration names two parties for the role ${role}; a wallet has one.`,
        { field: `parties[${at}].role` },
      );
    }
  }
  if (pins.length > 0 && !pins.some(({ role }) => role === "service")) {
    fail("invalid", "The configuration names no service, which every wallet has.", {
      field: "parties",
    });
  }
  return pins;
}

function readPin(entry: unknown, path: string): PartyPin {
  if (typeof entry !== "object" || entry === null)
    fail("invalid", "A party is an object.", { field: path });
  const { role, name, fingerprint, token } = entry as Record<string, unknown>;
  const unknown = Object.keys(entry).find(member => !MEMBERS.includes(member));
  if (unknown !== undefined) {
    const known = `${MEMBERS.slice(0, -1).join(", ")} and ${MEMBERS.at(-1)}`;
    fail(
      "invalid",
      `A party has the members ${known}; ${JSON.stringify(unknown)} is none of them.`,
      { field: `${path}.${unknown}` },
    );
  }
  if (!isRole(role))
    fail("invalid", "A party's role is service or partner.", { field: `${path}.role` });
  if (!isPartyName(name)) {
    fail("invalid", "A party's name is 1 to 32 of a-z, 0-9 and -, the first a letter.", {
      field: `${path}.name`,
    });
  }
  const pinned = readFingerprint(fingerprint);
  if (pinned === undefined) {
    fail(
      "invalid",
      "A party's fingerprint is 64 hexadecimal digits, as `duet party card` prints it.",
      { field: `${path}.fingerprint` },
    );
  }
  if (token !== undefined && (typeof token !== "string" || token.trim() === "")) {
    fail("invalid", "A party's token is the line that `duet party token` prints.", {
      field: `${path}.token`,
    });
  }
  return { role, name, fingerprint: pinned, ...(token !== undefined && { token }) };
}
