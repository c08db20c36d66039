//! Passes the progress of dealing on to JavaScript.

use duet_protocol::{
    ids::ShareIndex,
    keygen::{KeygenObserver, KeygenStep},
};
use js_sys::Function;
use wasm_bindgen::prelude::JsValue;

use crate::object::object;

/// Passes the dealer's progress on to a function.
pub(crate) struct Listener {
    on_progress: Option<Function>,
    candidates: u32,
}

impl Listener {
    pub(crate) const fn new(on_progress: Option<Function>) -> Self {
        Self { on_progress, candidates: 0 }
    }

    fn say(&self, progress: &JsValue) {
        if let Some(function) = &self.on_progress {
            // A listener that throws does not stop the dealing.
            let _ = function.call1(&JsValue::NULL, progress);
        }
    }

    fn say_step(&self, step: &str, share: Option<ShareIndex>) {
        let share = share.map(|index| ("share", u8::from(index).into()));
        self.say(&object([("step", step.into())].into_iter().chain(share)));
    }

    fn say_candidates(&self) {
        self.say(&object([("step", "paillier-key".into()), ("candidates", self.candidates.into())]));
    }
}

impl KeygenObserver for Listener {
    fn step(&mut self, step: KeygenStep) {
        match step {
            KeygenStep::Shares => self.say_step("shares", None),
            KeygenStep::PaillierKey => self.say_candidates(),
            KeygenStep::Proofs(index) => self.say_step("proofs", Some(index)),
            KeygenStep::Sealing(index) => self.say_step("sealing", Some(index)),
        }
    }

    fn candidate(&mut self) {
        self.candidates = self.candidates.saturating_add(1);
        self.say_candidates();
    }
}
