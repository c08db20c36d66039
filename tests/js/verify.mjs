// Verifies signatures with two libraries that took no part in making them: ethers and viem.
//
//   node verify.mjs < CHECKS.json
//
// CHECKS is an array (or { "checks": [...] }) of objects with a `kind` and its members:
//
//   { "kind": "transaction", "address", "signed_transaction",
//     "expect"?: { "chainId", "to", "value", "nonce", … } }
//   { "kind": "personal_message", "address", "signature", "text" | "hex" }
//   { "kind": "typed_data", "address", "signature",
//     "typed_data": { types, domain, primaryType, message } }
//   { "kind": "digest", "address", "signature", "digest" }
//   { "kind": "account", "address", "xpub", "path": "m/0/5", "below"?: "m/0" }: the address is the
//     one at `path`, derived from the extended public key of the path `below` (m)
//
// The verdict repeats an optional `name`. An optional `digest` is compared with the one that each
// library computes from the payload. Signatures are 65 bytes, r ‖ s ‖ v, with v in 0, 1, 27, 28.
//
// The output is one document:
//
//   { "ok", "checks": [{ "name", "kind", "ok", "ethers": {…}, "viem": {…}, "problems": [] }] }
//
// The exit code is 0 when every check holds, 1 when one does not, and 2 for invalid input.

