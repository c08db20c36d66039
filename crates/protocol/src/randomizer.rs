//! The randomizers `r̃^N mod N²`, which hide how each answer was computed. They are drawn one at a
//! time, or as a product over tables.
//!
//! # Why none is computed before its session
//! Two answers with one `r̃^N` give an initiator whose `p − 1` is smooth the quotient of their
//! multipliers, and with it the private key. Two copies of a worker's memory would both use a
//! randomizer that was ready. So each randomizer belongs to one session: its generator depends on
//! that session's message 1, and [`crate::responder::ReadyToRespond::answer`] accepts no other. Two
//! copies that hold one randomizer answer the same session with the same nonce, which reveals
//! nothing new. Tables may be copied. The choices from them may not, so the session draws them too.
//!
//! One exponentiation with a 2048-bit exponent modulo a 4096-bit number is most of a responder's
//! work. For a key with many answers, [`RandomizerTable`] replaces it by 600 multiplications.
//!
//! # Why a product over tables is as good
//! A table has `m` groups of 15 N-th residues, each drawn as `r^N` for a uniform `r`, and the
//! number one. A randomizer is the product of one uniformly chosen number per group. Two different
//! choices differ in a group; the quotient of the two numbers there is uniform among the N-th
//! residues, and independent of all other groups. So over the draw of the tables two choices give
//! the same product with probability exactly `1/|G|`, where `G` is the group of N-th residues. By
//! the leftover hash lemma (Håstad, Impagliazzo, Levin and Luby 1999, lemma 4.8) the product,
//! beside the tables themselves, is within `½·sqrt(|G|/16^m)` of uniform in `G`, which is how
//! `r̃^N` is distributed; `|G| ≤ N < 2^2048` for every `N` that a malicious initiator may choose.
//! With `m = 600` that is 2^−177 for one use, and 2^−128 still after 2^49 uses. Nothing about it is
//! computational, and nothing needs the tables to be secret.
//!
//! The party that chooses from the tables must have drawn them itself. A fixed base, or tables from
//! the initiator, would not do: the initiator knows the factors of `N` and would see the coset of
//! an answer.

mod one_time;

use std::sync::Arc;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    arithmetic::{CHOICE_BITS, Choices, GROUP_SIZE, PaillierOperations},
    hedge::Generator,
    natural::Natural,
    paillier::{EncryptError, EncryptionKey, ModulusSize},
};

pub use self::one_time::OneTimeRandomizer;

impl OneTimeRandomizer {
    /// Any number as a randomizer ([`crate::door`]).
    pub(crate) fn chosen(key: &EncryptionKey, value: Natural) -> Self {
        Self { modulus: key.modulus().clone(), value, exponent_blind: Zeroizing::new(1) }
    }
}

/// The `r̃^N` of one session. Neither `Clone` nor `Serialize`.
#[derive(Debug)]
#[must_use]
pub struct SessionRandomizer {
    sid2: [u8; 32],
    randomizer: OneTimeRandomizer,
}

impl SessionRandomizer {
    pub(crate) fn of_session(self, sid2: &[u8; 32]) -> Option<OneTimeRandomizer> {
        (self.sid2 == *sid2).then_some(self.randomizer)
    }
}

/// The generator of one session's randomizer. It draws its one value, or chooses it from a table.
#[derive(Debug)]
#[must_use]
pub struct SessionRandomizerDraw {
    key: EncryptionKey,
    sid2: [u8; 32],
    generator: Generator,
}

impl SessionRandomizerDraw {
    pub(crate) const fn new(key: EncryptionKey, sid2: [u8; 32], generator: Generator) -> Self {
        Self { key, sid2, generator }
    }

    /// Draws `r̃` and computes `r̃^N`: most of an answer's work.
    pub fn compute(mut self) -> SessionRandomizer {
        let randomizer = self.key.make_randomizer(&mut self.generator);
        SessionRandomizer { sid2: self.sid2, randomizer }
    }

    /// Chooses from `table`, at a fifth of the cost. The answer refuses a randomizer from another
    /// key's table.
    pub fn choose(mut self, table: &RandomizerTable) -> SessionRandomizer {
        let randomizer = table.make_randomizer(&mut self.generator);
        SessionRandomizer { sid2: self.sid2, randomizer }
    }
}

