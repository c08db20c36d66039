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

import type { Hex as ViemHex, LocalAccount, SignableMessage, TransactionSerializable } from "viem";
import { toAccount } from "viem/accounts";

import { duetError, fail, Failure, unwrap } from "./errors.js";
import { bytesToHex } from "./payload.js";
import type { DuetApi, Payload, SignOptions, TransactionPayload, TypedDataPayload, WalletSummary } from "./types.js";

export type DuetAccountOptions = Pick<SignOptions, "path" | "expiresInS" | "pairs" | "onStep">;
export type DuetAccount = LocalAccount;

/**
 * The account of a wallet. Each signature is made by this browser and another party together, so every method reaches
 * for the gateway, and throws a {@link Failure} whose `error` says what went wrong.
 *
 * `sign` takes bare hashes: the parties refuse them unless the wallet was made to allow it. Transactions are signed in
 * Ethereum's own types (legacy, EIP-2930, EIP-1559); a chain's own serializer is not used.
 *
 * @throws {Failure} `invalid`, for a wallet without an address.
 */
export function toDuetAccount(
  duet: Pick<DuetApi, "sign">,
  wallet: Pick<WalletSummary, "id" | "address">,
  options: DuetAccountOptions = {},
): DuetAccount {
  const { address } = wallet;
  if (address === null) fail("invalid", "The wallet has no address before its creation is finished.", { field: "wallet" });
  const signed = async (payload: Payload) => unwrap(await duet.sign(wallet.id, payload, options));
  return toAccount({
    address,
    async sign({ hash }) {
      return (await signed({ kind: "digest", digest: hash })).signature;
    },
    async signMessage({ message }) {
      return (await signed(messagePayload(message))).signature;
    },
    async signTransaction(transaction) {
      const { transaction: made } = await signed(transactionPayload(transaction as TransactionSerializable));
      return made?.raw ?? fail("internal", "The signature came without its transaction.");
    },
    async signTypedData(parameters) {
      return (await signed(typedDataPayload(parameters as unknown as Omit<TypedDataPayload, "kind">))).signature;
    },
  });
}

/** viem's message as a payload. */
export function messagePayload(message: SignableMessage): Payload {
  if (typeof message === "string") return { kind: "personal_message", text: message };
  const hex = typeof message.raw === "string" ? message.raw : bytesToHex(message.raw);
  return { kind: "personal_message", hex };
}

/** viem's transaction as a payload. Fields that viem fills in by itself must be there. */
export function transactionPayload(transaction: TransactionSerializable): TransactionPayload {
  const type = transaction.type ?? guessedType(transaction);
  if (type !== "legacy" && type !== "eip2930" && type !== "eip1559") {
    throw new Failure(
      duetError("invalid", `Transactions of type ${type} are not signed; legacy, EIP-2930 and EIP-1559 are.`, {
        field: "payload.type",
      }),
    );
  }
  const need = <T>(value: T | undefined | null, field: string): T =>
    value ?? fail("invalid", "This field of the transaction is missing.", { field: `payload.${field}` });
  return {
    kind: "transaction",
    type,
    chainId: need(transaction.chainId, "chainId"),
    // viem leaves out a nonce of 0 and a value of 0, where it serialises.
    nonce: transaction.nonce ?? 0,
    to: transaction.to ?? null,
    value: transaction.value ?? 0n,
    gas: need(transaction.gas, "gas"),
    data: (transaction.data as ViemHex | undefined) ?? "0x",
    ...(type === "eip1559"
      ? {
          maxFeePerGas: need(transaction.maxFeePerGas, "maxFeePerGas"),
          maxPriorityFeePerGas: transaction.maxPriorityFeePerGas ?? 0n,
        }
      : { gasPrice: need(transaction.gasPrice, "gasPrice") }),
    ...(type !== "legacy" && {
      accessList: (transaction.accessList ?? []).map(({ address, storageKeys }) => ({
        address,
        storageKeys: [...storageKeys],
      })),
    }),
  };
}

/** As viem itself tells them apart where no type is given. */
function guessedType(transaction: TransactionSerializable): string {
  if ("authorizationList" in transaction && transaction.authorizationList !== undefined) return "eip7702";
  if ("blobs" in transaction && transaction.blobs !== undefined) return "eip4844";
  if (transaction.maxFeePerGas !== undefined || transaction.maxPriorityFeePerGas !== undefined) return "eip1559";
  return transaction.accessList === undefined ? "legacy" : "eip2930";
}

/** viem's typed data as a payload. */
export function typedDataPayload(parameters: Omit<TypedDataPayload, "kind"> & { domain?: unknown }): TypedDataPayload {
  const { types, primaryType, domain = {}, message } = parameters;
  return { kind: "typed_data", types, primaryType, domain: domain as Record<string, unknown>, message };
}
