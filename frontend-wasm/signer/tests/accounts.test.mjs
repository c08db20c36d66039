// That the libraries' arguments become the right payloads. That the signatures hold is proved in a
// real browser, with real parties: here no party signs.

import assert from "node:assert/strict";
import { test } from "node:test";

import { DuetSigner, transactionPayload as fromEthers, typedDataPayload } from "../dist/ethers.js";
import { payloadDocument, quantityHex } from "../dist/payload.js";
import { messagePayload, toDuetAccount, transactionPayload as fromViem } from "../dist/viem.js";
import { failure } from "./failure.mjs";

const ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
const WALLET = { id: "ab".repeat(32), address: ADDRESS };

/** Hears what it is to sign, and refuses. */
function listener() {
  const heard = [];
  const error = { kind: "cancelled", message: "No." };
  const sign = async (id, payload) => {
    heard.push({ id, payload: JSON.parse(payloadDocument(payload)) });
    return { ok: false, error };
  };
  return { heard, sign };
}

test("payloads__should_survive_integers_that_json_does_not", () => {
  const document = payloadDocument({
    kind: "digest",
    a: 2n ** 200n,
    b: 7n,
    c: new Uint8Array([1, 255]),
    d: undefined,
  });
  assert.deepEqual(JSON.parse(document), {
    kind: "digest",
    a: String(2n ** 200n),
    b: 7,
    c: "0x01ff",
  });
  assert.equal(quantityHex("1000", "value"), "0x3e8");
  assert.throws(() => quantityHex("-1", "value"), failure({ kind: "invalid", field: "value" }));
  assert.throws(() => quantityHex("1.5", "value"), failure({ field: "value" }));
  for (const lost of [2 ** 53, -(2 ** 53), 1.5, NaN, Infinity]) {
    assert.throws(
      () => payloadDocument({ kind: "digest", deep: [{ a: lost }] }),
      failure({ kind: "invalid", field: "a" }),
    );
  }
});

test("viem__should_be_understood_in_each_transaction_type", () => {
  const base = { chainId: 1, nonce: 3, to: ADDRESS, value: 10n ** 18n, gas: 21_000n };
  assert.deepEqual(
    fromViem({ ...base, maxFeePerGas: 2n, account: {}, chain: {}, nonceManager: {} }),
    {
      kind: "transaction",
      ...base,
      maxFeePerGas: 2n,
      maxPriorityFeePerGas: 0n,
    },
  );
  assert.equal(fromViem({ ...base, to: undefined, gasPrice: 2n, data: "0x60" }).to, null);
  assert.equal(fromViem({ ...base, nonce: undefined, gasPrice: 2n }).nonce, 0);
  // What else there is goes along, so that it is refused and not forgotten.
  assert.equal(fromViem({ ...base, memo: "x" }).memo, "x");
});

test("viem__should_reach_the_wallet_and_throw_its_error", async () => {
  const duet = listener();
  const account = toDuetAccount(duet, WALLET);
  assert.equal(account.address, ADDRESS);
  await assert.rejects(account.signMessage({ message: "hi" }), failure({ kind: "cancelled" }));
  await assert.rejects(
    account.signTypedData({
      types: { Mail: [{ name: "n", type: "uint256" }] },
      primaryType: "Mail",
      domain: { chainId: 1n },
      message: { n: 2n ** 255n },
    }),
  );
  await assert.rejects(account.sign({ hash: `0x${"11".repeat(32)}` }));
  assert.deepEqual(
    duet.heard.map(({ payload }) => payload),
    [
      { kind: "personal_message", text: "hi" },
      {
        kind: "typed_data",
        types: { Mail: [{ name: "n", type: "uint256" }] },
        primaryType: "Mail",
        domain: { chainId: 1 },
        message: { n: String(2n ** 255n) },
      },
      { kind: "digest", digest: `0x${"11".repeat(32)}` },
    ],
  );
  assert.deepEqual(messagePayload({ raw: new Uint8Array([1]) }), {
    kind: "personal_message",
    hex: "0x01",
  });
  assert.throws(
    () => toDuetAccount(duet, { ...WALLET, address: null }),
    failure({ kind: "invalid" }),
  );
});

test("ethers__should_be_understood_in_each_transaction_type", () => {
  const base = { chainId: 1, nonce: 3, to: ADDRESS, value: 7n, gasLimit: 21_000n };
  assert.deepEqual(fromEthers({ ...base, type: 0, gasPrice: 5n, blockTag: "latest" }), {
    kind: "transaction",
    ...base,
    type: 0,
    gasPrice: 5n,
  });
  assert.equal(fromEthers({ ...base, gasPrice: 5n }).type, 1, "as ethers itself would have it");
  const keys = [`0x${"11".repeat(32)}`];
  assert.deepEqual(fromEthers({ ...base, accessList: { [ADDRESS]: keys } }).accessList, [
    { address: ADDRESS, storageKeys: keys },
  ]);
  assert.equal(fromEthers({ ...base, memo: "x" }).memo, "x");
});

test("ethers__should_reach_the_wallet_and_refuse_another_sender", async () => {
  const duet = listener();
  const signer = new DuetSigner(duet, WALLET);
  assert.equal(await signer.getAddress(), ADDRESS);
  await assert.rejects(signer.signMessage(new Uint8Array([0xab])), failure({ kind: "cancelled" }));
  assert.deepEqual(duet.heard, [
    { id: WALLET.id, payload: { kind: "personal_message", hex: "0xab" } },
  ]);
  const foreign = {
    from: "0x0000000000000000000000000000000000000001",
    to: ADDRESS,
    chainId: 1,
    nonce: 0,
    gasLimit: 21_000,
    gasPrice: 1,
    type: 0,
  };
  await assert.rejects(
    signer.signTransaction(foreign),
    failure({ kind: "invalid", field: "payload.from" }),
  );
});

test("ethers__should_spell_out_the_types_of_typed_data", () => {
  const types = {
    Mail: [
      { name: "to", type: "address" },
      { name: "amount", type: "uint256" },
    ],
  };
  const payload = typedDataPayload({ name: "Mail", chainId: 1 }, types, {
    to: ADDRESS,
    amount: 5n,
  });
  assert.equal(payload.primaryType, "Mail");
  assert.deepEqual(payload.types, types, "the domain implies its own");
  assert.equal(String(payload.message.amount), "5");
});
