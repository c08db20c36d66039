import type { PartyPin } from "@duet/signer";

/** What a deployment sets: `config.json` beside `index.html`. */
export interface PageConfig {
  /** The gateway's address; the page's own origin unless given. */
  gateway?: string;
  /** The parties that shares of new wallets are dealt to. The library checks them. */
  parties?: PartyPin[];
}

/** What is wrong with the configuration, with the path of the member. */
export class ConfigProblem extends Error {
  constructor(
    message: string,
    readonly field: string,
  ) {
    super(message);
  }
}

/** The build id that the build wrote into `index.html`; empty while developing. */
export const BUILD =
  document.querySelector<HTMLMetaElement>('meta[name="duet-build"]')?.content ?? "";

/** Why a text is no gateway address, or nothing. */
export function gatewayProblem(text: string): string | null {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return "Write the whole address, for example https://gateway.example.";
  }
  const loopback = ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  if (url.protocol !== "https:" && !(url.protocol === "http:" && loopback)) {
    return "A gateway on another machine needs an https address.";
  }
  if (url.username || url.password || url.search || url.hash) {
    return "The address has only scheme, host, port and path.";
  }
  return null;
}

/**
 * Reads the deployment's configuration. Only a page without the file has none: a file that cannot
 * be read or is wrong is a failure, because it says who gets the shares.
 *
 * @throws {ConfigProblem}
 */
export async function readConfig(): Promise<PageConfig> {
  let body: unknown;
  try {
    const response = await fetch("./config.json", {
      cache: "no-cache",
      signal: AbortSignal.timeout(5000),
    });
    if (response.status === 404) return {};
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    body = await response.json();
  } catch (problem) {
    const reason = problem instanceof Error ? problem.message : String(problem);
    throw new ConfigProblem(`The page's config.json cannot be read: ${reason}.`, "config.json");
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new ConfigProblem(
      "The page's config.json is not an object with `gateway` and `parties`.",
      "config.json",
    );
  }
  const { gateway, parties, ...others } = body as Record<string, unknown>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    throw new ConfigProblem(
      `The page's config.json has \`gateway\` and \`parties\`; ${JSON.stringify(unknown)} is neither.`,
      unknown,
    );
  }
  if (gateway !== undefined) {
    const problem =
      typeof gateway === "string" ? gatewayProblem(gateway) : "The gateway's address is a text.";
    if (problem !== null) throw new ConfigProblem(`config.json, gateway: ${problem}`, "gateway");
  }
  return {
    ...(gateway !== undefined && { gateway: gateway as string }),
    ...(parties !== undefined && { parties: parties as PartyPin[] }),
  };
}
