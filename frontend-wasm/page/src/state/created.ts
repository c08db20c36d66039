import { signal } from "@preact/signals";
import type { CreatedWallet } from "@duet/signer";

/** The wallet that was just finished, until it was looked at. Its backup file exists nowhere else. */
export const created = signal<CreatedWallet | null>(null);
