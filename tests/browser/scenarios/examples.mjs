// The examples for developers, from their own web server and with a gateway that has the
// demonstration's settings. Each sends a transaction with the library as it is published.

import assert from "node:assert/strict";

import { PASSPHRASE } from "../support/page.mjs";
import { scenario } from "../support/world.mjs";

const RECIPIENT = "0x00000000000000000000000000000000DeaDBeef";

for (const library of ["viem", "ethers", "eip1193"]) {
  scenario(`a page of another origin sends a transaction with ${library}`, async scene => {
    const profile = await scene.profile(scene.site);
    const tab = await profile.tab(`${library}/?gateway=${encodeURIComponent(scene.stack.url)}`);
    const status = tab.getByTestId("status");
    const until = async wanted => {
      await tab
        .locator(`[data-testid="status"]:is([data-state="${wanted}"], [data-state="failed"])`)
        .waitFor();
      assert.equal(await status.getAttribute("data-state"), wanted, await status.innerText());
    };
    await tab.getByTestId("passphrase").fill(PASSPHRASE);
    await tab.getByTestId("open").click();
    await until("open");
    const address = await tab.getByTestId("address").innerText();
    await scene.stack.fund(address, 1);

    const before = await scene.stack.balance(RECIPIENT);
    await tab.getByTestId("to").fill(RECIPIENT);
    await tab.getByTestId("value").fill("123456789");
    await tab.getByTestId("send").click();
    await until("sent");
    const receipt = await scene.stack.receipt(await tab.getByTestId("hash").innerText());
    assert.equal(receipt.status, "0x1");
    assert.equal(receipt.from, address.toLowerCase());
    assert.equal((await scene.stack.balance(RECIPIENT)) - before, 123456789n);
  });
}

scenario("a page of an origin that is not allowed is told so by name", async scene => {
  const profile = await scene.profile(scene.site);
  const tab = await profile.tab(
    `viem/?gateway=${encodeURIComponent(scene.stack.facts.strictGateway)}`,
  );
  await tab.getByTestId("passphrase").fill(PASSPHRASE);
  await tab.getByTestId("open").click();
  await tab.locator('[data-testid="status"][data-state="failed"]').waitFor();
  const said = await tab.getByTestId("status").innerText();
  assert.ok(said.includes(`--origin ${scene.site}`) && said.includes("does not allow"), said);
});