/// The number of groups in a table for a modulus of this length: `16^m ≥ 2^(length + 352)`.
const fn groups(size: ModulusSize) -> usize {
    match size {
        ModulusSize::Bits2048 => 600,
        ModulusSize::Bits3072 => 856,
    }
}

/// A table under construction. Each of its N-th residues takes about ten milliseconds of a core.
#[derive(Debug)]
pub struct RandomizerTableBuilder {
    size: ModulusSize,
    modulus: Natural,
    operations: Arc<dyn PaillierOperations>,
    numbers: Vec<Natural>,
}

impl RandomizerTableBuilder {
    /// An empty table for `key`.
    #[must_use]
    pub fn new(key: &EncryptionKey) -> Self {
        let operations = Arc::clone(key.operations());
        Self { size: key.size(), modulus: key.modulus().clone(), operations, numbers: Vec::new() }
    }

    /// The number of missing residues: 9,000 for an empty table for 2048 bits.
    #[must_use]
    pub fn missing(&self) -> usize {
        (groups(self.size) * GROUP_SIZE).saturating_sub(self.numbers.len())
    }

    /// Puts a randomizer of [`EncryptionKey::make_randomizer`] into the table instead of using it.
    ///
    /// # Errors
    /// [`EncryptError::ForeignRandomizer`] when it belongs to another key.
    pub fn add(&mut self, randomizer: OneTimeRandomizer) -> Result<(), EncryptError> {
        if randomizer.modulus != self.modulus {
            return Err(EncryptError::ForeignRandomizer);
        }
        self.numbers.push(randomizer.value);
        Ok(())
    }

    /// The table, when no residue is missing.
    ///
    /// # Errors
    /// Returns itself when residues are missing. It returns itself empty if it was full of numbers
    /// that are not randomizers.
    pub fn finish(mut self) -> Result<RandomizerTable, Self> {
        if self.missing() > 0 {
            return Err(self);
        }
        self.numbers.truncate(groups(self.size) * GROUP_SIZE);
        let (groups, _) = self.numbers.as_chunks();
        match self.operations.choices(groups) {
            Some(choices) => Ok(RandomizerTable { choices, size: self.size, modulus: self.modulus }),
            None => Err(Self { numbers: Vec::new(), ..self }),
        }
    }
}

/// Tables from which to make randomizers for one key: 4.9 MB for 2048 bits.
#[derive(Debug)]
pub struct RandomizerTable {
    size: ModulusSize,
    modulus: Natural,
    choices: Box<dyn Choices>,
}

