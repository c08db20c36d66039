//! What removed entries leave in a bucket, and what earlier versions left.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::time::Duration;

use async_nats::jetstream::{
    kv::{Store, UpdateError},
    stream::State,
};
use duet_bus::{
    Bus, Role,
    kv::{self, Bucket, Key, WriteError},
    markers::{self, OldMarkers, RoundError},
    streams::StorageSettings,
};
use duet_harness::broker::Broker;
use duet_protocol::ids::SessionId;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);

/// A marker lives as short as the broker permits, also in buckets of the version before.
fn settings() -> StorageSettings {
    StorageSettings { marker_ttl: Duration::from_secs(1), expire_markers: true, ..StorageSettings::default() }
}

fn key(number: u16) -> Key {
    Key::from(SessionId([number.to_be_bytes()[0], number.to_be_bytes()[1]].repeat(8).try_into().unwrap()))
}

async fn state(bus: &Bus) -> State {
    let stream = bus.jetstream().get_stream(format!("KV_{}", kv::SESSIONS)).await.unwrap();
    stream.cached_info().state.clone()
}

/// Waits until the bucket's stream has this many messages.
async fn shrinks_to(bus: &Bus, messages: u64) {
    let shrunk = async { while state(bus).await.messages != messages {} };
    if timeout(DEADLINE, shrunk).await.is_err() {
        assert_eq!(state(bus).await.messages, messages, "it does not shrink");
    }
}

/// A bucket as the version before made it.
async fn earlier_bucket(bus: &Bus, max_bytes: i64) -> Store {
    let config = async_nats::jetstream::kv::Config {
        bucket: kv::SESSIONS.to_owned(),
        description: "Written by orchestrators alone, by compare-and-swap".to_owned(),
        history: 1,
        max_bytes,
        num_replicas: 1,
        ..Default::default()
    };
    bus.jetstream().create_or_update_key_value(config).await.unwrap()
}

/// Removes an entry as the version before did, in either of its two ways.
#[expect(clippy::disallowed_methods, reason = "the version before called them")]
async fn earlier_removal(store: &Store, key: &str, revision: u64) -> Result<(), UpdateError> {
    if revision.is_multiple_of(3) {
        store.delete_expect_revision(key, Some(revision)).await
    } else {
        store.purge_expect_revision(key, Some(revision)).await
    }
}

/// Walks to the end. Returns how many markers it renewed in how many rounds.
async fn walk<T>(markers: &mut OldMarkers<T>) -> (usize, usize) {
    let (mut renewed, mut rounds) = (0, 0);
    loop {
        let round = markers.round().await.unwrap();
        assert!(round.renewed <= markers::MAX_PER_ROUND);
        (renewed, rounds) = (renewed + round.renewed, rounds + 1);
        if round.is_last {
            return (renewed, rounds);
        }
    }
}

#[tokio::test]
async fn a_removed_entry__should_leave_nothing() {
    let broker = Broker::start().await.unwrap();
    let bus = broker.connect(Role::Orchestrator).await.unwrap();
    let bucket = bus.ensure_bucket::<String>(kv::SESSIONS, &settings()).await.unwrap();
    let empty = state(&bus).await;
    let mut revisions = Vec::new();
    for number in 0..3 {
        assert!(bucket.is_absent(&key(number)).await.unwrap());
        revisions.push(bucket.create(&key(number), &"value".to_owned()).await.unwrap());
        assert!(!bucket.is_absent(&key(number)).await.unwrap());
    }
    let (first, second) = (revisions[0], revisions[1]);
    bucket.purge(&key(0), first).await.unwrap();
    assert!(bucket.is_absent(&key(0)).await.unwrap());
    // A value over a marker stays, and so does one that is updated afterwards.
    bucket.purge(&key(1), second).await.unwrap();
    let second = bucket.create(&key(1), &"again".to_owned()).await.unwrap();
    let second = bucket.update(&key(1), &"changed".to_owned(), second).await.unwrap();
    shrinks_to(&bus, 2).await;
    assert_eq!(bucket.get(&key(1)).await.unwrap().unwrap().value, "changed");
    assert_eq!(bucket.get(&key(2)).await.unwrap().unwrap().value, "value");

    // Writers that know the entry from before find out, with the marker and without it.
    let first_again = bucket.update(&key(0), &"late".to_owned(), first).await;
    assert!(matches!(first_again, Err(WriteError::Conflict { .. })), "{first_again:?}");
    bucket.create(&key(0), &"anew".to_owned()).await.unwrap();
    for (number, revision) in [(0, None), (1, Some(second)), (2, None)] {
        let revision = match revision {
            Some(revision) => revision,
            None => bucket.get(&key(number)).await.unwrap().unwrap().revision,
        };
        bucket.purge(&key(number), revision).await.unwrap();
    }
    shrinks_to(&bus, empty.messages).await;
    assert_eq!((state(&bus).await.bytes, empty.bytes), (0, 0));
    // There is nothing for the walk to do.
    assert_eq!(walk(&mut bucket.old_markers()).await, (0, 1));
}

