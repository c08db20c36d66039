//! Compares the schemas with the types that read requests and write answers.
//!
//! For requests, documents are drawn from the schema and changed. The schema and the route's own
//! reader must agree on which of them are acceptable. For answers, sample values of the Rust types
//! must match the schema and have every property that it names.

mod draw;
mod requests;
mod responses;

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// The described interface's schemas.
struct Schemas(Value);

impl Schemas {
    fn new() -> Self {
        Self(super::document())
    }

    /// For answers: no member may be there that a schema does not name.
    fn closed(&self) -> Self {
        let mut document = self.0.clone();
        close(&mut document["components"]["schemas"]);
        Self(document)
    }

    /// The schema itself where `schema` refers to one.
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).unwrap(),
            None => schema,
        }
    }

    fn validator(&self, schema: &Value) -> Validator {
        let mut schema = schema.clone();
        schema["components"] = self.0["components"].clone();
        jsonschema::draft202012::new(&schema).unwrap()
    }

    /// The variants of `schema` that `value` may be, by its constants and by whether it is null.
    /// `schema` itself where it has no variants.
    fn candidates<'a>(&'a self, schema: &'a Value, value: &Value) -> Vec<&'a Value> {
        let schema = self.resolve(schema);
        let variants = ["oneOf", "anyOf"].into_iter().find_map(|name| schema[name].as_array());
        let Some(variants) = variants.filter(|_| schema["properties"].is_null()) else { return vec![schema] };
        let is_possible = |variant: &&Value| {
            let mut properties = variant["properties"].as_object().into_iter().flatten();
            let is_null = variant["type"] == json!("null");
            is_null == value.is_null()
                && properties
                    .all(|(name, property)| property.get("const").is_none_or(|text| value[name] == *text))
        };
        variants.iter().flat_map(|variant| self.candidates(variant, value)).filter(is_possible).collect()
    }

    /// The variant of `schema` that `value` is, or `schema` itself where it has no variants.
    fn variant<'a>(&'a self, schema: &'a Value, value: &Value) -> &'a Value {
        match self.candidates(schema, value)[..] {
            [only] => only,
            ref several => several.iter().find(|variant| self.validator(variant).is_valid(value)).unwrap(),
        }
    }

    /// The names of the schemas of the document's request bodies, or of its answers.
    fn of_bodies(&self, are_requests: bool) -> Vec<String> {
        let mut names = Vec::new();
        for operation in
            self.0["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values())
        {
            let answers = operation["responses"].as_object().into_iter().flat_map(Map::values);
            let bodies: Vec<&Value> =
                if are_requests { vec![&operation["requestBody"]] } else { answers.collect() };
            for content in bodies.into_iter().filter_map(|body| body["content"].as_object()) {
                let schemas = content.values().filter_map(|content| content["schema"]["$ref"].as_str());
                names.extend(schemas.map(|reference| reference.rsplit('/').next().unwrap().to_owned()));
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("type") == Some(&json!("object")) && fields.contains_key("properties") {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn named(name: &str) -> Value {
    super::of(name)
}

/// How often something was there, and how often not.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    present: usize,
    absent: usize,
}

/// What was seen of each property, by the description of its object and its name; and of each value
/// of those that list their values.
type Coverage = BTreeMap<(String, String), Seen>;

/// Notes which properties of `schema`, and of the objects in it, `value` has.
fn note(schemas: &Schemas, schema: &Value, value: &Value, coverage: &mut Coverage) {
    let schema = schemas.variant(schema, value);
    if let (Some(properties), Some(members)) = (schema["properties"].as_object(), value.as_object()) {
        let object = object_name(schema);
        for (name, property) in properties {
            let seen = coverage.entry((object.clone(), name.clone())).or_default();
            match members.get(name) {
                Some(member) => {
                    seen.present += 1;
                    if property["enum"].is_array() {
                        let value = (object.clone(), format!("{name} = {member}"));
                        coverage.entry(value).or_default().present += 1;
                    }
                    note(schemas, property, member, coverage);
                }
                None => seen.absent += 1,
            }
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        values.iter().for_each(|value| note(schemas, items, value, coverage));
    }
}

/// A text that tells this object's schema from the others: its description and its constants.
fn object_name(schema: &Value) -> String {
    let constants = schema["properties"].as_object().into_iter().flatten();
    let constants = constants.filter_map(|(_, property)| property["const"].as_str());
    format!(
        "{} {}",
        schema["description"].as_str().unwrap_or_default(),
        constants.collect::<Vec<_>>().join(" ")
    )
}

/// The properties of every object that `schema` can reach, and the values that they list. Whether
/// each is there always.
fn properties(schemas: &Schemas, schema: &Value, found: &mut BTreeMap<(String, String), bool>) {
    let schema = schemas.resolve(schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let is_required = schema["required"].as_array().is_some_and(|names| names.contains(&json!(name)));
        if found.insert((object_name(schema), name.clone()), is_required).is_none() {
            properties(schemas, property, found);
        }
        for value in property["enum"].as_array().into_iter().flatten() {
            found.insert((object_name(schema), format!("{name} = {value}")), true);
        }
    }
    if schema["properties"].is_null() {
        let variants = ["oneOf", "anyOf"].into_iter().filter_map(|name| schema[name].as_array());
        variants.flatten().for_each(|variant| properties(schemas, variant, found));
    }
    if let Some(items) = schema.get("items") {
        properties(schemas, items, found);
    }
}

/// Documents in which one property of an object that the schemas called `names` can reach has
/// another name, is missing, or is required and was not, or the other way round. Each with what
/// changed, and the pointer of the object.
fn mutations(names: &[&str]) -> Vec<(String, String, Schemas)> {
    let original = Schemas::new();
    let mut places = Vec::new();
    for name in names {
        objects(&original, &format!("/components/schemas/{name}"), &mut places);
    }
    let mut mutations = Vec::new();
    for place in places {
        let object = original.0.pointer(&place).unwrap();
        let required = object["required"].as_array().unwrap();
        for name in object["properties"].as_object().unwrap().keys() {
            let others = || required.iter().filter(|other| **other != json!(name)).cloned();
            let is_required = others().count() < required.len();
            let mut change = |what: &str, new_name: Option<&str>, is_required: bool| {
                let mut document = original.0.clone();
                let object = document.pointer_mut(&place).unwrap();
                let property = object["properties"].as_object_mut().unwrap().remove(name).unwrap();
                let still = new_name.filter(|_| is_required).map(Value::from);
                object["required"] = others().chain(still).collect();
                if let Some(new_name) = new_name {
                    object["properties"][new_name] = property;
                }
                mutations.push((format!("{name} {what}"), place.clone(), Schemas(document)));
            };
            change("has another name", Some("renamed"), is_required);
            change("is missing", None, false);
            change("is required, or not", Some(name), !is_required);
        }
    }
    mutations
}

/// The pointers of the objects that the schema at `place` can reach.
fn objects(schemas: &Schemas, place: &str, found: &mut Vec<String>) {
    let schema = schemas.0.pointer(place).unwrap();
    if let Some(reference) = schema["$ref"].as_str() {
        return objects(schemas, reference.trim_start_matches('#'), found);
    }
    if let Some(properties) =
        schema["properties"].as_object().filter(|_| !found.iter().any(|known| known == place))
    {
        found.push(place.to_owned());
        properties.keys().for_each(|name| objects(schemas, &format!("{place}/properties/{name}"), found));
        return;
    }
    for name in ["oneOf", "anyOf"] {
        for at in 0..schema[name].as_array().map_or(0, Vec::len) {
            objects(schemas, &format!("{place}/{name}/{at}"), found);
        }
    }
    if schema["items"].is_object() {
        objects(schemas, &format!("{place}/items"), found);
    }
}
