// A page whose test signs through each adapter as a program would: `globalThis.duetWays`.

import { Duet } from '@duet/signer';
import { DuetProvider } from '@duet/signer/eip1193';
import { DuetSigner } from '@duet/signer/ethers';
import { toDuetAccount } from '@duet/signer/viem';

const value = (outcome) => {
  if (!outcome.ok) throw new Error(outcome.error.message);
  return outcome.value;
};

const LETTER = { Letter: [{ name: 'text', type: 'string' }] };
const letter = (text) => ({ types: LETTER, primaryType: 'Letter', domain: { name: 'Duet' }, message: { text } });

/** What every transaction here has; the fees say its type. */
const FEES = {
  legacy: { gasPrice: 1n },
  eip2930: { gasPrice: 1n, accessList: [] },
  eip1559: { maxFeePerGas: 2n, maxPriorityFeePerGas: 1n },
};
const TYPES = { legacy: 0, eip2930: 1, eip1559: 2 };

const hex = (number) => `0x${number.toString(16)}`;

/** A new wallet, and how each adapter signs with it. */
async function open({ gateway, passphrase, rpcUrl, chainId }) {
  const duet = await Duet.open({ gateway });
  const protection = { kind: 'passphrase', passphrase };
  const { wallet } = value(await duet.createWallet({ label: 'Ways', protection, third: { kind: 'partner' } }));
  const { address } = wallet;
  const account = toDuetAccount(duet, wallet);
  const signer = new DuetSigner(duet, wallet);
  const provider = new DuetProvider({ duet, chains: [{ chainId, rpcUrl }] });
  const request = (method, params) => provider.request({ method, params });
  await request('eth_requestAccounts', []);
  const plain = (nonce) => ({ chainId, nonce, to: address, value: 1n });

  globalThis.duetWays = {
    viem: {
      message: (text) => account.signMessage({ message: text }),
      typed: (text) => account.signTypedData(letter(text)),
      transaction: (type, nonce) => account.signTransaction({ ...plain(nonce), gas: 21_000n, type, ...FEES[type] }),
    },
    ethers: {
      message: (text) => signer.signMessage(text),
      typed: (text) => signer.signTypedData({ name: 'Duet' }, LETTER, { text }),
      transaction: (type, nonce) => signer.signTransaction({ ...plain(nonce), gasLimit: 21_000n, type: TYPES[type], ...FEES[type] }),
    },
    eip1193: {
      message: (text) => request('personal_sign', [hexOfText(text), address]),
      typed: (text) => request('eth_signTypedData_v4', [address, JSON.stringify(letter(text))]),
      transaction: async (type, nonce) => {
        const fees = Object.entries(FEES[type]).map(([name, fee]) => [name, typeof fee === 'bigint' ? hex(fee) : fee]);
        const transaction = {
          from: address, chainId: hex(chainId), nonce: hex(nonce), to: address, value: '0x1', gas: '0x5208', type: hex(TYPES[type]),
          ...Object.fromEntries(fees),
        };
        return request('eth_signTransaction', [transaction]);
      },
    },
  };
  return address;
}

const hexOfText = (text) => `0x${[...new TextEncoder().encode(text)].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;

globalThis.duetOpen = open;
