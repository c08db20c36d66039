//! The computations of a curious peer on the messages of a cloned worker. A worker whose random
//! numbers repeat gives away the key.
//!
//! The peer follows the protocol. It decrypts two answers that it received, or reads two offers.

use duet_protocol::{
    arithmetic::Modulus,
    curve::{Point, Scalar, SecretScalar, reduce},
    door::Door,
    enrolment::{EnrolmentOffer, OfferError, OfferSetup, OfferVerifier},
    hedge::Entropy,
    ids::ShareIndex,
    natural::{Integer, Natural},
    paillier::EncryptionKey,
    share::{KeyShare, WalletPublic},
    signature::RecoverableSignature,
};
use k256::elliptic_curve::ff::Field as _;
use rand_core::CryptoRng;

/// How many multipliers are tried on either side of a quotient. The remainder `u − u'` is below
/// `q`, so a few more than `q / x_i` of them fit; a share far below `q` is as unlikely as it is
/// small.
const QUOTIENTS: u64 = 64;

/// The longest `|D − D'|` of two answers with one mask, in bits: `(v − v')·x_i + (u − u')`.
const UNMASKED_BITS: u32 = 513;

/// One answer, as the initiator that decrypted it sees it.
#[derive(Debug)]
pub struct SeenAnswer {
    /// `c3`.
    pub ciphertext: Natural,
    /// `D = v·x_i + u + ρ·q`, an integer.
    pub plaintext: Natural,
    /// `r` of the joint nonce.
    pub r: Scalar,
    /// The digest signed under the wallet's own key, path `m`.
    pub digest: [u8; 32],
}

impl SeenAnswer {
    /// `D mod q = k2⁻¹·(m + r·x)`.
    fn reduced(&self) -> Scalar {
        reduce(&self.plaintext)
    }

    fn message(&self) -> Scalar {
        reduce(&Natural::from_be_bytes(&self.digest))
    }
}

/// The knowledge of an initiator: its own share, the responder's index, the wallet's public key.
#[derive(Debug, Clone, Copy)]
pub struct CuriousInitiator<'a> {
    share: &'a KeyShare,
    responder: ShareIndex,
}

impl<'a> CuriousInitiator<'a> {
    /// An initiator with `share`, answered by the holder of share `responder`.
    #[must_use]
    pub const fn new(share: &'a KeyShare, responder: ShareIndex) -> Self {
        Self { share, responder }
    }

    /// The wallet's private key from two answers with one mask `ρ`: then `D − D'` is short, its
    /// quotient by the share is `v − v'`, and that is a quadratic equation for the key.
    #[must_use]
    pub fn key_from_one_mask(&self, answers: [&SeenAnswer; 2]) -> Option<SecretScalar> {
        let [first, second] = answers;
        let difference = &Integer::from(first.plaintext.clone()) + &-&Integer::from(second.plaintext.clone());
        if difference.magnitude().bit_length() > UNMASKED_BITS {
            return None;
        }
        let (quotient, _) = difference.magnitude().div_rem(&secret(self.share)?.to_natural())?;
        (0..2 * QUOTIENTS).find_map(|shift| {
            let quotient = (&quotient + &Natural::from(shift)).checked_sub(&Natural::from(QUOTIENTS))?;
            self.key_from_difference(answers, signed(difference.is_negative(), &quotient))
        })
    }

    /// The wallet's private key from two answers with one `r̃^N`, by an initiator whose `p − 1` is
    /// two times the product of `factors`: modulo `p` their quotient is `c_i^(v − v')`, and
    /// discrete logarithms are easy there.
    #[must_use]
    pub fn key_from_one_randomizer(
        &self,
        answers: [&SeenAnswer; 2],
        (key, prime, factors): (&EncryptionKey, &Natural, &[u64]),
        encrypted_share: &Natural,
    ) -> Option<SecretScalar> {
        let [first, second] = answers;
        let modulus = key.arithmetic().modulus(prime)?;
        let quotient = modulus.mul(&first.ciphertext, &modulus.invert(&second.ciphertext)?);
        let base = modulus.reduce(encrypted_share);
        let (logarithm, subgroup) = logarithm(&*modulus, &base, &quotient, factors)?;
        let negative = subgroup.checked_sub(&logarithm)?;
        let is_negative = negative < logarithm;
        let magnitude = if is_negative { negative } else { logarithm };
        if magnitude.bit_length() > UNMASKED_BITS {
            return None;
        }
        self.key_from_difference(answers, signed(is_negative, &magnitude))
    }

    /// Solves `v − v' = λ·(r·d/(m + r·x) − r'·d'/(m' + r'·x))` for `x`.
    fn key_from_difference(&self, answers: [&SeenAnswer; 2], difference: Scalar) -> Option<SecretScalar> {
        let lambda = lagrange(self.share.index(), self.responder)?;
        let [(r1, d1, m1), (r2, d2, m2)] =
            answers.map(|answer| (answer.r, answer.reduced(), answer.message()));
        let a = difference * r1 * r2;
        let b = difference * (m1 * r2 + r1 * m2) - lambda * r1 * r2 * (d1 - d2);
        let c = difference * m1 * m2 - lambda * (r1 * d1 * m2 - r2 * d2 * m1);
        let root = Option::<Scalar>::from((b * b - Scalar::from(4_u64) * a * c).sqrt())?;
        let denominator = Option::<Scalar>::from((a + a).invert())?;
        let public = self.share.wallet().public_key().to_bytes();
        [root, -root].into_iter().find_map(|root| {
            let key = SecretScalar::new((root - b) * denominator).ok()?;
            (key.public().to_bytes() == public).then_some(key)
        })
    }
}

