// A device, a service and a partner in one WebAssembly module, for the tests and the benchmarks.

import { createRequire } from "node:module";
import { resolve } from "node:path";

const folder = process.env.DUET_WASM_PACKAGE;
if (!folder) throw new Error("DUET_WASM_PACKAGE is not set: run `cargo xtask test wasm`");
export const duet = createRequire(import.meta.url)(resolve(folder, "duet_frontend_wasm.js"));

/** The value of a `Result`, or an exception. */
export function unwrap(result) {
  if (!result.ok) throw new Error(`${result.error.kind}: ${result.error.message}`);
  return result.value;
}

export const TENANT = "acme";
/** A team that is no wallet's requester unless it is named. */
export const TEAM_SECRET = new Uint8Array(32).fill(7);
export const HOUR_MS = 3_600_000;

/** Two backend parties that have pinned each other. */
export function makeBackends() {
  const service = unwrap(duet.TestParty.create("service", 2));
  const partner = unwrap(duet.TestParty.create("partner", 3));
  unwrap(service.pin(unwrap(partner.card())));
  unwrap(partner.pin(unwrap(service.card())));
  return { service, partner };
}

/** What the device knows of a backend party, its card verified. */
export function verified(party) {
  const token = unwrap(party.token(TENANT, Date.now() + HOUR_MS));
  return unwrap(
    duet.Backend.create(
      unwrap(duet.Responder.verify(unwrap(party.card()), party.fingerprint)),
      token,
    ),
  );
}

/** A wallet's key for its records, quickly. */
export const QUICK = { memoryKib: 8, passes: 1, lanes: 1 };
/** scrypt's work factor for backups, quickly. */
export const QUICK_FILE = 4;

/** What a wallet with a partner is dealt from. */
export function walletSetup({ service, partner }) {
  const setup = unwrap(duet.WalletSetup.create(TENANT, "device", verified(service)));
  setup.setPartner(verified(partner));
  return setup;
}

/** Two primes, as helpers find them. */
export const primes = () => [
  unwrap(duet.findPrime(1024, undefined)),
  unwrap(duet.findPrime(1024, undefined)),
];

/** Deals with the proofs made as helpers make them: from the bytes of their tasks. */
export function dealWithHelpers(setup, [p, q] = primes(), onProgress = undefined) {
  const drawn = unwrap(setup.draw(p, q, Date.now(), onProgress));
  const tasks = unwrap(drawn.tasks());
  const encrypted = unwrap(drawn.encrypt());
  const proofs = tasks.map(({ task }) => unwrap(duet.makeProofs(task)));
  // In whatever order they are finished.
  return unwrap(encrypted.assemble(proofs.reverse(), onProgress));
}

/** A responder, and the offer of a wallet's newest Paillier key to it. */
export function offerTo(wallet, party) {
  const responder = unwrap(duet.Responder.verify(unwrap(party.card()), party.fingerprint));
  const proofs = unwrap(duet.makeProofs(unwrap(wallet.proofTask(responder))));
  return unwrap(wallet.offer(responder, proofs, Date.now()));
}

/** Prepare, commit: the device's wallet. */
export function establish(pending, backends) {
  const holders = { service: backends.service, partner: backends.partner };
  const receipts = pending
    .deliveries()
    .map(d => unwrap(holders[d.party].prepare(d.envelope, Date.now())));
  const bundle = unwrap(pending.bundle(receipts));
  const acknowledgements = Object.values(holders).map(party => unwrap(party.commit(bundle)));
  return unwrap(pending.finish(bundle, acknowledgements));
}

let requests = 0;

/** A request document for a payload. */
export function requestDocument(wallet, payload, path = "m") {
  requests += 1;
  return new TextEncoder().encode(
    JSON.stringify({
      version: 2,
      tenant: TENANT,
      wallet,
      path,
      payload,
      idempotency_key: `request-${requests}`,
      issued_at: Math.floor(Date.now() / 1000),
      expires_at: Math.floor((Date.now() + HOUR_MS) / 1000),
      pairs: ["device+service", "device+partner"],
    }),
  );
}

const SHARES = { service: 2, partner: 3 };

/**
 * A manifest for a payload between the device and the party called `responder`. The wallet's owner
 * signs the request, or the requester who has `secret` if it is given.
 */
export function manifestFor(
  wallet,
  responder,
  payload,
  { path = "m", id = wallet.id, paillierKey = wallet.newestKey, secret } = {},
) {
  const document = requestDocument(id, payload, path);
  const { requester, signature } = unwrap(
    secret ? duet.signRequest(document, secret) : wallet.signRequest(document),
  );
  return unwrap(
    duet.testManifest(
      id,
      paillierKey,
      responder,
      SHARES[responder],
      document,
      requester,
      signature,
      Date.now() + HOUR_MS,
    ),
  );
}

/** Everything between a manifest and a released signature; `time` wraps each side's steps. */
export function sign(wallet, party, manifest, time = { p1: step => step(), p2: step => step() }) {
  const card = unwrap(party.card());
  const started = time.p1(() => unwrap(wallet.start(manifest, card, Date.now())));
  const answered = time.p2(() => unwrap(party.respond(manifest, started.message, Date.now())));
  const opened = time.p1(() => unwrap(started.state.receive(answered.message)));
  const cipher = time.p2(() => unwrap(answered.state.receive(opened.message)));
  return time.p1(() => {
    const verdict = unwrap(unwrap(opened.state.receive(cipher)).decryptAfterPendingWritten());
    if (verdict.demandsLock) throw new Error("the session ended in a bad signature");
    return unwrap(verdict.releaseAfterUnlockedRead(wallet.newestKey)).signature;
  });
}
