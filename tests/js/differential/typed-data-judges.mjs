// The digests that ethers, viem and MetaMask's eth-sig-util sign for typed data. Each is called as
// its users call it.

import { createRequire } from "node:module";

import { TypedDataEncoder } from "ethers";
import { hashTypedData } from "viem";

const { TypedDataUtils } = createRequire(import.meta.url)("@metamask/eth-sig-util");

const DOMAIN = [
  ["name", "string"],
  ["version", "string"],
  ["chainId", "uint256"],
  ["verifyingContract", "address"],
  ["salt", "bytes32"],
];

/** A digest, or `null` if the library refuses. */
function attempt(work) {
  try {
    return work();
  } catch {
    return null;
  }
}

const present = domain => DOMAIN.filter(([name]) => domain?.[name] != null);

/**
 * eth-sig-util takes an undeclared domain for an empty one. So ethers and viem, which check what is
 * there, decide.
 */
function metamask(document) {
  const { types, domain } = document;
  const implied = present(domain).map(([name, type]) => ({ name, type }));
  const whole = Object.hasOwn(types, "EIP712Domain") ? types : { EIP712Domain: implied, ...types };
  return attempt(
    () =>
      `0x${Buffer.from(TypedDataUtils.eip712Hash({ ...document, types: whole }, "V4")).toString("hex")}`,
  );
}

/** ethers derives the domain's type from its members, and finds the primary type by itself. */
function ethers({ types, primaryType, domain, message }) {
  const { EIP712Domain: declared, ...others } = types;
  const said = JSON.stringify(present(domain));
  if (declared && JSON.stringify(declared.map(({ name, type }) => [name, type])) !== said)
    return null;
  return attempt(() =>
    TypedDataEncoder.from(others).primaryType === primaryType
      ? TypedDataEncoder.hash(domain, others, message)
      : null,
  );
}

const viem = document => attempt(() => hashTypedData(document));

/**
 * The digest that each library signs, and the one that eth-sig-util and at least one other agree
 * on.
 */
export function judge(document) {
  const said = { metamask: metamask(document), ethers: ethers(document), viem: viem(document) };
  const agreed =
    said.metamask !== null && (said.metamask === said.ethers || said.metamask === said.viem);
  return { ...said, agreed: agreed ? said.metamask : null };
}
