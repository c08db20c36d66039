// That the libraries' arguments become the right payloads. That the signatures hold is proved in a real browser, with
// real parties: here nobody signs.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Transaction } from 'ethers';

import { DuetSigner, transactionPayload as fromEthers, typedDataPayload } from '../dist/ethers.js';
import { payloadDocument, quantityHex } from '../dist/payload.js';
import { messagePayload, toDuetAccount, transactionPayload as fromViem } from '../dist/viem.js';
import { failure } from './failure.mjs';

const ADDRESS = '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed';
const WALLET = { id: 'ab'.repeat(32), address: ADDRESS };

/** Hears what it is to sign, and refuses. */
function listener() {
  const heard = [];
  const error = { kind: 'cancelled', message: 'No.' };
  const sign = async (id, payload) => {
    heard.push({ id, payload: JSON.parse(payloadDocument(payload)) });
    return { ok: false, error };
  };
  return { heard, sign };
}

test('payloads__should_survive_integers_that_json_does_not', () => {
  const document = payloadDocument({ kind: 'digest', a: 2n ** 200n, b: 7n, c: new Uint8Array([1, 255]), d: undefined });
  assert.deepEqual(JSON.parse(document), { kind: 'digest', a: String(2n ** 200n), b: 7, c: '0x01ff' });
  assert.equal(quantityHex('1000', 'value'), '0x3e8');
  assert.throws(() => quantityHex('-1', 'value'), failure({ kind: 'invalid', field: 'value' }));
  assert.throws(() => quantityHex('1.5', 'value'), failure({ field: 'value' }));
});

test('viem__should_be_understood_in_each_transaction_type', () => {
  const base = { chainId: 1, nonce: 3, to: ADDRESS, value: 10n ** 18n, gas: 21_000n };
  assert.deepEqual(fromViem({ ...base, maxFeePerGas: 2n, maxPriorityFeePerGas: 1n }), {
    kind: 'transaction', type: 'eip1559', data: '0x', accessList: [], ...base, maxFeePerGas: 2n, maxPriorityFeePerGas: 1n,
  });
  assert.equal(fromViem({ ...base, gasPrice: 2n }).type, 'legacy');
  assert.equal(fromViem({ ...base, gasPrice: 2n, accessList: [] }).type, 'eip2930');
  assert.equal(fromViem({ ...base, to: undefined, gasPrice: 2n, data: '0x60' }).to, null);
  assert.throws(() => fromViem({ ...base, type: 'eip4844' }), failure({ kind: 'invalid', field: 'payload.type' }));
  assert.throws(() => fromViem({ ...base, gas: undefined, gasPrice: 1n }), failure({ field: 'payload.gas' }));
});

test('viem__should_reach_the_wallet_and_throw_its_error', async () => {
  const duet = listener();
  const account = toDuetAccount(duet, WALLET);
  assert.equal(account.address, ADDRESS);
  await assert.rejects(account.signMessage({ message: 'hi' }), failure({ kind: 'cancelled' }));
  await assert.rejects(account.signTypedData({
    types: { Mail: [{ name: 'n', type: 'uint256' }] }, primaryType: 'Mail', domain: { chainId: 1n }, message: { n: 2n ** 255n },
  }));
  await assert.rejects(account.sign({ hash: `0x${'11'.repeat(32)}` }));
  assert.deepEqual(duet.heard.map(({ payload }) => payload), [
    { kind: 'personal_message', text: 'hi' },
    {
      kind: 'typed_data', types: { Mail: [{ name: 'n', type: 'uint256' }] }, primaryType: 'Mail', domain: { chainId: 1 },
      message: { n: String(2n ** 255n) },
    },
    { kind: 'digest', digest: `0x${'11'.repeat(32)}` },
  ]);
  assert.deepEqual(messagePayload({ raw: new Uint8Array([1]) }), { kind: 'personal_message', hex: '0x01' });
  assert.throws(() => toDuetAccount(duet, { ...WALLET, address: null }), failure({ kind: 'invalid' }));
});

test('ethers__should_be_understood_in_each_transaction_type', () => {
  const base = { chainId: 1, nonce: 3, to: ADDRESS, value: 7n, gasLimit: 21_000n };
  const legacy = fromEthers(Transaction.from({ ...base, type: 0, gasPrice: 5n }));
  assert.equal(legacy.type, 'legacy');
  assert.equal(legacy.accessList, undefined);
  assert.equal(fromEthers(Transaction.from({ ...base, type: 1, gasPrice: 5n })).type, 'eip2930');
  const newest = fromEthers(Transaction.from({ ...base, type: 2, maxFeePerGas: 9n, maxPriorityFeePerGas: 1n }));
  assert.deepEqual([newest.type, newest.maxFeePerGas, newest.gas, newest.to], ['eip1559', 9n, 21_000n, ADDRESS]);
});

test('ethers__should_reach_the_wallet_and_refuse_another_sender', async () => {
  const duet = listener();
  const signer = new DuetSigner(duet, WALLET);
  assert.equal(await signer.getAddress(), ADDRESS);
  await assert.rejects(signer.signMessage(new Uint8Array([0xab])), failure({ kind: 'cancelled' }));
  assert.deepEqual(duet.heard, [{ id: WALLET.id, payload: { kind: 'personal_message', hex: '0xab' } }]);
  const foreign = { from: '0x0000000000000000000000000000000000000001', to: ADDRESS, chainId: 1, nonce: 0, gasLimit: 21_000, gasPrice: 1, type: 0 };
  await assert.rejects(signer.signTransaction(foreign), failure({ kind: 'invalid', field: 'payload.from' }));
});

test('ethers__should_spell_out_the_types_of_typed_data', () => {
  const types = { Mail: [{ name: 'to', type: 'address' }, { name: 'amount', type: 'uint256' }] };
  const payload = typedDataPayload({ name: 'Mail', chainId: 1 }, types, { to: ADDRESS, amount: 5n });
  assert.equal(payload.primaryType, 'Mail');
  assert.deepEqual(Object.keys(payload.types).sort(), ['EIP712Domain', 'Mail']);
  assert.equal(String(payload.message.amount), '5');
});
