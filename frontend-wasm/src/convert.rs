//! Between JavaScript's values and ours.

use core::{cell::OnceCell, str::FromStr};

use duet_protocol::hedge::{Environment, Surrounded};
use getrandom::{
    SysRng,
    rand_core::{Rng as _, UnwrapErr},
};
use js_sys::Uint8Array;
use wasm_bindgen::JsValue;

use crate::failure::Failure;

thread_local! {
    /// A random number of this page or worker.
    static PROCESS: OnceCell<[u8; 32]> = const { OnceCell::new() };
}

/// The browser's randomness, `crypto.getRandomValues`, with what hedges it: a random number of this
/// page and the wall clock, to the millisecond that a browser tells. Make one for each step.
pub(crate) fn system_rng() -> Surrounded<UnwrapErr<SysRng>> {
    let process = PROCESS.with(|process| {
        *process.get_or_init(|| {
            let mut drawn = [0; 32];
            UnwrapErr(SysRng).fill_bytes(&mut drawn);
            drawn
        })
    });
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds since 1970 fit, and a wrong clock only hedges less"
    )]
    let now_ms = js_sys::Date::now() as u64;
    let environment = Environment { process, now_ns: now_ms.saturating_mul(1_000_000) };
    Surrounded::new(UnwrapErr(SysRng), environment)
}

/// A JSON document as JavaScript's own values.
pub(crate) fn from_json(value: &impl serde::Serialize) -> Result<JsValue, Failure> {
    let text = serde_json::to_string(value).map_err(Failure::misuse)?;
    js_sys::JSON::parse(&text).map_err(|_| Failure::Misuse("a document is no JSON".to_owned()))
}

/// A plain object as the document it spells out; `what` names it in the refusal.
pub(crate) fn to_value<T: serde::de::DeserializeOwned>(what: &str, given: &JsValue) -> Result<T, Failure> {
    let text = js_sys::JSON::stringify(given)
        .ok()
        .and_then(|text| text.as_string())
        .ok_or_else(|| Failure::malformed(what, "expected a plain object"))?;
    serde_json::from_str(&text).map_err(|why| Failure::malformed(what, why))
}

/// A message's bytes.
pub(crate) fn encoded<M: duet_protocol::codec::Message>(message: &M) -> Result<JsValue, Failure> {
    duet_protocol::codec::encode(message).map(|encoded| bytes(&encoded)).map_err(Failure::misuse)
}

/// Bytes as `0x` and hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> JsValue {
    format!("0x{}", hex::encode(bytes)).into()
}

/// Milliseconds since 1970 as JavaScript's number; exact until the year 287396.
#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 milliseconds")]
pub(crate) fn time(milliseconds: u64) -> JsValue {
    (milliseconds as f64).into()
}

/// Bytes as a `Uint8Array` of their own.
pub(crate) fn bytes(bytes: &[u8]) -> JsValue {
    Uint8Array::from(bytes).into()
}

/// A string argument parsed; `what` names it in the refusal.
pub(crate) fn parse<T>(what: &str, text: &str) -> Result<T, Failure>
where
    T: FromStr<Err: core::fmt::Display>,
{
    text.parse().map_err(|why| Failure::malformed(what, why))
}

/// An argument of exactly `N` bytes; `what` names it in the refusal.
pub(crate) fn array<const N: usize>(what: &str, given: &[u8]) -> Result<[u8; N], Failure> {
    given
        .try_into()
        .map_err(|_| Failure::malformed(what, format_args!("expected {N} bytes, got {}", given.len())))
}

/// `Date.now()` as milliseconds since 1970.
pub(crate) fn milliseconds(now: f64) -> Result<u64, Failure> {
    /// Integers up to here are exact in a JavaScript number.
    const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;
    if (0.0..=MAX_SAFE_INTEGER).contains(&now) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "in range, checked above"
        )]
        let milliseconds = now as u64;
        Ok(milliseconds)
    } else {
        Err(Failure::malformed("now", "expected milliseconds since 1970, as Date.now() has them"))
    }
}

pub(crate) fn decode_all<M: duet_protocol::codec::Message>(all: &[Uint8Array]) -> Result<Vec<M>, Failure> {
    all.iter().map(|one| duet_protocol::codec::decode(&one.to_vec()).map_err(Failure::from)).collect()
}

/// The bytes of a task, which JavaScript has to wipe.
pub(crate) fn task_bytes(task: &duet_protocol::proof_task::ProofTask) -> Result<JsValue, Failure> {
    task.to_secret_bytes().map(|task| bytes(&task)).map_err(Failure::misuse)
}

/// An address with its EIP-55 checksum.
pub(crate) fn checksummed(address: [u8; 20]) -> String {
    duet_wire::encoding::checksummed_address(&address)
}