#[tokio::test]
async fn a_bucket_of_the_version_before__should_lose_its_markers_and_keep_its_entries() {
    const ENTRIES: u16 = 700;
    let mut broker = Broker::start().await.unwrap();
    let bus = broker.connect(Role::Orchestrator).await.unwrap();
    let other = broker.connect(Role::Orchestrator).await.unwrap();
    let earlier = earlier_bucket(&bus, settings().bucket_max_bytes).await;
    for number in 0..ENTRIES {
        let revision = earlier.create(key(number).as_str(), "\"before\"".into()).await.unwrap();
        if !number.is_multiple_of(7) {
            earlier_removal(&earlier, key(number).as_str(), revision).await.unwrap();
        }
    }
    let live = ENTRIES / 7;
    assert_eq!(state(&bus).await.messages, u64::from(ENTRIES));

    // Two orchestrators start at the same moment.
    let settings = settings();
    let (one, two) = tokio::join!(
        bus.ensure_bucket::<String>(kv::SESSIONS, &settings),
        other.ensure_bucket::<String>(kv::SESSIONS, &settings),
    );
    let (one, two): (Bucket<String>, Bucket<String>) = (one.unwrap(), two.unwrap());
    // One still runs the version before: it goes on to write, and to leave markers.
    let late = earlier.create("late", "\"late\"".into()).await.unwrap();
    // Entries are made where markers lie, while the walks are under way.
    let (mut first, mut second) = (one.old_markers(), two.old_markers());
    let created = async {
        for number in [1, 2, 300, 699] {
            // A walk may renew the marker at this moment.
            while let Err(error) = one.create(&key(number), &"anew".to_owned()).await {
                assert!(matches!(error, WriteError::Conflict { .. }), "{error}");
            }
        }
    };
    let ((renewed, rounds), (renewed_by_other, _), ()) =
        tokio::join!(walk(&mut first), walk(&mut second), created);
    // Each round is bounded. Side by side, the walks leave out no marker and renew none twice.
    assert!(rounds >= usize::from(ENTRIES) / markers::MAX_PER_ROUND, "{rounds} rounds");
    let markers = usize::from(ENTRIES - live);
    assert!((markers - 4..=markers).contains(&(renewed + renewed_by_other)), "{renewed} {renewed_by_other}");

    // The markers go. A broker that is killed afterwards shows them again, without an end. The next
    // walk renews those that have outlived their time twice.
    let left = u64::from(live) + 5;
    shrinks_to(&bus, left).await;
    broker.restart().await.unwrap();
    let gone = async {
        while state(&bus).await.messages != left {
            first.restart();
            walk(&mut first).await;
        }
    };
    assert!(timeout(DEADLINE, gone).await.is_ok(), "{:?} instead of {left}", state(&bus).await);
    for number in 0..ENTRIES {
        let value = one.get(&key(number)).await.unwrap().map(|entry| entry.value);
        let expected = match number {
            1 | 2 | 300 | 699 => Some("anew"),
            number => number.is_multiple_of(7).then_some("before"),
        };
        assert_eq!(value.as_deref(), expected, "entry {number}");
    }
    // A walk goes on where it was.
    walk(&mut first).await;
    earlier_removal(&earlier, "late", late).await.unwrap();
    assert_eq!(walk(&mut first).await, (1, 1));
    shrinks_to(&bus, u64::from(live) + 4).await;
}

