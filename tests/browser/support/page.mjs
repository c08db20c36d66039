// The page as a user operates it. Elements are found by the ids of frontend-wasm/page/TESTIDS.md.
// Every wait is for a state.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

/** A good passphrase, and another one. */
export const PASSPHRASE = "correct horse battery staple";
export const OTHER_PASSPHRASE = "seven wandering lanterns hum";

/** One tab. */
export class Page {
  constructor(tab) {
    this.tab = tab;
  }

  get(id) {
    return this.tab.getByTestId(id);
  }

  /** Waits until an element has one of the wanted states. Returns its state. */
  async state(id, wanted, attribute = "data-state") {
    const states = [wanted].flat();
    const selector = states
      .map(state => `[data-testid="${id}"][${attribute}="${state}"]`)
      .join(", ");
    const element = this.tab.locator(selector).first();
    await element.waitFor({ state: "attached" }).catch(async error => {
      throw new Error(
        `${id} did not come to ${attribute} ${states.join(" or ")}: ${await this.situation()}`,
        { cause: error },
      );
    });
    return element.getAttribute(attribute);
  }

  /** What the page shows, for error messages. */
  async situation() {
    return this.tab.evaluate(
      () =>
        globalThis.document.querySelector('[data-testid="app"]')?.innerText ??
        globalThis.document.body.innerText,
    );
  }

  /** The text of an element without its line breaks, also when the element is folded away. */
  async text(id) {
    return (await this.get(id).first().textContent()).replace(/\s/g, "");
  }

  async ready() {
    await this.state("app", "true", "data-ready");
    return this;
  }

  online() {
    return this.state("connection", "online");
  }

  /**
   * Goes to a route without loading the page again. If it is there already, it renders the route
   * anew, because an old result may still show.
   */
  async go(route, view) {
    if (new URL(this.tab.url()).hash === route) await this.go("#/settings", "settings");
    await this.tab.evaluate(hash => {
      globalThis.location.hash = hash;
    }, route);
    await this.state("view", view, "data-view");
  }

  async reload() {
    await this.tab.reload();
    await this.ready();
  }

  /** Fills the form of a new wallet. */
  async fillCreation(options = {}) {
    const {
      label = "Savings",
      protection = "passphrase",
      third = "partner",
      passphrase = PASSPHRASE,
      requesters,
    } = options;
    await this.go("#/create", "create");
    await this.get("create-label").fill(label);
    await this.get(`create-protection-${protection}`).check();
    if (protection === "passphrase") {
      await this.get("create-passphrase").fill(passphrase);
      await this.get("create-passphrase-repeat").fill(passphrase);
    }
    await this.get(`create-third-${third}`).check();
    if (third === "backup-file") {
      await this.get("create-backup-passphrase").fill(OTHER_PASSPHRASE);
      await this.get("create-backup-passphrase-repeat").fill(OTHER_PASSPHRASE);
    }
    if (requesters) {
      await this.get("create-advanced").click();
      await this.get("create-requesters").fill(requesters);
    }
  }

  async startCreation(options) {
    await this.fillCreation(options);
    await this.get("create-submit").click();
  }

  /**
   * Saves the backup file of the device's share, which is due before the address shows, and opens
   * the file again.
   */
  async saveDueBackup(passphrase) {
    if (passphrase !== undefined) {
      await this.get("backup-passphrase").fill(passphrase);
      await this.get("backup-passphrase-repeat").fill(passphrase);
    }
    const file = await this.download("backup-export");
    await this.shown("backup-done");
    await this.get("backup-file").setInputFiles({
      name: "backup.age",
      mimeType: "application/octet-stream",
      buffer: file,
    });
    await this.get("backup-check").click();
    return file;
  }

  /** Chooses a file of the third share as the one that was saved, and has it checked. */
  async checkThird(buffer, passphrase) {
    await this.get("third-file").setInputFiles({
      name: "third.age",
      mimeType: "application/octet-stream",
      buffer,
    });
    if (passphrase !== undefined) await this.get("third-passphrase").fill(passphrase);
    await this.get("third-check").click();
  }

  /**
   * Saves the file of the third share, which is due before the address shows, and opens it again.
   */
  async saveThird(passphrase) {
    const file = await this.download("create-download");
    await this.checkThird(file, passphrase);
    await this.shown("third-checked");
    return file;
  }

  /** Goes on without the backup that is due before the address shows. */
  async waiveBackup() {
    await this.get("backup-waive").click();
    await this.get("waive-sure").check();
    await this.get("waive-confirm").click();
  }

  /**
   * Passes the gate in front of the address without a backup, with the file of the third share, and
   * opens the wallet.
   */
  async finishCreation() {
    await this.shown("create-secured");
    const file = (await this.get("create-download").isVisible())
      ? await this.saveThird()
      : undefined;
    await this.waiveBackup();
    return { ...(await this.openCreated()), file };
  }

  /** The finished wallet whose address shows: opens the wallet. */
  async openCreated() {
    await this.shown("create-done");
    const address = await this.get("create-done").getAttribute("data-address");
    const text = await this.text("create-address");
    assert.equal(text, address, "the address that is shown is the wallet's");
    await this.get("create-open-wallet").click();
    await this.state("view", "wallet", "data-view");
    const id = await this.get("wallet").getAttribute("data-id");
    return { id, address };
  }

