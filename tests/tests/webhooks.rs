//! Webhooks with a real receiver on the loopback: what arrives and how it is signed, retries and
//! replays, and that deliveries continue when an orchestrator dies.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use duet_harness::{
    duet::{Duet, text},
    stack::Stack,
};
use duet_wire::{
    SignedResult,
    webhook::{Headers, Secret, TOLERANCE_SECONDS, verify},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::{interval, timeout},
};

/// How long a delivery may take on a busy machine, including its retries and the pause after an
/// orchestrator's death.
const DEADLINE: Duration = Duration::from_secs(60);

/// The receiver's answer to a delivery.
enum Reply {
    Status(u16),
    /// 503 with these values of `Date` and `Retry-After`.
    Later(&'static str, &'static str),
    /// It keeps the connection and does not answer, until the test drops the channel's other end.
    Silence(oneshot::Receiver<()>),
}

/// A delivery that arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    id: String,
    timestamp: String,
    signature: String,
    body: Vec<u8>,
}

pub(crate) struct Receiver {
    url: String,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    arrived: mpsc::Receiver<Arrived>,
}

impl Receiver {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let replies: Arc<Mutex<VecDeque<Reply>>> = Arc::default();
        let (sender, arrived) = mpsc::channel(256);
        let script = Arc::clone(&replies);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let reply = script.lock().unwrap().pop_front().unwrap_or(Reply::Status(204));
                tokio::spawn(answer(stream, reply, sender.clone()));
            }
        });
        Ok(Self { url, replies, arrived })
    }

    fn will(&self, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap().extend(replies);
    }

    /// Accepts everything from now on.
    fn recover(&self) {
        self.replies.lock().unwrap().clear();
    }

    pub(crate) async fn next(&mut self) -> Result<Arrived> {
        timeout(DEADLINE, self.arrived.recv()).await.context("nothing was delivered")?.context("no receiver")
    }
}

/// Reads one request, and answers it.
async fn answer(mut stream: TcpStream, reply: Reply, arrived: mpsc::Sender<Arrived>) -> Result<()> {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await?;
        anyhow::ensure!(read > 0, "the request ended early");
        bytes.extend_from_slice(&chunk[..read]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec())?;
        let length: usize = header(&head, "content-length")?.parse()?;
        if bytes.len() >= end + 4 + length {
            break (head, bytes[end + 4..end + 4 + length].to_vec());
        }
    };
    anyhow::ensure!(head.starts_with("POST /hook HTTP/1.1"), "{head}");
    assert_eq!(header(&head, "content-type")?, "application/json");
    let one = Arrived {
        id: header(&head, "webhook-id")?,
        timestamp: header(&head, "webhook-timestamp")?,
        signature: header(&head, "webhook-signature")?,
        body,
    };
    arrived.send(one).await?;
    match reply {
        Reply::Status(status) => {
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await?;
        }
        Reply::Later(date, retry_after) => {
            let answer = format!(
                "HTTP/1.1 503 x\r\ndate: {date}\r\nretry-after: {retry_after}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await?;
        }
        Reply::Silence(end) => drop(end.await),
    }
    Ok(())
}

fn header(head: &str, name: &str) -> Result<String> {
    let line = head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    });
    line.with_context(|| format!("no {name} in {head}"))
}

/// Checks a delivery as its receiver should.
pub(crate) fn check(secret: &Secret, arrived: &Arrived) -> Result<()> {
    let headers = Headers { id: &arrived.id, timestamp: &arrived.timestamp, signature: &arrived.signature };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    verify(secret, &headers, &arrived.body, now, TOLERANCE_SECONDS)?;
    Ok(())
}

async fn stack() -> Result<Stack> {
    Stack::start_with(&[
        ("DUET_WEBHOOKS_TO_PRIVATE", "1"),
        ("DUET_WEBHOOK_FIRST_PAUSE", "50ms"),
        ("DUET_WEBHOOK_TIMEOUT", "2s"),
    ])
    .await
}

pub(crate) async fn add(duet: &Duet, receiver: &Receiver) -> Result<(String, Secret)> {
    let added = duet.json(&["webhook", "add", &receiver.url]).await?;
    Ok((text(&added, "/webhook/id")?.to_owned(), text(&added, "/secret")?.parse()?))
}

