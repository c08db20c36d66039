/** What a gateway says of itself. None of it is believed where it would decide who gets a share. */

import { duetError, fail, Failure } from "../errors.js";
import { isPartyName, isRole, readFingerprint } from "../parties.js";
import type { BackendRole } from "../types.js";

const DEADLINE_MS = 8_000;

/** A party as a gateway names it. */
export interface NamedBackend {
  role: BackendRole;
  party: string;
  fingerprint?: string;
}

/** A gateway's answer, its members checked for their form only. */
export interface GatewayAnswer {
  build: string;
  protocol: number;
  tenant?: string;
  /** Whether it says that it is for trying out. Counts on the loopback only. */
  trial: boolean;
  backends: NamedBackend[];
  rpc?: { chainId: number; url: string };
  /** Admission tokens by party, which a gateway for trying out hands out. */
  admission: ReadonlyMap<string, string>;
}

/** As `/v1/info` writes it. */
interface InfoDocument {
  build?: string;
  protocol?: number;
  tenant?: string;
  trial?: boolean;
  backends?: { role: string; party: string; fingerprint?: string }[];
  rpc?: { chainId?: number; chain_id?: number; url: string } | null;
  admission?: Record<string, string>;
}

export async function askGateway(gateway: string, signal?: AbortSignal): Promise<GatewayAnswer> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  let document: InfoDocument;
  try {
    const response = await fetch(`${gateway}/v1/info`, {
      signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      credentials: "omit",
      cache: "no-store",
    });
    if (!response.ok)
      throw (await refusalOf(response)) ?? new Error(`it answered ${response.status}`);
    document = (await response.json()) as InfoDocument;
  } catch (thrown) {
    if (thrown instanceof Failure) throw thrown;
    if (signal?.aborted) throw new Failure(duetError("cancelled", "It was cancelled."));
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new Failure(
      duetError("gateway-unreachable", `The gateway cannot be reached: ${reason}.`, {
        by: "gateway",
      }),
    );
  }
  return readAnswer(document);
}

/** What a gateway says when it refuses this page, for example because it does not allow the page's origin. */
async function refusalOf(response: Response): Promise<Failure | null> {
  if (!response.headers.get("content-type")?.startsWith("application/problem+json")) return null;
  const { code, detail } = (await response.json()) as { code?: unknown; detail?: unknown };
  if (typeof code !== "string" || typeof detail !== "string") return null;
  const sentence = `${detail.charAt(0).toUpperCase()}${detail.slice(1)}.`;
  return new Failure(duetError("refused", sentence, { code, by: "gateway" }));
}

/** Why the gateway refuses this page; nothing when it does not, or cannot be reached. */
export async function whyRefused(gateway: string): Promise<Failure | undefined> {
  try {
    await askGateway(gateway);
    return undefined;
  } catch (thrown) {
    return thrown instanceof Failure && thrown.error.kind === "refused" ? thrown : undefined;
  }
}

export function readAnswer(document: InfoDocument): GatewayAnswer {
  const { build = "", protocol, tenant, trial, backends, rpc, admission } = document;
  if (typeof protocol !== "number" || !Array.isArray(backends)) {
    fail("gateway-unreachable", "What answers at this address is no gateway.", { by: "gateway" });
  }
  const named = backends.flatMap(({ role, party, fingerprint }): NamedBackend[] => {
    if (!isRole(role) || !isPartyName(party)) return [];
    const read = readFingerprint(fingerprint);
    return [{ role, party, ...(read !== undefined && { fingerprint: read }) }];
  });
  const chainId = rpc?.chainId ?? rpc?.chain_id;
  return {
    build,
    protocol,
    ...(tenant && { tenant }),
    trial: trial === true,
    backends: named,
    ...(rpc && chainId !== undefined && { rpc: { chainId, url: rpc.url } }),
    admission: new Map(Object.entries(admission ?? {})),
  };
}
