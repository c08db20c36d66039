//! Each role's credentials on the real broker: every subject that it may publish or subscribe to.
//! The broker refuses all others.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::{collections::BTreeSet, time::Duration};

use async_nats::ConnectErrorKind;
use duet_bus::{
    Address, Bus, BusEvent, ConnectError, ConnectSettings, Denied, Filter, NkeySeed, Role, ServeOptions, kv,
    streams::StorageSettings,
};
use duet_chaos::cluster::Cluster;
use duet_harness::broker::Broker;
use duet_protocol::ids::{SessionId, WalletId};
use futures::StreamExt as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::broadcast,
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// The tokens of a session and of a wallet.
const SESSION: &str = "00112233445566778899aabbccddeeff";
const WALLET: &str = "0000000000000000000000000000000000000000000000000000000000000001";

/// The name of a worker process.
const INSTANCE: &str = "01JDXF4Z3M";

/// The names that may stand in `<from>` or `<to>`.
const SPEAKERS: [&str; 7] =
    ["orchestrator", "service", "partner", "device", "gateway", "auditor", "stranger"];

/// Every concrete subject that a client could want to publish on, permitted or not.
fn subjects() -> Vec<String> {
    let mut all: Vec<String> = [
        "duet.v1.job.demo",
        "duet.v1.job.other",
        "duet.v1.dead.demo",
        "duet.v1.result.demo",
        "duet.v1.result.other",
        "duet.v1.ended.demo",
        "duet.v1.delivery.x",
        "duet.v1.broker",
        "duet.v1.clock",
        "duet.v1.unknown",
        "duet.v2.job.demo",
        "elsewhere",
        "$KV.duet_jobs.demo.x",
        "$KV.duet_sessions.x",
        "$KV.duet_batches.demo.x",
        "$KV.duet_webhooks.demo.x",
        "$KV.duet_webhook_retries.x.y",
        "$KV.duet_digests.demo.x",
        "$KV.duet_answers.demo.x",
        "$KV.duet_meta.x",
        "$KV.other.x",
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.CREATE.EVIL",
        "$JS.API.STREAM.UPDATE.DUET_JOBS",
        "$JS.API.STREAM.INFO.DUET_RESULTS",
        "$JS.API.STREAM.INFO.DUET_AUDIT",
        "$JS.API.STREAM.DELETE.DUET_AUDIT",
        "$JS.API.STREAM.PURGE.DUET_AUDIT",
        "$JS.API.STREAM.MSG.GET.DUET_RESULTS",
        "$JS.API.STREAM.MSG.DELETE.DUET_AUDIT",
        "$JS.API.STREAM.MSG.DELETE.DUET_DEAD",
        "$JS.API.STREAM.MSG.DELETE.KV_duet_jobs",
        "$JS.API.CONSUMER.CREATE.DUET_RESULTS",
        "$JS.API.CONSUMER.CREATE.DUET_AUDIT",
        "$JS.API.CONSUMER.MSG.NEXT.DUET_JOBS.orchestrators",
        "$JS.API.DIRECT.GET.DUET_AUDIT",
        "$JS.API.DIRECT.GET.KV_duet_jobs",
        "$JS.ACK.DUET_JOBS.orchestrators.1.1.1.1.0",
        "$JS.FC.DUET_JOBS.x",
        "$SYS.REQ.SERVER.PING",
        "_INBOX.x",
        "_R_.x.y",
    ]
    .map(str::to_owned)
    .to_vec();
    all.push(format!("duet.v1.approval.{WALLET}"));
    all.push(format!("duet.v1.atwork.{INSTANCE}"));
    for one in SPEAKERS {
        all.push(format!("duet.v1.invite.{one}"));
        all.push(format!("duet.v1.invite.{one}.{INSTANCE}"));
        all.push(format!("duet.v1.seats.{one}.{INSTANCE}"));
        all.push(format!("duet.v1.release.{one}.{INSTANCE}"));
        all.push(format!("duet.v1.share.{one}"));
        all.push(format!("duet.v1.audit.{one}"));
        all.push(format!("duet.v1.head.{one}"));
        all.push(format!("$JS.API.DIRECT.GET.DUET_HEADS.duet.v1.head.{one}"));
        all.push(format!("duet.v1.outcome.{SESSION}.{one}"));
        all.push(format!("duet.v1.event.{SESSION}.{one}"));
        for other in SPEAKERS {
            all.push(format!("duet.v1.card.{one}.{other}"));
            all.push(format!("duet.v1.round.{SESSION}.{one}.{other}"));
        }
    }
    for role in Role::ALL {
        all.push(format!("_INBOX_{role}.x"));
        all.push(format!("_INBOX_{role}.sync.x"));
    }
    all
}

