//! Real processes of which one has a wrong clock: the requester, a party, or the orchestrator.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::time::Duration;

use duet_chaos::signers;
use duet_harness::{
    clocks::shifted,
    duet::text,
    stack::{Server, Stack, Wallet},
};
use duet_test_docs::metrics::Exposition;
use serde_json::Value;
use tokio::time::{interval, timeout};

/// How long a job may take to get where it should. It is shorter than the longest offset, so that
/// no job waits for a time by a wrong clock.
const DEADLINE: Duration = Duration::from_secs(60);

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A minute and five minutes, each way, in seconds.
const OFFSETS: [i64; 4] = [60, -60, 300, -300];

const METRICS: (&str, &str) = ("DUET_METRICS_LISTEN", "127.0.0.1:0");
const HEALTH: (&str, &str) = ("DUET_HEALTH_LISTEN", "127.0.0.1:0");

/// The lines of the broker's configuration by which it tells parties and gateways its time.
const PERMISSION: &str = "\"duet.v1.clock\"\n";
const IMPORT: &str =
    "{ service: { account: SYS, subject: \"$SYS.REQ.SERVER.PING.STATSZ\" }, to: \"duet.v1.clock\" }";

/// A queued message.
struct Job<'a> {
    wallet: &'a Wallet,
    id: String,
    message: String,
}

impl<'a> Job<'a> {
    /// Queues a message by a requester whose clock is off by so many seconds.
    async fn submit(wallet: &'a Wallet, clock: i64, message: &str) -> Self {
        Self::submit_for(wallet, clock, message, 3_600).await
    }

    /// As [`Self::submit`], valid for so many seconds.
    async fn submit_for(wallet: &'a Wallet, clock: i64, message: &str, valid_s: u64) -> Self {
        let duet = shifted(wallet.duet.clone(), clock).unwrap();
        let key = wallet.requester_key.to_string_lossy();
        let valid = format!("{valid_s}s");
        let submit = ["job", "submit", "message", message, "--wallet", &wallet.id, "--requester-key", &key];
        let submit = [&submit[..], &["--expires-in", &valid]].concat();
        let queued = duet.json(&submit).await.unwrap();
        Self { wallet, id: text(&queued, "/job/id").unwrap().to_owned(), message: message.to_owned() }
    }

    async fn look(&self) -> Value {
        let shown = self.wallet.duet.json(&["job", "get", &self.id]).await.unwrap();
        shown.pointer("/job").unwrap().clone()
    }

    /// Waits until `found` finds something in the job.
    async fn comes_to<T>(&self, what: &str, found: impl Fn(&Value) -> Option<T>) -> T {
        let (mut look, mut last) = (interval(LOOK_EVERY), Value::Null);
        let came = timeout(DEADLINE, async {
            loop {
                look.tick().await;
                last = self.look().await;
                if let Some(found) = found(&last) {
                    return found;
                }
            }
        });
        let came = came.await;
        came.unwrap_or_else(|_| panic!("{}: {what} did not come: {last:#}", self.message))
    }

    /// Waits until clocks are named as the reason why it waits. Returns what is said.
    async fn waits_for_clocks(&self) -> String {
        let failed = |job: &Value| {
            assert!(["queued", "running"].contains(&text(job, "/state").unwrap()), "{job:#}");
            let history = job.pointer("/history")?.as_array()?;
            history.iter().find_map(|attempt| {
                let said = |name| text(attempt, name).ok().map(str::to_owned);
                Some((said("/outcome/code")?, said("/outcome/message")?))
            })
        };
        let (code, message) = self.comes_to("a failed attempt", failed).await;
        assert_eq!(code, "clock-differs", "{}: {message}", self.message);
        message
    }

    /// Waits until the job shows that it waits under a code.
    async fn waits_for(&self, code: &str) {
        let waits = |job: &Value| (text(job, "/waiting/code").ok()? == code).then_some(());
        self.comes_to("the reason", waits).await;
    }

    async fn is_signed(&self) {
        let signed = |job: &Value| {
            let state = text(job, "/state").unwrap();
            assert!(["queued", "running", "signed"].contains(&state), "{job:#}");
            text(job, "/signature").ok().map(str::to_owned)
        };
        let signature = self.comes_to("a signature", signed).await;
        let signer = signers::message_signer(self.message.as_bytes(), &signature).unwrap();
        assert_eq!(signer.to_string(), self.wallet.address, "{}", self.message);
    }

