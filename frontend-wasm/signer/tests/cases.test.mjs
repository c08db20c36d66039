// The inputs of tests/cases through the ways in that this package has: the EIP-1193 provider, and
// the accounts for viem and ethers. What the parties would be asked to sign is read by the module
// that reads it everywhere.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { Transaction } from "ethers";

import { DuetProvider } from "../dist/eip1193.js";
import { DuetSigner } from "../dist/ethers.js";
import { toDuetAccount } from "../dist/viem.js";
import { reader } from "./reader.mjs";

const ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
const WALLET = { id: "ab".repeat(32), address: ADDRESS, state: "unlocked" };
const CHAIN_ID = 1;

const text = name => readFileSync(new URL(`../../../tests/cases/${name}`, import.meta.url), "utf8");
const cases = name => JSON.parse(text(name));

let node;
let rpcUrl;

before(async () => {
  const answers = {
    eth_getTransactionCount: "0x5",
    eth_estimateGas: "0x5208",
    eth_maxPriorityFeePerGas: "0x1",
    eth_getBlockByNumber: { baseFeePerGas: "0x1" },
  };
  node = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const { id, method } = JSON.parse(body);
    response.end(JSON.stringify({ id, result: answers[method] }));
  });
  await new Promise(done => node.listen(0, "127.0.0.1", done));
  rpcUrl = `http://127.0.0.1:${node.address().port}`;
});
after(() => node.close());

/** A wallet that reads what it is to sign, as the real one does first, and signs nothing. */
function wallet() {
  const heard = [];
  return {
    heard,
    ...reader,
    connection: "online",
    wallets: async () => [WALLET],
    sign: async (_id, payload) => {
      const read = await reader.describe(payload);
      if (!read.ok) return read;
      heard.push(read.value);
      return { ok: false, error: { kind: "rejected", message: "No." } };
    },
    onWallets: () => () => {},
    onConnection: () => () => {},
  };
}

async function provider(duet, undeclared) {
  const opened = new DuetProvider({
    duet,
    chains: [
      { chainId: 421614, rpcUrl },
      { chainId: CHAIN_ID, rpcUrl },
    ],
    ...(undeclared && { undeclared }),
  });
  await opened.request({ method: "eth_requestAccounts" });
  await opened.request({ method: "wallet_switchEthereumChain", params: [{ chainId: "0x1" }] });
  return opened;
}

/** The outcome of a call: the description of what would have been signed, or the refusal. */
async function outcome(duet, work) {
  const before = duet.heard.length;
  try {
    await work();
  } catch (thrown) {
    return duet.heard.length > before
      ? { description: duet.heard.at(-1) }
      : { refusal: thrown.message };
  }
  throw new Error("it is not signed here");
}

/** Messages begin with a capital letter, and so with another than the member that they may begin with. */
const says = (message, member) => message.toLowerCase().includes(member.toLowerCase());

const bigints = (request, names) =>
  Object.fromEntries(
    Object.entries(request).map(([name, value]) => [
      name,
      names.includes(name) && value !== null ? BigInt(value) : value,
    ]),
  );