/// Those of [`subjects`] on which `role` may publish.
fn may_publish(role: Role) -> BTreeSet<String> {
    let mut allowed: BTreeSet<String> = BTreeSet::from([format!("_INBOX_{role}.sync.x")]);
    let mut allow = |subjects: &[&str]| allowed.extend(subjects.iter().map(|s| (*s).to_owned()));
    let session = |row: &str, tail: &str| format!("duet.v1.{row}.{SESSION}.{tail}");
    match role {
        Role::Orchestrator => {
            allow(&[
                "duet.v1.job.demo",
                "duet.v1.job.other",
                "duet.v1.dead.demo",
                "duet.v1.result.demo",
                "duet.v1.result.other",
                "duet.v1.ended.demo",
                "duet.v1.delivery.x",
                "duet.v1.broker",
                "duet.v1.audit.orchestrator",
                &format!("duet.v1.atwork.{INSTANCE}"),
                &session("event", "orchestrator"),
                "$KV.duet_jobs.demo.x",
                "$KV.duet_sessions.x",
                "$KV.duet_batches.demo.x",
                "$KV.duet_webhooks.demo.x",
                "$KV.duet_webhook_retries.x.y",
                "$KV.duet_digests.demo.x",
                "$KV.duet_answers.demo.x",
                "$KV.duet_meta.x",
                "$JS.API.INFO",
                "$JS.API.STREAM.CREATE.EVIL",
                "$JS.API.STREAM.UPDATE.DUET_JOBS",
                "$JS.API.STREAM.INFO.DUET_RESULTS",
                "$JS.API.STREAM.INFO.DUET_AUDIT",
                "$JS.API.STREAM.MSG.GET.DUET_RESULTS",
                "$JS.API.STREAM.MSG.DELETE.DUET_DEAD",
                "$JS.API.CONSUMER.CREATE.DUET_RESULTS",
                "$JS.API.CONSUMER.CREATE.DUET_AUDIT",
                "$JS.API.CONSUMER.MSG.NEXT.DUET_JOBS.orchestrators",
                "$JS.API.DIRECT.GET.DUET_AUDIT",
                "$JS.API.DIRECT.GET.KV_duet_jobs",
                "$JS.ACK.DUET_JOBS.orchestrators.1.1.1.1.0",
                "$JS.FC.DUET_JOBS.x",
                "_R_.x.y",
            ]);
            for party in SPEAKERS {
                allow(&[&format!("duet.v1.invite.{party}"), &format!("duet.v1.card.orchestrator.{party}")]);
                allow(&[
                    &format!("duet.v1.invite.{party}.{INSTANCE}"),
                    &format!("duet.v1.release.{party}.{INSTANCE}"),
                ]);
                allow(&[&format!("$JS.API.DIRECT.GET.DUET_HEADS.duet.v1.head.{party}")]);
            }
        }
        Role::Service | Role::Partner => {
            let (own, peer) =
                if role == Role::Service { ("service", "partner") } else { ("partner", "service") };
            allow(&[
                &session("round", &format!("{own}.{peer}")),
                &session("round", &format!("{own}.device")),
                &session("outcome", own),
                &session("event", own),
                &format!("duet.v1.seats.{own}.{INSTANCE}"),
                &format!("duet.v1.card.{own}.{peer}"),
                &format!("duet.v1.audit.{own}"),
                &format!("duet.v1.head.{own}"),
                &format!("$JS.API.DIRECT.GET.DUET_HEADS.duet.v1.head.{own}"),
                "duet.v1.clock",
                "_R_.x.y",
                &format!("_INBOX_{peer}.x"),
                &format!("_INBOX_{peer}.sync.x"),
                "_INBOX_gateway.x",
                "_INBOX_gateway.sync.x",
            ]);
        }
        Role::Gateway => {
            allow(&[
                &session("round", "device.service"),
                &session("round", "device.partner"),
                &session("outcome", "device"),
                &session("event", "device"),
                &format!("duet.v1.approval.{WALLET}"),
                "duet.v1.audit.gateway",
                "duet.v1.clock",
                "_INBOX_service.x",
                "_INBOX_service.sync.x",
                "_INBOX_partner.x",
                "_INBOX_partner.sync.x",
            ]);
            for party in SPEAKERS {
                allow(&[&format!("duet.v1.share.{party}"), &format!("duet.v1.card.device.{party}")]);
            }
        }
        Role::Auditor => allow(&["$JS.API.DIRECT.GET.DUET_AUDIT", "$JS.API.STREAM.INFO.DUET_AUDIT"]),
        Role::Results => {}
        Role::Sys => allow(&["$SYS.REQ.SERVER.PING"]),
    }
    allowed
}

