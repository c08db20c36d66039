// Which parties get shares: those of the page's configuration, and none that only a gateway names.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { isLoopback, readParties } from "../dist/parties.js";
import { askGateway, readAnswer, whyRefused } from "../dist/worker/info.js";
import {
  chooseRecipients,
  nameRecipients,
  requireRecipients,
  requireSameRecipients,
  seenBefore,
} from "../dist/worker/recipients.js";
import { readToken } from "../dist/worker/token.js";
import { failure } from "./failure.mjs";

const SERVICE = "ab".repeat(32);
const PARTNER = "cd".repeat(32);
const ATTACKER = "ee".repeat(32);

/** What an honest gateway for trying out says. */
const DOCUMENT = {
  build: "abc",
  protocol: 1,
  tenant: "acme",
  trial: true,
  backends: [
    { role: "service", party: "service", fingerprint: SERVICE.toUpperCase() },
    { role: "partner", party: "partner" },
    { role: "auditor", party: "auditor" },
  ],
  rpc: { chainId: 31337, url: "http://127.0.0.1:8545" },
  admission: { service: "AQID" },
};
const PARTIES = [
  { role: "service", name: "service", fingerprint: SERVICE },
  { role: "partner", name: "partner", fingerprint: PARTNER },
];
const LOOPBACK = "http://127.0.0.1:8081";
const ELSEWHERE = "https://gateway.example";

const unpinned = { kind: "invalid", field: "parties" };

test("an_answer__should_be_read_and_refused_when_it_is_no_gateways", () => {
  const answer = readAnswer(DOCUMENT);
  assert.deepEqual(answer.backends, [
    { role: "service", party: "service", fingerprint: SERVICE },
    { role: "partner", party: "partner" },
  ]);
  assert.equal(answer.admission.get("service"), "AQID");
  assert.throws(() => readAnswer({ hello: "world" }), failure({ kind: "gateway-unreachable" }));
  // What is no name and no fingerprint does not get further.
  const odd = {
    ...DOCUMENT,
    trial: "yes",
    backends: [
      { role: "service", party: "a.b" },
      { role: "partner", party: "p", fingerprint: "xy" },
    ],
  };
  assert.deepEqual(readAnswer(odd).backends, [{ role: "partner", party: "p" }]);
  assert.equal(readAnswer(odd).trial, false);
});

test("without_pinned_parties__should_nothing_be_dealt_but_through_a_trial_gateway_on_the_loopback", () => {
  const trial = readAnswer(DOCUMENT);
  const production = readAnswer({ ...DOCUMENT, trial: undefined, admission: undefined });
  for (const [gateway, answer] of [
    [ELSEWHERE, trial],
    [ELSEWHERE, production],
    [LOOPBACK, production],
    ["https://localhost.example", trial],
  ]) {
    assert.deepEqual(nameRecipients({ gateway, parties: [] }, answer), [], gateway);
    assert.throws(
      () => requireRecipients({ gateway, parties: [] }, answer),
      failure(unpinned),
      gateway,
    );
  }
  for (const gateway of [LOOPBACK, "http://localhost:1", "https://[::1]"]) {
    const named = requireRecipients({ gateway, parties: [] }, trial);
    assert.deepEqual(
      named.map(({ party, source }) => [party, source]),
      [
        ["service", "trial-gateway"],
        ["partner", "trial-gateway"],
      ],
    );
  }
  assert.ok(!isLoopback("127.0.0.1.example") && !isLoopback("gateway.example"));
});

test("pinned_parties__should_be_the_only_ones_whatever_a_gateway_says", () => {
  const lies = {
    "another fingerprint": [{ role: "service", party: "service", fingerprint: ATTACKER }],
    "another name with a fingerprint of its own": [
      { role: "service", party: "mallory", fingerprint: ATTACKER },
    ],
    "another name for the pinned card": [
      { role: "partner", party: "mallory", fingerprint: PARTNER },
    ],
    "another name without a fingerprint": [{ role: "partner", party: "mallory" }],
    "one more service": [
      DOCUMENT.backends[0],
      { role: "service", party: "mallory", fingerprint: ATTACKER },
    ],
  };
  for (const gateway of [ELSEWHERE, LOOPBACK]) {
    for (const [lie, backends] of Object.entries(lies)) {
      const answer = readAnswer({ ...DOCUMENT, backends });
      assert.throws(
        () => requireRecipients({ gateway, parties: PARTIES }, answer),
        failure({ kind: "refused", code: "card-mismatch", by: "gateway" }),
        lie,
      );
      // Shown are the pinned ones all the same.
      assert.deepEqual(
        nameRecipients({ gateway, parties: PARTIES }, answer).map(({ fingerprint }) => fingerprint),
        [SERVICE, PARTNER],
      );
    }
    // A gateway that says nothing of the parties, or the same, changes nothing.
    for (const backends of [[], DOCUMENT.backends]) {
      const named = requireRecipients(
        { gateway, parties: PARTIES },
        readAnswer({ ...DOCUMENT, backends }),
      );
      assert.deepEqual(named, [
        { role: "service", party: "service", fingerprint: SERVICE, source: "configuration" },
        { role: "partner", party: "partner", fingerprint: PARTNER, source: "configuration" },
      ]);
    }
  }
});

