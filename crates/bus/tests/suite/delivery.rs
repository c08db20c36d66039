//! The bus on the real broker: subscriptions, delivery, races, and what remains after the broker is
//! killed.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use duet_bus::{
    Address, Bus, BusEvent, ConnectError, Filter, PublishError, RequestError, Role, ServeOptions, Speaker,
    SubscribeError,
    audit::{self, Recording},
    kv,
    kv::WriteError,
    streams::{self, StorageError, StorageSettings},
};
use duet_credentials::Layout;
use duet_harness::broker::Broker;
use duet_protocol::ids::{PartyId, SessionId};
use duet_test_docs::metrics::Exposition;
use duet_wire::{
    audit::{
        Body, Event, Record, lines,
        verify::{PinnedKey, Verifier},
    },
    signing::SigningKey,
};
use futures::{StreamExt as _, future::join_all};
use prometheus_client::{encoding::prometheus_text, registry::Registry};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Long enough for a reply in transit, and short enough to wait in vain.
const SHORT: Duration = Duration::from_millis(500);

fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

/// A message of session `number` from the device to the service.
fn round(number: u8) -> (Address, Filter) {
    let (from, to) = (party("device"), party("service"));
    let filter = Filter::rounds(session(number), &from, &to);
    (Address::Round { session: session(number), from, to }, filter)
}