/// A subscription: a subject, and optionally a queue group.
type Listening = (String, Option<&'static str>);

/// Every subscription that a client could want, permitted or not.
fn listenings() -> Vec<Listening> {
    let mut all: Vec<Listening> = subjects().into_iter().map(|subject| (subject, None)).collect();
    for wildcard in [
        ">",
        "*.>",
        "duet.>",
        "duet.v1.>",
        "duet.v1.*.*",
        "duet.v1.invite.*",
        "duet.v1.invite.>",
        "duet.v1.invite.*.*",
        "duet.v1.invite.service.*",
        "duet.v1.invite.partner.*",
        "duet.v1.seats.*.*",
        "duet.v1.seats.>",
        "duet.v1.atwork.*",
        "duet.v1.release.*.*",
        "duet.v1.release.service.*",
        "duet.v1.release.partner.*",
        "duet.v1.release.>",
        "duet.v1.share.*",
        "duet.v1.card.>",
        "duet.v1.card.*.*",
        "duet.v1.round.>",
        "duet.v1.round.*.*.*",
        "duet.v1.round.*.*.service",
        "duet.v1.round.*.service.*",
        "duet.v1.round.*.device.service",
        "duet.v1.outcome.*.*",
        "duet.v1.event.*.*",
        "duet.v1.event.>",
        "duet.v1.approval.*",
        "duet.v1.result.*",
        "duet.v1.result.>",
        "duet.v1.audit.*",
        "duet.v1.head.*",
        "$KV.>",
        "$JS.>",
        "$SYS.>",
        "_INBOX.>",
        "_R_.>",
        "_INBOX_service.>",
        "_INBOX_partner.>",
        "_INBOX_gateway.>",
        "_INBOX_orchestrator.>",
        "*.*.*",
    ] {
        all.push((wildcard.to_owned(), None));
    }
    for queue in ["service", "partner", "orchestrator", "another"] {
        for subject in [
            "duet.v1.invite.service",
            "duet.v1.invite.partner",
            "duet.v1.invite.*",
            "duet.v1.invite.service.*",
            "duet.v1.invite.partner.*",
            "duet.v1.invite.*.*",
            "duet.v1.share.service",
            "duet.v1.share.partner",
            "duet.v1.card.*.service",
            "duet.v1.card.*.partner",
            "duet.v1.card.device.service",
            "duet.v1.outcome.*.*",
            "duet.v1.approval.*",
            ">",
        ] {
            all.push((subject.to_owned(), Some(queue)));
        }
    }
    all
}

/// Those of [`listenings`] that `role` may have.
fn may_listen(role: Role) -> BTreeSet<Listening> {
    let mut allowed: BTreeSet<Listening> =
        BTreeSet::from([(format!("_INBOX_{role}.x"), None), (format!("_INBOX_{role}.sync.x"), None)]);
    if listenings().contains(&(format!("_INBOX_{role}.>"), None)) {
        allowed.insert((format!("_INBOX_{role}.>"), None));
    }
    let mut allow = |subjects: &[&str], queue: Option<&'static str>| {
        allowed.extend(subjects.iter().map(|subject| ((*subject).to_owned(), queue)));
    };
    let events: Vec<String> = SPEAKERS
        .iter()
        .map(|who| format!("duet.v1.event.{SESSION}.{who}"))
        .chain(["duet.v1.event.*.*".to_owned()])
        .collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    match role {
        Role::Orchestrator => {
            allow(&["duet.v1.outcome.*.*", "duet.v1.approval.*"], Some("orchestrator"));
            allow(&events, None);
            allow(&["duet.v1.seats.*.*", "duet.v1.atwork.*", &format!("duet.v1.atwork.{INSTANCE}")], None);
            for party in SPEAKERS {
                allow(&[&format!("duet.v1.seats.{party}.{INSTANCE}")], None);
            }
        }
        Role::Service => {
            allow(
                &[
                    "duet.v1.invite.service",
                    "duet.v1.invite.service.*",
                    "duet.v1.share.service",
                    "duet.v1.card.*.service",
                    "duet.v1.card.device.service",
                ],
                Some("service"),
            );
            allow(
                &[
                    "duet.v1.release.service.*",
                    &format!("duet.v1.release.service.{INSTANCE}"),
                    "duet.v1.round.*.device.service",
                    &format!("duet.v1.round.{SESSION}.device.service"),
                    &format!("duet.v1.round.{SESSION}.partner.service"),
                ],
                None,
            );
        }
        Role::Partner => {
            allow(
                &[
                    "duet.v1.invite.partner",
                    "duet.v1.invite.partner.*",
                    "duet.v1.share.partner",
                    "duet.v1.card.*.partner",
                ],
                Some("partner"),
            );
            allow(
                &[
                    "duet.v1.release.partner.*",
                    &format!("duet.v1.release.partner.{INSTANCE}"),
                    &format!("duet.v1.round.{SESSION}.device.partner"),
                    &format!("duet.v1.round.{SESSION}.service.partner"),
                ],
                None,
            );
        }
        Role::Gateway => {
            allow(
                &[
                    &format!("duet.v1.round.{SESSION}.service.device"),
                    &format!("duet.v1.round.{SESSION}.partner.device"),
                ],
                None,
            );
            allow(&events, None);
        }
        Role::Auditor => {}
        Role::Results => allow(&["duet.v1.result.demo"], None),
        Role::Sys => allow(&["$SYS.>", "$SYS.REQ.SERVER.PING"], None),
    }
    allowed
}

