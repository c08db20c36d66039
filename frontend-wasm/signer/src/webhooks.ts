/**
 * Checking webhooks, under the Standard Webhooks specification
 * (https://github.com/standard-webhooks/standard-webhooks), with WebCrypto alone: for a server in
 * Node, Deno, Bun or a worker.
 *
 * Take the headers and the body exactly as they came. The same message may come more than once and
 * in any order: {@link Delivered.id} tells.
 */

/** How old a delivery, or how far in the future, is accepted unless told otherwise, in seconds. */
export const TOLERANCE_SECONDS = 300;

/** The three headers of a delivery: a `Headers` object, or names in lower case. */
export type WebhookHeaders =
  Headers | Readonly<Record<string, string | readonly string[] | undefined>>;

/** A delivery that was checked. */
export interface Delivered {
  /**
   * The message's id, which is the job's and the same every time. A receiver that has handled it
   * before does nothing.
   */
  readonly id: string;
  /** When it was sent, in seconds since 1970. */
  readonly timestamp: number;
}

/** Why a delivery is refused. */
export type WebhookRefusal =
  "malformed-secret" | "malformed-timestamp" | "out-of-time" | "bad-signature";

/** The result of checking a delivery. */
export type WebhookVerdict =
  | { readonly ok: true; readonly delivered: Delivered }
  | { readonly ok: false; readonly refusal: WebhookRefusal };

/** What may be set about a check. */
export interface VerifyOptions {
  /** The time, in seconds since 1970; the clock's by default. */
  readonly now?: number;
  /** See {@link TOLERANCE_SECONDS}. */
  readonly toleranceSeconds?: number;
}

const SECRET = /^whsec_([A-Za-z0-9+/]+={0,2})$/;
const SYMMETRIC = "v1,";

/**
 * Checks a delivery. What its body says is believed after that, and before it nothing is.
 *
 * `secret` is `whsec_…`, as it was shown when the webhook was added.
 */
export async function verifyWebhook(
  secret: string,
  headers: WebhookHeaders,
  body: string | Uint8Array<ArrayBuffer>,
  options: VerifyOptions = {},
): Promise<WebhookVerdict> {
  const key = secretBytes(secret);
  if (key === undefined) return refused("malformed-secret");
  const id = header(headers, "webhook-id");
  const sent = header(headers, "webhook-timestamp");
  const timestamp = /^[0-9]{1,15}$/.test(sent) ? Number(sent) : undefined;
  if (timestamp === undefined) return refused("malformed-timestamp");
  const now = options.now ?? Math.floor(Date.now() / 1000);
  if (Math.abs(now - timestamp) > (options.toleranceSeconds ?? TOLERANCE_SECONDS))
    return refused("out-of-time");

  const encoder = new TextEncoder();
  const head = encoder.encode(`${id}.${sent}.`);
  const bytes = typeof body === "string" ? encoder.encode(body) : body;
  const content = new Uint8Array(head.length + bytes.length);
  content.set(head);
  content.set(bytes, head.length);
  const mac = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, [
    "verify",
  ]);
  // Signatures of versions that are not known here may stand beside ours.
  for (const signature of header(headers, "webhook-signature").split(" ")) {
    const tag = signature.startsWith(SYMMETRIC)
      ? base64Bytes(signature.slice(SYMMETRIC.length))
      : undefined;
    // The comparison is WebCrypto's own, in constant time.
    if (tag !== undefined && (await crypto.subtle.verify("HMAC", mac, tag, content))) {
      return { ok: true, delivered: { id, timestamp } };
    }
  }
  return refused("bad-signature");
}

function refused(refusal: WebhookRefusal): WebhookVerdict {
  return { ok: false, refusal };
}

function header(headers: WebhookHeaders, name: string): string {
  const value =
    headers instanceof Headers ? headers.get(name) : (headers as Record<string, unknown>)[name];
  return typeof value === "string" ? value : "";
}

function secretBytes(secret: string): Uint8Array<ArrayBuffer> | undefined {
  const encoded = SECRET.exec(secret.trim())?.[1];
  const bytes = encoded === undefined ? undefined : base64Bytes(encoded);
  return bytes !== undefined && bytes.length >= 24 && bytes.length <= 64 ? bytes : undefined;
}

function base64Bytes(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(text), character => character.charCodeAt(0));
  } catch {
    return undefined;
  }
}
