/**
 * A Duet wallet as a signer of ethers, version 6.
 *
 * ```ts
 * const signer = new DuetSigner(duet, wallet, new JsonRpcProvider(url));
 * await signer.sendTransaction({ to, value });
 * ```
 *
 * @packageDocumentation
 */

import {
  AbstractSigner, copyRequest, getAddress, type Provider, resolveAddress, Transaction, type TransactionRequest,
  TypedDataEncoder, type TypedDataDomain, type TypedDataField,
} from "ethers";

import { fail, unwrap } from "./errors.js";
import { bytesToHex } from "./payload.js";
import type { Address, DuetApi, Payload, SignOptions, TransactionPayload, TypedDataPayload, WalletSummary } from "./types.js";

export type DuetSignerOptions = Pick<SignOptions, "path" | "expiresInS" | "pairs" | "onStep">;

/**
 * Signs with a wallet, connected to `provider` for what needs a node. Each signature is made by this browser and
 * another party together; where that fails, methods throw a `Failure` whose `error` says why.
 */
export class DuetSigner extends AbstractSigner<Provider | null> {
  readonly address: Address;

  /** @throws {Failure} `invalid`, for a wallet without an address. */
  constructor(
    private readonly duet: Pick<DuetApi, "sign">,
    private readonly wallet: Pick<WalletSummary, "id" | "address">,
    provider: Provider | null = null,
    private readonly options: DuetSignerOptions = {},
  ) {
    super(provider);
    this.address = wallet.address ??
      fail("invalid", "The wallet has no address before its creation is finished.", { field: "wallet" });
  }

  override getAddress(): Promise<string> {
    return Promise.resolve(this.address);
  }

  override connect(provider: Provider | null): DuetSigner {
    return new DuetSigner(this.duet, this.wallet, provider, this.options);
  }

  override async signTransaction(request: TransactionRequest): Promise<string> {
    const { from, to, ...rest } = copyRequest(request);
    const [sender, receiver] = await Promise.all([
      from ? resolveAddress(from, this) : this.address,
      to ? resolveAddress(to, this) : null,
    ]);
    if (getAddress(sender) !== this.address) {
      fail("invalid", "The transaction is from another account than this signer's.", { field: "payload.from" });
    }
    const transaction = Transaction.from({ ...rest, to: receiver });
    const { transaction: made } = await this.#signed(transactionPayload(transaction));
    return made?.raw ?? fail("internal", "The signature came without its transaction.");
  }

  override async signMessage(message: string | Uint8Array): Promise<string> {
    return (await this.#signed(messagePayload(message))).signature;
  }

  override async signTypedData(
    domain: TypedDataDomain,
    types: Record<string, TypedDataField[]>,
    value: Record<string, unknown>,
  ): Promise<string> {
    const populated = await TypedDataEncoder.resolveNames(domain, types, value, async (name) => resolveAddress(name, this));
    return (await this.#signed(typedDataPayload(populated.domain, types, populated.value))).signature;
  }

  async #signed(payload: Payload) {
    return unwrap(await this.duet.sign(this.wallet.id, payload, this.options));
  }
}

/** A message of ethers as a payload. */
export function messagePayload(message: string | Uint8Array): Payload {
  return typeof message === "string"
    ? { kind: "personal_message", text: message }
    : { kind: "personal_message", hex: bytesToHex(message) };
}

/** A transaction of ethers as a payload. */
export function transactionPayload(transaction: Transaction): TransactionPayload {
  const { type, accessList } = transaction;
  const names = ["legacy", "eip2930", "eip1559"] as const;
  const name = type === null ? undefined : names[type];
  if (name === undefined) {
    fail("invalid", `Transactions of type ${type} are not signed; legacy, EIP-2930 and EIP-1559 are.`, {
      field: "payload.type",
    });
  }
  const need = <T>(value: T | null, field: string): T =>
    value ?? fail("invalid", "This field of the transaction is missing.", { field: `payload.${field}` });
  return {
    kind: "transaction",
    type: name,
    chainId: transaction.chainId,
    nonce: transaction.nonce,
    to: transaction.to,
    value: transaction.value,
    gas: transaction.gasLimit,
    data: transaction.data,
    ...(name === "eip1559"
      ? {
          maxFeePerGas: need(transaction.maxFeePerGas, "maxFeePerGas"),
          maxPriorityFeePerGas: need(transaction.maxPriorityFeePerGas, "maxPriorityFeePerGas"),
        }
      : { gasPrice: need(transaction.gasPrice, "gasPrice") }),
    ...(name !== "legacy" && {
      accessList: (accessList ?? []).map(({ address, storageKeys }) => ({ address, storageKeys: [...storageKeys] })),
    }),
  };
}

/** Typed data of ethers as a payload. */
export function typedDataPayload(
  domain: TypedDataDomain,
  types: Record<string, TypedDataField[]>,
  value: Record<string, unknown>,
): TypedDataPayload {
  const { types: all, primaryType, domain: plain, message } = TypedDataEncoder.getPayload(domain, types, value) as
    Omit<TypedDataPayload, "kind">;
  return { kind: "typed_data", types: all, primaryType, domain: plain, message };
}