    /// That it was signed at the first attempt.
    async fn is_signed_at_once(&self) {
        self.is_signed().await;
        let job = self.look().await;
        assert_eq!(job.pointer("/history").unwrap().as_array().unwrap().len(), 1, "{job:#}");
    }
}

/// Starts a server again, with a clock that is off by so many seconds. Returns what it prints when
/// it serves.
async fn restart(server: &mut Server, clock: i64) -> Value {
    server.stop().await.unwrap();
    server.shift_clock(clock).unwrap();
    server.start().await.unwrap()
}

/// Waits until the orchestrator shows that a clock is ahead of its own by so many seconds. A
/// request's date is in whole seconds, and an answer takes its time.
async fn shows(orchestrator: &Server, against: &str, ahead: i64) {
    shows_within(orchestrator, against, ahead, 5.0).await;
}

/// Waits until a process shows a difference of about so many seconds.
async fn shows_within(server: &Server, against: &str, ahead: i64, within: f64) {
    let series = format!("duet_clock_skew_seconds{{against={against}}}");
    let (mut look, mut last) = (interval(LOOK_EVERY), None);
    let shown = timeout(DEADLINE, async {
        loop {
            look.tick().await;
            let shown = Exposition::parse(&server.metrics().await.unwrap()).unwrap();
            last = shown.value(&series).ok();
            if last.is_some_and(|value| (value - ahead as f64).abs() < within) {
                return;
            }
        }
    });
    assert!(shown.await.is_ok(), "{series} is {last:?}, not {ahead}");
}