/// The broker's refusals so far. A publication that is certain to be refused goes last, because the
/// broker reports refusals in order.
async fn refused_so_far(bus: &Bus, events: &mut broadcast::Receiver<BusEvent>, fence: u32) -> Vec<Denied> {
    let fence = format!("fence.{fence}");
    bus.client().publish(fence.clone(), "".into()).await.unwrap();
    let mut refused = Vec::new();
    loop {
        match timeout(DEADLINE, events.recv()).await.unwrap().unwrap() {
            BusEvent::PermissionDenied(Denied::Publish(subject)) if subject == fence => return refused,
            BusEvent::PermissionDenied(denied) => refused.push(denied),
            _ => {}
        }
    }
}

#[tokio::test]
async fn each_role__should_publish_on_its_own_subjects_alone() {
    let broker = Broker::start().await.unwrap();
    tries_every_subject(|role| broker.settings(role).unwrap()).await;
}

/// The nodes of a cluster have the permissions of the development broker.
#[tokio::test(flavor = "multi_thread")]
async fn each_role__should_have_the_same_permissions_in_a_cluster() {
    let cluster = Cluster::start().await.unwrap();
    tries_every_subject(|role| cluster.settings(role).unwrap()).await;
    tries_every_listening(|role| cluster.settings(role).unwrap()).await;
}

async fn tries_every_subject(settings: impl Fn(Role) -> ConnectSettings) {
    let subjects = subjects();
    for role in Role::ALL {
        let allowed = may_publish(role);
        assert!(allowed.iter().all(|subject| subjects.contains(subject)), "{role}: the test's own lists");
        let bus = Bus::connect(settings(role)).await.unwrap();
        let mut events = bus.events();
        for (number, subject) in (0..).zip(&subjects) {
            bus.client().publish(subject.clone(), "{}".into()).await.unwrap();
            let refused = refused_so_far(&bus, &mut events, number).await;
            let refusal = (!allowed.contains(subject)).then(|| Denied::Publish(subject.clone()));
            assert_eq!(refused, Vec::from_iter(refusal), "{role} publishes on {subject}");
        }
    }
}

#[tokio::test]
async fn each_role__should_listen_to_its_own_subjects_alone() {
    let broker = Broker::start().await.unwrap();
    tries_every_listening(|role| broker.settings(role).unwrap()).await;
}

