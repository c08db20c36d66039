//! `duet doctor` on real processes: nothing to find in a healthy installation, and one fault at a
//! time named in the others, while the checks that it does not concern stay ok.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{fs, net::TcpListener, path::Path, time::Duration};

use duet_bus::{Filter, Role, ServeOptions};
use duet_credentials::{InitSettings, Layout, initialise};
use duet_harness::{
    broker::Broker,
    duet::{Duet, text},
    nats_server::NatsServer,
    process, programs,
    stack::Stack,
};
use duet_protocol::codec;
use duet_wire::{Code, Refusal, card_request::CardReply, hello::Hello};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tokio::time::{interval, timeout};

use super::upgrade;

/// How long the doctor may take, and how long a fault may take to show.
const DEADLINE: Duration = Duration::from_secs(60);

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// All checks, in the order of the report.
const CHECKS: [&str; 13] = [
    "broker",
    "nodes",
    "streams",
    "certificates",
    "orchestrators",
    "parties",
    "seats",
    "clocks",
    "builds",
    "tenants",
    "wallets",
    "jobs",
    "webhooks",
];

/// What one run of the doctor reported.
#[derive(Debug)]
struct Diagnosis {
    exit_code: Option<i32>,
    report: Value,
}

impl Diagnosis {
    async fn of(duet: &Duet, more: &[&str]) -> Self {
        let command = duet.command(&[&["doctor"], more].concat()).unwrap();
        let output = process::run(command, "", DEADLINE).await.unwrap();
        let document: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", output.stdout, output.stderr));
        let report = match document.pointer("/error") {
            Some(error) => {
                assert_eq!(text(error, "/code").unwrap(), "unhealthy", "{document:#}");
                error.pointer("/details").unwrap().clone()
            }
            None => document,
        };
        Self { exit_code: output.status.code(), report }
    }

    fn checks(&self) -> impl Iterator<Item = &Value> {
        self.report.pointer("/checks").unwrap().as_array().unwrap().iter()
    }

    /// The findings as `check code status`, in order, without repetitions.
    fn findings(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .checks()
            .flat_map(|check| {
                let findings = check.pointer("/findings").unwrap().as_array().unwrap().iter();
                findings.map(move |finding| {
                    let member = |name| text(finding, name).unwrap();
                    assert!(!member("/meaning").is_empty() && !member("/remedy").is_empty(), "{finding:#}");
                    format!("{} {} {}", text(check, "/check").unwrap(), member("/code"), member("/status"))
                })
            })
            .collect();
        all.dedup();
        all
    }

    /// That exactly these findings are reported, and that the checks without one are ok.
    fn finds(&self, expected: &[&str]) {
        assert_eq!(self.findings(), expected, "{:#}", self.report);
        let names: Vec<&str> = self.checks().map(|check| text(check, "/check").unwrap()).collect();
        assert_eq!(names, CHECKS);
        for check in self.checks() {
            let name = text(check, "/check").unwrap();
            let has_finding = expected.iter().any(|finding| finding.split(' ').next() == Some(name));
            assert_eq!(text(check, "/status").unwrap() == "ok", !has_finding, "{check:#}");
        }
        let is_failed = expected.iter().any(|finding| finding.ends_with(" failed"));
        assert_eq!(self.exit_code, Some(if is_failed { 7 } else { 0 }));
        let is_skipped = expected.iter().any(|finding| finding.ends_with(" skipped"));
        assert_eq!(self.report.pointer("/healthy"), Some(&Value::Bool(!is_failed && !is_skipped)));
    }

    /// The message of the first finding with this code.
    fn message(&self, code: &str) -> &str {
        let findings =
            self.checks().flat_map(|check| check.pointer("/findings").unwrap().as_array().unwrap());
        let mut messages = findings.filter(|finding| text(finding, "/code").unwrap() == code);
        text(messages.next().unwrap(), "/message").unwrap()
    }

    fn summary(&self, check: &str) -> &str {
        let found = self.checks().find(|found| text(found, "/check").unwrap() == check);
        text(found.unwrap(), "/summary").unwrap()
    }
}