/// What the process at this URL says at `/readyz`; a gateway that is ready says nothing.
async fn readiness(url: &str) -> (u16, Value) {
    let answer = reqwest::get(format!("{url}/readyz")).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// That a message names a clock, which way it is off, and by about how much.
fn names(message: &str, clock: &str, offset: i64) {
    let side = if offset > 0 { "ahead of" } else { "behind" };
    // An answer takes its time, and minutes are rounded down.
    let spans: &[&str] = match offset.abs() {
        6 => &["6 s", "7 s"],
        60 => &["58 s", "59 s", "60 s", "61 s", "62 s"],
        _ => &["4 min", "5 min"],
    };
    let said = spans.iter().any(|span| message.contains(&format!("{clock} {span} {side}")));
    assert!(said, "{offset}: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job__should_wait_while_a_clock_is_wrong_and_be_signed_once_it_is_right() {
    let mut stack = Box::pin(Stack::start_with(&[METRICS])).await.unwrap();
    let wallet = stack.create_wallet("device", "personal_message").await.unwrap();

    // A requester whose clock is behind is served. One whose clock is ahead waits, until that time
    // has come.
    for offset in [-60, -300] {
        Job::submit(&wallet, offset, &format!("requester {offset}")).await.is_signed_at_once().await;
    }
    let (minute, minutes) =
        (Job::submit(&wallet, 60, "requester 60").await, Job::submit(&wallet, 300, "requester 300").await);
    for (job, offset) in [(&minute, 60), (&minutes, 300)] {
        names(&job.waits_for_clocks().await, "the request was issued", offset);
    }
    shows(&stack.orchestrator, "requester", 300).await;
    assert!(stack.orchestrator.log_tail(500).contains("clocks differ"));

    // A party whose clock is wrong takes nothing, says so, and counts no attempt.
    for (offset, is_service) in OFFSETS.into_iter().zip([true, false, false, true]) {
        let name = if is_service { "service" } else { "partner" };
        restart(if is_service { &mut stack.service } else { &mut stack.partner }, offset).await;
        let job = Job::submit(&wallet, 0, &format!("{name} {offset}")).await;
        names(&job.waits_for_clocks().await, &format!("the clock of {name} is"), offset);
        shows(&stack.orchestrator, name, offset).await;
        let party = if is_service { &mut stack.service } else { &mut stack.partner };
        assert!(party.log_tail(500).contains("clocks differ"), "{name} logs nothing");
        restart(party, 0).await;
        job.is_signed().await;
        shows(&stack.orchestrator, name, 0).await;
    }

    // An orchestrator times jobs by the broker's clock, whatever its own shows. It says how far off
    // it is, and is not ready.
    for offset in OFFSETS {
        restart(&mut stack.orchestrator, offset).await;
        let job = Job::submit(&wallet, 0, &format!("orchestrator {offset}")).await;
        job.is_signed_at_once().await;
        shows(&stack.orchestrator, "broker", -offset).await;
        let (status, reason) = readiness(stack.api_url()).await;
        assert_eq!((status, text(&reason, "/code").unwrap()), (503, "clock-differs"), "{reason}");
        names(text(&reason, "/detail").unwrap(), "this machine's clock is", offset);
    }
    // It expires no job that has not expired: this one waits for a party, and is signed.
    stack.partner.stop().await.unwrap();
    restart(&mut stack.orchestrator, 300).await;
    let short = Job::submit_for(&wallet, 0, "short", 240).await;
    short.waits_for("party-away").await;
    stack.partner.start().await.unwrap();
    short.is_signed().await;
    restart(&mut stack.orchestrator, 0).await;
    assert_eq!(readiness(stack.api_url()).await.0, 200);

    // Its time has come for the one, and not for the other.
    minute.is_signed().await;
    assert_eq!(text(&minutes.look().await, "/state").unwrap(), "queued");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_and_a_gateway__should_say_that_their_clocks_are_off_and_go_on() {
    let mut stack = Box::pin(Stack::start_with(&[METRICS, HEALTH])).await.unwrap();
    let wallet = stack.create_wallet("device", "personal_message").await.unwrap();
    // A server's log goes on when it starts again.
    for (offset, noted) in [(6, 1), (-6, 2), (2, 3), (0, 3)] {
        let party = restart(&mut stack.partner, offset).await;
        let gateway = restart(&mut stack.gateway, offset).await;
        let party = format!("http://{}", text(&party, "/health").unwrap());
        for (server, url) in [(&stack.partner, &*party), (&stack.gateway, text(&gateway, "/url").unwrap())] {
            shows_within(server, "broker", -offset, 0.9).await;
            let (status, reason) = readiness(url).await;
            if offset.abs() == 6 {
                assert_eq!((status, text(&reason, "/code").unwrap()), (503, "clock-differs"), "{reason}");
                let detail = text(&reason, "/detail").unwrap();
                names(detail, "this machine's clock is", offset);
                let times = detail.split([' ', ',', ';']).filter(|word| word.ends_with('Z'));
                assert_eq!(times.collect::<std::collections::BTreeSet<_>>().len(), 2, "{detail}");
            } else {
                assert_eq!(status, 200, "{reason}");
            }
            let log = server.log_tail(500);
            assert_eq!(log.matches("clocks differ: this machine's").count(), noted, "{log}");
        }
        // Its sessions allow for a difference of 30 s, so it goes on.
        Job::submit(&wallet, 0, &format!("off by {offset}")).await.is_signed_at_once().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_tells_parties_no_time__should_cost_no_signature() {
    let mut stack = Box::pin(Stack::start_with(&[METRICS, HEALTH])).await.unwrap();
    let wallet = stack.create_wallet("device", "personal_message").await.unwrap();
    // The configuration of the version before.
    stack.partner.stop().await.unwrap();
    stack.broker.kill().await.unwrap();
    let without = |text: &str| {
        [PERMISSION, IMPORT].iter().fold(text.to_owned(), |text, line| {
            assert!(text.contains(line), "{line}");
            text.replace(line, "")
        })
    };
    stack.broker.change_configuration(without).unwrap();
    stack.broker.resume().await.unwrap();
    stack.partner.shift_clock(6).unwrap();
    let party = stack.partner.start().await.unwrap();
    Job::submit(&wallet, 0, "without").await.is_signed().await;
    // It asks again over each new connection, and says so once. A question follows what was logged
    // about the one before.
    let asked = "duet_broker_events_total{event=permission_denied}";
    for questions in [2.0, 3.0] {
        stack.broker.restart().await.unwrap();
        let (mut look, mut last) = (interval(LOOK_EVERY), 0.0);
        let asks_again = timeout(DEADLINE, async {
            while last < questions {
                look.tick().await;
                let shown = stack.partner.metrics().await.unwrap();
                last = Exposition::parse(&shown).unwrap().value(asked).unwrap();
            }
        });
        assert!(asks_again.await.is_ok(), "{asked} is {last}");
    }
    let log = stack.partner.log_tail(500);
    assert_eq!(log.matches("does not tell this process its time").count(), 1, "{log}");
    assert!(!stack.partner.metrics().await.unwrap().contains("duet_clock_skew_seconds"));
    let (status, reason) = readiness(&format!("http://{}", text(&party, "/health").unwrap())).await;
    assert_eq!(status, 200, "{reason}");
}
