// The worker that holds the page's secrets. A test observes what it stores and sends, and controls
// its timers.

/** The tab's worker. Its helper workers start and end. */
export async function workerOf({ tab }) {
  for (const worker of tab.workers()) {
    if ((await worker.evaluate(() => globalThis.name).catch(() => null)) === "duet")
      return new Worker(worker);
  }
  throw new Error("the tab has no worker");
}

class Worker {
  #worker;

  constructor(worker) {
    this.#worker = worker;
  }

  /** Permits `allowed` more records in a store, and then refuses writes as a full disk does. */
  refuseWrites(store, allowed = 0) {
    return this.#worker.evaluate(
      ([name, count]) => {
        const { put } = IDBObjectStore.prototype;
        let left = count;
        IDBObjectStore.prototype.put = function refused(...record) {
          if (this.name === name) {
            left -= 1;
            if (left < 0) throw new DOMException("The disk is full.", "QuotaExceededError");
          }
          return put.apply(this, record);
        };
        globalThis.duetAllowWrites = () => {
          IDBObjectStore.prototype.put = put;
        };
      },
      [store, allowed],
    );
  }

  /**
   * Closes the database's connection during the next transaction, as a browser does to free memory
   * or after its storage crashed.
   */
  closeDatabase() {
    return this.#worker.evaluate(() => {
      const { transaction } = IDBDatabase.prototype;
      IDBDatabase.prototype.transaction = function closed(...names) {
        IDBDatabase.prototype.transaction = transaction;
        this.close();
        this.dispatchEvent(new Event("close"));
        return transaction.apply(this, names);
      };
    });
  }

  allowWrites() {
    return this.#worker.evaluate(() => globalThis.duetAllowWrites());
  }

  /**
   * Records from now on, in order: messages on the socket, what the page learns of a signature, and
   * writes to the keys' store.
   */
  record() {
    return this.#worker.evaluate(() => {
      const said = [];
      globalThis.duetSaid = said;
      const { postMessage } = globalThis;
      globalThis.postMessage = (message, ...more) => {
        if (message.type === "answer")
          said.push(`answer ${message.outcome.ok ? "ok" : message.outcome.error.kind}`);
        if (message.type === "note") {
          const { step, message: number, responder, party } = message.note;
          said.push(`note ${step} ${number ?? responder ?? party ?? ""}`.trim());
        }
        return postMessage.call(globalThis, message, ...more);
      };
      const { send } = WebSocket.prototype;
      WebSocket.prototype.send = function sent(data) {
        said.push("sent");
        return send.call(this, data);
      };
      const { put } = IDBObjectStore.prototype;
      IDBObjectStore.prototype.put = function stored(record, ...more) {
        if (this.name === "keys")
          this.transaction.addEventListener("complete", () => said.push(`stored ${record.state}`));
        return put.call(this, record, ...more);
      };
    });
  }

  /** What was recorded since the last call. */
  said() {
    return this.#worker.evaluate(() => globalThis.duetSaid.splice(0));
  }

  /** Takes control of the worker's long timers, of a minute and more. */
  async holdTimers() {
    await this.#worker.evaluate(() => {
      const LONG_MS = 60_000;
      const timers = new Map();
      const { setTimeout, clearTimeout } = globalThis;
      let now = 0;
      globalThis.setTimeout = (work, ms = 0, ...more) => {
        const id = setTimeout(() => {}, 0);
        if (ms < LONG_MS) return setTimeout(work, ms, ...more);
        timers.set(id, { work: () => work(...more), at: now + ms });
        return id;
      };
      globalThis.clearTimeout = id => {
        timers.delete(id);
        clearTimeout(id);
      };
      globalThis.duetPass = ms => {
        now += ms;
        for (const [id, { work, at }] of [...timers]) {
          if (at > now) continue;
          timers.delete(id);
          work();
        }
      };
    });
  }

  /** Lets time pass for the controlled timers. */
  pass(ms) {
    return this.#worker.evaluate(passed => globalThis.duetPass(passed), ms);
  }
}
