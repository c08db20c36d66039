//! The search for the primes of a Paillier key, for helper workers beside the one that deals.

use core::ops::ControlFlow;

use duet_protocol::{
    arithmetic::{PrimeKind, PrimeProgress, default_arithmetic, search_prime},
    ids::PartyId,
    natural::Natural,
    paillier::ModulusSize,
    paillier_key::PaillierKey,
};
use js_sys::Function;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{bytes, system_rng},
    failure::{Failure, outcome},
};

/// Searches a random prime for a Paillier key, of exactly `bits` (1024, or 1536 for a long
/// modulus): big-endian bytes, **secret**. `onCandidate` hears how many candidates were tried, some
/// 60 in all for 1024 bits; when it returns `false` the search ends with the kind `cancelled`.
#[wasm_bindgen(js_name = findPrime, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn find_prime(
    bits: u32,
    #[wasm_bindgen(unchecked_param_type = "((candidates: number) => boolean | void) | undefined")]
    on_candidate: Option<Function>,
) -> JsValue {
    outcome(found(bits, on_candidate.as_ref()))
}

fn found(bits: u32, on_candidate: Option<&Function>) -> Result<JsValue, Failure> {
    let allowed = [ModulusSize::Bits2048, ModulusSize::Bits3072].map(|size| size.bits() / 2);
    if !allowed.contains(&bits) {
        return Err(Failure::malformed("bits", "expected 1024 or 1536"));
    }
    let mut heard = |PrimeProgress { candidates }| {
        let answer =
            on_candidate.and_then(|function| function.call1(&JsValue::NULL, &candidates.into()).ok());
        if answer.is_some_and(|answer| answer.as_bool() == Some(false)) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    search_prime(default_arithmetic(), PrimeKind::Blum, bits, &mut system_rng(), &mut heard)
        .and_then(|prime| prime.to_be_bytes_padded((bits / 8) as usize))
        .map(|prime| bytes(&prime))
        .ok_or_else(|| Failure::Cancelled("the search for a prime was ended".to_owned()))
}

/// A Paillier key of two primes that helpers found, everything about them checked.
pub(crate) fn paillier_key(
    owner: PartyId,
    size: ModulusSize,
    p: &[u8],
    q: &[u8],
) -> Result<PaillierKey, Failure> {
    let longest = (size.bits() / 16) as usize;
    if p.len() != longest || q.len() != longest {
        return Err(Failure::malformed("primes", format_args!("expected two of {longest} bytes")));
    }
    let (p, q) = (Natural::from_be_bytes(p), Natural::from_be_bytes(q));
    PaillierKey::from_primes(owner, size, &p, &q, default_arithmetic())
        .map_err(|why| Failure::malformed("primes", why))
}
