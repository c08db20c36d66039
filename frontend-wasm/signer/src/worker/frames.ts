/** The gateway's frames, as the bindings code them. */

import type { WalletId } from "../types.js";

export type Destination =
  | { kind: "card"; party: string }
  | { kind: "share"; party: string }
  | { kind: "approval"; wallet: WalletId }
  | { kind: "round"; session: string; to: string }
  | { kind: "outcome"; session: string }
  | { kind: "event"; session: string };

export type ServerFrame =
  | { kind: "challenge"; nonce: Uint8Array; protocol: number; build: string }
  | { kind: "authenticated"; wallet: WalletId }
  | { kind: "reply"; id: number; message: Uint8Array }
  | { kind: "refused"; id?: number | undefined; refusal: { code: string; message: string } }
  | { kind: "waiting"; wallet: WalletId; jobs: number };

/** What the socket needs of them. */
export interface Frames {
  /** The version that is spoken here. */
  readonly protocol: number;
  hello(build: string): Uint8Array;
  leave(wallet: WalletId): Uint8Array;
  request(id: number, to: Destination, message: Uint8Array): Uint8Array;
  /** `null` for bytes that are no frame. */
  read(bytes: Uint8Array): ServerFrame | null;
}
