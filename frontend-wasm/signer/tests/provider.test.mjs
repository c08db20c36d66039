// The provider's own rules: what it shows to which page, and its errors. No party signs here.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { DuetProvider } from "../dist/eip1193.js";
import { reader } from "./reader.mjs";

const ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
const WALLET = { id: "ab".repeat(32), address: ADDRESS, state: "unlocked" };

let node;
let rpcUrl;
const asked = [];
const ANSWERS = {
  eth_getTransactionCount: "0x5",
  eth_estimateGas: "0x5208",
  eth_maxPriorityFeePerGas: "0x1",
  eth_gasPrice: "0x7",
  eth_getBlockByNumber: { baseFeePerGas: "0x64" },
  eth_blockNumber: "0x10",
};
let answers = ANSWERS;

/** Runs `work` with a node that answers otherwise; `undefined` is a method that it does not have. */
async function withNode(changes, work) {
  answers = { ...ANSWERS, ...changes };
  try {
    return await work();
  } finally {
    answers = ANSWERS;
  }
}

before(async () => {
  node = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const { id, method } = JSON.parse(body);
    asked.push(method);
    const result = answers[method];
    const error = { code: -32601, message: "no such method" };
    response.end(JSON.stringify(result === undefined ? { id, error } : { id, result }));
  });
  await new Promise(done => node.listen(0, "127.0.0.1", done));
  rpcUrl = `http://127.0.0.1:${node.address().port}`;
});
after(() => node.close());

/** A library that hears what it is to sign, and refuses with `kind`. */
function library(kind = "rejected") {
  const heard = [];
  const duet = {
    connection: "online",
    wallets: async () => [WALLET, { id: "cd".repeat(32), address: "0x01", state: "locked" }],
    ...reader,
    sign: async (id, payload) => {
      heard.push(payload);
      return { ok: false, error: { kind, message: "No." } };
    },
    onWallets: listener => {
      duet.tellWallets = listener;
      return () => {};
    },
    onConnection: listener => {
      duet.tellConnection = listener;
      return () => {};
    },
  };
  return { duet, heard };
}

const open = (options = {}) => {
  const { duet, heard } = library(options.kind);
  const provider = new DuetProvider({
    duet,
    chains: [
      { chainId: 31337, rpcUrl },
      { chainId: 1, rpcUrl },
    ],
    ...options,
  });
  return {
    duet,
    heard,
    provider,
    request: (method, params) => provider.request({ method, params }),
  };
};

test("accounts__should_be_shown_only_when_asked_for_and_only_unlocked_ones", async () => {
  const { provider, request } = open();
  const changes = [];
  provider.on("accountsChanged", accounts => changes.push(accounts));
  assert.deepEqual(await request("eth_accounts"), []);
  await assert.rejects(request("personal_sign", ["0x00", ADDRESS]), { code: 4100 });
  assert.deepEqual(await request("eth_requestAccounts"), [ADDRESS]);
  assert.deepEqual(await request("eth_accounts"), [ADDRESS]);
  assert.deepEqual(changes, [[ADDRESS]]);
  await assert.rejects(request("personal_sign", ["0x00", "0x01"]), { code: 4100 });
  await request("wallet_revokePermissions", [{ eth_accounts: {} }]);
  assert.deepEqual(await request("eth_accounts"), []);
});

test("accounts__should_follow_the_owners_choice", async () => {
  const refused = open({ chooseWallets: () => [] });
  await assert.rejects(refused.request("eth_requestAccounts"), { code: 4001 });
});

test("chains__should_be_switched_among_those_configured", async () => {
  const { provider, request } = open();
  const changes = [];
  provider.on("chainChanged", chain => changes.push(chain));
  assert.equal(await request("eth_chainId"), "0x7a69");
  assert.equal(await request("wallet_switchEthereumChain", [{ chainId: "0x1" }]), null);
  assert.equal(await request("net_version"), "1");
  assert.deepEqual(changes, ["0x1"]);
  await assert.rejects(request("wallet_switchEthereumChain", [{ chainId: "0x5" }]), { code: 4902 });
  await assert.rejects(request("wallet_switchEthereumChain", ["0x1"]), { code: -32602 });
});

