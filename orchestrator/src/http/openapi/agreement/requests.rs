//! Request bodies: drawn from the schema, read as the route reads them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use axum::Json;
use duet_wire::SigningRequest;
use jsonschema::Validator;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::{Value, json};

use super::{Coverage, Schemas, draw::draw, mutations, named, note, properties};
use crate::http::{approvals::Approval, batches, jobs, webhooks};

/// Reads a body. A refusal is its text.
type Reader = fn(&[u8]) -> Result<(), String>;

/// How the routes read each kind of body.
const READERS: [(&str, Reader); 6] = [
    ("Approval", |body| done(Json::<Approval>::from_bytes(body).map_err(|error| error.body_text()))),
    ("BatchRequest", |body| done(batches::read(body).map_err(|error| error.into_parts().0.detail))),
    ("NewWebhook", |body| done(webhooks::new_webhook(body).map_err(|error| error.into_parts().0.detail))),
    ("ReplayOf", |body| done(webhooks::replay_of(body).map_err(|error| error.into_parts().0.detail))),
    ("Revocation", |body| done(jobs::revocation(body).map_err(|error| error.into_parts().0.detail))),
    ("SigningRequest", |body| done(SigningRequest::from_json(body).map_err(|error| error.to_string()))),
];

fn done<T>(read: Result<T, String>) -> Result<(), String> {
    read.map(drop)
}

/// A member that no reader knows.
const UNKNOWN: &str = "surprise";

/// The objects in `value`, as JSON pointers.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(at.to_owned());
            members.iter().for_each(|(name, member)| objects(member, &format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| objects(item, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

fn changed(
    document: &Value,
    pointer: &str,
    change: impl FnOnce(&mut serde_json::Map<String, Value>),
) -> Value {
    let mut document = document.clone();
    change(document.pointer_mut(pointer).unwrap().as_object_mut().unwrap());
    document
}

/// The names of fields in a reader's refusal of an unknown one.
fn named_fields(refusal: &str) -> BTreeSet<String> {
    // serde says "unknown field `x`, expected one of `a`, `b`".
    let mut names: BTreeSet<String> = match refusal.split_once("the fields here are ") {
        Some((_, names)) => names.split(", ").map(str::to_owned).collect(),
        None => {
            let (_, names) = refusal.split_once(", expected ").unwrap_or_default();
            names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        }
    };
    names.remove("kind");
    names
}

/// Checks that the schema and the reader agree on `document`, and on the same document with another
/// member or without one of its own.
fn compare(
    schemas: &Schemas,
    schema: &Value,
    validator: &Validator,
    read: Reader,
    document: &Value,
) -> Result<(), String> {
    let read = |document: &Value| read(document.to_string().as_bytes());
    read(document).map_err(|refusal| format!("{refusal}: drawn from the schema: {document:#}"))?;
    let mut places = Vec::new();
    objects(document, "", &mut places);
    for place in places {
        let more = changed(document, &place, |members| drop(members.insert(UNKNOWN.to_owned(), json!(1))));
        // The schema says nothing about the members of this object.
        if validator.is_valid(&more) {
            continue;
        }
        let Err(refusal) = read(&more) else { return Err(format!("with another member: {more:#}")) };
        let (read_fields, fields) = (named_fields(&refusal), object_at(schemas, schema, document, &place));
        if read_fields != fields {
            return Err(format!("{place} of {document:#}: read {read_fields:?}, described {fields:?}"));
        }
        for name in document.pointer(&place).unwrap().as_object().unwrap().keys() {
            let less = changed(document, &place, |members| drop(members.remove(name)));
            let read = read(&less);
            if validator.is_valid(&less) != read.is_ok() {
                return Err(format!("without {name}: {less:#}\n{read:?}"));
            }
        }
    }
    Ok(())
}

/// The properties, besides `kind`, of the object at `place` of `document`.
fn object_at(schemas: &Schemas, schema: &Value, document: &Value, place: &str) -> BTreeSet<String> {
    let (mut found, mut value) = (schemas.candidates(schema, document), document);
    for step in place.split('/').skip(1) {
        let (below, inner) = match value {
            Value::Array(items) => ("/items".to_owned(), &items[step.parse::<usize>().unwrap()]),
            _ => (format!("/properties/{step}"), &value[step]),
        };
        let schemas_below = found.into_iter().filter_map(|schema| schema.pointer(&below));
        found = schemas_below.flat_map(|schema| schemas.candidates(schema, inner)).collect();
        value = inner;
    }
    let names = found.iter().filter_map(|schema| schema["properties"].as_object()).flat_map(|all| all.keys());
    names.filter(|name| *name != "kind").cloned().collect()
}

/// Whether the schema called `name` says what `read` accepts.
fn check(schemas: &Schemas, name: &str, read: Reader) -> Result<(), String> {
    let schema = named(name);
    let validator = schemas.validator(&schema);
    let config = Config {
        cases: 200,
        max_local_rejects: 4_000,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let coverage = RefCell::new(Coverage::new());
    let run = runner.run(&draw(schemas, &schema), |document| {
        note(schemas, &schema, &document, &mut coverage.borrow_mut());
        compare(schemas, &schema, &validator, read, &document).map_err(TestCaseError::fail)
    });
    run.map_err(|error| error.to_string())?;
    let mut reachable = BTreeMap::new();
    properties(schemas, &schema, &mut reachable);
    let coverage = coverage.into_inner();
    let never = |property: &&(String, String)| coverage.get(*property).is_none_or(|seen| seen.present == 0);
    reachable.keys().find(never).map_or(Ok(()), |property| Err(format!("no document has {property:?}")))
}

#[test]
fn readers_and_schemas_agree_on_request_bodies() {
    let schemas = Schemas::new();
    let names: Vec<&str> = READERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(schemas.of_bodies(true), names, "a reader for each body");
    for (name, read) in READERS {
        check(&schemas, name, read).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}

#[test]
fn a_changed_schema_of_a_request_is_noticed() {
    for (name, read) in READERS {
        for (what, place, schemas) in mutations(&[name]) {
            assert!(check(&schemas, name, read).is_err(), "{place}: {what}");
        }
    }
}
