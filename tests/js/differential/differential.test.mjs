// Duet signs what common libraries sign, or refuses. The documents are random, from fixed seeds.
// For a longer run:
//
//   cargo xtask wasm && cargo xtask page
//   DUET_WASM_PACKAGE=target/wasm/nodejs DUET_DIFFERENTIAL_ROUNDS=100 \
//     node --test tests/js/differential/*.test.mjs

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { test } from "node:test";

import { transactionPayload as fromEthers } from "../../../frontend-wasm/signer/dist/ethers.js";
import { payloadDocument } from "../../../frontend-wasm/signer/dist/payload.js";
import { transactionPayload as fromViem } from "../../../frontend-wasm/signer/dist/viem.js";
import { typedData } from "./documents.mjs";
import { TRANSACTIONS, TYPED_DATA } from "./kinds.mjs";
import { chance } from "./random.mjs";
import {
  ethersHash,
  forEthers,
  forViem,
  judge as judgeTransaction,
} from "./transaction-judges.mjs";
import { transaction } from "./transactions.mjs";
import { judge as judgeTypedData } from "./typed-data-judges.mjs";

const folder = process.env.DUET_WASM_PACKAGE;
if (!folder) throw new Error("DUET_WASM_PACKAGE is not set: run `cargo xtask test wasm`");
const duet = createRequire(import.meta.url)(resolve(folder, "duet_frontend_wasm.js"));

/** The number of rounds. Each has as many documents as a default run, and seeds of its own. */
const ROUNDS = Number(process.env.DUET_DIFFERENTIAL_ROUNDS ?? 1);
const TYPED_DATA_EACH_ROUND = 6_000;
const TRANSACTIONS_EACH_ROUND = 10_000;

/** Duet's answer to a payload's document: the digest that it signs, or why it refuses. */
function asked(document) {
  const { ok, value, error } = duet.describe(document);
  return ok
    ? { digest: value.digest }
    : { refusal: error.path === undefined ? error.message : error.message };
}

/** Counts cases, and keeps the first of those that must not occur. */
function findings(kinds) {
  const counts = new Map();
  const wrong = [];
  return {
    count: name => counts.set(name, (counts.get(name) ?? 0) + 1),
    wrong: (seed, what) => wrong.push({ seed, ...what }),
    /** Checks that a refusal of what others sign is of an intended kind. */
    refused(seed, refusal, what) {
      const kind = kinds.find(({ refusal: pattern }) => pattern.test(refusal));
      if (kind) this.count(`refused: ${kind.name}`);
      else wrong.push({ seed, refusal, ...what });
    },
    settle(context) {
      for (const [name, count] of [...counts].sort()) context.diagnostic(`${count} ${name}`);
      assert.deepEqual(
        wrong.slice(0, 3),
        [],
        `${wrong.length} differences of kinds that are not listed`,
      );
      for (const { name } of kinds)
        assert.ok(
          counts.has(`refused: ${name}`),
          `${name}: no longer found, so no longer to be listed`,
        );
      assert.ok(
        (counts.get("signed") ?? 0) > 0.2 * (counts.get("all") ?? 0),
        "less than a fifth of the documents are signed",
      );
    },
  };
}

test("typed_data__should_be_signed_as_metamask_and_another_library_sign_it", context => {
  const found = findings(TYPED_DATA);
  for (let seed = 1; seed <= ROUNDS * TYPED_DATA_EACH_ROUND; seed += 1) {
    const text = JSON.stringify(typedData(chance(seed)));
    const document = JSON.parse(text);
    const said = judgeTypedData(document);
    const own = asked(JSON.stringify({ kind: "typed_data", ...document }));
    found.count("all");
    if (own.digest !== undefined) {
      found.count("signed");
      if (own.digest !== said.agreed) found.wrong(seed, { own, said, text });
    } else if (said.agreed !== null) {
      found.refused(seed, own.refusal, { said, text });
      // Undeclared members that are dropped on request change nothing.
      const dropped = asked(
        JSON.stringify({ kind: "typed_data", ...document, undeclared: "drop" }),
      );
      if (dropped.digest !== undefined && dropped.digest !== said.agreed)
        found.wrong(seed, { dropped, said, text });
    }
  }
  found.settle(context);
});

test("transactions__should_be_signed_as_ethers_and_viem_sign_them", context => {
  const found = findings(TRANSACTIONS);
  for (let seed = 1; seed <= ROUNDS * TRANSACTIONS_EACH_ROUND; seed += 1) {
    const document = transaction(chance(seed));
    const said = judgeTransaction(document);
    const own = asked(JSON.stringify({ kind: "transaction", ...document }));
    found.count("all");
    const text = JSON.stringify(document);
    if (own.digest !== undefined) {
      found.count("signed");
      // viem refuses addresses in capital letters. What it accepts, it signs alike.
      const others = [said.ethers, said.viem].filter(digest => digest !== null);
      if (others.length === 0 || others.some(digest => digest !== own.digest))
        found.wrong(seed, { own, said, text });
    } else if (said.ethers !== null && said.ethers === said.viem) {
      found.refused(seed, own.refusal, { said, text });
    }
  }
  found.settle(context);
});

test("the_libraries_own_requests__should_be_signed_as_they_sign_them", context => {
  const adapters = [
    { name: "ethers", form: forEthers, payload: fromEthers },
    { name: "viem", form: forViem, payload: fromViem },
  ];
  const counts = new Map();
  for (let seed = 1; seed <= ROUNDS * TRANSACTIONS_EACH_ROUND; seed += 1) {
    const document = transaction(chance(seed));
    const said = { ethers: ethersHash(document), viem: judgeTransaction(document).viem };
    for (const { name, form, payload } of adapters) {
      let own;
      try {
        own = asked(payloadDocument(payload(form(document))));
      } catch {
        continue;
      }
      // The other test covers what a library refuses and Duet signs.
      if (own.digest === undefined || said[name] === null) continue;
      counts.set(name, (counts.get(name) ?? 0) + 1);
      assert.equal(
        own.digest,
        said[name],
        `seed ${seed} through ${name}: ${JSON.stringify(document)}`,
      );
    }
  }
  for (const [name, count] of counts) context.diagnostic(`${count} through ${name}`);
  assert.equal(counts.size, adapters.length);
});
