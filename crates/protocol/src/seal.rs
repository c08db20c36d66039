//! Sealing to one receiver: HPKE (RFC 9180) in auth mode, X25519-HKDF-SHA256, HKDF-SHA256 and
//! ChaCha20-Poly1305. Only the holder of the receiver's card key can open the message. It then
//! knows that the holder of the sender's card key sealed it.

use hpke::{
    Deserializable as _, OpModeR, OpModeS, Serializable as _,
    aead::ChaCha20Poly1305,
    kdf::HkdfSha256,
    kem::{Kem, X25519HkdfSha256},
    single_shot_open, single_shot_seal_with_rng,
};
use serde::{Deserialize, Serialize};
use udigest::Digestable;
use zeroize::Zeroizing;

use crate::{
    hedge::{self, Entropy, Purpose},
    identity::{NoiseKey, PartyKeys},
    transcript,
};

/// The suite and purpose, part of every key.
const INFO: &[u8] = b"duet/v1/seal";

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

/// The message cannot be opened: it was sealed by another key, to another key, for another purpose,
/// or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed message cannot be opened: another sender, receiver or purpose, or changed bytes")]
pub struct SealBroken;

/// A sealed message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Digestable)]
pub(crate) struct Sealed {
    #[udigest(as_bytes)]
    encapsulated_key: [u8; 32],
    #[udigest(as_bytes)]
    ciphertext: Vec<u8>,
}

fn private_key(keys: &PartyKeys) -> Result<PrivateKey, SealBroken> {
    PrivateKey::from_bytes(keys.noise_secret().as_bytes()).map_err(|_| SealBroken)
}

fn public_key(key: &NoiseKey) -> Result<PublicKey, SealBroken> {
    PublicKey::from_bytes(key.as_bytes()).map_err(|_| SealBroken)
}

/// Seals `plaintext` from `keys` to `receiver`, bound to `context`.
pub(crate) fn seal(
    keys: &PartyKeys,
    receiver: &NoiseKey,
    context: &impl Digestable,
    plaintext: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Sealed, SealBroken> {
    // One ephemeral key for two messages would give one key stream, so the plaintext is part of the
    // hedge.
    let secret = Zeroizing::new([keys.noise_secret().as_bytes().as_slice(), plaintext].concat());
    let mut rng = hedge::generator(entropy, &secret, Purpose::Seal, context);
    let mode = OpModeS::Auth((private_key(keys)?, public_key(&keys.noise_key())?));
    let (encapsulated, ciphertext) =
        single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &mode,
            &public_key(receiver)?,
            INFO,
            plaintext,
            &transcript::hash("seal", context),
            &mut rng,
        )
        .map_err(|_| SealBroken)?;
    Ok(Sealed { encapsulated_key: encapsulated.to_bytes().into(), ciphertext })
}

/// Opens what `sender` sealed to `keys`, bound to `context`.
pub(crate) fn open(
    keys: &PartyKeys,
    sender: &NoiseKey,
    context: &impl Digestable,
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, SealBroken> {
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&sealed.encapsulated_key)
        .map_err(|_| SealBroken)?;
    single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Auth(public_key(sender)?),
        &private_key(keys)?,
        &encapsulated,
        INFO,
        &sealed.ciphertext,
        &transcript::hash("seal", context),
    )
    .map(Zeroizing::new)
    .map_err(|_| SealBroken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    #[derive(Digestable)]
    struct Context(u8);

    #[test]
    fn only_the_right_pair_and_purpose_open() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let [from, to, other] = [(); 3].map(|()| PartyKeys::generate(&mut rng));
        let sealed = seal(&from, &to.noise_key(), &Context(1), b"share", &mut rng).unwrap();
        let opened = open(&to, &from.noise_key(), &Context(1), &sealed);
        assert_eq!(opened.unwrap().as_slice(), b"share");
        assert_eq!(open(&to, &from.noise_key(), &Context(2), &sealed), Err(SealBroken));
        assert_eq!(open(&to, &other.noise_key(), &Context(1), &sealed), Err(SealBroken));
        assert_eq!(open(&other, &from.noise_key(), &Context(1), &sealed), Err(SealBroken));
        for at in 0..sealed.ciphertext.len() {
            let mut changed = sealed.clone();
            changed.ciphertext[at] ^= 1;
            assert_eq!(open(&to, &from.noise_key(), &Context(1), &changed), Err(SealBroken));
        }
    }
}