test("methods__should_be_passed_on_only_if_they_read", async () => {
  const { request } = open();
  assert.equal(await request("eth_blockNumber"), "0x10");
  await assert.rejects(request("eth_getCode", [ADDRESS]), { code: -32601 });
  await assert.rejects(request("eth_sign", [ADDRESS, "0x00"]), { code: 4200 });
  await assert.rejects(request("debug_traceTransaction", []), { code: 4200 });
  assert.ok(!asked.includes("eth_sign") && !asked.includes("debug_traceTransaction"));
});

test("transactions__should_be_filled_in_from_the_node", async () => {
  const { heard, request } = open();
  await request("eth_requestAccounts");
  const transaction = { from: ADDRESS, to: ADDRESS, value: "0xa" };
  await assert.rejects(request("eth_sendTransaction", [transaction]), { code: 4001 });
  assert.deepEqual(heard[0], {
    kind: "transaction",
    chainId: "0x7a69",
    nonce: "0x5",
    to: ADDRESS,
    value: "0xa",
    gas: "0x5208",
    maxFeePerGas: 201n,
    maxPriorityFeePerGas: 1n,
  });
  await assert.rejects(request("eth_sendTransaction", [{ ...transaction, chainId: "0x1" }]), {
    code: -32602,
  });
  await assert.rejects(request("eth_sendTransaction", [{ ...transaction, value: "x" }]), {
    code: -32602,
  });
  assert.equal(heard.length, 1, "what is wrong never gets as far as a signature");
});

test("messages__should_be_bytes_if_they_are_hexadecimal_and_text_otherwise", async () => {
  const { heard, request } = open();
  await request("eth_requestAccounts");
  await assert.rejects(request("personal_sign", ["0x6869", ADDRESS.toLowerCase()]), { code: 4001 });
  await assert.rejects(request("personal_sign", ["hi", ADDRESS]), { code: 4001 });
  assert.deepEqual(heard, [
    { kind: "personal_message", hex: "0x6869" },
    { kind: "personal_message", text: "hi" },
  ]);
});

test("fees__should_be_found_without_methods_that_a_node_lacks", async () => {
  const { heard, request } = open();
  await request("eth_requestAccounts");
  const fees = async (changes, members = {}) => {
    const transaction = { from: ADDRESS, to: ADDRESS, value: "0xa", ...members };
    await withNode(changes, () =>
      assert.rejects(request("eth_sendTransaction", [transaction]), { code: 4001 }),
    );
    const { type, gasPrice, maxFeePerGas, maxPriorityFeePerGas } = heard.at(-1);
    return { type, gasPrice, maxFeePerGas, maxPriorityFeePerGas };
  };
  const none = { type: undefined, gasPrice: undefined };
  const without = { eth_maxPriorityFeePerGas: undefined };
  const history = { eth_feeHistory: { reward: [["0x3"], ["0x9"], ["0x5"]] } };
  assert.deepEqual(await fees({ ...without, ...history }), {
    ...none,
    maxFeePerGas: 205n,
    maxPriorityFeePerGas: 5n,
  });
  assert.deepEqual(await fees({ ...without, eth_gasPrice: "0x70" }), {
    ...none,
    maxFeePerGas: 212n,
    maxPriorityFeePerGas: 12n,
  });
  const legacy = { maxFeePerGas: undefined, maxPriorityFeePerGas: undefined, gasPrice: "0x7" };
  const old = { ...without, eth_getBlockByNumber: {} };
  assert.deepEqual(await fees(old), { type: "0x0", ...legacy });
  assert.deepEqual(await fees(old, { accessList: [] }), { type: "0x1", ...legacy });
  // What the page gave is kept, and bounds what it did not give.
  assert.deepEqual(await fees(without, { maxFeePerGas: "0x2", maxPriorityFeePerGas: "0x1" }), {
    ...none,
    maxFeePerGas: "0x2",
    maxPriorityFeePerGas: "0x1",
  });
  assert.deepEqual(await fees({ ...without, ...history }, { maxFeePerGas: "0x2" }), {
    ...none,
    maxFeePerGas: 2n,
    maxPriorityFeePerGas: 2n,
  });
  await withNode(old, () =>
    assert.rejects(request("eth_sendTransaction", [{ from: ADDRESS, to: ADDRESS, type: "0x2" }]), {
      code: -32602,
    }),
  );
});