fn outcomes(log: &Value, job: &str) -> Vec<String> {
    let deliveries = log["deliveries"].as_array().unwrap().iter().rev();
    let ours = deliveries.filter(|delivery| delivery["message"] == job);
    ours.map(|delivery| delivery["outcome"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn results__should_be_delivered_signed_until_they_are_taken() -> Result<()> {
    let stack = stack().await?;
    let wallet = stack.create_wallet("device", "personal_message").await?;
    let duet = stack.duet();
    let mut receiver = Receiver::start().await?;
    let refused = duet.refused(&["webhook", "add", "http://hooks.example.com/"]).await?;
    assert_eq!(refused.code, "invalid-endpoint");
    let (webhook, secret) = add(&duet, &receiver).await?;

    // Delivered once: signed for the endpoint, with the orchestrator's own signature inside.
    let job = wallet.queue(&["message", "first"]).await?;
    let first = receiver.next().await?;
    assert_eq!(first.id, text(&job, "/job/id")?);
    check(&secret, &first)?;
    assert!(check(&Secret::new(&[1; 32]), &first).is_err());
    let result: SignedResult = serde_json::from_slice(&first.body)?;
    let mut key = [0; 32];
    hex::decode_to_slice(stack.orchestrator_key(), &mut key)?;
    assert_eq!(result.verify(&key)?.job.to_string(), first.id);
    // In the form of Ethereum's tools: v is 27 or 28, and the address has its checksum.
    let body: Value = serde_json::from_slice(&result.body)?;
    let signature = body["signature"].as_str().unwrap();
    assert!(signature.ends_with("1b") || signature.ends_with("1c"), "{signature}");
    assert_eq!(body["address"], wallet.address.as_str());

    // Delivered again after a failure and after a timeout, under the same id.
    let (_silent, silence) = oneshot::channel();
    receiver.will([Reply::Status(500), Reply::Silence(silence)]);
    let job = wallet.queue(&["message", "second"]).await?;
    let id = text(&job, "/job/id")?;
    for _ in 0..3 {
        let arrived = receiver.next().await?;
        assert_eq!(arrived.id, id);
        check(&secret, &arrived)?;
    }

    // A test message, and both results once more: one by its job, one by time. The log shows that
    // the three attempts above are over.
    let tested = duet.json(&["webhook", "test", &webhook]).await?;
    assert_eq!(tested["delivery"]["outcome"], "delivered");
    let arrived = receiver.next().await?;
    assert!(arrived.id.starts_with("test-"));
    check(&secret, &arrived)?;
    let replayed = duet.json(&["webhook", "replay", &webhook, "--job", &first.id]).await?;
    assert_eq!(replayed["delivery"]["outcome"], "delivered");
    let arrived = receiver.next().await?;
    assert_eq!((&arrived.id, &arrived.body), (&first.id, &first.body));
    duet.json(&["webhook", "replay", &webhook, "--since", "1h"]).await?;
    let mut again = BTreeSet::new();
    while again.len() < 2 {
        let arrived = receiver.next().await?;
        check(&secret, &arrived)?;
        again.insert(arrived.id);
    }
    assert_eq!(again, BTreeSet::from([first.id.clone(), id.to_owned()]));

    let log = duet.json(&["webhook", "deliveries", &webhook]).await?;
    let second = outcomes(&log, id);
    assert_eq!(second[..3], ["retrying", "retrying", "delivered"], "{log}");
    assert_eq!(outcomes(&log, &first.id)[..2], ["delivered", "delivered"], "{log}");

    // A removed endpoint gets nothing. The endpoint added after it does.
    duet.json(&["webhook", "remove", &webhook]).await?;
    assert_eq!(duet.refused(&["webhook", "show", &webhook]).await?.code, "not-found");
    let mut other = Receiver::start().await?;
    let (_, other_secret) = add(&duet, &other).await?;
    let job = wallet.queue(&["message", "third"]).await?;
    let arrived = other.next().await?;
    assert_eq!(arrived.id, text(&job, "/job/id")?);
    check(&other_secret, &arrived)?;
    assert!(check(&secret, &arrived).is_err());
    assert!(receiver.arrived.try_recv().is_err());
    Ok(())
}

#[tokio::test]
async fn an_endpoint_that_asks_for_a_pause__should_get_it_in_whichever_form_it_asks() -> Result<()> {
    let stack = stack().await?;
    let wallet = stack.create_wallet("device", "personal_message").await?;
    let duet = stack.duet();
    let now = "Sun, 06 Nov 1994 08:49:37 GMT";
    // Seconds, a date half an hour ahead by the endpoint's own clock, and a date beyond the
    // permitted limit.
    let asked =
        [("600", 600), ("Sun, 06 Nov 1994 09:19:37 GMT", 1_800), ("Mon, 07 Nov 1994 08:49:37 GMT", 3_600)];
    for (retry_after, seconds) in asked {
        let mut receiver = Receiver::start().await?;
        receiver.will([Reply::Later(now, retry_after)]);
        let (webhook, _) = add(&duet, &receiver).await?;
        let job = wallet.queue(&["message", retry_after]).await?;
        let arrived = receiver.next().await?;
        assert_eq!(arrived.id, text(&job, "/job/id")?);
        let mut look = interval(Duration::from_millis(50));
        let logged = timeout(DEADLINE, async {
            loop {
                look.tick().await;
                let log = duet.json(&["webhook", "deliveries", &webhook]).await?;
                if let Some(first) = log["deliveries"].as_array().unwrap().first() {
                    return Ok::<_, anyhow::Error>(first.clone());
                }
            }
        });
        let delivery = logged.await??;
        assert_eq!(delivery["outcome"], "retrying", "{delivery}");
        let moment = |name: &str| delivery[name].as_u64().unwrap();
        let pause = (moment("next_attempt_at_ms") - moment("at_ms") - moment("took_ms")) / 1000;
        assert_eq!(pause, seconds, "{retry_after}: {delivery}");
        duet.json(&["webhook", "remove", &webhook]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn deliveries__should_go_on_when_an_orchestrator_dies_or_an_endpoint_is_gone() -> Result<()> {
    let mut stack = stack().await?;
    let mut wallet = stack.create_wallet("device", "personal_message").await?;
    let mut other = stack.another_orchestrator("orchestrator-2");
    let ready = other.start().await?;
    let duet = stack.duet().with("DUET_API_URL", &format!("http://{}", text(&ready, "/listen")?));
    let mut receiver = Receiver::start().await?;
    let (webhook, secret) = add(&duet, &receiver).await?;

    // One of the two orchestrators is killed while both have unanswered deliveries.
    let (silent, silences): (Vec<_>, Vec<_>) = (0..6).map(|_| oneshot::channel()).unzip();
    receiver.will(silences.into_iter().map(Reply::Silence));
    let mut expected = BTreeSet::new();
    for number in 0..6 {
        let job = wallet.queue(&["message", &format!("number {number}")]).await?;
        expected.insert(text(&job, "/job/id")?.to_owned());
    }
    receiver.next().await?;
    stack.orchestrator.kill().await?;
    drop(silent);
    let mut taken = BTreeSet::new();
    while taken.len() < expected.len() {
        let arrived = receiver.next().await?;
        check(&secret, &arrived)?;
        assert!(expected.contains(&arrived.id));
        let log = duet.json(&["webhook", "deliveries", &webhook, "--limit", "200"]).await?;
        taken.extend(
            expected.iter().filter(|id| outcomes(&log, id).contains(&"delivered".to_owned())).cloned(),
        );
    }
    let shown = duet.json(&["webhook", "show", &webhook]).await?;
    assert_eq!(shown["webhook"].get("disabled"), None, "{shown}");

    // An endpoint that answers that it is gone is not asked again until it is enabled. Then it gets
    // what it missed.
    wallet.duet = duet.clone();
    let (first, second) = (["message", "before"], ["message", "meanwhile"]);
    receiver.will([Reply::Status(410)]);
    let mut missing = BTreeSet::from([text(&wallet.queue(&first).await?, "/job/id")?.to_owned()]);
    let disabled = async {
        let mut look_again = interval(Duration::from_millis(100));
        loop {
            look_again.tick().await;
            let shown = duet.json(&["webhook", "show", &webhook]).await?;
            if let Some(reason) = shown.pointer("/webhook/disabled/reason") {
                return Ok::<_, anyhow::Error>(reason.to_string());
            }
        }
    };
    let reason = timeout(DEADLINE, disabled).await.context("the endpoint was not disabled")??;
    assert!(reason.contains("gone"), "{reason}");
    missing.insert(text(&wallet.queue(&second).await?, "/job/id")?.to_owned());
    while receiver.arrived.try_recv().is_ok() {}
    duet.json(&["webhook", "enable", &webhook]).await?;
    while !missing.is_empty() {
        missing.remove(&receiver.next().await?.id);
    }
    Ok(())
}

#[tokio::test]
async fn deliveries_that_wait__should_outlive_the_orchestrator_that_set_them_aside() -> Result<()> {
    let mut stack = stack().await?;
    let wallet = stack.create_wallet("device", "personal_message").await?;
    let receiver = Receiver::start().await?;
    receiver.will((0..10_000).map(|_| Reply::Status(500)));
    let (webhook, _) = add(&stack.duet(), &receiver).await?;
    let mut expected = BTreeSet::new();
    for number in 0..12 {
        let job = wallet.queue(&["message", &format!("number {number}")]).await?;
        expected.insert(text(&job, "/job/id")?.to_owned());
    }
    let mut look_again = interval(Duration::from_millis(100));
    let waiting = async {
        loop {
            look_again.tick().await;
            let shown = stack.duet().json(&["webhook", "show", &webhook]).await?;
            if shown["webhook"]["retries_waiting"] == 12 {
                return Ok::<_, anyhow::Error>(());
            }
        }
    };
    timeout(DEADLINE, waiting).await.context("not all deliveries wait")??;
    // It is killed, perhaps in the middle of a probe. Another one has what waits.
    stack.orchestrator.kill().await?;
    receiver.recover();
    let mut other = stack.another_orchestrator("orchestrator-2");
    let ready = other.start().await?;
    let duet = stack.duet().with("DUET_API_URL", &format!("http://{}", text(&ready, "/listen")?));
    let delivered = async {
        loop {
            look_again.tick().await;
            let log = duet.json(&["webhook", "deliveries", &webhook, "--limit", "200"]).await?;
            if expected.iter().all(|id| outcomes(&log, id).contains(&"delivered".to_owned())) {
                return Ok::<_, anyhow::Error>(());
            }
        }
    };
    timeout(DEADLINE, delivered).await.context("not all were delivered")??;
    let shown = duet.json(&["webhook", "show", &webhook]).await?;
    assert_eq!((shown["webhook"].get("disabled"), shown["webhook"].get("failing_since_ms")), (None, None));
    Ok(())
}