/// Runs the doctor until it finds all of this, or nothing if nothing is expected.
async fn comes_to(duet: &Duet, more: &[&str], expected: &[&str]) -> Diagnosis {
    let mut look = interval(LOOK_EVERY);
    let came = timeout(DEADLINE, async {
        loop {
            look.tick().await;
            let diagnosis = Diagnosis::of(duet, more).await;
            let found = diagnosis.findings();
            let has_all = expected.iter().all(|expected| found.iter().any(|found| found == expected));
            if has_all && found.len() == expected.len() {
                return diagnosis;
            }
        }
    });
    match came.await {
        Ok(diagnosis) => diagnosis,
        Err(_) => Diagnosis::of(duet, more).await,
    }
}

/// An address at which nothing listens.
fn nowhere() -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_installation__should_pass_and_missing_processes_be_named() {
    let (mut stack, wallet) = Box::pin(Stack::with_wallet("personal_message")).await.unwrap();
    wallet.queue(&["message", "healthy"]).await.unwrap();
    let duet = stack.duet();
    Diagnosis::of(&duet, &["--also", stack.gateway_url()]).await.finds(&[]);

    // No process listens at one of the addresses.
    let nowhere = nowhere();
    let gone = Diagnosis::of(&duet, &["--orchestrator", &nowhere]).await;
    gone.finds(&["orchestrators orchestrator-unreachable failed"]);
    Diagnosis::of(&duet, &["--also", &nowhere]).await.finds(&["orchestrators process-unready failed"]);

    // Two orchestrators work on 64 jobs at once, and each party takes 32 until it has two workers.
    let mut second = stack.another_orchestrator("orchestrator-2");
    second.start().await.unwrap();
    let few = Diagnosis::of(&duet, &[]).await;
    few.finds(&["seats seats-few warning"]);
    assert!(few.message("seats-few").contains("2 orchestrators work on 64 jobs at once"), "{few:?}");
    let workers = stack.second_workers().await.unwrap();
    let whole = Diagnosis::of(&duet, &[]).await;
    whole.finds(&[]);
    let free = "(64 of 64 seats free)";
    assert_eq!(whole.summary("parties"), format!("2 workers service {free}, 2 workers partner {free}"));
    drop(workers);
    second.stop().await.unwrap();
    comes_to(&duet, &[], &[]).await.finds(&[]);

    // The partner's worker is away, and a job waits for it.
    stack.partner.stop().await.unwrap();
    let key = wallet.requester_key.to_string_lossy();
    let submit = ["job", "submit", "message", "waits", "--wallet", &wallet.id, "--requester-key", &key];
    let submit = [&submit[..], &["--pairs", "service+partner"]].concat();
    wallet.duet.json(&submit).await.unwrap();
    let expected = ["parties party-away failed", "jobs jobs-stuck failed"];
    let away = comes_to(&duet, &["--stuck-after", "1s"], &expected).await;
    // While a party is away, the orchestrator may not tell which wallets there are.
    assert_eq!(of(&away, &others_than("wallets")), expected, "{:#}", away.report);
    assert_eq!(away.exit_code, Some(7));
    assert!(away.message("party-away").contains("none of its workers is connected"), "{away:?}");

    // A worker of an earlier build does not know the question.
    let partner = stack.broker.connect(Role::Partner).await.unwrap();
    let _older = partner
        .serve(Filter::cards(&"partner".parse().unwrap()), ServeOptions::waiting(8), |message| async move {
            if codec::decode::<Hello>(&message.payload).is_err() {
                return;
            }
            let refusal = Refusal::new(Code::MalformedMessage, "expected a message of kind 0x46");
            message.respond(codec::encode(&CardReply::Refused(refusal)).unwrap()).await.unwrap();
        })
        .await
        .unwrap();
    let older = Diagnosis::of(&duet, &["--stuck-after", "1h"]).await;
    let found = of(&older, &others_than("wallets"));
    assert_eq!(found, ["builds builds-differ warning"], "{:#}", older.report);
    assert!(older.message("builds-differ").contains("an earlier build: partner"), "{older:?}");

    // Without the broker nothing but addresses and files can be looked at.
    stack.broker.kill().await.unwrap();
    let dark = Diagnosis::of(&duet, &["--timeout", "1s"]).await;
    let failed: Vec<String> =
        dark.findings().into_iter().filter(|found| found.ends_with(" failed")).collect();
    assert_eq!(failed, ["broker broker-unreachable failed", "orchestrators orchestrator-unready failed"]);
    assert!(dark.message("orchestrator-unready").starts_with("broker-unreachable: "), "{dark:?}");
    assert_eq!(dark.exit_code, Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off__should_be_named_with_its_process() {
    let mut stack = Box::pin(Stack::start()).await.unwrap();
    let duet = stack.duet();
    for (offset, said) in [(60, "s ahead of the broker's"), (-300, "min behind the broker's")] {
        stack.partner.stop().await.unwrap();
        stack.partner.shift_clock(offset).unwrap();
        stack.partner.start().await.unwrap();
        let off = Diagnosis::of(&duet, &[]).await;
        off.finds(&["clocks clock-off failed"]);
        assert!(off.message("clock-off").contains(said), "{off:?}");
    }
    stack.partner.stop().await.unwrap();
    stack.partner.shift_clock(0).unwrap();
    stack.partner.start().await.unwrap();
    stack.orchestrator.stop().await.unwrap();
    stack.orchestrator.shift_clock(60).unwrap();
    stack.orchestrator.start().await.unwrap();
    let off = Diagnosis::of(&duet, &[]).await;
    // No orchestrator is ready, so none is asked about jobs.
    let unasked = ["tenants", "wallets", "jobs", "webhooks"];
    let unasked = unasked.map(|check| format!("{check} not-looked-at skipped"));
    let found = ["orchestrators orchestrator-unready failed", "clocks clock-off failed"];
    off.finds(&[&found[..], &unasked.each_ref().map(String::as_str)].concat());
    assert!(off.message("orchestrator-unready").starts_with("clock-differs: "), "{off:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_nearly_full_and_a_receiver_that_refuses__should_be_named() {
    let settings =
        [("DUET_BUCKET_MIB", "1"), ("DUET_WEBHOOKS_TO_PRIVATE", "1"), ("DUET_WEBHOOK_FIRST_PAUSE", "1s")];
    let stack = Box::pin(Stack::start_with(&settings)).await.unwrap();
    let duet = stack.duet();
    let wallet = stack.create_wallet("device", "personal_message").await.unwrap();
    duet.json(&["webhook", "add", &format!("{}/hook", nowhere())]).await.unwrap();
    wallet.queue(&["message", "not delivered"]).await.unwrap();
    let refused = ["webhooks webhook-failing warning"];
    comes_to(&duet, &[], &refused).await.finds(&refused);

    let bus = stack.broker.connect(Role::Orchestrator).await.unwrap();
    let bucket = bus.jetstream().get_key_value("duet_batches").await.unwrap();
    for number in 0..15 {
        bucket.create(format!("filler.{number}"), vec![0_u8; 64 * 1024].into()).await.unwrap();
    }
    // Otherwise the doctor takes this connection for a second orchestrator.
    bus.client().drain().await.unwrap();
    let expected = ["streams stream-nearly-full failed", "webhooks webhook-failing warning"];
    let full = comes_to(&duet, &[], &expected).await;
    full.finds(&expected);
    assert!(full.summary("streams").contains("KV_duet_batches"), "{full:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_key__should_be_named_with_the_job_that_waits_for_it() {
    let (stack, wallet) = upgrade::stack_with_a_locked_key().await;
    let key = wallet.requester_key.to_string_lossy().into_owned();
    let queue = ["job", "submit", "message", "later", "--wallet", &wallet.id, "--requester-key", &key];
    wallet.duet.json(&queue).await.unwrap();
    let expected = ["wallets key-locked failed", "jobs jobs-stuck failed"];
    let locked = comes_to(&stack.duet(), &["--stuck-after", "1s"], &expected).await;
    locked.finds(&expected);
    assert!(locked.message("jobs-stuck").contains("locked: "), "{locked:?}");
}

/// Replaces the certificates of the broker by others that are valid for so many days.
fn certificates_for(directory: &Path, days: i64) {
    let layout = Layout::new(directory);
    let now = time::OffsetDateTime::now_utc();
    let params = |names: Vec<String>| {
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = now - time::Duration::days(2);
        params.not_after = now + time::Duration::days(days);
        params
    };
    let mut authority = params(Vec::new());
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority_key = KeyPair::generate().unwrap();
    let signed = authority.self_signed(&authority_key).unwrap();
    fs::write(layout.ca_certificate(), signed.pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut server = params(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]);
    server.use_authority_key_identifier_extension = true;
    let server = server.signed_by(&key, &issuer).unwrap();
    fs::write(layout.server_certificate(), server.pem()).unwrap();
    fs::write(layout.server_key(), key.serialize_pem()).unwrap();
}

fn others_than(check: &str) -> Vec<&'static str> {
    CHECKS.into_iter().filter(|other| *other != check).collect()
}

/// The findings of these checks alone.
fn of(diagnosis: &Diagnosis, checks: &[&str]) -> Vec<String> {
    let is_of = |found: &String| checks.iter().any(|check| found.split(' ').next() == Some(check));
    diagnosis.findings().into_iter().filter(is_of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends__should_be_named_in_its_file_and_at_the_broker() {
    let checks = ["broker", "nodes", "certificates"];
    let directory = tempfile::tempdir().unwrap();
    initialise(directory.path(), &InitSettings::default()).unwrap();
    for (days, expected) in [
        (5, vec!["certificates certificate-ending warning"]),
        (
            -1,
            vec![
                "broker broker-untrusted failed",
                "nodes not-looked-at skipped",
                "certificates certificate-invalid failed",
            ],
        ),
    ] {
        certificates_for(directory.path(), days);
        let broker = Broker::start_in(directory.path()).await.unwrap();
        let duet = Duet::new(directory.path()).with("DUET_NATS_URL", &broker.url());
        let ending = Diagnosis::of(&duet, &["--api-url", &nowhere(), "--timeout", "1s"]).await;
        assert_eq!(of(&ending, &checks), expected, "{:#}", ending.report);
        let presented =
            ending.report.to_string().contains(&format!("\"subject\":\"127.0.0.1:{}\"", broker.port()));
        assert!(presented, "{:#}", ending.report);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_acknowledges_before_it_flushes__should_be_named() {
    let directory = tempfile::tempdir().unwrap();
    initialise(directory.path(), &InitSettings::default()).unwrap();
    let own = directory.path().join("deploy/nats");
    fs::create_dir_all(&own).unwrap();
    let repository = programs::repository();
    fs::copy(repository.join("nats.conf"), directory.path().join("nats.conf")).unwrap();
    let shared = fs::read_to_string(repository.join("deploy/nats/broker.conf")).unwrap();
    assert!(shared.contains("sync_interval: always"));
    fs::write(own.join("broker.conf"), shared.replace("sync_interval: always", "sync_interval: \"2m\""))
        .unwrap();
    let configuration = directory.path().join("nats.conf").to_string_lossy().into_owned();

    let environment = Layout::new(directory.path()).read_broker_environment().unwrap();
    let mut server = NatsServer::new(configuration.leak(), false, environment).await.unwrap();
    server.resume().await.unwrap();
    let duet = Duet::new(directory.path()).with("DUET_NATS_URL", &server.url());
    let lazy = Diagnosis::of(&duet, &["--api-url", &nowhere(), "--timeout", "1s"]).await;
    let found = of(&lazy, &["broker", "nodes", "certificates", "clocks"]);
    assert_eq!(found, ["nodes broker-unsafe failed"], "{:#}", lazy.report);
}