fn signed(is_negative: bool, magnitude: &Natural) -> Scalar {
    if is_negative { -reduce(magnitude) } else { reduce(magnitude) }
}

/// Pohlig and Hellman 1978: the logarithm of `power` modulo the product of those factors that
/// divide the order of `base`, and that product.
fn logarithm(
    modulus: &dyn Modulus,
    base: &Natural,
    power: &Natural,
    factors: &[u64],
) -> Option<(Natural, Natural)> {
    let order = modulus.value().minus_one();
    let (mut logarithm, mut product) = (Natural::zero(), Natural::one());
    for factor in factors {
        let (cofactor, _) = order.div_rem(&Natural::from(*factor))?;
        let (base, power) = (modulus.pow(base, &cofactor), modulus.pow(power, &cofactor));
        if base.is_one() {
            continue;
        }
        let mut reached = Natural::one();
        let mut found = None;
        for exponent in 0..*factor {
            if reached == power {
                found = Some(exponent);
                break;
            }
            reached = modulus.mul(&reached, &base);
        }
        // The Chinese remainder theorem, one small factor at a time.
        let found = Natural::from(found?);
        while logarithm.rem(&Natural::from(*factor))? != found {
            logarithm = &logarithm + &product;
        }
        product = &product * &Natural::from(*factor);
    }
    Some((logarithm, product))
}

/// The offer of a worker that trusts its generator: ciphertext and range proof draw from `rng` as
/// it is, without a hedge.
///
/// # Errors
/// As [`EnrolmentOffer::make`].
pub fn offer_without_hedge(
    setup: &OfferSetup<'_>,
    rng: &mut dyn CryptoRng,
    entropy: &mut dyn Entropy,
) -> Result<EnrolmentOffer, OfferError> {
    Door::offer(setup, rng, entropy)
}

/// The initiator's share from two of its offers with one `α`: `z1 − z1' = (e − e')·x_i`.
#[must_use]
pub fn share_from_two_offers(
    verifier: &OfferVerifier<'_>,
    offers: [&EnrolmentOffer; 2],
    share: &Point,
) -> Option<SecretScalar> {
    let [(z1, e1), (z2, e2)] = [
        offers.first().and_then(|offer| Door::range_response(offer, verifier))?,
        offers.last().and_then(|offer| Door::range_response(offer, verifier))?,
    ];
    let numerator = &z1 + &-&z2;
    let numerator = signed(numerator.is_negative(), numerator.magnitude());
    let denominator = Option::<Scalar>::from((reduce(&e1) - reduce(&e2)).invert())?;
    let secret = SecretScalar::new(numerator * denominator).ok()?;
    (secret.public() == *share).then_some(secret)
}

/// One signature, as the responder that answered for it sees it.
#[derive(Debug)]
pub struct SeenSignature {
    /// `R1`.
    pub nonce_point: Point,
    /// The responder's own nonce.
    pub k2: Scalar,
    /// The published signature.
    pub signature: RecoverableSignature,
    /// The digest signed under the wallet's own key, path `m`.
    pub digest: [u8; 32],
}

/// The wallet's private key from two signatures with one `k1`: `s·k2·k1 = m + r·x` twice.
#[must_use]
pub fn key_from_one_initiator_nonce(
    wallet: &WalletPublic,
    seen: [&SeenSignature; 2],
) -> Option<SecretScalar> {
    let number = |bytes: &[u8]| reduce(&Natural::from_be_bytes(bytes));
    let [(m1, r1, p1), (m2, r2, p2)] = seen.map(|seen| {
        let product = number(seen.signature.s()) * seen.k2;
        (number(&seen.digest), number(seen.signature.r()), product)
    });
    let public = wallet.public_key().to_bytes();
    // `s` was made low: it may be the negative of what the equation says.
    [p2, -p2].into_iter().find_map(|p2| {
        let denominator = Option::<Scalar>::from((r1 * p2 - r2 * p1).invert())?;
        let key = SecretScalar::new((m2 * p1 - m1 * p2) * denominator).ok()?;
        (key.public().to_bytes() == public).then_some(key)
    })
}

/// The private key that two shares interpolate.
#[must_use]
pub fn interpolate(first: &KeyShare, second: &KeyShare) -> Option<Scalar> {
    let (i, j) = (first.index(), second.index());
    Some(lagrange(i, j)? * secret(first)?.as_scalar() + lagrange(j, i)? * secret(second)?.as_scalar())
}

/// The coefficient of share `own` when it is combined with share `other`.
fn lagrange(own: ShareIndex, other: ShareIndex) -> Option<Scalar> {
    let scalar = |index: ShareIndex| Scalar::from(u64::from(u8::from(index)));
    let inverse = Option::<Scalar>::from((scalar(other) - scalar(own)).invert())?;
    Some(scalar(other) * inverse)
}

/// The number of a share, with which its record ends.
fn secret(share: &KeyShare) -> Option<SecretScalar> {
    SecretScalar::from_bytes(share.to_secret_bytes().ok()?.last_chunk()?).ok()
}