async fn tries_every_listening(settings: impl Fn(Role) -> ConnectSettings) {
    let listenings = listenings();
    for role in Role::ALL {
        let allowed = may_listen(role);
        assert!(allowed.iter().all(|one| listenings.contains(one)), "{role}: the test's own lists");
        let bus = Bus::connect(settings(role)).await.unwrap();
        let mut events = bus.events();
        for (number, listening) in (0..).zip(&listenings) {
            let (subject, queue) = listening;
            let subscriber = match queue {
                Some(queue) => bus.client().queue_subscribe(subject.clone(), (*queue).to_owned()).await,
                None => bus.client().subscribe(subject.clone()).await,
            }
            .unwrap();
            let refused = refused_so_far(&bus, &mut events, number).await;
            let refusal = (!allowed.contains(listening)).then(|| Denied::Subscribe(subject.clone()));
            assert_eq!(refused, Vec::from_iter(refusal), "{role} listens to {listening:?}");
            drop(subscriber);
        }
    }
}

#[tokio::test]
async fn a_stranger__should_be_refused() {
    let broker = Broker::start().await.unwrap();
    let mut settings = broker.settings(Role::Service).unwrap();
    settings.seed = NkeySeed::generate().unwrap();
    assert!(matches!(Bus::connect(settings).await, Err(ConnectError::Refused { .. })));

    let anonymous = async_nats::ConnectOptions::new()
        .add_root_certificates(broker.credentials().join("tls/ca.pem"))
        .require_tls(true)
        .connect(broker.url())
        .await;
    assert_eq!(anonymous.unwrap_err().kind(), ConnectErrorKind::AuthorizationViolation);

    let with_password = async_nats::ConnectOptions::with_user_and_password("service".into(), "".into())
        .add_root_certificates(broker.credentials().join("tls/ca.pem"))
        .require_tls(true)
        .connect(broker.url())
        .await;
    assert_eq!(with_password.unwrap_err().kind(), ConnectErrorKind::AuthorizationViolation);
}

#[tokio::test]
async fn plaintext__should_be_refused() {
    let broker = Broker::start().await.unwrap();
    let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", broker.port())).await.unwrap());
    let mut greeting = String::new();
    socket.read_line(&mut greeting).await.unwrap();
    assert!(greeting.contains("\"tls_required\":true"), "{greeting}");
    socket.write_all(b"CONNECT {\"verbose\":false}\r\nSUB > 1\r\nPING\r\n").await.unwrap();
    let mut rest = Vec::new();
    // A reset serves as well as an end.
    timeout(DEADLINE, socket.read_to_end(&mut rest)).await.unwrap().ok();
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("PONG"), "{rest}");
}

#[tokio::test]
async fn a_broker_with_another_authoritys_certificate__should_not_be_trusted() {
    let broker = Broker::start().await.unwrap();
    let other = Broker::start().await.unwrap();
    let mut settings = broker.settings(Role::Service).unwrap();
    settings.ca_file = Some(other.credentials().join("tls/ca.pem"));
    let refused = Bus::connect(settings).await;
    assert!(matches!(refused, Err(ConnectError::Tls { .. })), "{refused:?}");
}

