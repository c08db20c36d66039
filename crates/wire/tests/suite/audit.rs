//! An audit log is tampered with in every way, and the verifier says how.

use duet_protocol::ids::SessionId;
use duet_wire::{
    audit::{
        Asked, ChainId, Continues, Draft, Event, Exchange, Position, Record, lines, message, message_id,
        verify::{Fault, PinnedKey, Report, Verifier},
    },
    signing::SigningKey,
};
use proptest::prelude::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn writer(name: &str) -> String {
    name.to_owned()
}

fn pin(name: &str, seed: u8) -> PinnedKey {
    PinnedKey { writer: writer(name), key: key(seed).verifying_key().to_bytes() }
}

fn asked() -> Asked {
    Asked {
        requester: [3; 32],
        tenant: "acme".parse().unwrap(),
        job: duet_wire::JobId([4; 16]),
        wallet: duet_protocol::ids::WalletId([5; 32]),
    }
}

fn exchange(session: u8, nonce: u8, answer: u8) -> Exchange {
    Exchange {
        session: SessionId([session; 16]),
        asked: asked(),
        digest: [6; 32],
        nonce: [nonce; 32],
        answer: [answer; 32],
    }
}

fn charged(session: u8, nonce: u8, answer: u8) -> Event {
    Event::SessionCharged(exchange(session, nonce, answer))
}

/// A log that is written as a party's store writes it.
struct Log {
    key: SigningKey,
    records: Vec<Record>,
}

impl Log {
    fn open(name: &str, seed: u8, chain: u8) -> Self {
        let key = key(seed);
        let opened = Event::Opened {
            writer: writer(name),
            instance: None,
            key: key.verifying_key().to_bytes(),
            card: None,
            continues: None,
        };
        Self { key, records: vec![Record::first(ChainId([chain; 16]), Draft::new(1, opened))] }
    }

    fn head(&self) -> Position {
        self.records.last().unwrap().position()
    }

    fn add(&mut self, event: Event) {
        let at_ms = self.head().sequence + 1;
        self.records.push(self.head().follow(Draft::new(at_ms, event)));
    }

    fn checkpoint(&mut self) {
        let event = self.head().sign(&self.key);
        self.add(event);
    }
}

/// 1 opened, 2 to 7 charges, 8 checkpoint over 7, 9 and 10 charges.
fn sample() -> Log {
    let mut log = Log::open("service", 1, 1);
    for number in 2..=7 {
        log.add(charged(number, number, number));
    }
    log.checkpoint();
    log.add(charged(9, 9, 9));
    log.add(charged(10, 10, 10));
    log
}

fn verify_with(pins: Vec<PinnedKey>, records: &[Record]) -> Report {
    let mut verifier = Verifier::new(pins);
    let mut left = records;
    while !left.is_empty() {
        let (count, bytes) = message(left, 2000);
        assert!(count == 1 || bytes.len() <= 2000);
        lines(&bytes).for_each(|line| verifier.line(line, Some("service")));
        left = &left[count..];
    }
    verifier.finish()
}

fn verify(records: &[Record]) -> Report {
    verify_with(vec![pin("service", 1)], records)
}

fn faults(report: &Report) -> Vec<(Fault, Option<u64>)> {
    report.findings.iter().map(|finding| (finding.fault, finding.sequence)).collect()
}

#[test]
fn an_untouched_log_is_valid_up_to_its_last_checkpoint() {
    let log = sample();
    let report = verify(&log.records);
    assert!(report.valid, "{:?}", report.findings);
    let chain = &report.chains[0];
    assert_eq!((chain.first, chain.records, chain.signed_through), (1, 10, 7));
    assert_eq!((chain.last, chain.pinned, chain.closed), (log.head(), true, false));
    assert_eq!(chain.writer, Some(writer("service")));
}

#[test]
fn a_record_that_was_removed_is_missed() {
    let log = sample();
    let without = |number: usize| {
        let mut records = log.records.clone();
        records.remove(number - 1);
        faults(&verify(&records))
    };
    assert_eq!(without(4), [(Fault::Missing, Some(5))]);
    // The last record that the checkpoint covers.
    assert_eq!(without(7), [(Fault::Missing, Some(8))]);
    // The checkpoint itself.
    assert_eq!(without(8), [(Fault::Missing, Some(9))]);
    // After the checkpoint, as long as something follows.
    assert_eq!(without(9), [(Fault::Missing, Some(10))]);
    assert_eq!(without(1), [(Fault::Missing, Some(2))]);
    // Unless old records have expired. Then only its pinned key identifies the writer.
    let begin_anywhere = |pins| {
        let mut verifier = Verifier::new(pins);
        verifier.allow_missing_beginnings();
        log.records[1..].iter().for_each(|record| verifier.record(record, None));
        verifier.finish()
    };
    let report = begin_anywhere(vec![pin("service", 1)]);
    assert!(report.valid);
    assert_eq!((report.chains[0].first, report.chains[0].writer.clone()), (2, Some(writer("service"))));
    assert_eq!(faults(&begin_anywhere(vec![])), [(Fault::FalseCheckpoint, Some(8))]);
}

