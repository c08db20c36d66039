/**
 * Passkeys as a wallet's key: the output of the WebAuthn pseudo-random function extension
 * (https://w3c.github.io/webauthn/#prf-extension) for a salt of the wallet's own.
 */

import { fail } from "./errors.js";
import type { KeySource, PasskeyReference } from "./protocol.js";

type PasskeySource = Extract<KeySource, { kind: "passkey" }>;

const DEADLINE_MS = 120_000;
/** COSE: EdDSA, ES256, RS256. The signature is not used, but an authenticator must offer one. */
const ALGORITHMS = [-8, -7, -257];
const UNAVAILABLE = "This browser or authenticator has no passkey that can protect a wallet.";

/** Whether it is worth trying. The authenticator has the last word. */
export async function passkeysAvailable(): Promise<boolean> {
  if (
    typeof PublicKeyCredential === "undefined" ||
    !isSecureContext ||
    isAddress(location.hostname)
  )
    return false;
  const capabilities = await clientCapabilities();
  return capabilities?.["extension:prf"] ?? true;
}

/** WebAuthn binds a passkey to a name; there are none for numeric addresses. */
function isAddress(host: string): boolean {
  return /^[\d.]+$/.test(host) || host.startsWith("[");
}

async function clientCapabilities(): Promise<Record<string, boolean> | undefined> {
  const ask = (
    PublicKeyCredential as { getClientCapabilities?: () => Promise<Record<string, boolean>> }
  ).getClientCapabilities;
  return ask?.call(PublicKeyCredential).catch(() => undefined);
}

/**
 * Makes a passkey for a new wallet and asks it for its secret twice. An authenticator that gives
 * two different secrets could never open the wallet again: its passkey is refused, and removed
 * where the browser can. The person is asked two or three times.
 */
export async function makePasskey(label: string): Promise<PasskeySource> {
  if (!(await passkeysAvailable())) fail("passkey-unavailable", UNAVAILABLE);
  const salt = crypto.getRandomValues(new Uint8Array(32));
  const created = await ask(() =>
    navigator.credentials.create({
      publicKey: {
        rp: { name: "Duet" },
        user: { id: crypto.getRandomValues(new Uint8Array(16)), name: label, displayName: label },
        challenge: crypto.getRandomValues(new Uint8Array(32)),
        pubKeyCredParams: ALGORITHMS.map(alg => ({ type: "public-key", alg })),
        authenticatorSelection: { residentKey: "preferred", userVerification: "required" },
        timeout: DEADLINE_MS,
        extensions: { prf: { eval: { first: salt } } },
      },
    }),
  );
  const passkey: PasskeyReference = { credential: new Uint8Array(created.rawId), salt };
  const { prf } = created.getClientExtensionResults();
  if (prf?.enabled !== true && prf?.results === undefined) fail("passkey-unavailable", UNAVAILABLE);
  // Many authenticators give the output only when they are asked for it again.
  const first = prf.results ? source(passkey, prf.results.first) : await usePasskey(passkey);
  const second = await usePasskey(passkey).catch((thrown: unknown) => {
    first.secret.fill(0);
    throw thrown;
  });
  const same = first.secret.every((byte, at) => byte === second.secret[at]);
  second.secret.fill(0);
  if (same) return first;
  first.secret.fill(0);
  await removePasskey(passkey);
  fail(
    "passkey-unavailable",
    "This authenticator gave two different secrets for one passkey: it could never open the wallet again. Use a passphrase, or another authenticator.",
  );
}

/** Tells the authenticator that a passkey is of no use, where browser and authenticator can (WebAuthn level 3, § 5.1.10). */
async function removePasskey({ credential }: PasskeyReference): Promise<void> {
  const { signalUnknownCredential } = PublicKeyCredential as {
    signalUnknownCredential?: (options: { rpId: string; credentialId: string }) => Promise<void>;
  };
  const credentialId = btoa(String.fromCharCode(...credential))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");
  await signalUnknownCredential
    ?.call(PublicKeyCredential, { rpId: location.hostname, credentialId })
    .catch(() => undefined);
}

/** Asks the wallet's passkey for its secret. */
export async function usePasskey(passkey: PasskeyReference): Promise<PasskeySource> {
  if (!(await passkeysAvailable())) fail("passkey-unavailable", UNAVAILABLE);
  const given = await ask(() =>
    navigator.credentials.get({
      publicKey: {
        challenge: crypto.getRandomValues(new Uint8Array(32)),
        allowCredentials: [{ type: "public-key", id: own(passkey.credential) }],
        userVerification: "required",
        timeout: DEADLINE_MS,
        extensions: { prf: { eval: { first: own(passkey.salt) } } },
      },
    }),
  );
  const first = given.getClientExtensionResults().prf?.results?.first;
  if (first === undefined) fail("passkey-unavailable", UNAVAILABLE);
  return source(passkey, first);
}

async function ask(question: () => Promise<Credential | null>): Promise<PublicKeyCredential> {
  let credential: Credential | null;
  try {
    credential = await question();
  } catch (thrown) {
    if (
      thrown instanceof DOMException &&
      (thrown.name === "NotAllowedError" || thrown.name === "AbortError")
    ) {
      fail(
        "passkey-unavailable",
        "The passkey was not given: the question was dismissed or took too long.",
      );
    }
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    fail("passkey-unavailable", `The passkey cannot be used: ${reason}`);
  }
  if (!(credential instanceof PublicKeyCredential)) fail("passkey-unavailable", UNAVAILABLE);
  return credential;
}

function source(passkey: PasskeyReference, output: BufferSource): PasskeySource {
  const bytes = ArrayBuffer.isView(output)
    ? new Uint8Array(output.buffer, output.byteOffset, output.byteLength)
    : new Uint8Array(output);
  if (bytes.length !== 32) fail("passkey-unavailable", UNAVAILABLE);
  // The copy goes to the worker for good; this one is of no more use.
  const secret = bytes.slice();
  bytes.fill(0);
  return { kind: "passkey", secret, passkey };
}

/** A copy over a buffer that is surely not shared, as WebAuthn's types ask for. */
function own(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}
