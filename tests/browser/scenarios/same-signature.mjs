// Sites derive keys from signatures. The same message gets the same signature, but never without a
// new decision.

import assert from "node:assert/strict";

import { judge } from "../support/judges.mjs";
import { scenario } from "../support/world.mjs";

const LOGIN = "Log in to the exchange";

const ORDER = {
  types: {
    EIP712Domain: [{ name: "name", type: "string" }],
    Login: [{ name: "account", type: "string" }],
  },
  primaryType: "Login",
  domain: { name: "Exchange" },
  message: { account: "main" },
};

scenario(
  "the same message and typed data get the same signature, after a reload too; a transaction does not",
  async scene => {
    const { page, id, address } = await scene.borrow();
    const typedData = async () => {
      await page.reviewTypedData(id, ORDER);
      return page.sign();
    };
    await page.reviewMessage(id, LOGIN);
    assert.match(await page.get("review-same-signature").innerText(), /may not know this wallet/);
    const first = await page.sign();
    await judge({ kind: "personal_message", address, signature: first, text: LOGIN });
    // The page returns the form that `ecrecover` takes.
    assert.match(first, /^0x[0-9a-f]{128}(1b|1c)$/);
    assert.notEqual(address, address.toLowerCase(), "the address has its checksum");
    const typed = await typedData();
    await judge({ kind: "typed_data", address, signature: typed, typed_data: ORDER });
    assert.equal(await page.signMessage(id, LOGIN), first);
    assert.equal(await typedData(), typed);
    assert.notEqual(await page.signMessage(id, `${LOGIN}!`), first);

    await page.reload();
    await page.online();
    await page.openWallet(id);
    await page.unlock();
    await page.walletState("unlocked");
    assert.equal(await page.signMessage(id, LOGIN), first);
    assert.equal(await typedData(), typed);

    // Kept answers are sealed: the record shows neither digest nor signature.
    const record = (await page.stored("records")).find(
      ({ wallet, kind }) => wallet === id && kind === "answers",
    );
    const sealed = Buffer.from(record.sealed).toString("latin1");
    assert.ok(
      sealed.length > 0 && !sealed.includes(first.slice(2, 40)) && !sealed.includes("signature"),
    );

    await scene.stack.fund(address);
    const transfer = async () => {
      await page.reviewTransfer(id, {
        to: "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826",
        amount: "1",
      });
      const digest = await page.get("review").getAttribute("data-digest");
      return { digest, signature: await page.sign() };
    };
    const [one, other] = [await transfer(), await transfer()];
    assert.equal(one.digest, other.digest);
    assert.notEqual(one.signature, other.signature);
  },
);

scenario(
  "the device shows the signature that service and partner made earlier of the same message",
  async scene => {
    const { page, id, address } = await scene.borrow({ requesters: scene.stack.facts.requester });
    await scene.stack.order("pairs-ready", { wallet: id });
    const { id: job } = await scene.stack.submit(id, ["message", LOGIN], "service+partner");
    let made = await scene.stack.job(job);
    while (made.state === "queued" || made.state === "running") made = await scene.stack.job(job);
    const { signature } = made;
    await judge({ kind: "personal_message", address, signature, text: LOGIN });
    assert.equal(await page.signMessage(id, LOGIN), signature);
  },
);

scenario(
  "the page shows no old signature when the other party does not sign along",
  async scene => {
    const { page, id } = await scene.borrow({ third: "backup-file" });
    const first = await page.signMessage(id, LOGIN);
    await scene.stack.kill("service");
    try {
      await page.reviewMessage(id, LOGIN);
      await page.startSigning();
      assert.equal(await page.state("signing", ["failed", "signed"]), "failed");
      assert.equal(await page.get("signature").count(), 0);
    } finally {
      await scene.stack.start("service");
    }
    assert.equal(await page.signMessage(id, LOGIN), first);
  },
);