#[test]
fn a_verifier_that_remembers_the_end_finds_a_truncated_log() {
    let log = sample();
    let head = verify(&log.records).chains[0].last;
    for kept in [0, 1, 7, 8, 9] {
        // Alone it is only a shorter log; no verifier can tell.
        let truncated = &log.records[..kept];
        assert!(verify(truncated).valid, "{kept}");
        let mut verifier = Verifier::new(vec![pin("service", 1)]);
        verifier.remember(head);
        truncated.iter().for_each(|record| verifier.record(record, None));
        assert_eq!(faults(&verifier.finish()), [(Fault::Rewritten, Some(10))], "{kept}");
    }
    // Without the key a forger can rewrite the tail, but not what a verifier remembers.
    let mut forged = Log { key: key(1), records: log.records[..8].to_vec() };
    forged.add(charged(11, 11, 11));
    forged.add(charged(12, 12, 12));
    assert!(verify(&forged.records).valid, "after the last checkpoint nothing vouches");
    let mut verifier = Verifier::new(vec![pin("service", 1)]);
    verifier.remember(head);
    forged.records.iter().for_each(|record| verifier.record(record, None));
    assert_eq!(faults(&verifier.finish()), [(Fault::Rewritten, Some(10))]);
}

#[test]
fn records_that_changed_places_are_found() {
    let mut records = sample().records;
    records.swap(3, 4);
    let report = verify(&records);
    assert!(faults(&report).contains(&(Fault::Reordered, Some(4))), "{:?}", report.findings);
    // With their numbers exchanged as well they do not follow from each other.
    let mut records = sample().records;
    let bodies = (records[3].body.clone(), records[4].body.clone());
    (records[3].body, records[4].body) = (bodies.1, bodies.0);
    let report = verify(&records);
    assert!(faults(&report).contains(&(Fault::Altered, Some(5))), "{:?}", report.findings);
}

#[test]
fn a_record_that_was_altered_does_not_lead_to_the_next() {
    for number in 2..=9_usize {
        let mut records = sample().records;
        let altered = Draft::new(number as u64, charged(77, 77, 77));
        records[number - 1].body = altered.body;
        let report = verify(&records);
        assert!(faults(&report).contains(&(Fault::Altered, Some(number as u64 + 1))), "{number}: {report:?}");
    }
    // A forger who recomputes all later hashes fails at the checkpoint.
    let log = sample();
    let mut mended = Log { key: key(1), records: log.records[..3].to_vec() };
    mended.add(charged(77, 77, 77));
    for record in &log.records[4..] {
        let body = record.body.clone();
        mended.records.push(mended.head().follow(Draft { at_ms: 0, body }));
    }
    assert_eq!(faults(&verify(&mended.records)), [(Fault::Altered, Some(7))]);
}

#[test]
fn records_of_another_chain_do_not_pass_for_its_own() {
    let log = sample();
    let mut other = Log::open("service", 1, 2);
    (2..=10).for_each(|number| other.add(charged(number + 20, number + 20, number + 20)));
    // One of them, renamed.
    let mut records = log.records.clone();
    records[4] = Record { chain: records[4].chain, ..other.records[4].clone() };
    let report = verify(&records);
    assert!(faults(&report).contains(&(Fault::Altered, Some(5))), "{report:?}");
    // A checkpoint of another chain, by the right key.
    let mut spliced = Log { key: key(1), records: log.records[..7].to_vec() };
    let foreign = other.records[6].position().sign(&key(1));
    spliced.add(foreign);
    assert_eq!(faults(&verify(&spliced.records)), [(Fault::FalseCheckpoint, Some(8))]);
    // A whole chain by another key, under the writer's name, or on the writer's subject.
    let mut stranger = Log::open("service", 9, 3);
    stranger.checkpoint();
    let both = [log.records.clone(), stranger.records].concat();
    assert_eq!(faults(&verify(&both)), [(Fault::ForeignWriter, Some(1))]);
    let partner = Log::open("partner", 9, 4);
    assert_eq!(faults(&verify(&partner.records)), [(Fault::ForeignWriter, Some(1))]);
}

#[test]
fn two_histories_of_one_chain_are_a_fork() {
    let log = sample();
    let mut other = Log { key: key(1), records: log.records[..8].to_vec() };
    other.add(charged(11, 11, 11));
    let both = [log.records, other.records].concat();
    assert_eq!(faults(&verify(&both)), [(Fault::Forked, Some(9))]);
}

