import { signal } from "@preact/signals";
import type { CreatedWallet } from "@duet/signer";

/** The wallet that was just finished, until it was looked at. */
export const created = signal<CreatedWallet | null>(null);
