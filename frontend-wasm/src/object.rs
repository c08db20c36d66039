//! JavaScript's plain objects.

use js_sys::{Object, Reflect};
use wasm_bindgen::JsValue;

/// A plain object.
pub(crate) fn object<'a>(fields: impl IntoIterator<Item = (&'a str, JsValue)>) -> JsValue {
    let object = Object::new();
    for (name, value) in fields {
        // Fails only for proxies and frozen objects.
        let _ = Reflect::set(&object, &name.into(), &value);
    }
    object.into()
}
