// Benchmarks of the WebAssembly module under Node, one thread. Prints one flat JSON object from a
// name to { median_ms, min_ms, n }.

import { performance } from "node:perf_hooks";

import { duet, makeBackends, manifestFor, sign, unwrap, walletSetup } from "./tests/parties.mjs";

const figures = {};

function record(name, samples) {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  figures[`wasm.ct.${name}`] = { median_ms: median, min_ms: sorted[0], n: sorted.length };
}

function timed(action) {
  const started = performance.now();
  const value = action();
  return [value, performance.now() - started];
}

const backends = makeBackends();

// Keygen, the device's part: verify two cards (once per party, kept by fingerprint); deal, which is
// shares, primes, all proofs for both receivers and sealing; check the receipts and
// acknowledgements. Beside it, what one receiver does with its package; here it computes with the
// same arithmetic, natively with GMP.
const spans = { "verify-card": [], deal: [], "verify-package": [], total: [] };
let wallet;
for (let run = 0; run < 5; run += 1) {
  const [setup, cards] = timed(() => walletSetup(backends));
  const [dealt, deal] = timed(() => unwrap(setup.deal(Date.now(), undefined)));
  const pending = dealt.takePending();
  const prepares = [];
  const receipts = pending.deliveries().map(({ party, envelope }) => {
    const [receipt, elapsed] = timed(() => unwrap(backends[party].prepare(envelope, Date.now())));
    prepares.push(elapsed);
    return receipt;
  });
  const [bundle, bundling] = timed(() => unwrap(pending.bundle(receipts)));
  const acknowledgements = Object.values(backends).map(party => unwrap(party.commit(bundle)));
  const [finished, finishing] = timed(() => unwrap(pending.finish(bundle, acknowledgements)));
  wallet = finished;
  spans["verify-card"].push(cards / 2);
  spans.deal.push(deal);
  spans["verify-package"].push(...prepares);
  spans.total.push(cards + deal + bundling + finishing);
}
for (const [name, samples] of Object.entries(spans)) record(`keygen.${name}`, samples);

// The same as a browser does it: primes and proofs made by two helpers at once, of which one is
// measured each time.
const helped = { prime: [], draw: [], encrypt: [], "make-proofs": [], assemble: [] };
for (let run = 0; run < 5; run += 1) {
  const primes = [0, 1].map(() => {
    const [prime, elapsed] = timed(() => unwrap(duet.findPrime(1024, undefined)));
    helped.prime.push(elapsed);
    return prime;
  });
  const setup = walletSetup(backends);
  const [drawn, draw] = timed(() => unwrap(setup.draw(...primes, Date.now(), undefined)));
  const tasks = unwrap(drawn.tasks());
  const [encrypted, encrypt] = timed(() => unwrap(drawn.encrypt()));
  const proofs = tasks.map(({ task }) => {
    const [made, elapsed] = timed(() => unwrap(duet.makeProofs(task)));
    helped["make-proofs"].push(elapsed);
    return made;
  });
  const [dealt, assemble] = timed(() => unwrap(encrypted.assemble(proofs, undefined)));
  dealt.free();
  helped.draw.push(draw);
  helped.encrypt.push(encrypt);
  helped.assemble.push(assemble);
}
for (const [name, samples] of Object.entries(helped)) record(`keygen.${name}`, samples);

// Unlocking: argon2id at its recommended cost, and the record; a backup file: scrypt at its
// recommended cost.
const rest = { "unlock-passphrase": [], "open-wallet": [], "open-backup": [] };
const { key, descriptor } = unwrap(duet.KeyEncryptionKey.newPassphrase("correct horse", undefined));
const sealed = unwrap(wallet.seal(key));
const file = unwrap(wallet.backup("correct horse", Date.now(), undefined));
for (let run = 0; run < 5; run += 1) {
  const [found, unlock] = timed(() =>
    unwrap(duet.KeyEncryptionKey.fromPassphrase("correct horse", descriptor)),
  );
  const [opened, open] = timed(() => unwrap(duet.DeviceWallet.open(sealed, found, wallet.id)));
  const [backup, restore] = timed(() => unwrap(duet.OpenedBackup.open(file, "correct horse")));
  for (const handle of [found, opened, backup]) handle.free();
  rest["unlock-passphrase"].push(unlock);
  rest["open-wallet"].push(open);
  rest["open-backup"].push(restore);
}
for (const [name, samples] of Object.entries(rest)) record(`at-rest.${name}`, samples);

const payload = { kind: "personal_message", text: "benchmark" };
const sides = { p1: [], p2: [], total: [] };
for (let run = 0; run < 35; run += 1) {
  const spent = { p1: 0, p2: 0 };
  const side = name => step => {
    const [value, elapsed] = timed(step);
    spent[name] += elapsed;
    return value;
  };
  sign(wallet, backends.service, manifestFor(wallet, "service", payload), {
    p1: side("p1"),
    p2: side("p2"),
  });
  // The first few warm the compiler up.
  if (run >= 5) {
    sides.p1.push(spent.p1);
    sides.p2.push(spent.p2);
    sides.total.push(spent.p1 + spent.p2);
  }
}
for (const [name, samples] of Object.entries(sides)) record(`sign.${name}`, samples);

const proofs = unwrap(duet.ProofBench.create());
for (const operation of duet.ProofBench.operations()) {
  const samples = [];
  const until = performance.now() + 2000;
  while (samples.length < 5 || (samples.length < 50 && performance.now() < until)) {
    samples.push(timed(() => unwrap(proofs.run(operation)))[1]);
  }
  record(operation, samples);
}

console.log(JSON.stringify(figures, undefined, 2));
