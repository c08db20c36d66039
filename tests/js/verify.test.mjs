// Tests `verify.mjs`: it accepts what ethers and viem sign themselves, and rejects each change in
// one place. Run with `node --test`.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { Wallet } from "ethers";
import { privateKeyToAccount } from "viem/accounts";

const SCRIPT = fileURLToPath(new URL("verify.mjs", import.meta.url));
const KEY = `0x${"4c".repeat(32)}`;
const wallet = new Wallet(KEY);
const account = privateKeyToAccount(KEY);
const { address } = account;

const MAIL = {
  types: {
    EIP712Domain: [
      { name: "name", type: "string" },
      { name: "version", type: "string" },
      { name: "chainId", type: "uint256" },
      { name: "verifyingContract", type: "address" },
    ],
    Person: [
      { name: "name", type: "string" },
      { name: "wallet", type: "address" },
    ],
    Mail: [
      { name: "from", type: "Person" },
      { name: "to", type: "Person" },
      { name: "contents", type: "string" },
    ],
  },
  primaryType: "Mail",
  domain: {
    name: "Ether Mail",
    version: "1",
    chainId: 1,
    verifyingContract: "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC",
  },
  message: {
    from: { name: "Cow", wallet: "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826" },
    to: { name: "Bob", wallet: "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB" },
    contents: "Hello, Bob!",
  },
};

function run(checks) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [SCRIPT], {
    input: JSON.stringify(checks),
    encoding: "utf8",
  });
  return { status, stderr, verdict: stdout === "" ? undefined : JSON.parse(stdout) };
}

const to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const transactions = {
  legacy: {
    type: 0,
    chainId: 31337,
    nonce: 0,
    gasPrice: 10n ** 9n,
    gasLimit: 21000,
    to,
    value: 1n,
  },
  eip2930: {
    type: 1,
    chainId: 31337,
    nonce: 1,
    gasPrice: 10n ** 9n,
    gasLimit: 30000,
    to,
    value: 2n,
    accessList: [],
  },
  eip1559: {
    type: 2,
    chainId: 31337,
    nonce: 2,
    maxFeePerGas: 10n ** 9n,
    maxPriorityFeePerGas: 1n,
    gasLimit: 21000,
    to,
    value: 10n ** 18n,
  },
};

async function genuine() {
  const checks = [
    {
      kind: "personal_message",
      address,
      text: "Grüße ✓",
      signature: await account.signMessage({ message: "Grüße ✓" }),
    },
    {
      kind: "personal_message",
      address,
      hex: "0x00ff",
      signature: await wallet.signMessage(new Uint8Array([0, 255])),
    },
    { kind: "typed_data", address, typed_data: MAIL, signature: await account.signTypedData(MAIL) },
    {
      kind: "digest",
      address,
      digest: `0x${"ab".repeat(32)}`,
      signature: wallet.signingKey.sign(`0x${"ab".repeat(32)}`).serialized,
    },
  ];
  for (const transaction of Object.values(transactions)) {
    const expect = {
      chainId: 31337,
      nonce: transaction.nonce,
      to,
      value: String(transaction.value),
    };
    checks.push({
      kind: "transaction",
      address,
      expect,
      signed_transaction: await wallet.signTransaction(transaction),
    });
  }
  return checks;
}

test("what the libraries sign is accepted, in every kind", async () => {
  const { status, verdict } = run(await genuine());
  assert.equal(status, 0, JSON.stringify(verdict, null, 2));
  for (const check of verdict.checks) assert.equal(check.ethers.digest, check.viem.digest);
});

test("another address is refused in every kind", async () => {
  const checks = (await genuine()).map(check => ({ ...check, address: to }));
  const { status, verdict } = run(checks);
  assert.equal(status, 1);
  assert.deepEqual(
    verdict.checks.map(({ ok }) => ok),
    checks.map(() => false),
  );
});

test("a flipped recovery bit, another payload and a high s are refused", async () => {
  const [message] = await genuine();
  const v = message.signature.endsWith("1b") ? "1c" : "1b";
  const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
  const high = (order - BigInt(`0x${message.signature.slice(66, 130)}`))
    .toString(16)
    .padStart(64, "0");
  const { verdict } = run([
    { ...message, signature: message.signature.slice(0, -2) + v },
    { ...message, text: "Grüße" },
    { ...message, signature: `${message.signature.slice(0, 66)}${high}${v}` },
    { ...message, digest: `0x${"00".repeat(32)}` },
  ]);
  assert.deepEqual(
    verdict.checks.map(({ ok }) => ok),
    [false, false, false, false],
  );
});

test("a transaction with another value than expected is refused", async () => {
  const check = (await genuine()).at(-1);
  const { status, verdict } = run([{ ...check, expect: { ...check.expect, value: "7" } }]);
  assert.equal(status, 1);
  assert.match(verdict.checks[0].problems.join(), /value is 1000000000000000000, expected 7/);
});

test("nonsense is refused as such", () => {
  assert.equal(run([]).status, 2);
  assert.equal(run([{ kind: "constructor", address }]).status, 1);
  assert.equal(run([{ kind: "digest", address, digest: "0x12", signature: "0x" }]).status, 1);
});
