// Messages and typed data, verified by ethers and viem. The page reports bad input before anything
// is sent.

import assert from "node:assert/strict";

import { judge } from "../support/judges.mjs";
import { scenario } from "../support/world.mjs";

/** The example of EIP-712. */
const MAIL = {
  types: {
    EIP712Domain: [
      { name: "name", type: "string" },
      { name: "version", type: "string" },
      { name: "chainId", type: "uint256" },
      { name: "verifyingContract", type: "address" },
    ],
    Person: [
      { name: "name", type: "string" },
      { name: "wallet", type: "address" },
    ],
    Mail: [
      { name: "from", type: "Person" },
      { name: "to", type: "Person" },
      { name: "contents", type: "string" },
    ],
  },
  primaryType: "Mail",
  domain: {
    name: "Ether Mail",
    version: "1",
    chainId: 31337,
    verifyingContract: "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC",
  },
  message: {
    from: { name: "Cow", wallet: "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826" },
    to: { name: "Bob", wallet: "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB" },
    contents: "Hello, Bob!",
  },
};

scenario("a message and typed data are signed as ethers and viem read them", async scene => {
  const { page, id, address } = await scene.borrow();
  const text = "Grüße, 世界 🌍\nsecond line";
  await page.reviewMessage(id, text);
  const digest = await page.get("review").getAttribute("data-digest");
  const signature = await page.sign();
  await judge({ kind: "personal_message", address, signature, digest, text });

  await page.reviewTypedData(id, MAIL);
  const shown = await page.get("review").innerText();
  for (const part of [
    "Ether Mail",
    "Cow",
    "Bob",
    "Hello, Bob!",
    "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826",
  ]) {
    assert.ok(shown.includes(part), `${part} is shown before it is signed`);
  }
  const typed = {
    digest: await page.get("review").getAttribute("data-digest"),
    signature: await page.sign(),
  };
  await judge({ kind: "typed_data", address, ...typed, typed_data: MAIL });

  // The page's own verifier accepts it, and rejects it for another address.
  await page.go("#/verify", "verify");
  await page.get("verify-kind").selectOption("personal_message");
  await page.get("verify-payload").fill(text);
  await page.get("verify-signature").fill(signature);
  await page.get("verify-address").fill(address);
  await page.get("verify-submit").click();
  await page.state("verify-result", "true", "data-valid");
  await page.get("verify-address").fill("0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826");
  await page.get("verify-submit").click();
  await page.state("verify-result", "false", "data-valid");
  assert.ok(
    (await page.get("verify-recovered").innerText()).includes(address),
    "it says whose it is instead",
  );
});

scenario(
  "the page shows a transaction's fault beside the field, and sends nothing",
  async scene => {
    const { page, id, address } = await scene.borrow();
    await scene.stack.fund(address, 1);
    await page.go(`#/wallet/${id}/send`, "send");
    // One letter of the checksum is wrong.
    await page.get("send-to").fill("0xcD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826");
    await page.get("send-amount").fill("1.0000000000000000001");
    await page.get("review-submit").click();
    await page.shown("field-error-send-to");
    await page.shown("field-error-send-amount");
    assert.equal(await page.get("review").count(), 0, "there is nothing to sign");

    await page.go(`#/wallet/${id}/typed-data`, "typed-data");
    await page.get("typed-data-json").fill('{"types": {');
    await page.get("review-submit").click();
    await page.shown("field-error-typed-data-json");
    await page
      .get("typed-data-json")
      .fill(JSON.stringify({ ...MAIL, message: { ...MAIL.message, to: { name: "Bob" } } }));
    await page.get("review-submit").click();
    await page.shown("field-error-typed-data-json");

    // For a chain other than the node's, the page asks for a tick first.
    const elsewhere = { ...MAIL, domain: { ...MAIL.domain, chainId: 1 } };
    await page.get("typed-data-json").fill(JSON.stringify(elsewhere));
    await page.shown("chain-warning");
    await page.get("typed-data-chain-accept").check();
    await page.get("review-submit").click();
    await page.shown("review");
    await judge({
      kind: "typed_data",
      address,
      signature: await page.sign(),
      typed_data: elsewhere,
    });
  },
);

scenario(
  "with the service down the partner signs, and with both back the service does",
  async scene => {
    const { page, id, address } = await scene.borrow();
    await scene.stack.order("pairs-ready", { wallet: id });
    await scene.stack.kill("service");
    try {
      const signature = await page.signMessage(id, "The service is down");
      await judge({ kind: "personal_message", address, signature, text: "The service is down" });
      assert.match(
        await page.get("signing").innerText(),
        /partner/i,
        "the page says who signed along",
      );
    } finally {
      await scene.stack.start("service");
    }
    const signature = await page.signMessage(id, "The service is back");
    await judge({ kind: "personal_message", address, signature, text: "The service is back" });
  },
);

scenario(
  "without a partner the page says that the service is down, and signs once it is back",
  async scene => {
    const { page, id, address } = await scene.borrow({ third: "backup-file" });
    await page.reviewMessage(id, "Is the service there?");
    await scene.stack.kill("service");
    try {
      await page.startSigning();
      assert.equal(await page.state("signing", ["failed", "signed"]), "failed");
      await page.state("error", "party-unreachable", "data-kind");
    } finally {
      await scene.stack.start("service");
    }
    const signature = await page.signMessage(id, "The service is there");
    await judge({ kind: "personal_message", address, signature, text: "The service is there" });
  },
);