test("personal_sign__should_be_turned_round_when_the_address_comes_first", async () => {
  const { heard, request } = open();
  await request("eth_requestAccounts");
  await assert.rejects(request("personal_sign", [ADDRESS, "0x6869"]), { code: 4001 });
  await assert.rejects(request("personal_sign", [ADDRESS, "hi"]), { code: 4001 });
  assert.deepEqual(heard, [
    { kind: "personal_message", hex: "0x6869" },
    { kind: "personal_message", text: "hi" },
  ]);
  // A message that looks like an address stays the message.
  await assert.rejects(request("personal_sign", [`0x${"11".repeat(20)}`, ADDRESS]), { code: 4001 });
  assert.deepEqual(heard[2], { kind: "personal_message", hex: `0x${"11".repeat(20)}` });
});

test("permissions__should_be_asked_for_again_and_name_the_accounts", async () => {
  const choices = [["ab".repeat(32)], [], ["ab".repeat(32)]];
  let times = 0;
  const { request } = open({ chooseWallets: () => choices[times++] });
  assert.deepEqual(await request("wallet_getPermissions"), []);
  const given = [
    {
      parentCapability: "eth_accounts",
      caveats: [{ type: "restrictReturnedAccounts", value: [ADDRESS] }],
    },
  ];
  assert.deepEqual(await request("wallet_requestPermissions", [{ eth_accounts: {} }]), given);
  await request("eth_requestAccounts");
  assert.equal(times, 1, "what was given is not asked for again");
  await assert.rejects(request("wallet_requestPermissions", [{ eth_accounts: {} }]), {
    code: 4001,
  });
  assert.equal(times, 2, "a permission is");
  assert.deepEqual(await request("wallet_getPermissions"), given, "a no takes away nothing");
  await assert.rejects(request("wallet_requestPermissions", [{ eth_sign: {} }]), { code: -32602 });
  await assert.rejects(request("wallet_requestPermissions", []), { code: -32602 });
});

test("typed_data__should_be_for_the_chosen_chain", async () => {
  const { heard, request } = open();
  await request("eth_requestAccounts");
  const types = {
    EIP712Domain: [{ name: "chainId", type: "uint256" }],
    M: [{ name: "v", type: "uint256" }],
  };
  const document = (chainId, v = "5") =>
    `{"types":${JSON.stringify(types)},"primaryType":"M","domain":{"chainId":${chainId}},"message":{"v":${v}}}`;
  await assert.rejects(request("eth_signTypedData_v4", [ADDRESS, document(1)]), { code: -32602 });
  await assert.rejects(request("eth_signTypedData_v4", [ADDRESS, "{"]), { code: -32602 });
  assert.equal(heard.length, 0);
  await assert.rejects(request("eth_signTypedData_v4", [ADDRESS, document(31337)]), { code: 4001 });
  assert.equal(heard[0].primaryType, "M");
  // Text keeps all digits; an object may have lost some before it came here.
  const large = (2n ** 256n - 1n).toString();
  await assert.rejects(
    request("eth_signTypedData_v4", [ADDRESS, document(31337, "9007199254740993")]),
    { code: 4001 },
  );
  await assert.rejects(request("eth_signTypedData_v4", [ADDRESS, document(31337, large)]), {
    code: 4001,
  });
  assert.deepEqual(
    heard.slice(1).map(({ message }) => message.v),
    ["9007199254740993", large],
  );
  await assert.rejects(
    request("eth_signTypedData_v4", [ADDRESS, JSON.parse(document(31337, "9007199254740993"))]),
    { code: -32602 },
  );
  assert.equal(heard.length, 3);
});

test("owners__should_be_asked_before_anything_is_signed", async () => {
  const questions = [];
  const { heard, request } = open({
    confirm: question => {
      questions.push(question.description.kind);
      return false;
    },
  });
  await request("eth_requestAccounts");
  await assert.rejects(request("personal_sign", ["hi", ADDRESS]), { code: 4001 });
  assert.deepEqual(questions, ["personal_message"]);
  assert.equal(heard.length, 0);
});

test("connection__should_be_told", async () => {
  const { duet, provider, request } = open();
  const heard = [];
  provider
    .on("disconnect", ({ code }) => heard.push(code))
    .on("connect", ({ chainId }) => heard.push(chainId));
  assert.equal(provider.isConnected(), true);
  duet.tellConnection("offline");
  assert.equal(provider.isConnected(), false);
  duet.tellConnection("online");
  assert.deepEqual(heard, [4900, "0x7a69"]);
  await request("eth_requestAccounts");
  duet.tellWallets([]);
  assert.deepEqual(
    await request("eth_accounts"),
    [],
    "a wallet that was removed is not shown any more",
  );
});
