//! The zero-knowledge proofs, all non-interactive (Canetti, Gennaro, Goldfeder, Makriyannis, Peled:
//! *UC Non-Interactive, Proactive, Threshold ECDSA with Identifiable Aborts*, ePrint 2021/060).
//!
//! | proof | shows | figure |
//! |---|---|---|
//! | [`modulus`] | `N` is a product of two primes, `gcd(N, φ(N)) = 1` | 16 |
//! | [`factor`] | both primes of `N` are above about 2²⁵⁴ | 28 |
//! | [`log_star`] | a ciphertext encrypts the discrete logarithm of a point, and that is small | 25 |
//! | [`parameters`] | `s ∈ ⟨t⟩` modulo `Ñ` | 17 |
//! | [`schnorr`] | knowledge of a discrete logarithm | – |
//!
//! A proof carries no statement: the verifier passes its own. Every challenge hashes the proof's
//! name, the [`ProofContext`](crate::transcript::ProofContext), the full statement and all
//! commitments.
//!
//! # Timing
//! With GMP, provers run some exponentiations with unblinded secret exponents. These are
//! commitments modulo a verifier's `Ñ`, whose group order the prover does not know. Each secret is
//! used in a handful of them, once per enrolment. Where that is too much, prove with
//! [`constant_time`](crate::arithmetic::constant_time).

use core::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess},
    ser::SerializeTuple as _,
};

use crate::{arithmetic::Modulus, natural::Natural};

pub mod factor;
pub mod log_star;
pub mod modulus;
pub mod parameters;
pub mod schnorr;

/// Repetitions of the proofs whose single run a cheater survives with probability 1/2.
pub const ITERATIONS: u32 = 128;

/// Exactly [`ITERATIONS`] rounds of a proof. On the wire it is a tuple without a length prefix.
#[derive(Debug, Clone, PartialEq, Eq, udigest::Digestable)]
struct Rounds<T>(Vec<T>);

impl<T> Rounds<T> {
    /// Makes every round from its index.
    fn try_from_fn<E>(round: impl FnMut(u32) -> Result<T, E>) -> Result<Self, E> {
        (0..ITERATIONS).map(round).collect::<Result<_, _>>().map(Self)
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..ITERATIONS).zip(&self.0)
    }
}

impl<T: Serialize> Serialize for Rounds<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(ITERATIONS as usize)?;
        for round in &self.0 {
            tuple.serialize_element(round)?;
        }
        tuple.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Rounds<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Rounds<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{ITERATIONS} rounds")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut rounds: A) -> Result<Rounds<T>, A::Error> {
                let collected = Rounds::try_from_fn(|index| {
                    rounds.next_element()?.ok_or_else(|| de::Error::invalid_length(index as usize, &self))
                })?;
                match rounds.next_element::<de::IgnoredAny>()? {
                    None => Ok(collected),
                    Some(_) => Err(de::Error::invalid_length(ITERATIONS as usize + 1, &self)),
                }
            }
        }
        deserializer.deserialize_tuple(ITERATIONS as usize, Visitor(PhantomData))
    }
}

/// Whether `0 < value < m`.
fn is_reduced(value: &Natural, modulus: &dyn Modulus) -> bool {
    !value.is_zero() && value < modulus.value()
}

/// Whether `0 < value < m` and `gcd(value, m) = 1`.
fn is_reduced_unit(value: &Natural, modulus: &dyn Modulus) -> bool {
    is_reduced(value, modulus) && modulus.is_unit(value)
}

#[cfg(test)]
mod adversarial_tests;
#[cfg(test)]
mod tests;
