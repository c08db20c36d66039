// The real stack: the program `browser-stack`, which obeys one JSON document a line.

import { spawn } from "node:child_process";
import { mkdtempSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";

/** A setting that `cargo xtask` provides. */
export function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run \`cargo xtask test browser\``);
  return value;
}

/**
 * Everything but the browser, as real processes. They end with this process, even if it is killed.
 */
export class Stack {
  #child;
  #next = 1;
  #waiting = new Map();
  /** A folder with a link to the served page, so that another page can replace it. */
  #folder = mkdtempSync(join(tmpdir(), "duet-browser-"));

  /** The facts that the stack printed when it served: URLs, chain id, the team's key. */
  facts;

  /**
   * Starts the stack, with a gateway like the demonstration's, and waits until everything serves.
   */
  static async start() {
    const stack = new Stack();
    stack.#link(setting("DUET_PAGE"));
    const child = spawn(setting("DUET_BROWSER_STACK"), [], {
      env: { ...process.env, DUET_PAGE: join(stack.#folder, "page") },
      stdio: ["pipe", "pipe", "inherit"],
    });
    stack.#child = child;
    const lines = createInterface({ input: child.stdout });
    await new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", code => {
        const error = new Error(`browser-stack ended with ${code}`);
        reject(error);
        for (const { reject: fail } of stack.#waiting.values()) fail(error);
      });
      lines.on("line", line => {
        const document = JSON.parse(line);
        if (document.ready) {
          stack.facts = document;
          resolve();
          return;
        }
        const waiting = stack.#waiting.get(document.id);
        stack.#waiting.delete(document.id);
        if (document.error === undefined) waiting?.resolve(document.value);
        else waiting?.reject(new Error(document.error));
      });
    });
    return stack;
  }

  /** The URL of the page. Passkeys belong to a domain, and an IP address is none. */
  get url() {
    return this.facts.gateway.replace("127.0.0.1", "localhost");
  }

  order(what, more = {}) {
    const id = this.#next;
    this.#next += 1;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#child.stdin.write(`${JSON.stringify({ id, do: what, ...more })}\n`);
    });
  }

  kill(what) {
    return this.order("kill", { what });
  }

  start(what) {
    return this.order("start", { what });
  }

  restart(what) {
    return this.order("restart", { what });
  }

  pause(what) {
    return this.order("pause", { what });
  }

  resume(what) {
    return this.order("resume", { what });
  }

  /** Serves another folder as the page, at the same address. */
  serve(page) {
    this.#link(page);
    return this.restart("gateway");
  }

  #link(page) {
    const next = join(this.#folder, "next");
    symlinkSync(page, next);
    renameSync(next, join(this.#folder, "page"));
  }

  /**
   * Makes a party answer a wallet's device with wrong ciphertexts until the device makes a new key.
   */
  spoil(wallet, what = "service") {
    return this.order("spoil", { wallet, what });
  }

  /** Puts a relay in front of the gateway, which lies. Returns its URL. */
  lie(lie) {
    return this.order("lie", { lie });
  }

  /**
   * What the relay's own parties received: the number of packages, and whether they have a whole
   * key.
   */
  taken() {
    return this.order("taken");
  }

  fund(address, ether = 10) {
    return this.order("fund", { address, wei: String(BigInt(ether) * 10n ** 18n) });
  }

  async balance(address) {
    return BigInt(await this.order("balance", { address }));
  }

  /** The receipt of a transaction that the node has mined, or is about to mine. */
  receipt(hash) {
    return this.order("receipt", { hash });
  }

  /**
   * Queues a job as a team does. It waits for the owner, unless service and partner may sign it.
   */
  submit(wallet, payload, pairs = "device+service") {
    return this.order("submit", { wallet, payload, pairs });
  }

  async job(job) {
    return (await this.order("job", { job })).job;
  }

  /** Waits until a job is settled, from the team's view. */
  async settled(job) {
    return (await this.order("watch", { job })).job;
  }

  /** Ends all processes, and waits until they have ended. */
  async stop() {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise(resolve => this.#child.once("exit", resolve));
    this.#child.stdin.end();
    await ended;
    rmSync(this.#folder, { recursive: true });
  }
}
