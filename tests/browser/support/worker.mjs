// The worker in which the page's secrets are, as a test reaches into it: what it stores, says and waits for.

/** The tab's worker; its helpers come and go. */
export async function workerOf({ tab }) {
  for (const worker of tab.workers()) {
    if ((await worker.evaluate(() => globalThis.name).catch(() => null)) === 'duet') return new Worker(worker);
  }
  throw new Error('the tab has no worker');
}

class Worker {
  #worker;

  constructor(worker) {
    this.#worker = worker;
  }

  /** Lets `allowed` more records be written into a store, and refuses the next as a full disk does. */
  refuseWrites(store, allowed = 0) {
    return this.#worker.evaluate(
      ([name, count]) => {
        const { put } = IDBObjectStore.prototype;
        let left = count;
        IDBObjectStore.prototype.put = function refused(...record) {
          if (this.name === name) {
            left -= 1;
            if (left < 0) throw new DOMException('The disk is full.', 'QuotaExceededError');
          }
          return put.apply(this, record);
        };
        globalThis.duetAllowWrites = () => { IDBObjectStore.prototype.put = put; };
      },
      [store, allowed],
    );
  }

  /** Closes the database's connection under the next transaction, as a browser does to free memory or after a crash of its storage. */
  closeDatabase() {
    return this.#worker.evaluate(() => {
      const { transaction } = IDBDatabase.prototype;
      IDBDatabase.prototype.transaction = function closed(...names) {
        IDBDatabase.prototype.transaction = transaction;
        this.close();
        this.dispatchEvent(new Event('close'));
        return transaction.apply(this, names);
      };
    });
  }

  allowWrites() {
    return this.#worker.evaluate(() => globalThis.duetAllowWrites());
  }

  /** Notes from now on, in order, what goes over the socket, what the page is told of a signature, and what became of the keys' store. */
  record() {
    return this.#worker.evaluate(() => {
      const said = [];
      globalThis.duetSaid = said;
      const { postMessage } = globalThis;
      globalThis.postMessage = (message, ...more) => {
        if (message.type === 'answer') said.push(`answer ${message.outcome.ok ? 'ok' : message.outcome.error.kind}`);
        if (message.type === 'note') {
          const { step, message: number, responder, party } = message.note;
          said.push(`note ${step} ${number ?? responder ?? party ?? ''}`.trim());
        }
        return postMessage.call(globalThis, message, ...more);
      };
      const { send } = WebSocket.prototype;
      WebSocket.prototype.send = function sent(data) {
        said.push('sent');
        return send.call(this, data);
      };
      const { put } = IDBObjectStore.prototype;
      IDBObjectStore.prototype.put = function stored(record, ...more) {
        if (this.name === 'keys') this.transaction.addEventListener('complete', () => said.push(`stored ${record.state}`));
        return put.call(this, record, ...more);
      };
    });
  }

  /** What was noted since the last time. */
  said() {
    return this.#worker.evaluate(() => globalThis.duetSaid.splice(0));
  }

  /** Takes over the worker's long timers, of a minute and more. */
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
      globalThis.clearTimeout = (id) => {
        timers.delete(id);
        clearTimeout(id);
      };
      globalThis.duetPass = (ms) => {
        now += ms;
        for (const [id, { work, at }] of [...timers]) {
          if (at > now) continue;
          timers.delete(id);
          work();
        }
      };
    });
  }

  /** Lets time pass for the timers that were taken over. */
  pass(ms) {
    return this.#worker.evaluate((passed) => globalThis.duetPass(passed), ms);
  }
}