test("admission_tokens__should_decide_the_tenant_and_be_for_the_parties_that_get_shares", () => {
  const named = nameRecipients({ gateway: ELSEWHERE, parties: PARTIES }, readAnswer(DOCUMENT));
  const token = (party, tenant = "acme") => ({ party, tenant, token: new Uint8Array([1]) });
  const both = ["service", "partner"];
  const chosen = chooseRecipients(named, both, [token("partner"), token("service")]);
  assert.equal(chosen.tenant, "acme");
  assert.deepEqual(
    chosen.recipients.map(({ party }) => party),
    both,
  );
  assert.deepEqual(chooseRecipients(named, ["service"], [token("service")]).recipients.length, 1);
  // The partner's token may lie there although the third share goes to a file.
  assert.deepEqual(
    chooseRecipients(named, ["service"], [token("service"), token("partner")]).recipients.length,
    1,
  );
  const refused = (admissions, field = "tokens") =>
    assert.throws(
      () => chooseRecipients(named, both, admissions),
      failure({ kind: "invalid", field }),
    );
  refused([token("service")]);
  refused([token("service"), token("partner", "other")]);
  refused([token("service"), token("partner"), token("mallory")]);
  assert.throws(
    () => chooseRecipients(named.slice(0, 1), both, [token("service")]),
    failure({ kind: "invalid", field: "partner" }),
  );
});

test("an_interrupted_creation__should_go_on_only_for_the_parties_that_count_now", () => {
  const dealt = fingerprint => [
    { share: 1, role: "device", party: "device" },
    { share: 2, role: "service", party: "service", fingerprint },
    { share: 3, role: "backup-file" },
  ];
  const pinned = { gateway: ELSEWHERE, parties: PARTIES };
  requireSameRecipients(dealt(SERVICE), pinned, null);
  const refusal = failure({ kind: "refused", code: "card-mismatch", by: "service" });
  assert.throws(() => requireSameRecipients(dealt(ATTACKER), pinned, null), refusal);
  const trial = readAnswer(DOCUMENT);
  requireSameRecipients(dealt(ATTACKER), { gateway: LOOPBACK, parties: [] }, trial);
  assert.throws(
    () => requireSameRecipients(dealt(SERVICE), { gateway: ELSEWHERE, parties: [] }, trial),
    refusal,
  );
});

test("cards_that_were_dealt_to__should_be_known_by_role_and_fingerprint", () => {
  const pins = [
    { role: "service", fingerprint: SERVICE, party: "x" },
    { role: "unknown", fingerprint: PARTNER, party: "y" },
  ];
  assert.equal(seenBefore(pins, "service", SERVICE), "this");
  assert.equal(seenBefore(pins, "service", ATTACKER), "other");
  assert.equal(seenBefore(pins, "partner", SERVICE), "never");
  // What version 1 pinned, which kept no roles, holds for any.
  assert.equal(seenBefore(pins, "partner", PARTNER), "this");
});

test("a_configuration__should_be_refused_by_the_member_that_is_wrong", () => {
  assert.deepEqual(readParties([]), []);
  const read = readParties([
    { ...PARTIES[0], fingerprint: SERVICE.toUpperCase(), token: "00" },
    PARTIES[1],
  ]);
  assert.deepEqual(read, [{ ...PARTIES[0], token: "00" }, PARTIES[1]]);
  for (const [given, field] of [
    ["service", "parties"],
    [[PARTIES[1]], "parties"],
    [[null], "parties[0]"],
    [[PARTIES[0], PARTIES[0]], "parties[1].role"],
    [[{ ...PARTIES[0], role: "auditor" }], "parties[0].role"],
    [[{ ...PARTIES[0], name: "The service" }], "parties[0].name"],
    [[{ role: "service", name: "service" }], "parties[0].fingerprint"],
    [[{ ...PARTIES[0], fingerprint: "ab" }], "parties[0].fingerprint"],
    [[PARTIES[0], { ...PARTIES[1], fingerPrint: PARTNER }], "parties[1].fingerPrint"],
    [[{ ...PARTIES[0], token: " " }], "parties[0].token"],
  ]) {
    assert.throws(() => readParties(given), failure({ kind: "invalid", field }), field);
  }
});

test("tokens__should_be_read_in_either_writing", () => {
  assert.deepEqual(readToken(" -_8= ", "token"), new Uint8Array([0xfb, 0xff]));
  assert.throws(() => readToken("%%%", "token"), failure({ field: "token" }));
});

test("configuration__should_say_why_a_gateway_refuses_the_page", async () => {
  const answers = {
    "/refused": [
      401,
      "application/problem+json",
      JSON.stringify({ code: "unauthorized", detail: "it does not allow https://a.example" }),
    ],
    "/broken": [502, "text/html", "<h1>Bad gateway</h1>"],
    "/odd": [401, "application/problem+json", "{}"],
    "/well": [200, "application/json", JSON.stringify(DOCUMENT)],
  };
  const server = createServer((request, response) => {
    const [status, type, body] = answers[request.url.replace("/v1/info", "")];
    response.writeHead(status, { "content-type": type }).end(body);
  });
  await new Promise(resolve => server.listen(0, "127.0.0.1", resolve));
  const at = path => `http://127.0.0.1:${server.address().port}${path}`;
  const refused = {
    kind: "refused",
    code: "unauthorized",
    by: "gateway",
    message: "It does not allow https://a.example.",
  };
  await assert.rejects(askGateway(at("/refused")), failure(refused));
  for (const path of ["/broken", "/odd"]) {
    await assert.rejects(askGateway(at(path)), failure({ kind: "gateway-unreachable" }));
    assert.equal(await whyRefused(at(path)), undefined);
  }
  assert.deepEqual((await whyRefused(at("/refused"))).error, refused);
  assert.equal(await whyRefused(at("/well")), undefined);
  await new Promise(resolve => {
    server.close(resolve);
    server.closeAllConnections();
  });
});
