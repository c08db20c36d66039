//! A party that answers a device.

use std::sync::Arc;

use duet_protocol::{
    arithmetic::default_arithmetic,
    card::{Card, ParametersCheck, VerifiedCard},
    codec,
};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::parse,
    failure::{Failure, outcome},
};

/// A party whose card was checked: one that answers a device.
#[wasm_bindgen]
pub struct Responder(pub(crate) VerifiedCard);

#[wasm_bindgen]
impl Responder {
    /// Checks a card against its pinned fingerprint (64 hexadecimal digits) and verifies the proof
    /// of its parameters, which takes more than half a second.
    #[wasm_bindgen(unchecked_return_type = "Result<Responder>")]
    #[must_use]
    pub fn verify(card: &[u8], fingerprint: &str) -> JsValue {
        outcome(verified_card(card, fingerprint).map(Self))
    }

    /// The same when this very card was verified before, by this page's own code: in a helper
    /// worker beside the one that asks, whose `Responder.verify` gave this fingerprint.
    #[wasm_bindgen(js_name = verifiedElsewhere, unchecked_return_type = "Result<Responder>")]
    #[must_use]
    pub fn verified_elsewhere(card: &[u8], fingerprint: &str) -> JsValue {
        outcome(believed_card(card, fingerprint).map(Self))
    }

    /// The party's name.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn party(&self) -> String {
        self.0.card().party().to_string()
    }

    /// The verified card's fingerprint, 64 hexadecimal digits.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.card().fingerprint().to_string()
    }
}

fn verified_card(card: &[u8], fingerprint: &str) -> Result<VerifiedCard, Failure> {
    let card: Arc<Card> = Arc::new(codec::decode(card)?);
    Ok(VerifiedCard::verify(card, &parse("fingerprint", fingerprint)?, default_arithmetic())?)
}

/// A card that was verified in a helper of this page.
fn believed_card(card: &[u8], fingerprint: &str) -> Result<VerifiedCard, Failure> {
    let card: Arc<Card> = Arc::new(codec::decode(card)?);
    let fingerprint = parse("fingerprint", fingerprint)?;
    let check = ParametersCheck::of_trusted_verification(fingerprint);
    Ok(VerifiedCard::with_check(card, &fingerprint, &check, default_arithmetic())?)
}