/// Answers every request with its own payload.
async fn echo(bus: &Bus, filter: Filter) -> duet_bus::Service {
    bus.serve(filter, ServeOptions::waiting(4), |message| async move {
        message.respond(message.payload.clone()).await.unwrap();
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn every_request_row__should_be_answered_across_accounts() {
    let broker = Broker::start().await.unwrap();
    let orchestrator = broker.connect(Role::Orchestrator).await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    let partner = broker.connect(Role::Partner).await.unwrap();
    let gateway = broker.connect(Role::Gateway).await.unwrap();
    let party = |name: &str| name.parse::<duet_protocol::ids::PartyId>().unwrap();
    let (service_id, partner_id, device_id) = (party("service"), party("partner"), party("device"));
    let session = SESSION.parse::<SessionId>().unwrap();

    let round = Address::Round { session, from: device_id.clone(), to: service_id.clone() };
    let from_device = Address::Outcome { session, from: device_id.clone() };
    let requests = [
        (&orchestrator, Address::Invite(service_id.clone())),
        (&orchestrator, Address::Card { from: duet_bus::Speaker::Orchestrator, to: service_id.clone() }),
        (&gateway, Address::Share(service_id.clone())),
        (&gateway, Address::Card { from: device_id.clone().into(), to: service_id.clone() }),
        (&partner, Address::Card { from: partner_id.clone().into(), to: service_id.clone() }),
        (&gateway, round),
        (&service, Address::Outcome { session, from: service_id.clone() }),
        (&partner, Address::Outcome { session, from: partner_id }),
        (&gateway, from_device),
        (&gateway, Address::Approval(WALLET.parse::<WalletId>().unwrap())),
    ];
    for (asker, address) in &requests {
        let unanswered = asker.request(address, "early", DEADLINE).await;
        assert!(
            matches!(unanswered, Err(duet_bus::RequestError::NoResponders { .. })),
            "{address}: {unanswered:?}"
        );
    }
    let _services = [
        echo(&service, Filter::invites(&service_id)).await,
        echo(&service, Filter::shares(&service_id)).await,
        echo(&service, Filter::cards(&service_id)).await,
        echo(&service, Filter::rounds(session, &device_id, &service_id)).await,
        echo(&orchestrator, Filter::outcomes()).await,
        echo(&orchestrator, Filter::approvals()).await,
    ];
    for (asker, address) in &requests {
        let reply = asker.request(address, address.to_string(), DEADLINE).await.unwrap();
        assert_eq!(reply, address.to_string());
    }
}

#[tokio::test]
async fn events__should_reach_orchestrator_and_gateway() {
    let broker = Broker::start().await.unwrap();
    let session = SESSION.parse::<SessionId>().unwrap();
    let orchestrator = broker.connect(Role::Orchestrator).await.unwrap();
    let gateway = broker.connect(Role::Gateway).await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    let mut heard = Vec::new();
    for bus in [&orchestrator, &gateway] {
        heard.push(bus.subscribe_registered(&Filter::events_of(session), DEADLINE).await.unwrap());
    }
    let device: duet_protocol::ids::PartyId = "device".parse().unwrap();
    let service_id: duet_protocol::ids::PartyId = "service".parse().unwrap();
    let speakers: [(&Bus, duet_bus::Speaker); 3] = [
        (&orchestrator, duet_bus::Speaker::Orchestrator),
        (&gateway, device.into()),
        (&service, service_id.into()),
    ];
    for (bus, from) in speakers {
        let address = Address::Event { session, from };
        bus.publish(&address, address.to_string()).await.unwrap();
        for subscription in &mut heard {
            let event = subscription.next_within(DEADLINE).await.unwrap().unwrap();
            assert_eq!(
                (event.address, event.payload.to_vec()),
                (address.clone(), address.to_string().into())
            );
        }
    }
}

#[tokio::test]
async fn a_release__should_reach_its_worker_alone() {
    let broker = Broker::start().await.unwrap();
    let orchestrator = broker.connect(Role::Orchestrator).await.unwrap();
    let (service, partner) =
        (broker.connect(Role::Service).await.unwrap(), broker.connect(Role::Partner).await.unwrap());
    let party = |name: &str| name.parse::<duet_protocol::ids::PartyId>().unwrap();
    let listens = async |bus: &Bus, name: &str, instance: &str| {
        let filter = Filter::releases(&party(name), &instance.parse().unwrap());
        bus.subscribe_registered(&filter, DEADLINE).await.unwrap()
    };
    let mut ours = listens(&service, "service", INSTANCE).await;
    let mut others =
        [listens(&service, "service", "another").await, listens(&partner, "partner", INSTANCE).await];
    let release = |name: &str, instance: &str| Address::Release {
        party: party(name),
        instance: instance.parse().unwrap(),
    };
    let address = release("service", INSTANCE);
    orchestrator.publish(&address, "first").await.unwrap();
    let heard = ours.next_within(DEADLINE).await.unwrap().unwrap();
    assert_eq!((heard.address, heard.payload.to_vec()), (address, b"first".to_vec()));
    // What reaches the others is their own.
    for (other, address) in
        others.iter_mut().zip([release("service", "another"), release("partner", INSTANCE)])
    {
        orchestrator.publish(&address, "theirs").await.unwrap();
        let heard = other.next_within(DEADLINE).await.unwrap().unwrap();
        assert_eq!((heard.address, heard.payload.to_vec()), (address, b"theirs".to_vec()));
    }
}

#[tokio::test]
async fn a_tenant__should_see_its_own_results_alone() {
    let broker = Broker::start().await.unwrap();
    let orchestrator = broker.connect(Role::Orchestrator).await.unwrap();
    orchestrator.ensure_streams(&StorageSettings::default()).await.unwrap();
    let tenant = broker.connect(Role::Results).await.unwrap();
    let mut results =
        tenant.subscribe_registered(&Filter::results(&"demo".parse().unwrap()), DEADLINE).await.unwrap();
    for (name, bytes) in [("other", "theirs"), ("demo", "ours")] {
        let address = Address::Result(name.parse().unwrap());
        orchestrator.publish_stored(&address, bytes, None, DEADLINE).await.unwrap();
    }
    let first = results.next_within(DEADLINE).await.unwrap().unwrap();
    assert_eq!(first.payload, "ours");
}

#[tokio::test]
async fn an_auditor__should_read_records_and_write_none() {
    let broker = Broker::start().await.unwrap();
    let orchestrator = broker.connect(Role::Orchestrator).await.unwrap();
    orchestrator.ensure_streams(&StorageSettings::default()).await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    let own = Address::Audit("service".parse::<duet_protocol::ids::PartyId>().unwrap().into());
    let stored = service.publish_stored(&own, "a record", Some("1"), DEADLINE).await.unwrap();
    assert_eq!((stored.sequence, stored.duplicate), (1, false));
    assert!(service.publish_stored(&own, "a record", Some("1"), DEADLINE).await.unwrap().duplicate);

    let auditor = broker.connect(Role::Auditor).await.unwrap();
    let record =
        auditor.client().request("$JS.API.DIRECT.GET.DUET_AUDIT", "{\"seq\":1}".into()).await.unwrap();
    assert_eq!(record.payload, "a record");
    let refused = auditor.publish_stored(&own, "forged", None, DEADLINE).await;
    assert!(matches!(refused, Err(duet_bus::PublishError::PermissionDenied { .. })), "{refused:?}");
}

/// A publisher may name any reply subject, and the stream acknowledges there. If parties and
/// buckets shared an account, this would overwrite an entry.
#[tokio::test]
async fn a_party__should_not_reach_buckets_through_reply_subjects() {
    let broker = Broker::start().await.unwrap();
    let orchestrator = broker.connect(Role::Orchestrator).await.unwrap();
    let settings = StorageSettings::default();
    orchestrator.ensure_streams(&settings).await.unwrap();
    let bucket = orchestrator.ensure_bucket::<String>(kv::SESSIONS, &settings).await.unwrap();
    let key = kv::Key::from(SESSION.parse::<SessionId>().unwrap());
    let revision = bucket.create(&key, &"mine".to_owned()).await.unwrap();

    let service = broker.connect(Role::Service).await.unwrap();
    let own = Address::Audit("service".parse::<duet_protocol::ids::PartyId>().unwrap().into());
    for reply in [format!("$KV.{}.{key}", kv::SESSIONS), "$JS.API.STREAM.PURGE.DUET_AUDIT".to_owned()] {
        service.client().publish_with_reply(own.to_string(), reply, "evil".into()).await.unwrap();
    }
    // Stored after the attempts, so their acknowledgements have been sent.
    service.publish_stored(&own, "after", None, DEADLINE).await.unwrap();
    let entry = bucket.get(&key).await.unwrap().unwrap();
    assert_eq!((entry.value.as_str(), entry.revision), ("mine", revision));
    let mut audit = orchestrator.jetstream().get_stream(duet_bus::streams::AUDIT).await.unwrap();
    assert_eq!(audit.info().await.unwrap().state.messages, 3);
}

/// Two connections of one party must not give each other permission to publish anywhere.
#[tokio::test]
async fn a_party__should_not_gain_subjects_by_answering() {
    let broker = Broker::start().await.unwrap();
    let service = broker.connect(Role::Service).await.unwrap();
    let partner = broker.connect(Role::Partner).await.unwrap();
    let mut events = service.events();
    let session = SESSION.parse::<SessionId>().unwrap();
    let party = |name: &str| name.parse::<duet_protocol::ids::PartyId>().unwrap();
    let round = Address::Round { session, from: party("partner"), to: party("service") };
    let mut rounds = service.client().subscribe(round.to_string()).await.unwrap();
    service.sync(DEADLINE).await.unwrap();
    let coveted = format!("duet.v1.outcome.{SESSION}.device");
    partner.client().publish_with_reply(round.to_string(), coveted.clone(), "go".into()).await.unwrap();
    let message = timeout(DEADLINE, rounds.next()).await.unwrap().unwrap();
    service.client().publish(message.reply.unwrap(), "as the device".into()).await.unwrap();
    assert_eq!(refused_so_far(&service, &mut events, 0).await, [Denied::Publish(coveted)]);
}
