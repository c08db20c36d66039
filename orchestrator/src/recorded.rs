//! What earlier releases wrote into the broker is read, and written back without a loss. The
//! recordings are made by `tests/suite/recorded.rs`.

use core::fmt::Debug;

use duet_bus::kv::{self, Key};
use duet_wire::{
    JobEnded, JobRecord, JobStateName, SignedResult,
    audit::{Body, Record},
    session_state::SessionRecord,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{
    api::JobView,
    batch::BatchRecord,
    digests::{Answer, Claim},
    webhooks::Endpoint,
};

/// The recordings: the commit of the release, and what it wrote.
const RECORDINGS: [(&str, &str); 1] = [("71c7f6f", include_str!("../tests/fixtures/71c7f6f/records.json"))];

fn recordings() -> impl Iterator<Item = (&'static str, Map<String, Value>)> {
    RECORDINGS.into_iter().map(|(release, text)| (release, serde_json::from_str(text).unwrap()))
}

/// `value` with one more member in every object.
fn extended(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), extended(value)));
            let later = [("of_a_later_release".to_owned(), json!({ "since": [3] }))];
            Value::Object(members.chain(later).collect())
        }
        Value::Array(elements) => Value::Array(elements.iter().map(extended).collect()),
        other => other.clone(),
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    // As the bucket reads it: from text.
    serde_json::from_str(&value.to_string()).unwrap_or_else(|error| panic!("{error}: {value:#}"))
}

fn is_written_back<T: Serialize + DeserializeOwned>(value: &Value) -> T {
    let record: T = read(value);
    assert_eq!(serde_json::to_value(&record).unwrap(), *value);
    let with_more = extended(value);
    assert_eq!(serde_json::to_value(read::<T>(&with_more)).unwrap(), with_more);
    record
}

/// Every record of a bucket in a recording.
fn bucket<T: Serialize + DeserializeOwned>(name: &str) -> Vec<(String, T)> {
    let records: Vec<_> = recordings()
        .flat_map(|(_, recording)| recording[name].as_object().unwrap().clone())
        .map(|(key, value)| (key, is_written_back(&value)))
        .collect();
    assert!(!records.is_empty(), "{name}");
    records
}

/// The values of a list in a recording, in the form that is parsed and not kept.
fn all<T: DeserializeOwned + PartialEq + Debug>(name: &str) -> Vec<T> {
    let values: Vec<Value> =
        recordings().flat_map(|(_, recording)| recording[name].as_array().unwrap().clone()).collect();
    values
        .iter()
        .map(|value| {
            let one: T = read(value);
            assert_eq!(read::<T>(&extended(value)), one);
            one
        })
        .collect()
}

#[test]
fn every_record_is_read_and_written_back_with_what_others_added() {
    let jobs = bucket::<JobRecord>(kv::JOBS);
    for name in JobStateName::ALL {
        assert!(jobs.iter().any(|(_, job)| job.state.name() == name), "no job is {name}");
    }
    for (key, job) in &jobs {
        assert_eq!(Key::from((&job.tenant, job.id)).to_string(), *key);
        JobView::new(job).unwrap();
    }
    assert!(jobs.iter().any(|(_, job)| job.put_back.is_some()));
    assert!(jobs.iter().any(|(_, job)| job.revocation.is_some()));
    bucket::<SessionRecord>(kv::SESSIONS);
    bucket::<BatchRecord>(kv::BATCHES);
    bucket::<Endpoint>(kv::WEBHOOKS);
    bucket::<Claim>(kv::DIGESTS);
    bucket::<Answer>(kv::ANSWERS);
}

#[test]
fn every_published_end_and_audit_record_is_read() {
    for result in all::<SignedResult>("results") {
        result.verify(&result.key).unwrap();
        let body: Value = serde_json::from_slice(&result.body).unwrap();
        let with_more = SignedResult { body: extended(&body).to_string().into_bytes(), ..result.clone() };
        assert_eq!(with_more.parse_unverified().unwrap(), result.parse_unverified().unwrap());
    }
    all::<JobEnded>("ended");
    for line in all::<String>("audit") {
        let record = Record::from_line(line.as_bytes()).unwrap();
        assert_eq!(record.to_line(), line.as_bytes());
        let body: Value = serde_json::from_slice(&record.body).unwrap();
        assert_eq!(read::<Body>(&extended(&body)), read::<Body>(&body));
    }
}

#[test]
fn a_job_keeps_what_others_added_through_its_life() {
    for (_, recording) in recordings() {
        for (key, value) in recording[kv::JOBS].as_object().unwrap() {
            let mut job: JobRecord = read(&extended(value));
            job.end_published_at_ms = Some(7);
            let written = serde_json::to_value(&job).unwrap();
            let mut expected = extended(value);
            expected["end_published_at_ms"] = json!(7);
            assert_eq!(written, expected, "{key}");
        }
    }
}
