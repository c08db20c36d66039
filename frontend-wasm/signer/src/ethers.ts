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
  AbstractSigner,
  accessListify,
  getAddress,
  type Provider,
  resolveAddress,
  Transaction,
  type TransactionRequest,
  type TransactionResponse,
  TypedDataEncoder,
  type TypedDataDomain,
  type TypedDataField,
} from "ethers";

import { fail, unwrap } from "./errors.js";
import { bytesToHex } from "./payload.js";
import type {
  Address,
  DuetApi,
  Payload,
  SignOptions,
  TransactionPayload,
  TypedDataPayload,
  Undeclared,
  WalletSummary,
} from "./types.js";

export type DuetSignerOptions = Pick<SignOptions, "path" | "expiresInS" | "pairs" | "onStep"> & {
  /** What happens to members of typed data that its types do not declare: refused by default. */
  undeclared?: Undeclared;
};

/** What ethers takes in a request for calls that are not sent. It changes nothing about a transaction. */
const OF_CALLS = ["blockTag", "enableCcipRead"];
/** What ethers passes on to the transaction that is signed. It forgets other members, so these are looked for before. */
const OF_ETHERS = [
  ...OF_CALLS,
  "accessList",
  "authorizationList",
  "blobVersionedHashes",
  "blobWrapperVersion",
  "blobs",
  "chainId",
  "data",
  "from",
  "gasLimit",
  "gasPrice",
  "kzg",
  "maxFeePerBlobGas",
  "maxFeePerGas",
  "maxPriorityFeePerGas",
  "nonce",
  "to",
  "type",
  "value",
];

/**
 * Signs with a wallet, connected to `provider` for what needs a node. Each signature is made by
 * this browser and another party together; where that fails, methods throw a `Failure` whose
 * `error` says why.
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
    this.address =
      wallet.address ??
      fail("invalid", "The wallet has no address before its creation is finished.", {
        field: "wallet",
      });
  }

  override getAddress(): Promise<string> {
    return Promise.resolve(this.address);
  }

  override connect(provider: Provider | null): DuetSigner {
    return new DuetSigner(this.duet, this.wallet, provider, this.options);
  }

  override async sendTransaction(request: TransactionRequest): Promise<TransactionResponse> {
    const unknown = Object.entries(request).find(
      ([name, value]) => value != null && !OF_ETHERS.includes(name),
    );
    if (unknown) {
      const message = `${unknown[0]}: unknown field; the fields here are ${OF_ETHERS.join(", ")}.`;
      fail("invalid", message, { field: `payload.${unknown[0]}` });
    }
    return super.sendTransaction(request);
  }

  override async signTransaction(request: TransactionRequest | Transaction): Promise<string> {
    const { from, to, ...rest }: TransactionRequest =
      request instanceof Transaction ? plain(request) : request;
    const [sender, receiver] = await Promise.all([
      from ? resolveAddress(from, this) : this.address,
      to ? resolveAddress(to, this) : null,
    ]);
    if (getAddress(sender) !== this.address) {
      fail("invalid", "The transaction is from another account than this signer's.", {
        field: "payload.from",
      });
    }
    const { transaction: made } = await this.#signed(transactionPayload({ ...rest, to: receiver }));
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
    const named = await TypedDataEncoder.resolveNames(domain, types, value, async name =>
      resolveAddress(name, this),
    );
    // What resolves names also forgets members that the types do not declare.
    const whole = withForgotten(value, named.value) as Record<string, unknown>;
    const { undeclared } = this.options;
    return (
      await this.#signed({
        ...typedDataPayload(named.domain, types, whole),
        ...(undeclared && { undeclared }),
      })
    ).signature;
  }

  async #signed(payload: Payload) {
    const { undeclared: _, ...options } = this.options;
    return unwrap(await this.duet.sign(this.wallet.id, payload, options));
  }
}

/** A message of ethers as a payload. */
export function messagePayload(message: string | Uint8Array): Payload {
  return typeof message === "string"
    ? { kind: "personal_message", text: message }
    : { kind: "personal_message", hex: bytesToHex(message) };
}

/** The members of a transaction that ethers has made already. Those of other types are kept, so that they are refused. */
function plain(transaction: Transaction): TransactionRequest {
  const { sig, ...members } = transaction.toJSON() as TransactionRequest & { sig: unknown };
  if (sig) fail("invalid", "The transaction is signed already.", { field: "payload.sig" });
  const { authorizationList, blobVersionedHashes } = transaction;
  return { ...members, authorizationList, blobVersionedHashes };
}

/**
 * A request of ethers as a payload. Members are passed on: what is not understood, is of another
 * type or contradicts another member is refused where the digest is made.
 */
export function transactionPayload(
  request: TransactionRequest & { to?: string | null },
): TransactionPayload {
  const members = Object.fromEntries(
    Object.entries(request).filter(([name]) => !OF_CALLS.includes(name)),
  );
  const { accessList, gasPrice, maxFeePerGas, maxPriorityFeePerGas, to = null, type } = request;
  // Without a type ethers takes a gas price for one of EIP-2930; others take it for a legacy
  // transaction.
  const isPriced = gasPrice != null && maxFeePerGas == null && maxPriorityFeePerGas == null;
  return {
    ...(members as unknown as Omit<TransactionPayload, "kind" | "to">),
    kind: "transaction",
    to,
    ...(type == null && isPriced && { type: 1 }),
    ...(accessList != null && { accessList: accessListify(accessList) }),
  };
}

/** `given` with what `resolved` has in the place of its members. */
function withForgotten(given: unknown, resolved: unknown): unknown {
  if (Array.isArray(given) && Array.isArray(resolved))
    return resolved.map((item, at) => withForgotten(given[at], item));
  if (!isPlain(given) || !isPlain(resolved)) return resolved;
  const members = Object.entries(resolved).map(([name, value]) => [
    name,
    withForgotten(given[name], value),
  ]);
  return { ...given, ...Object.fromEntries(members) };
}

const isPlain = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  !(value instanceof Uint8Array);

/** Typed data of ethers as a payload. The domain's type follows from the members that are there, as it does for ethers. */
export function typedDataPayload(
  domain: TypedDataDomain,
  types: Record<string, TypedDataField[]>,
  value: Record<string, unknown>,
): TypedDataPayload {
  const { primaryType } = TypedDataEncoder.from(types);
  return {
    kind: "typed_data",
    types,
    primaryType,
    domain: domain as Record<string, unknown>,
    message: value,
  };
}