#[tokio::test]
async fn a_bucket_of_the_version_before__should_stay_as_it_is_until_the_operators_word() {
    let broker = Broker::start().await.unwrap();
    let bus = broker.connect(Role::Orchestrator).await.unwrap();
    let carefully = StorageSettings { expire_markers: false, ..settings() };
    earlier_bucket(&bus, carefully.bucket_max_bytes).await;
    let bucket = bus.ensure_bucket::<String>(kv::SESSIONS, &carefully).await.unwrap();
    assert!(!bucket.markers_expire());
    for number in [0, 1] {
        let revision = bucket.create(&key(number), &"value".to_owned()).await.unwrap();
        bucket.purge(&key(number), revision).await.unwrap();
        let again = bucket.purge(&key(number), revision).await;
        assert!(matches!(again, Err(WriteError::Conflict { .. })), "{again:?}");
    }
    // There is nothing for the walk to do, and the version before starts again.
    assert_eq!(walk(&mut bucket.old_markers()).await, (0, 1));
    earlier_bucket(&bus, carefully.bucket_max_bytes).await;
    assert_eq!(state(&bus).await.messages, 2);

    // Two orchestrators start, one with the operator's word.
    let permitting = settings();
    let (permitted, other) = tokio::join!(
        bus.ensure_bucket::<String>(kv::SESSIONS, &permitting),
        bus.ensure_bucket::<String>(kv::SESSIONS, &carefully),
    );
    assert!(permitted.unwrap().markers_expire());
    // The other one may have looked before.
    other.unwrap();
    // The word needs to be given once.
    let later = bus.ensure_bucket::<String>(kv::SESSIONS, &carefully).await.unwrap();
    assert!(later.markers_expire());
    assert_eq!(walk(&mut later.old_markers()).await, (2, 1));
    // A process from before goes on, and the walk finds what it leaves.
    let revision = bucket.create(&key(2), &"value".to_owned()).await.unwrap();
    bucket.purge(&key(2), revision).await.unwrap();
    assert_eq!(walk(&mut later.old_markers()).await.0, 1);
    shrinks_to(&bus, 0).await;
}

#[tokio::test]
async fn a_bucket_full_of_old_markers__should_have_room_once_it_has_some_more() {
    let broker = Broker::start().await.unwrap();
    let bus = broker.connect(Role::Orchestrator).await.unwrap();
    let small = StorageSettings { bucket_max_bytes: 16 * 1024, ..settings() };
    let earlier = earlier_bucket(&bus, small.bucket_max_bytes).await;
    let mut number = 0;
    while let Ok(revision) = earlier.create(key(number).as_str(), "0".into()).await {
        if earlier_removal(&earlier, key(number).as_str(), revision).await.is_err() {
            break;
        }
        number += 1;
    }
    let bucket = bus.ensure_bucket::<String>(kv::SESSIONS, &small).await.unwrap();
    let refused = bucket.create(&key(u16::MAX), &"x".repeat(200)).await;
    assert!(matches!(refused, Err(WriteError::Full { .. })), "{refused:?}");

    // The broker refuses also the shorter record that would make room.
    let mut markers = bucket.old_markers();
    let refused = markers.round().await;
    assert!(matches!(refused, Err(RoundError::Write(WriteError::Full { .. }))), "{refused:?}");

    // The operator gives it some more.
    let larger = StorageSettings { bucket_max_bytes: small.bucket_max_bytes + 1024, ..small };
    bus.ensure_bucket::<String>(kv::SESSIONS, &larger).await.unwrap();
    // The first renewed markers go while the walk waits for room.
    let walked = async {
        loop {
            match markers.round().await {
                Ok(round) if round.is_last => return,
                Ok(_) | Err(RoundError::Write(WriteError::Full { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(DEADLINE, walked).await.unwrap();
    let live = bucket.keys().await.unwrap().len();
    shrinks_to(&bus, live.try_into().unwrap()).await;
    bucket.create(&key(u16::MAX), &"x".repeat(200)).await.unwrap();
}