const AMOUNTS = ["value", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas"];

/** A request's fees and limits as its library would have filled them in. */
const filled = request => ({
  chainId: CHAIN_ID,
  nonce: 5,
  ...(request.gasPrice === undefined && { maxFeePerGas: "0x3", maxPriorityFeePerGas: "0x1" }),
  ...request,
});

const WAYS = {
  "eip-1193": async (duet, request) => {
    const opened = await provider(duet);
    return opened.request({
      method: "eth_sendTransaction",
      params: [{ from: ADDRESS, ...request }],
    });
  },
  viem: (duet, request) =>
    toDuetAccount(duet, WALLET).signTransaction({
      ...bigints(filled(request), AMOUNTS),
      gas: 21_000n,
    }),
  ethers: (duet, request) =>
    new DuetSigner(duet, WALLET).signTransaction({ ...filled(request), gasLimit: 21_000 }),
};

for (const entry of cases("transactions.json")) {
  for (const [name, send] of Object.entries(WAYS)) {
    if (!entry.via.includes(name)) continue;
    test(`${entry.name}__should_${entry.refused ? "be_refused" : "be_signed"}_through_${name}`, async () => {
      const duet = wallet();
      const { description, refusal } = await outcome(duet, () => send(duet, entry.request));
      if (entry.refused) {
        assert.equal(description, undefined, "it would have been signed");
        for (const member of entry.refused) assert.ok(says(refusal, member), refusal);
      } else {
        assert.equal(refusal, undefined);
        const signed = Object.fromEntries(
          Object.keys(entry.signed).map(member => [member, description.payload[member]]),
        );
        assert.deepEqual(signed, entry.signed);
      }
    });
  }
}

test("members_that_ethers_forgets__should_be_refused_before_it_forgets_them", async () => {
  const duet = wallet();
  const signer = new DuetSigner(duet, WALLET, { provider: true });
  const request = { to: ADDRESS, value: 1n, memo: "x" };
  const { refusal } = await outcome(duet, () => signer.sendTransaction(request));
  assert.ok(says(refusal, "memo: unknown field"), refusal);
});

test("transactions_of_ethers__should_be_signed_as_ethers_would", async () => {
  const duet = wallet();
  const signer = new DuetSigner(duet, WALLET);
  const base = { chainId: 1, nonce: 3, to: ADDRESS, value: 7n, gasLimit: 21_000n };
  for (const fees of [
    { type: 0, gasPrice: 5n },
    { gasPrice: 5n },
    { type: 2, maxFeePerGas: 9n, maxPriorityFeePerGas: 1n },
  ]) {
    const transaction = Transaction.from({ ...base, ...fees });
    for (const given of [transaction, { ...base, ...fees }]) {
      const { description, refusal } = await outcome(duet, () => signer.signTransaction(given));
      assert.equal(description?.digest, transaction.unsignedHash, refusal);
    }
  }
  const list = [
    {
      address: ADDRESS,
      chainId: 1n,
      nonce: 0n,
      signature: { r: `0x${"11".repeat(32)}`, s: `0x${"11".repeat(32)}`, yParity: 0 },
    },
  ];
  const code = Transaction.from({
    ...base,
    type: 4,
    maxFeePerGas: 9n,
    maxPriorityFeePerGas: 1n,
    authorizationList: list,
  });
  const { refusal } = await outcome(duet, () => signer.signTransaction(code));
  assert.ok(says(refusal, "authorizationList") || says(refusal, "type: expected"), refusal);
});

/** A document as each way in takes it. */
const DOCUMENT_WAYS = {
  "eip-1193 as text": undeclared => async (duet, document) =>
    (await provider(duet, undeclared)).request({
      method: "eth_signTypedData_v4",
      params: [ADDRESS, JSON.stringify(document)],
    }),
  "eip-1193 as an object": undeclared => async (duet, document) =>
    (await provider(duet, undeclared)).request({
      method: "eth_signTypedData_v4",
      params: [ADDRESS, document],
    }),
  viem: undeclared => (duet, document) =>
    toDuetAccount(duet, WALLET, { ...(undeclared && { undeclared }) }).signTypedData(document),
  ethers:
    undeclared =>
    (duet, { types: { EIP712Domain: _, ...types }, domain, message }) =>
      new DuetSigner(duet, WALLET, null, { ...(undeclared && { undeclared }) }).signTypedData(
        domain,
        types,
        message,
      ),
};
/** What ethers cannot express: another domain than the standard's, recursion. */
const NOT_OF_ETHERS = ["domain order chainId last", "domain declares less", "recursive by array"];

for (const entry of cases("typed-data.json")) {
  for (const [name, way] of Object.entries(DOCUMENT_WAYS)) {
    if (name === "ethers" && NOT_OF_ETHERS.includes(entry.name)) continue;
    test(`${entry.name}__should_have_its_outcome_through_${name}`, async () => {
      const duet = wallet();
      const onChain = async undeclared => {
        // The provider signs for the chain that is chosen.
        const send = way(undeclared);
        const chainId = entry.document.domain.chainId;
        return outcome(duet, async () => {
          if (!name.startsWith("eip-1193") || chainId === undefined || chainId === CHAIN_ID)
            return send(duet, entry.document);
          const opened = new DuetProvider({ duet, chains: [{ chainId, rpcUrl }] });
          await opened.request({ method: "eth_requestAccounts" });
          const document = name.endsWith("text") ? JSON.stringify(entry.document) : entry.document;
          return opened.request({ method: "eth_signTypedData_v4", params: [ADDRESS, document] });
        });
      };
      const { description, refusal } = await onChain();
      if (entry.refused_at) {
        assert.equal(description, undefined, "it would have been signed");
        // ethers puts its own checks before.
        if (name !== "ethers") assert.ok(says(refusal, entry.refused_at), refusal);
      } else {
        assert.equal(description?.digest, entry.digest, refusal);
        assert.deepEqual(
          (description.notSigned ?? []).map(({ path }) => path),
          entry.not_signed ?? [],
        );
      }
      if (entry.digest_when_dropped) {
        const dropped = await onChain("drop");
        assert.equal(dropped.description?.digest, entry.digest_when_dropped, dropped.refusal);
        assert.deepEqual(
          dropped.description.notSigned.map(({ path }) => path),
          entry.not_signed_when_dropped,
        );
      }
    });
  }
}

test("a_large_number__should_keep_its_digits_from_the_text_on", async () => {
  const duet = wallet();
  const opened = await provider(duet);
  const document = text("typed-data-large-number.json");
  const sign = given =>
    opened.request({ method: "eth_signTypedData_v4", params: [ADDRESS, given] });
  const { description, refusal } = await outcome(duet, () => sign(document));
  assert.equal(
    description?.digest,
    "0xa0be4440434ad05bfae2bd1eabab489def7d57c1c8dc447bf0918d990c2c45bc",
    refusal,
  );
  const object = await outcome(duet, () => sign(JSON.parse(document)));
  assert.match(object.refusal, /may have lost digits/);
});
