//! Draws documents from the subset of JSON Schema that the interface's schemas use.

use proptest::{collection, option, prelude::*, sample::select, string::string_regex};
use serde_json::{Map, Value, json};

use super::Schemas;

/// Documents that `schema` permits. A property with `examples` has one of them as its value,
/// because its schema says less than its description.
pub(super) fn draw(schemas: &Schemas, schema: &Value) -> BoxedStrategy<Value> {
    let schema = schemas.resolve(schema);
    if let Some(values) = ["examples", "enum"].into_iter().find_map(|name| schema[name].as_array()) {
        return select(values.clone()).boxed();
    }
    if let Some(value) = schema.get("const") {
        return Just(value.clone()).boxed();
    }
    if schema["properties"].is_object() {
        return object(schemas, schema);
    }
    if let Some(variants) = schema["oneOf"].as_array() {
        let variants: Vec<_> = variants.iter().map(|variant| draw(schemas, variant)).collect();
        return select(variants).prop_flat_map(|variant| variant).boxed();
    }
    match schema["type"].as_str() {
        Some("string") => match schema["pattern"].as_str() {
            Some(pattern) => {
                let inner = pattern.trim_start_matches('^').trim_end_matches('$');
                string_regex(inner).unwrap().prop_map(Value::from).boxed()
            }
            None => "[ -~é]{0,20}".prop_map(Value::from).boxed(),
        },
        Some("integer") => (schema["minimum"].as_i64().unwrap_or(-9)..1 << 40).prop_map(Value::from).boxed(),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("array") => {
            let least = schema["minItems"].as_u64().unwrap_or(0) as usize;
            let is_set = schema["uniqueItems"] == json!(true);
            collection::vec(draw(schemas, &schema["items"]), least..=least.max(3))
                .prop_map(move |mut items| {
                    if is_set {
                        let mut known = Vec::new();
                        items.retain(|item| {
                            !known.contains(item) && {
                                known.push(item.clone());
                                true
                            }
                        });
                    }
                    Value::from(items)
                })
                .boxed()
        }
        _ => panic!("nothing draws {schema:#}"),
    }
}

/// Objects with every required property, and each optional one in half of the cases. What the
/// schema says about properties together decides which of them remain.
fn object(schemas: &Schemas, schema: &Value) -> BoxedStrategy<Value> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let members: Vec<BoxedStrategy<Option<(String, Value)>>> = schema["properties"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, property)| {
            let name = name.clone();
            let is_required = required.contains(&json!(name));
            let member = draw(schemas, property).prop_map(move |value| (name.clone(), value));
            if is_required { member.prop_map(Some).boxed() } else { option::of(member).boxed() }
        })
        .collect();
    let validator = std::sync::Arc::new(schemas.validator(schema));
    members
        .prop_map(|members| Value::from(members.into_iter().flatten().collect::<Map<_, _>>()))
        .prop_filter("what the schema says about several properties", move |value| validator.is_valid(value))
        .boxed()
}