#[test]
fn records_that_were_shipped_again_are_no_fault() {
    let log = sample();
    let shipped = [&log.records[..5], &log.records[3..], &log.records[..2]].concat();
    let report = verify(&shipped);
    assert!(report.valid, "{:?}", report.findings);
    assert_eq!(report.chains[0].records, 10);
    assert_eq!(message_id(&log.records[3..]).unwrap(), format!("{}.4.10", ChainId([1; 16])));
}

#[test]
fn checkpoints_by_another_key_vouch_for_nothing() {
    let mut log = sample();
    log.key = key(2);
    log.checkpoint();
    let report = verify(&log.records);
    assert_eq!(faults(&report), [(Fault::FalseCheckpoint, Some(11))]);
    assert_eq!(report.chains[0].signed_through, 7);
}

#[test]
fn a_nonce_an_answer_or_a_charge_that_is_used_again_is_found() {
    for (again, sequence) in [(charged(3, 50, 50), 11), (charged(50, 4, 50), 11), (charged(50, 50, 5), 11)] {
        let mut log = sample();
        log.add(again);
        assert_eq!(faults(&verify(&log.records)), [(Fault::Reused, Some(sequence))]);
    }
    // Both sides of one session record the same answer.
    let mut log = sample();
    log.add(Event::SessionSigned(exchange(2, 60, 2)));
    assert!(verify(&log.records).valid);
}

#[test]
fn what_is_no_record_is_said_to_be_none() {
    let mut verifier = Verifier::new(vec![]);
    verifier.line(b"{}", None);
    verifier.line(br#"{"chain":"01","sequence":1,"previous":"","body":""}"#, None);
    verifier.line(&[b' '; 20_000], None);
    let report = verifier.finish();
    assert_eq!(faults(&report), [(Fault::Malformed, None); 3]);
    // An absurd number does not make the verifier keep account of all numbers before it.
    let mut log = sample();
    let mut far = log.head().follow(Draft::new(1, Event::Closed));
    far.sequence = u64::MAX;
    log.records.push(far);
    assert_eq!(faults(&verify(&log.records)), [(Fault::Malformed, Some(u64::MAX))]);
}

#[test]
fn a_record_of_a_kind_to_come_keeps_its_place() {
    let mut log = sample();
    let body = br#"{"at_ms":5,"event":{"kind":"of_tomorrow","what":1}}"#.to_vec();
    log.records.push(log.head().follow(Draft { at_ms: 5, body }));
    log.checkpoint();
    let report = verify(&log.records);
    assert!(report.valid);
    assert_eq!((report.chains[0].unknown, report.chains[0].signed_through), (1, 11));
}

#[test]
fn records_are_pinned_and_round_trip() {
    let log = sample();
    let first = &log.records[0];
    assert_eq!(
        String::from_utf8(first.to_line()).unwrap(),
        concat!(
            r#"{"chain":"01010101010101010101010101010101","sequence":1,"#,
            r#""previous":"0000000000000000000000000000000000000000000000000000000000000000","#,
            r#""body":"{\"at_ms\":1,\"event\":{\"kind\":\"opened\",\"writer\":\"service\","#,
            r#"\"key\":\"8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c\"}}"}"#
        )
    );
    assert_eq!(
        hex::encode(first.position().hash),
        "2a7bfbc5246f8dc740f583145e21e1961644fa09eea2ddeb742aacfd3ee75590"
    );
    for record in &log.records {
        assert_eq!(Record::from_line(&record.to_line()).as_ref(), Ok(record));
        let body: duet_wire::audit::Body = serde_json::from_slice(&record.body).unwrap();
        assert_eq!(Draft::new(body.at_ms, body.event).body, record.body);
    }
    let continues = Continues { after: log.head() };
    let text = serde_json::to_string(&continues).unwrap();
    assert_eq!(serde_json::from_str::<Continues>(&text).unwrap(), continues);
}

proptest! {
    /// No single change of a byte before the last checkpoint goes unnoticed.
    #[test]
    fn any_changed_byte_is_noticed(record in 0..7_usize, at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut records = sample().records;
        let lines: Vec<Vec<u8>> = records.iter_mut().map(|record| record.to_line()).collect();
        let mut lines = lines;
        let index = at.index(lines[record].len());
        prop_assume!(lines[record][index] != with);
        let before = Record::from_line(&lines[record]).unwrap();
        lines[record][index] = with;
        // Upper-case hexadecimal digits and such say the same.
        prop_assume!(Record::from_line(&lines[record]).ok() != Some(before));
        let mut verifier = Verifier::new(vec![pin("service", 1)]);
        lines.iter().for_each(|line| verifier.line(line, Some("service")));
        prop_assert!(!verifier.finish().valid);
    }
}
