/** The gateway's public configuration, and whom a new wallet's shares go to. */

import { duetError, fail, Failure } from "../errors.js";
import type { BackendChoice, BackendInfo, GatewayInfo } from "../types.js";

const DEADLINE_MS = 8_000;

/** The configuration, with what only the worker needs of it. */
export interface Configuration {
  info: GatewayInfo;
  /** Admission tokens by party, where the gateway hands them out. */
  admission: Record<string, string>;
}

/** As `/v1/info` writes it. */
interface InfoDocument {
  build?: string;
  protocol?: number;
  tenant?: string;
  backends?: { role: string; party: string; fingerprint?: string }[];
  rpc?: { chainId?: number; chain_id?: number; url: string } | null;
  admission?: Record<string, string>;
}

export async function fetchConfiguration(gateway: string, signal?: AbortSignal): Promise<Configuration> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  let document: InfoDocument;
  try {
    const response = await fetch(`${gateway}/v1/info`, {
      signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      credentials: "omit",
      cache: "no-store",
    });
    if (!response.ok) throw new Error(`it answered ${response.status}`);
    document = (await response.json()) as InfoDocument;
  } catch (thrown) {
    if (signal?.aborted) throw new Failure(duetError("cancelled", "It was cancelled."));
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new Failure(duetError("gateway-unreachable", `The gateway cannot be reached: ${reason}.`, { by: "gateway" }));
  }
  return readConfiguration(document);
}

export function readConfiguration(document: InfoDocument): Configuration {
  const { build = "", protocol, tenant, backends, rpc, admission = {} } = document;
  if (typeof protocol !== "number" || !Array.isArray(backends)) {
    fail("gateway-unreachable", "What answers at this address is no gateway.", { by: "gateway" });
  }
  const known = backends
    .filter((backend) => backend.role === "service" || backend.role === "partner")
    .map(({ role, party, fingerprint }): BackendInfo => ({
      role: role as BackendInfo["role"],
      party,
      ...(fingerprint && { fingerprint }),
      admits: admission[party] !== undefined,
    }));
  const chainId = rpc?.chainId ?? rpc?.chain_id;
  return {
    info: {
      build,
      protocol,
      ...(tenant && { tenant }),
      backends: known,
      ...(rpc && chainId !== undefined && { rpc: { chainId, url: rpc.url } }),
    },
    admission,
  };
}

/** A party to be trusted with a share, with all that takes. */
export interface ChosenBackend {
  party: string;
  fingerprint: string | undefined;
  token: Uint8Array;
}

/** Whom the caller chose for a role, or else whom the gateway names. */
export function chooseBackend(
  configuration: Configuration,
  role: BackendInfo["role"],
  choice: BackendChoice | undefined,
): ChosenBackend {
  const offered = configuration.info.backends.filter((backend) => backend.role === role);
  const party = choice?.party ?? offered[0]?.party;
  if (party === undefined) {
    fail("invalid", `The gateway names no ${role}; choose one.`, { field: role });
  }
  const fingerprint = choice?.fingerprint ?? offered.find((backend) => backend.party === party)?.fingerprint;
  const token = choice?.token ?? configuration.admission[party];
  if (token === undefined) {
    fail("invalid", `${party} takes new wallets only with an admission token of its own; ask whoever runs it.`, {
      field: `${role}.token`,
    });
  }
  return { party, fingerprint: fingerprint?.toLowerCase(), token: readToken(token, `${role}.token`) };
}

/** A token as organisations hand it out: base64, or hexadecimal digits. */
export function readToken(text: string, field: string): Uint8Array {
  const trimmed = text.trim();
  try {
    if (/^([0-9a-fA-F]{2})+$/.test(trimmed)) {
      return Uint8Array.from(trimmed.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
    }
    const plain = atob(trimmed.replaceAll("-", "+").replaceAll("_", "/"));
    return Uint8Array.from(plain, (character) => character.charCodeAt(0));
  } catch {
    fail("invalid", "An admission token is base64 or hexadecimal digits.", { field });
  }
}