#[tokio::test]
async fn credentials_with_a_byte_order_mark__should_be_read() {
    let broker = Broker::start().await.unwrap();
    let mut settings = broker.settings(Role::Service).unwrap();
    let files =
        settings.ca_file.clone().into_iter().chain([Layout::new(broker.credentials()).nkey(Role::Service)]);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("\u{feff}{text}")).unwrap();
    }
    settings = broker.settings(Role::Service).unwrap();
    settings.patience = Duration::ZERO;
    let bus = Bus::connect(settings).await.unwrap();
    bus.sync(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_synced_subscription__should_be_known_to_the_server() {
    let broker = Broker::start().await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    let gateway = broker.connect(Role::Gateway).await.unwrap();
    for number in 0..100 {
        let (address, filter) = round(number);
        let mut subscription = service.subscribe(&filter).await.unwrap();
        service.sync(DEADLINE).await.unwrap();
        // Without a subscription, this would fail at once.
        let (reply, ()) = tokio::join!(gateway.request(&address, "ping", DEADLINE), async {
            let message = subscription.next().await.unwrap();
            message.respond("pong").await.unwrap();
        });
        assert_eq!(reply.unwrap(), "pong");
    }
}

#[tokio::test]
async fn sync__should_fail_while_the_broker_is_away() {
    let mut broker = Broker::start().await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    broker.kill().await.unwrap();
    assert!(matches!(service.sync(SHORT).await, Err(SubscribeError::TimedOut)));
    broker.resume().await.unwrap();
    service.sync(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_request__should_fail_by_its_own_error() {
    let broker = Broker::start().await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    let gateway = broker.connect(Role::Gateway).await.unwrap();
    let (address, filter) = round(1);

    let unanswered = gateway.request(&address, "x", DEADLINE).await;
    assert!(matches!(unanswered, Err(RequestError::NoResponders { .. })), "{unanswered:?}");

    let mut silent = service.subscribe_registered(&filter, DEADLINE).await.unwrap();
    let unanswered = gateway.request(&address, "x", SHORT).await;
    assert!(matches!(unanswered, Err(RequestError::TimedOut { .. })), "{unanswered:?}");
    assert!(silent.next_within(DEADLINE).await.unwrap().is_some());

    // It fails at once: the deadline here is only the test's own.
    let forbidden = timeout(DEADLINE, service.request(&address, "x", DEADLINE * 10)).await.unwrap();
    assert!(matches!(forbidden, Err(RequestError::PermissionDenied { .. })), "{forbidden:?}");

    let huge = gateway.request(&address, vec![0; 2 * 1024 * 1024], DEADLINE).await;
    assert!(matches!(huge, Err(RequestError::TooLarge { size_bytes: 2_097_152, .. })), "{huge:?}");
}

#[tokio::test]
async fn a_request_without_listener__should_be_sent_again_until_there_is_one() {
    let broker = Broker::start().await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    let gateway = broker.connect(Role::Gateway).await.unwrap();
    let (address, filter) = round(2);

    let gave_up = gateway.request_resending(&address, "x", SHORT).await;
    assert!(
        matches!(gave_up, Err(RequestError::NoResponders { .. } | RequestError::TimedOut { .. })),
        "{gave_up:?}"
    );

    let (reply, received) =
        tokio::join!(gateway.request_resending(&address, "the same bytes", DEADLINE), async {
            let mut subscription = service.subscribe_registered(&filter, DEADLINE).await.unwrap();
            let message = subscription.next().await.unwrap();
            message.respond("pong").await.unwrap();
            message.payload
        });
    assert_eq!(reply.unwrap(), "pong");
    assert_eq!(received, "the same bytes");
}

#[tokio::test]
async fn a_request_that_was_received__should_not_be_sent_again() {
    let broker = Broker::start().await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    let gateway = broker.connect(Role::Gateway).await.unwrap();
    let (address, filter) = round(3);
    let mut subscription = service.subscribe_registered(&filter, DEADLINE).await.unwrap();
    let unanswered = gateway.request_resending(&address, "once", SHORT).await;
    assert!(matches!(unanswered, Err(RequestError::TimedOut { .. })), "{unanswered:?}");
    // All earlier messages arrive before this one.
    gateway.publish(&address, "last").await.unwrap();
    assert_eq!(subscription.next().await.unwrap().payload, "once");
    assert_eq!(subscription.next().await.unwrap().payload, "last");
}

#[tokio::test]
async fn a_full_service__should_leave_its_queue_group() {
    let broker = Broker::start().await.unwrap();
    let orchestrator = broker.connect(Role::Orchestrator).await.unwrap();
    let invite = Address::Invite(party("service"));
    let release = Arc::new(Notify::new());
    let (started, mut starts) = mpsc::channel(8);
    let worker = broker.connect(Role::Service).await.unwrap();
    let handler = {
        let release = Arc::clone(&release);
        move |message: duet_bus::Incoming| {
            let (release, started) = (Arc::clone(&release), started.clone());
            async move {
                started.send(()).await.unwrap();
                release.notified().await;
                message.respond("accepted").await.unwrap();
            }
        }
    };
    let options = ServeOptions::leaving(1);
    let service = worker.serve(Filter::invites(&party("service")), options, handler).await.unwrap();

    let first = tokio::spawn({
        let (orchestrator, invite) = (orchestrator.clone(), invite.clone());
        async move { orchestrator.request(&invite, "one", DEADLINE).await }
    });
    starts.recv().await.unwrap();
    let second = orchestrator.request(&invite, "two", DEADLINE).await;
    assert!(matches!(second, Err(RequestError::NoResponders { .. })), "{second:?}");
    release.notify_one();
    assert_eq!(first.await.unwrap().unwrap(), "accepted");
    // The worker returns to its queue group.
    release.notify_one();
    let third = orchestrator.request_resending(&invite, "three", DEADLINE).await.unwrap();
    assert_eq!(third, "accepted");
    assert!(service.drain(DEADLINE).await);
    let gone = orchestrator.request(&invite, "four", DEADLINE).await;
    assert!(matches!(gone, Err(RequestError::NoResponders { .. })), "{gone:?}");
}

#[tokio::test]
async fn a_service_that_is_away__should_be_out_of_its_queue_group_until_it_returns() {
    let broker = Broker::start().await.unwrap();
    let orchestrator = broker.connect(Role::Orchestrator).await.unwrap();
    let worker = broker.connect(Role::Service).await.unwrap();
    let service = party("service");
    let questions = [
        (Filter::invites(&service), ServeOptions::leaving(2), Address::Invite(service.clone())),
        (
            Filter::cards(&service),
            ServeOptions::waiting(2),
            Address::Card { from: Speaker::Orchestrator, to: service.clone() },
        ),
    ];
    for (filter, options, address) in questions {
        let handler = |message: duet_bus::Incoming| async move { message.respond("here").await.unwrap() };
        let serving = worker.serve(filter, options, handler).await.unwrap();
        for _ in 0..3 {
            let answer =
                orchestrator.request_resending(&address, "is a worker there?", DEADLINE).await.unwrap();
            assert_eq!(answer, "here");
            serving.attendance().set(false);
            // The worker is told to leave. It answers until it has left.
            loop {
                match orchestrator.request(&address, "is a worker there?", DEADLINE).await {
                    Err(RequestError::NoResponders { .. }) => break,
                    answer => assert_eq!(answer.unwrap(), "here"),
                }
            }
            serving.attendance().set(true);
        }
        let attendance = serving.attendance();
        assert!(serving.drain(DEADLINE).await);
        attendance.set(true);
        let gone = orchestrator.request(&address, "is a worker there?", DEADLINE).await;
        assert!(matches!(gone, Err(RequestError::NoResponders { .. })), "{gone:?}");
    }
}

#[tokio::test]
async fn a_service__should_bound_its_handlers_and_finish_them_when_drained() {
    let broker = Broker::start().await.unwrap();
    let gateway = broker.connect(Role::Gateway).await.unwrap();
    let worker = broker.connect(Role::Service).await.unwrap();
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let (running, most, gate) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
        move |message: duet_bus::Incoming| {
            let (running, most, gate) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                running.fetch_sub(1, Ordering::SeqCst);
                message.respond("done").await.unwrap();
            }
        }
    };
    let service =
        worker.serve(Filter::shares(&party("service")), ServeOptions::waiting(3), handler).await.unwrap();
    let address = Address::Share(party("service"));
    let requests = join_all((0..12).map(|_| gateway.request(&address, "x", DEADLINE)));
    let (replies, drained) = tokio::join!(requests, async {
        // The server has forwarded all requests, and the worker's connection has received them.
        gateway.sync(DEADLINE).await.unwrap();
        worker.sync(DEADLINE).await.unwrap();
        gate.add_permits(12);
        service.drain(DEADLINE).await
    });
    assert!(drained);
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    assert!(most.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn of_concurrent_writers__should_one_win() {
    let broker = Broker::start().await.unwrap();
    let settings = StorageSettings::default();
    let first = broker.connect(Role::Orchestrator).await.unwrap();
    let second = broker.connect(Role::Orchestrator).await.unwrap();
    let one = first.ensure_bucket::<u64>(kv::SESSIONS, &settings).await.unwrap();
    let two = second.ensure_bucket::<u64>(kv::SESSIONS, &settings).await.unwrap();
    let key = kv::Key::from(session(1));

    let created = join_all([one.create(&key, &0), two.create(&key, &0), one.create(&key, &0)]).await;
    assert_eq!(created.iter().filter(|result| result.is_ok()).count(), 1, "{created:?}");
    assert!(created.iter().all(|result| matches!(result, Ok(_) | Err(WriteError::Conflict { .. }))));

    // Every increment counts, from every connection.
    let increment = |bucket: kv::Bucket<u64>| {
        let key = key.clone();
        async move {
            for _ in 0..20 {
                loop {
                    let entry = bucket.get(&key).await.unwrap().unwrap();
                    match bucket.update(&key, &(entry.value + 1), entry.revision).await {
                        Ok(_) => break,
                        Err(WriteError::Conflict { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
    };
    tokio::join!(increment(one.clone()), increment(two.clone()));
    let entry = one.get(&key).await.unwrap().unwrap();
    assert_eq!(entry.value, 40);

    let stale = entry.revision;
    let current = two.update(&key, &41, stale).await.unwrap();
    assert!(matches!(one.update(&key, &0, stale).await, Err(WriteError::Conflict { .. })));
    assert!(matches!(one.purge(&key, stale).await, Err(WriteError::Conflict { .. })));
    assert!(matches!(one.create(&key, &0).await, Err(WriteError::Conflict { .. })));
    one.purge(&key, current).await.unwrap();
    assert!(two.get(&key).await.unwrap().is_none());
    two.create(&key, &7).await.unwrap();
    assert_eq!(one.get(&key).await.unwrap().unwrap().value, 7);
}

#[tokio::test]
async fn a_bucket__should_list_and_tell_changes() {
    let broker = Broker::start().await.unwrap();
    let bus = broker.connect(Role::Orchestrator).await.unwrap();
    let bucket = bus.ensure_bucket::<String>(kv::JOBS, &StorageSettings::default()).await.unwrap();
    let (demo, acme) = ("demo".parse().unwrap(), "acme".parse().unwrap());
    let key = |tenant, number| kv::Key::from((tenant, duet_wire::JobId([number; 16])));
    let everything = kv::Pattern::everything();
    assert_eq!(bucket.list(&everything, 10).await.unwrap(), []);

    for number in 0..5 {
        bucket.create(&key(&demo, number), &format!("demo {number}")).await.unwrap();
    }
    let revision = bucket.create(&key(&acme, 9), &"acme".to_owned()).await.unwrap();
    let listed = bucket.list(&kv::Key::all_of(&demo), 10).await.unwrap();
    assert_eq!(listed.len(), 5);
    assert!(listed.iter().all(|(key, _)| key.tenant_and_job().unwrap().0 == demo));
    assert_eq!(bucket.list(&everything, 3).await.unwrap().len(), 3);
    assert_eq!(bucket.keys().await.unwrap().len(), 6);

    let mut changes = bucket.changes(&everything).await.unwrap();
    bucket.purge(&key(&acme, 9), revision).await.unwrap();
    let change = timeout(DEADLINE, changes.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((change.key, change.value), (key(&acme, 9), None));
    assert_eq!(bucket.list(&everything, 10).await.unwrap().len(), 5);
    assert_eq!(bucket.list(&kv::Key::all_of(&acme), 10).await.unwrap(), []);

    let mut watch = bucket.watch(&kv::Pattern::from(key(&demo, 2))).await.unwrap();
    let present = timeout(DEADLINE, watch.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(present.value.as_deref(), Some("demo 2"));
}

#[tokio::test]
async fn a_full_stream__should_refuse_and_keep_what_it_has() {
    let broker = Broker::start().await.unwrap();
    let bus = broker.connect(Role::Orchestrator).await.unwrap();
    let settings = StorageSettings { jobs_max_bytes: 4096, ..StorageSettings::default() };
    bus.ensure_streams(&settings).await.unwrap();
    let address = Address::Job("demo".parse().unwrap());
    let mut stored = 0_u64;
    let refused = loop {
        match bus.publish_stored(&address, vec![b'x'; 512], None, DEADLINE).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "it never fills up");
    };
    assert!(matches!(refused, PublishError::Full { .. }), "{refused:?}");
    let mut stream = bus.jetstream().get_stream(streams::JOBS).await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, stored);

    // Finishing one job makes room.
    let consumer = bus.jobs_consumer(&settings).await.unwrap();
    let mut batch = consumer.fetch().max_messages(1).messages().await.unwrap();
    batch.next().await.unwrap().unwrap().double_ack().await.unwrap();
    bus.publish_stored(&address, vec![b'x'; 512], None, DEADLINE).await.unwrap();

    // A full bucket reports it as well.
    let small = StorageSettings { bucket_max_bytes: 2048, ..settings };
    let bucket = bus.ensure_bucket::<String>(kv::SESSIONS, &small).await.unwrap();
    let mut refused = None;
    for number in 0..100 {
        if let Err(error) = bucket.create(&kv::Key::from(session(number)), &"x".repeat(256)).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(WriteError::Full { .. })), "{refused:?}");
}

#[tokio::test]
async fn ensuring_streams__should_be_repeatable_and_refuse_other_shapes() {
    let broker = Broker::start().await.unwrap();
    let bus = broker.connect(Role::Orchestrator).await.unwrap();
    let other = broker.connect(Role::Orchestrator).await.unwrap();
    let settings = StorageSettings::default();
    let (one, two) = tokio::join!(bus.ensure_streams(&settings), other.ensure_streams(&settings));
    one.unwrap();
    two.unwrap();
    let longer = StorageSettings { results_max_age: settings.results_max_age * 2, ..settings.clone() };
    bus.ensure_streams(&longer).await.unwrap();
    let stream = bus.jetstream().get_stream(streams::RESULTS).await.unwrap();
    assert_eq!(stream.cached_info().config.max_age, longer.results_max_age);

    let mut config = stream.cached_info().config.clone();
    config.retention = async_nats::jetstream::stream::RetentionPolicy::WorkQueue;
    let refused = bus.ensure_stream(config).await;
    assert!(matches!(refused, Err(StorageError::Incompatible { setting: "retention", .. })), "{refused:?}");

    let party = broker.connect(Role::Service).await.unwrap();
    let refused = party.ensure_streams(&settings).await;
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_killed_broker__should_come_back_with_all_it_had_confirmed() {
    let mut broker = Broker::start().await.unwrap();
    let bus = broker.connect(Role::Orchestrator).await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    let settings = StorageSettings::default();
    bus.ensure_streams(&settings).await.unwrap();
    let bucket = bus.ensure_bucket::<String>(kv::SESSIONS, &settings).await.unwrap();
    let _invites = service
        .serve(Filter::invites(&party("service")), ServeOptions::waiting(1), |message| async move {
            message.respond("here").await.unwrap();
        })
        .await
        .unwrap();

    let address = Address::Job("demo".parse().unwrap());
    for number in 0..20 {
        bus.publish_stored(&address, format!("job {number}"), None, DEADLINE).await.unwrap();
        bucket.create(&kv::Key::from(session(number)), &format!("state {number}")).await.unwrap();
    }
    let mut events = bus.events();
    broker.kill().await.unwrap();
    wait_for(&mut events, &BusEvent::Disconnected).await;
    assert!(!bus.is_connected());
    let away = bus.request(&Address::Invite(party("service")), "x", SHORT).await;
    assert!(matches!(away, Err(RequestError::Unreachable)), "{away:?}");

    broker.resume().await.unwrap();
    wait_for(&mut events, &BusEvent::Connected).await;
    // The service subscribes again by itself, perhaps a little after this request.
    let reply = bus.request_resending(&Address::Invite(party("service")), "x", DEADLINE).await.unwrap();
    assert_eq!(reply, "here");
    for number in 0..20 {
        let entry = bucket.get(&kv::Key::from(session(number))).await.unwrap().unwrap();
        assert_eq!(entry.value, format!("state {number}"));
    }
    let consumer = bus.jobs_consumer(&settings).await.unwrap();
    let mut batch = consumer.fetch().max_messages(20).messages().await.unwrap();
    for number in 0..20 {
        let message = timeout(DEADLINE, batch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(message.payload, format!("job {number}"));
        message.double_ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_subscription_that_falls_behind__should_be_reported() {
    let broker = Broker::start().await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    let gateway = broker.connect(Role::Gateway).await.unwrap();
    let (address, filter) = round(4);
    let _unread = service.subscribe_registered(&filter, DEADLINE).await.unwrap();
    let mut events = service.events();
    // A few more messages than a subscription holds, and fewer events than a late listener may
    // miss.
    for _ in 0..1024 + 30 {
        gateway.publish(&address, "x").await.unwrap();
    }
    wait_for(&mut events, &BusEvent::SlowConsumer).await;
}

#[tokio::test]
async fn an_absent_broker__should_be_waited_for_as_long_as_asked() {
    let mut broker = Broker::start().await.unwrap();
    let mut settings = broker.settings(Role::Service).unwrap();
    broker.kill().await.unwrap();
    settings.patience = Duration::ZERO;
    let refused = Bus::connect(settings.clone()).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable { .. })), "{refused:?}");

    settings.patience = DEADLINE;
    let (bus, resumed) = tokio::join!(Bus::connect(settings), broker.resume());
    resumed.unwrap();
    assert!(bus.unwrap().is_connected());
}

async fn wait_for(events: &mut tokio::sync::broadcast::Receiver<BusEvent>, wanted: &BusEvent) {
    while timeout(DEADLINE, events.recv()).await.unwrap().unwrap() != *wanted {}
}

#[tokio::test]
async fn entries_without_a_place__should_be_counted_in_the_log_and_for_the_operator() {
    let broker = Broker::start().await.unwrap();
    let orchestrator = broker.connect(Role::Orchestrator).await.unwrap();
    orchestrator.ensure_streams(&StorageSettings::default()).await.unwrap();
    let mut registry = Registry::default();
    orchestrator.register_metrics(&mut registry);
    let shown = |series: &str| {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).unwrap();
        Exposition::parse(&text).unwrap().value(series).unwrap()
    };
    assert_eq!(shown("duet_audit_publications_total{outcome=published}"), 0.0);
    assert_eq!(shown("duet_audit_publications_total{outcome=failed}"), 0.0);

    let key = SigningKey::from_bytes(&[7; 32]);
    let pin = PinnedKey { writer: "orchestrator".to_owned(), key: key.verifying_key().to_bytes() };
    let (recording, recorder) = Recording::start(&orchestrator, Speaker::Orchestrator, "one", key, || 1);
    // All at once: on this single thread, nothing leaves the queue in between.
    let noted = 5_000;
    for _ in 0..noted {
        recorder.note(Event::WorkerStarted { instance: "noted".to_owned() });
    }
    recording.finish(DEADLINE).await;

    let auditor = broker.connect(Role::Auditor).await.unwrap();
    let mut verifier = Verifier::new(vec![pin]);
    let (mut written, mut lost) = (0, 0);
    audit::read(&auditor, |message| {
        for line in lines(&message.records) {
            verifier.line(line, Some(&message.speaker));
            let record = Record::from_line(line).unwrap();
            match serde_json::from_slice::<Body>(&record.body).unwrap().event {
                Event::WorkerStarted { .. } => written += 1,
                Event::Lost { entries } => lost += entries,
                _ => {}
            }
        }
    })
    .await
    .unwrap();
    let report = verifier.finish();
    assert!(report.valid && report.chains[0].closed && report.chains[0].pinned, "{report:?}");
    assert!(lost > 0, "the queue has no bound");
    assert_eq!(written + lost, noted);
    assert_eq!(shown("duet_audit_entries_lost_total"), lost as f64);
    assert!(shown("duet_audit_publications_total{outcome=published}") >= 1.0);
}