impl RandomizerTable {
    /// A randomizer, within 2^−177 of what [`EncryptionKey::make_randomizer`] draws. The time is
    /// independent of the choices.
    pub fn make_randomizer(&self, rng: &mut dyn CryptoRng) -> OneTimeRandomizer {
        let bits = groups(self.size) * CHOICE_BITS as usize;
        let mut chosen = Zeroizing::new(vec![0; bits.div_ceil(8)]);
        rng.fill_bytes(&mut chosen);
        OneTimeRandomizer {
            modulus: self.modulus.clone(),
            value: self.choices.product(&chosen),
            exponent_blind: Zeroizing::new(rng.next_u64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand_chacha::{
        ChaCha20Rng,
        rand_core::{Rng as _, SeedableRng as _},
    };

    use super::*;
    use crate::{
        arithmetic::{Arithmetic, constant_time, default_arithmetic},
        paillier::DecryptionKey,
        test_fixtures,
    };

    /// A full table whose numbers are powers of one residue: distributed as wrongly as can be, made
    /// in a moment, and every product is known.
    fn table(key: &EncryptionKey, rng: &mut ChaCha20Rng) -> (RandomizerTable, Vec<Natural>) {
        let mut builder = RandomizerTableBuilder::new(key);
        let OneTimeRandomizer { value: residue, .. } = key.make_randomizer(rng);
        let mut value = residue.clone();
        let mut numbers = Vec::new();
        while builder.missing() > 0 {
            numbers.push(value.clone());
            let next = key.squared_arithmetic().mul(&value, &residue);
            builder.add(OneTimeRandomizer::chosen(key, value)).unwrap();
            value = next;
        }
        (builder.finish().unwrap(), numbers)
    }

    fn every_arithmetic() -> [(DecryptionKey, &'static dyn Arithmetic); 2] {
        [constant_time(), default_arithmetic()]
            .map(|arithmetic| (test_fixtures::decryption_key(0, arithmetic), arithmetic))
    }

    /// Gives out what it was given.
    struct Bytes<'a>(&'a [u8]);

    impl rand_core::TryRng for Bytes<'_> {
        type Error = core::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(7)
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(7)
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            bytes.copy_from_slice(self.0);
            Ok(())
        }
    }

    impl rand_core::TryCryptoRng for Bytes<'_> {}

    #[test]
    fn a_randomizer_is_the_product_of_one_chosen_number_per_group() {
        for (secret, _) in every_arithmetic() {
            let key = secret.encryption_key();
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            let (table, numbers) = table(key, &mut rng);
            let mut chosen = vec![0; 300];
            rng.fill_bytes(&mut chosen);
            // The extremes: one, and the last number of a group.
            chosen[0] = 0xf0;
            let digits = chosen.iter().flat_map(|byte| [usize::from(byte & 0xf), usize::from(byte >> 4)]);
            let expected = digits
                .enumerate()
                .filter(|(_, digit)| *digit > 0)
                .map(|(group, digit)| &numbers[group * GROUP_SIZE + digit - 1])
                .fold(Natural::one(), |product, number| key.squared_arithmetic().mul(&product, number));
            assert_eq!(table.make_randomizer(&mut Bytes(&chosen)).value, expected);
            assert!(table.make_randomizer(&mut Bytes(&[0; 300])).value.is_one());
        }
    }

    #[test]
    fn randomizers_are_encryptions_of_zero_and_differ() {
        let (secret, _) = &every_arithmetic()[1];
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let (table, _) = table(secret.encryption_key(), &mut rng);
        let mut seen = HashSet::new();
        for _ in 0..20 {
            let randomizer = table.make_randomizer(&mut rng);
            let ciphertext =
                crate::paillier::Ciphertext::parse(&randomizer.value, secret.encryption_key()).unwrap();
            assert!(secret.decrypt(&ciphertext, &mut rng).is_zero());
            assert!(seen.insert(randomizer.value.to_be_bytes().to_vec()));
            assert_ne!(*randomizer.exponent_blind, 0);
        }
    }

    #[test]
    fn an_unfinished_table_and_a_foreign_number_are_refused() {
        let [(secret, arithmetic), _] = every_arithmetic();
        let other = test_fixtures::decryption_key(1, arithmetic);
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut builder = RandomizerTableBuilder::new(secret.encryption_key());
        assert_eq!(builder.missing(), 9_000);
        let foreign = other.encryption_key().make_randomizer(&mut rng);
        assert_eq!(builder.add(foreign).unwrap_err(), EncryptError::ForeignRandomizer);
        builder.add(secret.encryption_key().make_randomizer(&mut rng)).unwrap();
        assert_eq!(builder.finish().unwrap_err().missing(), 8_999);
    }

    #[test]
    fn a_number_that_shares_a_factor_with_the_modulus_makes_no_table() {
        for (secret, _) in every_arithmetic() {
            let key = secret.encryption_key();
            let mut builder = RandomizerTableBuilder::new(key);
            while builder.missing() > 1 {
                builder.add(OneTimeRandomizer::chosen(key, Natural::one())).unwrap();
            }
            let factor = secret.primes().0.value().clone();
            builder.add(OneTimeRandomizer::chosen(key, factor)).unwrap();
            assert_eq!(builder.finish().unwrap_err().missing(), 9_000);
        }
    }

    #[test]
    fn tables_hold_352_bits_more_than_there_are_residues() {
        for size in [ModulusSize::Bits2048, ModulusSize::Bits3072] {
            assert!(groups(size) * CHOICE_BITS as usize >= size.bits() as usize + 352);
            assert_eq!(groups(size) * CHOICE_BITS as usize % 8, 0, "whole bytes choose");
        }
    }
}