import { readFileSync, realpathSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";

import {
  HDNodeWallet,
  Signature,
  SigningKey,
  Transaction,
  TypedDataEncoder,
  getAddress,
  hashMessage,
  recoverAddress as ethersRecover,
} from "ethers";
import {
  hashMessage as viemHashMessage,
  hashTypedData,
  keccak256,
  parseTransaction,
  recoverAddress,
  recoverTransactionAddress,
  serializeTransaction,
} from "viem";
import { HDKey, publicKeyToAddress } from "viem/accounts";

const HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;

/** Parses exactly 65 bytes of hexadecimal, with or without 0x. */
function signatureOf(check) {
  const hex = String(check.signature ?? "")
    .replace(/^0x/, "")
    .toLowerCase();
  if (!/^[0-9a-f]{130}$/.test(hex)) throw new Error("signature: expected 65 bytes of hexadecimal");
  return `0x${hex}`;
}

function hexOf(value, what, bytes) {
  const hex = String(value ?? "")
    .replace(/^0x/, "")
    .toLowerCase();
  if (!/^([0-9a-f]{2})*$/.test(hex)) throw new Error(`${what}: expected hexadecimal`);
  if (bytes !== undefined && hex.length !== 2 * bytes)
    throw new Error(`${what}: expected ${bytes} bytes`);
  return `0x${hex}`;
}

function requireLowS(s, problems) {
  if (BigInt(s) > HALF_ORDER) problems.push("s is above half the order");
}

/** The types in ethers' form: without the domain's own type. */
function typesForEthers(types) {
  const { EIP712Domain: _, ...rest } = types;
  return rest;
}

/** The digests and recovered signers of a 65-byte signature, by both libraries. */
async function judge(signature, digests, problems) {
  requireLowS(`0x${signature.slice(66, 130)}`, problems);
  return {
    ethers: {
      digest: digests.ethers,
      signer: ethersRecover(digests.ethers, Signature.from(signature)),
    },
    viem: { digest: digests.viem, signer: await recoverAddress({ hash: digests.viem, signature }) },
  };
}

const KINDS = {
  async transaction(check, problems) {
    const raw = hexOf(check.signed_transaction, "signed_transaction");
    const transaction = Transaction.from(raw);
    if (transaction.signature === null) throw new Error("signed_transaction: carries no signature");
    requireLowS(transaction.signature.s, problems);
    const parsed = parseTransaction(raw);
    const { r: _r, s: _s, v: _v, yParity: _y, ...unsigned } = parsed;
    const digests = {
      ethers: transaction.unsignedHash,
      viem: keccak256(serializeTransaction(unsigned)),
    };
    for (const [field, wanted] of Object.entries(check.expect ?? {})) {
      const seen = {
        ethers: transaction[field],
        viem: parsed[field === "gasLimit" ? "gas" : field],
      };
      for (const [library, value] of Object.entries(seen)) {
        // viem leaves out members that are zero or empty.
        const same =
          String(value ?? (/^(data)$/.test(field) ? "0x" : 0)).toLowerCase() ===
          String(wanted).toLowerCase();
        if (!same) problems.push(`${library}: ${field} is ${value}, expected ${wanted}`);
      }
    }
    return {
      ethers: { digest: digests.ethers, signer: transaction.from, hash: transaction.hash },
      viem: {
        digest: digests.viem,
        signer: await recoverTransactionAddress({ serializedTransaction: raw }),
        hash: keccak256(raw),
      },
    };
  },

  async personal_message(check, problems) {
    const isText = typeof check.text === "string";
    const raw = isText ? undefined : hexOf(check.hex, "hex");
    const digests = {
      ethers: hashMessage(isText ? check.text : Uint8Array.from(Buffer.from(raw.slice(2), "hex"))),
      viem: viemHashMessage(isText ? check.text : { raw }),
    };
    return judge(signatureOf(check), digests, problems);
  },

  async typed_data(check, problems) {
    const { domain, types, primaryType, message } = check.typed_data;
    const digests = {
      ethers: TypedDataEncoder.hash(domain ?? {}, typesForEthers(types), message),
      viem: hashTypedData({ domain: domain ?? {}, types, primaryType, message }),
    };
    return judge(signatureOf(check), digests, problems);
  },

  async digest(check, problems) {
    const digest = hexOf(check.digest, "digest", 32);
    return judge(signatureOf(check), { ethers: digest, viem: digest }, problems);
  },

  async account(check) {
    const below = check.below ?? "m";
    if (check.path !== below && !check.path.startsWith(`${below}/`))
      throw new Error(`${check.path} is not below ${below}`);
    const path = `m${check.path.slice(below.length)}`;
    const ethers = HDNodeWallet.fromExtendedKey(check.xpub);
    const viem = HDKey.fromExtendedKey(check.xpub).derive(path);
    const point = `0x${Buffer.from(viem.publicKey).toString("hex")}`;
    return {
      ethers: { signer: path === "m" ? ethers.address : ethers.derivePath(path.slice(2)).address },
      viem: { signer: publicKeyToAddress(SigningKey.computePublicKey(point, false)) },
    };
  },
};

async function verdict(check) {
  const problems = [];
  const result = { name: check.name, kind: check.kind, ok: false, problems };
  try {
    const address = getAddress(check.address);
    const kind = Object.hasOwn(KINDS, check.kind) ? KINDS[check.kind] : undefined;
    if (kind === undefined) throw new Error(`kind: unknown kind ${check.kind}`);
    const judged = await kind(check, problems);
    Object.assign(result, judged);
    for (const library of ["ethers", "viem"]) {
      const { signer, digest } = judged[library];
      if (signer === null || getAddress(signer) !== address)
        problems.push(`${library}: signed by ${signer}, not ${address}`);
      if (check.digest !== undefined && digest !== hexOf(check.digest, "digest", 32)) {
        problems.push(`${library}: the digest is ${digest}, not ${check.digest}`);
      }
    }
  } catch (error) {
    problems.push(String(error.shortMessage ?? error.message ?? error));
  }
  result.ok = problems.length === 0;
  return result;
}

function input() {
  try {
    const parsed = JSON.parse(readFileSync(0, "utf8"));
    const checks = Array.isArray(parsed) ? parsed : parsed?.checks;
    if (!Array.isArray(checks) || checks.length === 0)
      throw new Error("expected a non-empty array of checks");
    return checks;
  } catch (error) {
    console.error(`verify.mjs: ${error.message}`);
    process.exit(2);
  }
}

/** The output's document on these checks, as text, and whether every check holds. */
export async function verify(given) {
  const checks = await Promise.all(given.map(verdict));
  const ok = checks.every(check => check.ok);
  const text = JSON.stringify(
    { ok, checks },
    (_, value) => (typeof value === "bigint" ? value.toString() : value),
    2,
  );
  return { ok, text };
}

// Not awaited at the top level: the order in which a test's modules run would depend on it.
async function main() {
  const { ok, text } = await verify(input());
  console.log(text);
  process.exitCode = ok ? 0 : 1;
}

if (realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) main();
