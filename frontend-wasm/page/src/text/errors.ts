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
    remedy:
      "Nothing was lost. The page keeps trying to connect; try again once it says that it is connected.",
    tone: "warn",
    again: true,
  },
  "party-unreachable": {
    title: "The other party does not answer",
    remedy:
      "A signature needs two parties. Nothing was signed. Try again in a moment, or tell the party's operator.",
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
    title: "The passphrase is wrong",
    remedy:
      "Check capitals and keyboard layout. After several wrong attempts each further one takes longer.",
    tone: "bad",
    again: true,
  },
  "passkey-unavailable": {
    title: "No passkey was used",
    remedy:
      "The browser has no passkey for this wallet, or you dismissed the request. Try again with the device that holds the passkey.",
    tone: "warn",
    again: true,
  },
  cancelled: { title: "Cancelled", remedy: "Nothing was signed.", tone: "warn", again: true },
  "job-expired": {
    title: "The request has expired",
    remedy: "It can no longer be signed. The requester can send a new request.",
    tone: "warn",
    again: false,
  },
  rejected: {
    title: "The request was rejected",
    remedy: "It will not be signed. The requester has been told.",
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
    remedy:
      "The gateway serves another version. Reload the page; your wallets stay in this browser.",
    tone: "warn",
    again: false,
  },
  "busy-elsewhere": {
    title: "Another tab is using this wallet",
    remedy: "Finish there or close that tab, then try again here.",
    tone: "warn",
    again: true,
  },
  "needs-rotation": {
    title: "The wallet was restored and needs a new Paillier key",
    remedy: "Replace the key once, below or in the wallet's settings. The address stays the same.",
    tone: "warn",
    again: false,
  },
  "paillier-locked": {
    title: "The wallet protected itself",
    remedy:
      "An answer from the other party did not verify, so this device stopped using its Paillier key. The text below or the wallet's view says what that may have cost, and how to go on.",
    tone: "bad",
    again: false,
  },
  quarantined: {
    title: "This device no longer signs with that party",
    remedy:
      "The party answered with a wrong signature before. The wallet's view lists the ways that are left.",
    tone: "bad",
    again: false,
  },
  refused: {
    title: "The request was refused",
    remedy: "Nothing was signed.",
    tone: "bad",
    again: true,
  },
  invalid: {
    title: "Something needs correction",
    remedy: "Correct what is named below and try again.",
    tone: "bad",
    again: true,
  },
  storage: {
    title: "The browser's storage does not work",
    remedy:
      "The page signs nothing while it cannot store records safely. Free some space, leave private browsing, and reload.",
    tone: "bad",
    again: true,
  },
  internal: {
    title: "An internal error occurred",
    remedy: "Reload the page. If it happens again, report the text below.",
    tone: "bad",
    again: true,
  },
};

export function explain(error: DuetError): Explanation {
  return EXPLANATIONS[error.kind];
}