  async create(options) {
    await this.startCreation(options);
    return this.finishCreation();
  }

  /** Waits for an element. Fails at once, with the page's message, when an error shows instead. */
  async shown(id) {
    const wanted = this.get(id).first();
    const error = this.get("error").first();
    await wanted.or(error).first().waitFor();
    if (!(await wanted.isVisible()))
      throw new Error(`instead of ${id} the page says: ${await error.innerText()}`);
    return wanted;
  }

  /** The kind of the failure that shows. */
  async error() {
    const error = this.get("error").first();
    await error.waitFor();
    return error.getAttribute("data-kind");
  }

  /** Clicks an element that saves a file. Returns the file's bytes. */
  async download(id) {
    const [download] = await Promise.all([this.tab.waitForEvent("download"), this.get(id).click()]);
    return readFile(await download.path());
  }

  async unlock(passphrase = PASSPHRASE) {
    await this.get("unlock-passphrase").fill(passphrase);
    await this.get("unlock-submit").click();
  }

  walletState(states) {
    return this.state("wallet", states);
  }

  async openWallet(id) {
    await this.go(`#/wallet/${id}`, "wallet");
  }

  async lock() {
    await this.get("wallet-lock").click();
    await this.walletState("locked");
  }

  /** All records in a store of the browser's database. Bytes become arrays. */
  stored(store) {
    return this.tab.evaluate(async name => {
      const done = request =>
        new Promise((resolve, reject) => {
          request.onsuccess = () => resolve(request.result);
          request.onerror = () => reject(request.error);
        });
      const database = await done(indexedDB.open("duet"));
      const rows = await done(database.transaction(name).objectStore(name).getAll());
      database.close();
      return JSON.parse(
        JSON.stringify(rows, (_, value) => (ArrayBuffer.isView(value) ? [...value] : value)),
      );
    }, store);
  }

  // ------------------------------------------------------------------------------------- signing

  async reviewMessage(wallet, text) {
    await this.go(`#/wallet/${wallet}/message`, "message");
    await this.get("message-text").fill(text);
    await this.get("review-submit").click();
    await this.shown("review");
  }

  async reviewTypedData(wallet, document) {
    await this.go(`#/wallet/${wallet}/typed-data`, "typed-data");
    await this.get("typed-data-json").fill(JSON.stringify(document));
    await this.get("review-submit").click();
    await this.shown("review");
  }

  async reviewTransfer(wallet, { to, amount, unit = "ether" }) {
    await this.go(`#/wallet/${wallet}/send`, "send");
    await this.get("send-to").fill(to);
    await this.get("send-amount").fill(amount);
    await this.get("send-unit").selectOption(unit);
    await this.state("send-estimate", "known");
    await this.get("review-submit").click();
    await this.shown("review");
  }

  /** Clicks, and does not wait for the result. */
  async startSigning() {
    await this.get("review-sign").click();
  }

  /** Waits until a signature shows that the page has verified. */
  async signed() {
    const state = await this.state("signing", ["signed", "failed"]);
    if (state !== "signed") throw new Error(`not signed: ${await this.situation()}`);
    await this.state("signature-verified", "true", "data-valid");
    return this.text("signature");
  }

  async sign() {
    await this.startSigning();
    return this.signed();
  }

  async signMessage(wallet, text) {
    await this.reviewMessage(wallet, text);
    return this.sign();
  }

  // --------------------------------------------------------------------------------- after a lock

  /** Clicks what makes a new key of the device, and waits until it is there. */
  async replaceKey() {
    await this.get("rotate-submit").first().click();
    await this.shown("rotate-done");
  }

  /** Gives the owner's word to go on with a party whose signature was wrong. */
  async acceptCulprit(role = "service") {
    await this.get(`culprit-accept-${role}`).click();
    await this.get("culprit-sure").check();
    await this.get("culprit-confirm").click();
  }

  // -------------------------------------------------------------------------------------- backup

  /** The file with the device's share, sealed with a passphrase. */
  async backUp(wallet, passphrase = OTHER_PASSPHRASE) {
    await this.go(`#/wallet/${wallet}/settings`, "wallet-settings");
    await this.get("backup-passphrase").fill(passphrase);
    await this.get("backup-passphrase-repeat").fill(passphrase);
    const file = await this.download("backup-export");
    await this.shown("backup-done");
    return file;
  }

  async restore(file, { passphrase = OTHER_PASSPHRASE, own = PASSPHRASE } = {}) {
    await this.go("#/restore", "restore");
    await this.get("restore-file").setInputFiles({
      name: "backup.age",
      mimeType: "application/octet-stream",
      buffer: file,
    });
    await this.get("restore-passphrase").fill(passphrase);
    await this.get("restore-protection-passphrase").check();
    await this.get("restore-new-passphrase").fill(own);
    await this.get("restore-new-passphrase-repeat").fill(own);
    await this.get("restore-submit").click();
  }
}
