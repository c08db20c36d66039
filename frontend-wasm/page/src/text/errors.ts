import type { DuetError, DuetErrorKind } from "@duet/signer";

/** What a failure means to the person, and what helps. The library's own sentence is shown below it. */
export interface Explanation {
  title: string;
  remedy: string;
  tone: "bad" | "warn";
  /** Whether doing the same again can work. */
  again: boolean;
}

const EXPLANATIONS: Record<DuetErrorKind, Explanation> = {
  "gateway-unreachable": {
    title: "The gateway cannot be reached",
    remedy: "Nothing was lost. The page keeps trying to connect; try again once it says that it is connected.",
    tone: "warn",
    again: true,
  },
  "party-unreachable": {
    title: "The other party does not answer",
    remedy: "A signature needs two. Nothing was signed; try again in a moment, or tell whoever runs the party.",
    tone: "warn",
    again: true,
  },
  locked: {
    title: "The wallet is locked",
    remedy: "Unlock it and try again. Wallets lock by themselves after a while without use.",
    tone: "warn",
    again: true,
  },
  "wrong-passphrase": {
    title: "That passphrase does not fit",
    remedy: "Check capitals and keyboard layout. After several wrong attempts each takes longer.",
    tone: "bad",
    again: true,
  },
  "passkey-unavailable": {
    title: "No passkey was used",
    remedy: "The browser has none that fits, or the request was dismissed. Try again when the device is at hand.",
    tone: "warn",
    again: true,
  },
  cancelled: { title: "Cancelled", remedy: "Nothing was signed.", tone: "warn", again: true },
  "job-expired": {
    title: "The request has expired",
    remedy: "It can no longer be signed. Whoever asked can ask again.",
    tone: "warn",
    again: false,
  },
  rejected: {
    title: "The request was rejected",
    remedy: "It will not be signed. Whoever asked has been told.",
    tone: "warn",
    again: false,
  },
  "wrong-chain": {
    title: "This is for another chain",
    remedy: "Nothing was signed. Check the chain id, or connect to a node of the chain you mean.",
    tone: "bad",
    again: false,
  },
  "stale-page": {
    title: "This page is out of date",
    remedy: "The gateway serves a newer version. Reload the page; wallets stay where they are.",
    tone: "warn",
    again: false,
  },
  "busy-elsewhere": {
    title: "Another tab is using this wallet",
    remedy: "Finish or close it there, then try again here.",
    tone: "warn",
    again: true,
  },
  "needs-rotation": {
    title: "The wallet was restored and needs a new Paillier key",
    remedy: "Rotate the key once, below or in the wallet's settings. The address stays the same.",
    tone: "warn",
    again: false,
  },
  "paillier-locked": {
    title: "The wallet protected itself",
    remedy:
      "An answer from the other party did not verify, so this device stopped using its Paillier key. What it may have cost, and how to go on, is said below or with the wallet.",
    tone: "bad",
    again: false,
  },
  quarantined: {
    title: "This party is not asked any more",
    remedy: "It answered with a wrong signature before. With the wallet the page says which ways are left.",
    tone: "bad",
    again: false,
  },
  refused: { title: "It was refused", remedy: "Nothing was signed.", tone: "bad", again: true },
  invalid: { title: "Something is not right yet", remedy: "Correct it and try again.", tone: "bad", again: true },
  storage: {
    title: "The browser's storage does not work",
    remedy:
      "Nothing is signed while records cannot be kept safely. Free some space, leave private browsing, and reload.",
    tone: "bad",
    again: true,
  },
  internal: {
    title: "Something went wrong inside",
    remedy: "Reload the page. If it happens again, report what is written below.",
    tone: "bad",
    again: true,
  },
};

export function explain(error: DuetError): Explanation {
  return EXPLANATIONS[error.kind];
}
