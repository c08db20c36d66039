// A browser profile, and a record of everything that leaves it or is printed in it.

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { setting } from "./stack.mjs";

const SWITCHES = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** How long a state may take to appear, on a busy machine. Speed is measured elsewhere. */
export const PATIENCE_MS = 120_000;

/** The folder of screenshots and traces. */
export const RESULTS = process.env.DUET_BROWSER_RESULTS ?? "target/browser";

/** Starts the browser, optionally with more switches. `DUET_BROWSER_HEADED=1` shows it. */
export function launch(more = []) {
  return chromium.launch({
    executablePath: setting("CHROMIUM"),
    headless: process.env.DUET_BROWSER_HEADED !== "1",
    args: [...SWITCHES, ...more],
  });
}

/** A fresh profile: no storage, no passkeys, and nothing of another profile. */
export class Profile {
  /**
   * Everything that was printed on the console, thrown and not caught, sent or received. `[{
   * channel, bytes }]`
   */
  records = [];
  /** Uncaught errors, which are always defects. */
  uncaught = [];
  context;
  origin;

  static async open(browser, origin, options = {}) {
    const profile = new Profile();
    profile.origin = origin;
    profile.context = await browser.newContext({
      viewport: { width: 1280, height: 900 },
      acceptDownloads: true,
      permissions: ["clipboard-read", "clipboard-write"],
      // Drawing spinners costs a twentieth of the processor.
      reducedMotion: "reduce",
      ...options,
    });
    profile.context.setDefaultTimeout(PATIENCE_MS);
    profile.context.setDefaultNavigationTimeout(PATIENCE_MS);
    profile.context.on("page", page => profile.#record(page));
    if (process.env.DUET_BROWSER_TRACE === "1") {
      await profile.context.tracing.start({ screenshots: true, snapshots: true });
    }
    return profile;
  }

  #keep(channel, data) {
    if (data === null || data === undefined) return;
    this.records.push({ channel, bytes: Buffer.isBuffer(data) ? data : Buffer.from(String(data)) });
  }

  #record(page) {
    page.on("console", message => {
      this.#keep("console", message.text());
      for (const argument of message.args()) {
        argument.jsonValue().then(
          value =>
            this.#keep(
              "console",
              JSON.stringify(value, (_, inner) => (ArrayBuffer.isView(inner) ? [...inner] : inner)),
            ),
          () => {},
        );
      }
    });
    page.on("pageerror", error => {
      this.uncaught.push(error);
      this.#keep("console", error.stack ?? error.message);
    });
    page.on("request", request => {
      this.#keep(
        "request",
        `${request.method()} ${request.url()}\n${JSON.stringify(request.headers())}`,
      );
      this.#keep("request", request.postDataBuffer());
    });
    page.on("websocket", socket => {
      this.#keep("request", socket.url());
      socket.on("framesent", ({ payload }) => this.#keep("websocket-sent", payload));
      socket.on("framereceived", ({ payload }) => this.#keep("websocket-received", payload));
    });
  }

  /** Opens the page in a tab, at a route such as `#/create`. */
  async tab(route = "") {
    const page = await this.context.newPage();
    await page.goto(`${this.origin}/${route}`);
    return page;
  }

  /** Gives the tab an authenticator like those of phones and laptops, with the PRF extension. */
  async authenticator(page, options = {}) {
    const devtools = await this.context.newCDPSession(page);
    await devtools.send("WebAuthn.enable");
    const { authenticatorId } = await devtools.send("WebAuthn.addVirtualAuthenticator", {
      options: {
        protocol: "ctap2",
        ctap2Version: "ctap2_1",
        transport: "internal",
        hasResidentKey: true,
        hasUserVerification: true,
        hasPrf: true,
        isUserVerified: true,
        automaticPresenceSimulation: true,
        ...options,
      },
    });
    return {
      /** Sets whether the user at the device verifies as its owner. */
      verifies: isUserVerified =>
        devtools.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified }),
    };
  }

  async close() {
    if (process.env.DUET_BROWSER_TRACE === "1") {
      mkdirSync(join(RESULTS, "traces"), { recursive: true });
      await this.context.tracing.stop({ path: join(RESULTS, "traces", `${Date.now()}.zip`) });
    }
    await this.context.close();
  }
}
