/** The errors that pages expect of a provider. */

import { toError } from "./errors.js";
import type { DuetErrorKind } from "./types.js";

/** Codes of EIP-1193, of EIP-1474 where those say nothing, and of EIP-3085. */
export const rpcCodes = {
  userRejected: 4001,
  unauthorized: 4100,
  unsupportedMethod: 4200,
  disconnected: 4900,
  chainDisconnected: 4901,
  unknownChain: 4902,
  invalidRequest: -32600,
  invalidParams: -32602,
  internal: -32603,
  resourceUnavailable: -32002,
  transactionRejected: -32003,
} as const;

/** A request that was not done. `data` has the library's own error, where there is one. */
export class ProviderError extends Error {
  override readonly name = "ProviderError";
  constructor(
    readonly code: number,
    message: string,
    readonly data?: unknown,
  ) {
    super(message);
  }
}

const CODES: Record<DuetErrorKind, number> = {
  cancelled: rpcCodes.userRejected,
  rejected: rpcCodes.userRejected,
  "passkey-unavailable": rpcCodes.userRejected,
  locked: rpcCodes.unauthorized,
  "wrong-passphrase": rpcCodes.unauthorized,
  "needs-rotation": rpcCodes.unauthorized,
  "paillier-locked": rpcCodes.unauthorized,
  quarantined: rpcCodes.unauthorized,
  "gateway-unreachable": rpcCodes.disconnected,
  "party-unreachable": rpcCodes.disconnected,
  "stale-page": rpcCodes.disconnected,
  "busy-elsewhere": rpcCodes.resourceUnavailable,
  "wrong-chain": rpcCodes.invalidParams,
  invalid: rpcCodes.invalidParams,
  refused: rpcCodes.transactionRejected,
  "job-expired": rpcCodes.transactionRejected,
  storage: rpcCodes.internal,
  internal: rpcCodes.internal,
};

/** What was thrown, as an error that pages understand. */
export function providerError(thrown: unknown): ProviderError {
  const error = toError(thrown);
  return new ProviderError(CODES[error.kind], error.message, error);
}
