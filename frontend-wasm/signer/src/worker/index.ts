/**
 * The worker: everything secret lives here, and nothing else runs here. The same script, under
 * another name, is its helper.
 */

import { fail } from "../errors.js";
import type { WorkerSettings } from "../protocol.js";
import {
  checkBackup,
  checkThirdShare,
  exportBackup,
  restoreBackup,
  thirdShareFile,
  waiveBackup,
} from "./backup.js";
import { loadEngine } from "./bindings.js";
import type { Context } from "./context.js";
import { createWallet, discardPending, readLabel, removeWallet, resumeCreation } from "./create.js";
import { acceptCulprit } from "./culprits.js";
import { changeWallet, openDatabase, requireWallet } from "./database.js";
import { help, HELPER_NAME } from "./helpers.js";
import { inbox, reject } from "./inbox.js";
import { whyRefused } from "./info.js";
import { Line } from "./line.js";
import { describeGateway } from "./recipients.js";
import { rotate } from "./rotate.js";
import { type Handlers, sendBroken, sendEvent, serve } from "./rpc.js";
import { approve, outcome, sign } from "./sign.js";
import { Socket } from "./socket.js";
import { Tabs } from "./tabs.js";
import { Wallets } from "./wallets.js";

/** The gateway's path for devices. */
const DEVICE_PATH = "/v1/device";

async function open(settings: WorkerSettings): Promise<Context> {
  const engine = await loadEngine();
  const database = await openDatabase(error => sendBroken(error));
  const tabs = new Tabs(
    () => void wallets.refresh().catch((thrown: unknown) => reportError(thrown)),
  );
  const socket = new Socket(
    settings.gateway.replace(/^http/, "ws") + DEVICE_PATH,
    settings.build,
    engine.frames,
    connection => sendEvent({ name: "connection", connection }),
    (wallet, jobs) => sendEvent({ name: "inbox", notice: { wallet, jobs } }),
    () => whyRefused(settings.gateway),
  );
  const wallets = new Wallets(database, engine, socket, tabs, settings.idleLockMs, all =>
    sendEvent({ name: "wallets", wallets: all }),
  );
  return {
    settings,
    engine,
    database,
    tabs,
    wallets,
    line: new Line(socket, engine),
    abandoned: new Set(),
  };
}

let opened: Promise<Context> | undefined;

const context = (): Promise<Context> =>
  opened ?? Promise.reject(new Error("the worker was not opened"));

const handlers: Handlers = {
  async open(_call, settings) {
    opened ??= open(settings);
    await opened;
  },
  async info({ signal }) {
    const { settings, database } = await context();
    return describeGateway(settings, database, signal);
  },
  wallets: async () => (await context()).wallets.summaries(),
  createWallet: async (call, order) => createWallet(await context(), call, order),
  resumeCreation: async (call, id, source) => resumeCreation(await context(), call, id, source),
  discardPending: async (_call, id) => discardPending(await context(), id),
  async passkeyOf(_call, id) {
    const { protection } = await requireWallet((await context()).database, id);
    return protection.kind === "passkey"
      ? protection.passkey
      : fail("invalid", "This wallet is opened with a passphrase.", { field: "unlock" });
  },
  unlock: async (_call, id, source) => (await context()).wallets.unlock(id, source),
  async lock(_call, id) {
    await (await context()).wallets.lock(id);
  },
  async rename(_call, id, label) {
    const { database, wallets } = await context();
    const name = readLabel(label);
    await changeWallet(database, id, row => ({ ...row, label: name }));
    await wallets.changed();
    return wallets.summary(id);
  },
  async forget(_call, id) {
    const { database, tabs, wallets } = await context();
    await requireWallet(database, id);
    await wallets.lock(id);
    await tabs.exclusively(id, () => removeWallet(database, id));
    await wallets.changed();
  },
  describe: async (_call, payload) => (await context()).engine.describe(payload),
  readTransaction: async (_call, request) => (await context()).engine.readTransaction(request),
  readTypedData: async (_call, document, undeclared) =>
    (await context()).engine.readTypedData(document, undeclared),
  sign: async (call, id, payload, order) => sign(await context(), call, id, payload, order),
  outcome: async (call, id, job, payload, path) =>
    outcome(await context(), call, id, job, payload, path),
  inbox: async (call, id) => inbox(await context(), call, id),
  approve: async (call, id, job, digest) => approve(await context(), call, id, job, digest),
  reject: async (call, id, job) => reject(await context(), call, id, job),
  exportBackup: async (_call, id, passphrase) => exportBackup(await context(), id, passphrase),
  checkBackup: async (_call, id, file, passphrase) =>
    checkBackup(await context(), id, file, passphrase),
  waiveBackup: async (_call, id) => waiveBackup(await context(), id),
  thirdShareFile: async (_call, id) => thirdShareFile(await context(), id),
  checkThirdShare: async (_call, id, file, passphrase) =>
    checkThirdShare(await context(), id, file, passphrase),
  restoreBackup: async (_call, file, passphrase, source, label) =>
    restoreBackup(await context(), file, passphrase, source, label),
  rotate: async (call, id) => rotate(await context(), call, id),
  acceptCulprit: async (_call, id, card) => acceptCulprit(await context(), id, card),
  verify: async (_call, options) => (await context()).engine.verify(options),
};

// The worker whose helper it is hears of what is reported.
if (self.name === HELPER_NAME) help(loadEngine).catch(reportError);
else serve(handlers);
