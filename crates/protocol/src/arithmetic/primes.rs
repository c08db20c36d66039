//! The search for primes: crypto-primes' incremental sieve, either implementation's primality test.

use core::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
};

use crypto_bigint::BoxedUint;
use crypto_primes::{
    Flavor,
    hazmat::{SetBits, SmallFactorsSieveFactory},
    sieve_and_find,
};
use rand_core::CryptoRng;

use super::{Arithmetic, PrimeKind, PrimeProgress};
use crate::{
    hedge::{self, Entropy, Purpose},
    natural::Natural,
};

/// The search, with `arithmetic`'s primality test.
pub(super) fn random_prime(
    arithmetic: &dyn Arithmetic,
    kind: PrimeKind,
    bits: u32,
    rng: &mut dyn CryptoRng,
    progress: &mut dyn FnMut(PrimeProgress),
) -> Natural {
    loop {
        let mut heard = |so_far| {
            progress(so_far);
            ControlFlow::Continue(())
        };
        if let Some(prime) = search(arithmetic, kind, bits, rng, &mut heard) {
            return prime;
        }
    }
}

/// Like [`Arithmetic::random_prime`], but `progress` can end the search. Several searches may run
/// at once for the same primes, and only the first results count. `None` when `progress` ended it.
pub fn search_prime(
    arithmetic: &dyn Arithmetic,
    kind: PrimeKind,
    bits: u32,
    entropy: &mut dyn Entropy,
    progress: &mut dyn FnMut(PrimeProgress) -> ControlFlow<()>,
) -> Option<Natural> {
    let mut rng = hedge::generator(entropy, &[], Purpose::Primes, &bits);
    search(arithmetic, kind, bits, &mut rng, progress)
}

fn search(
    arithmetic: &dyn Arithmetic,
    kind: PrimeKind,
    bits: u32,
    rng: &mut dyn CryptoRng,
    progress: &mut dyn FnMut(PrimeProgress) -> ControlFlow<()>,
) -> Option<Natural> {
    let flavor = match kind {
        PrimeKind::Blum => Flavor::Any,
        PrimeKind::Safe => Flavor::Safe,
    };
    let candidates = Cell::new(0);
    let ended = Cell::new(false);
    let progress = RefCell::new(progress);
    // The sieve starts anew from another random number when it runs into 2^bits.
    loop {
        let Ok(factory) = SmallFactorsSieveFactory::<BoxedUint>::new(flavor, bits, SetBits::TwoMsb) else {
            continue;
        };
        let found = sieve_and_find(rng, factory, |_rng, candidate| {
            let candidate = Natural::from_boxed(candidate.clone());
            if candidate.low_u64() & 3 != 3 {
                return false;
            }
            candidates.set(candidates.get() + 1);
            if (progress.borrow_mut())(PrimeProgress { candidates: candidates.get() }).is_break() {
                ended.set(true);
                return true;
            }
            // The half is the smaller number, so its test is the cheaper filter.
            (kind != PrimeKind::Safe || arithmetic.is_prime(&candidate.shr(1)))
                && arithmetic.is_prime(&candidate)
        });
        if ended.get() {
            return None;
        }
        if let Ok(Some(prime)) = found {
            let prime = Natural::from_boxed(prime);
            if prime.bit_length() == bits {
                return Some(prime);
            }
        }
    }
}
