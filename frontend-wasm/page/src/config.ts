/** What a deployment sets: `config.json` beside `index.html`. */
export interface PageConfig {
  /** The gateway's address; the page's own origin unless given. */
  gateway?: string;
}

/** The build id that the build wrote into `index.html`; empty while developing. */
export const BUILD = document.querySelector<HTMLMetaElement>('meta[name="duet-build"]')?.content ?? "";

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
    return "A gateway that is not on this machine must be reached by https.";
  }
  if (url.username || url.password || url.search || url.hash) {
    return "Only scheme, host, port and path belong into the address.";
  }
  return null;
}

/** Reads the deployment's configuration; one that is absent or wrong counts as empty. */
export async function readConfig(): Promise<PageConfig> {
  try {
    const response = await fetch("./config.json", { cache: "no-cache", signal: AbortSignal.timeout(5000) });
    if (!response.ok) return {};
    const body: unknown = await response.json();
    if (typeof body !== "object" || body === null || !("gateway" in body)) return {};
    const { gateway } = body;
    return typeof gateway === "string" && gatewayProblem(gateway) === null ? { gateway } : {};
  } catch {
    return {};
  }
}
