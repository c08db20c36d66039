import assert from 'node:assert/strict';
import { test } from 'node:test';

import { chooseBackend, readConfiguration, readToken } from '../dist/worker/info.js';
import { failure } from './failure.mjs';

const DOCUMENT = {
  build: 'abc',
  protocol: 1,
  tenant: 'acme',
  backends: [
    { role: 'service', party: 'service', fingerprint: 'AB'.repeat(32) },
    { role: 'partner', party: 'partner' },
    { role: 'auditor', party: 'auditor' },
  ],
  rpc: { chainId: 31337, url: 'http://127.0.0.1:8545' },
  admission: { service: 'AQID' },
};

test('configuration__should_be_read_without_the_tokens', () => {
  const { info } = readConfiguration(DOCUMENT);
  assert.deepEqual(info.backends.map(({ party, admits }) => [party, admits]), [['service', true], ['partner', false]]);
  assert.deepEqual(info.rpc, { chainId: 31337, url: 'http://127.0.0.1:8545' });
  assert.ok(!JSON.stringify(info).includes('AQID'));
});

test('configuration__should_be_refused_when_it_is_no_gateways', () => {
  assert.throws(() => readConfiguration({ hello: 'world' }), failure({ kind: 'gateway-unreachable' }));
});

test('backends__should_be_the_callers_choice_before_the_gateways', () => {
  const configuration = readConfiguration(DOCUMENT);
  assert.deepEqual(chooseBackend(configuration, 'service', undefined), {
    party: 'service', fingerprint: 'ab'.repeat(32), token: new Uint8Array([1, 2, 3]),
  });
  const chosen = chooseBackend(configuration, 'partner', { party: 'other', fingerprint: 'CD'.repeat(32), token: '0a0b' });
  assert.deepEqual(chosen, { party: 'other', fingerprint: 'cd'.repeat(32), token: new Uint8Array([10, 11]) });
  assert.throws(() => chooseBackend(configuration, 'partner', undefined), failure({ kind: 'invalid', field: 'partner.token' }));
});

test('tokens__should_be_read_in_either_writing', () => {
  assert.deepEqual(readToken(' -_8= ', 'token'), new Uint8Array([0xfb, 0xff]));
  assert.throws(() => readToken('%%%', 'token'), failure({ field: 'token' }));
});
