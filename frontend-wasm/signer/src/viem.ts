/**
 * A Duet wallet as an account of viem.
 *
 * ```ts
 * const account = toDuetAccount(duet, wallet);
 * const client = createWalletClient({ account, chain, transport: http() });
 * await client.sendTransaction({ to, value });
 * ```
 *
 * @packageDocumentation
 */

import type { LocalAccount, SignableMessage, TransactionSerializable } from "viem";
import { toAccount } from "viem/accounts";

import { fail, unwrap } from "./errors.js";
import { bytesToHex } from "./payload.js";
import type {
  DuetApi,
  Payload,
  SignOptions,
  TransactionPayload,
  TypedDataPayload,
  Undeclared,
  WalletSummary,
} from "./types.js";

export type DuetAccountOptions = Pick<SignOptions, "path" | "expiresInS" | "pairs" | "onStep"> & {
  /** What happens to members of typed data that its types do not declare: refused by default. */
  undeclared?: Undeclared;
};
export type DuetAccount = LocalAccount;

/**
 * The account of a wallet. Each signature is made by this browser and another party together, so
 * every method reaches for the gateway, and throws a {@link Failure} whose `error` says what went
 * wrong.
 *
 * `sign` takes bare hashes: the parties refuse them unless the wallet was made to allow it.
 * Transactions are signed in Ethereum's own types (legacy, EIP-2930, EIP-1559); a chain's own
 * serializer is not used.
 *
 * @throws {Failure} `invalid`, for a wallet without an address.
 */
export function toDuetAccount(
  duet: Pick<DuetApi, "sign">,
  wallet: Pick<WalletSummary, "id" | "address">,
  options: DuetAccountOptions = {},
): DuetAccount {
  const { address } = wallet;
  const { undeclared, ...signOptions } = options;
  if (address === null)
    fail("invalid", "The wallet has no address before its creation is finished.", {
      field: "wallet",
    });
  const signed = async (payload: Payload) =>
    unwrap(await duet.sign(wallet.id, payload, signOptions));
  return toAccount({
    address,
    async sign({ hash }) {
      return (await signed({ kind: "digest", digest: hash })).signature;
    },
    async signMessage({ message }) {
      return (await signed(messagePayload(message))).signature;
    },
    async signTransaction(transaction) {
      const { from } = transaction as { from?: unknown };
      if (from != null && String(from).toLowerCase() !== address.toLowerCase()) {
        fail("invalid", "The transaction is from another account than this one.", {
          field: "payload.from",
        });
      }
      const { transaction: made } = await signed(
        transactionPayload(transaction as TransactionSerializable),
      );
      return made?.raw ?? fail("internal", "The signature came without its transaction.");
    },
    async signTypedData(parameters) {
      const payload = typedDataPayload(parameters as unknown as Omit<TypedDataPayload, "kind">);
      return (await signed({ ...payload, ...(undeclared && { undeclared }) })).signature;
    },
  });
}

/** viem's message as a payload. */
export function messagePayload(message: SignableMessage): Payload {
  if (typeof message === "string") return { kind: "personal_message", text: message };
  const hex = typeof message.raw === "string" ? message.raw : bytesToHex(message.raw);
  return { kind: "personal_message", hex };
}

/** What viem's actions put beside a transaction's members for themselves. */
const OF_VIEM = ["account", "chain", "from", "nonceManager", "parameters"];

/**
 * viem's transaction as a payload. Every other member is passed on: what is not understood, is of
 * another type or contradicts another member is refused where the digest is made.
 */
export function transactionPayload(transaction: TransactionSerializable): TransactionPayload {
  const members = Object.fromEntries(
    Object.entries(transaction).filter(([name]) => !OF_VIEM.includes(name)),
  );
  const { maxFeePerGas, maxPriorityFeePerGas } = transaction as {
    maxFeePerGas?: bigint;
    maxPriorityFeePerGas?: bigint;
  };
  return {
    kind: "transaction",
    ...(members as Omit<TransactionPayload, "kind" | "nonce" | "to">),
    // viem leaves out a nonce of 0 and a tip of 0, and means creation where it leaves out the
    // recipient.
    nonce: transaction.nonce ?? 0,
    to: transaction.to ?? null,
    ...(maxFeePerGas != null && { maxPriorityFeePerGas: maxPriorityFeePerGas ?? 0n }),
  };
}

/** viem's typed data as a payload. */
export function typedDataPayload(
  parameters: Omit<TypedDataPayload, "kind"> & { domain?: unknown },
): TypedDataPayload {
  const { types, primaryType, domain = {}, message } = parameters;
  return {
    kind: "typed_data",
    types,
    primaryType,
    domain: domain as Record<string, unknown>,
    message,
  };
}
