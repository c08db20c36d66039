//! Published primes and seeded generators, so that tests need not search and can repeat. **For
//! tests only**: every reader of this file knows the keys.
//!
//! The primes were drawn with the protocol's own search, from ChaCha20 seeded with the SHA-256 of
//! `duet fixtures`.
#![allow(
    clippy::allow_attributes,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "fixtures; the protocol's own tests include this file and use a part of it"
)]

use duet_protocol::{
    arithmetic::Arithmetic,
    hedge::{Entropy, Environment, Surrounded},
    natural::Natural,
    paillier::DecryptionKey,
    ring_pedersen::{Parameters, Trapdoor},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

/// A seeded generator as a machine in one environment.
pub type Seeded = Surrounded<ChaCha20Rng>;

/// The generator of a seed. Equal seeds draw equal numbers.
#[must_use]
pub fn rng(seed: u64) -> Seeded {
    Surrounded::new(ChaCha20Rng::seed_from_u64(seed), Environment { process: [0; 32], now_ns: 0 })
}

/// Primes of 1024 bits that are 3 modulo 4.
const BLUM_1024: [&str; 4] = [
    concat!(
        "e909e38e2eb3aab0f7d24424a132457315287809f46430f44f61da205a1fb5b3e6cc8f933412088a8d523f88d4f1b1ac",
        "af423fbe0d01fb8e9ff944867309483d9ad693eb281437eee7c21578ad322b9b2940632bc6dc40c5e085e0ca527cfd54",
        "47f91a77b5a32844c6c99deb427d927a280135bfab3ccb36eaabc39e7c52ad1f",
    ),
    concat!(
        "d1bcba0a7fdfa2724cea0faa538ec2beaacfa8725f82adb918104f2849226be371d1306bb1b1b99542c7a897fb20cd1c",
        "60c31e445f5b08a25730e16911ecd9020de8f43c8c068cb706fe2c9105996ff28c95a54535cd74e48bda77674e7f9047",
        "170e660de97a805255d546c1876c18a2e596afaf9b260e46053b04e0555aa357",
    ),
    concat!(
        "d81b90954e617441fe1ba7a372e6228b3dd07b205f6e1545f1e812dfe7d541b3ddf9e9c3438243a18bcc957ac9bf1498",
        "8719fac1e42924d687710226c8d106f5fb3c20fe58b64aa0c7501a0821cf2ff5d6bb2e6250dde988e038503584095184",
        "46bffe2712cdeb474223ef1cd83cb6faa84411257392c8bcb086395d609cf40f",
    ),
    concat!(
        "f84b94479e3e412f7a5277c9ee553241bc65dc353df79d273749dfe6b221afdd04bbc2408fc2ed8e2bdadaa901aa31d1",
        "75dabf763884609b9f6aa612834ea17a1e03cee2312d262a18babf7236751d98baa0fc2dd455bc3194f02296f6210ca3",
        "efa6c4719f004818f8e2ae0313682cc3a0e550cbf50b13c4d338533100fe87ef",
    ),
];

/// Safe primes of 1024 bits.
const SAFE_1024: [&str; 4] = [
    concat!(
        "d821a4101d31c92f5158b4f9ea1f620a0f486410f339e09d1ec5ae8f5cb705baaa139a3bbb8a3b4ebe949dbedd407c6d",
        "588f84cf9ce878ba53db3210cf94bdcc40aef7f15d31ea7cd79f8efec3cab82f36aafb934e17c6bfda105291d93af274",
        "df27d72af25f67a8a34e1a456ac41517bf3c6b188ad1fb5f638be57cb3167d9b",
    ),
    concat!(
        "d6cc9ae2bb2e8a0c0be76b888de8622f0d1ef4b3de2cbf1d8a1d6a207fa0f0bfe8eedc3f61c339a920200c0610c44148",
        "8d97b6eee9626f96da2901ae19f6899fbca81876fd9eca86c87ace03e9fc0905d9356e6368e97ee6ac176f01fc0ba31c",
        "9bb966e47c87b54724c3dc4685cc3ab16e37032afcada9e4bd372e9d3a736043",
    ),
    concat!(
        "c388795b18cdaeca0f2619115c38e9b1df1c3abb98f27d101f3126213f5fdec3d413437681c9b2c437726263e6ca9c30",
        "3a03e0be0c24dc20ebfaf717dba64d46d2b3dcd0d4c3a34ba102ae353de12895665e5fe274d5f828ff2fb9486bb424aa",
        "055deb25bd2dfae43f4e05ed4f624aa721d4142f9b7a35c7a56ccbb6c3bcd77b",
    ),
    concat!(
        "d08cd43a3f0e16422c471aa2c4e9099d6a85580bfabeb41eff15e5334125217a58dc19dc07a0365062c25e93c6572cb3",
        "1a4a2b2178324a3f3250330040df4898aff92e61c81db6b772a2c07a9ed3cf77735054666b57e5a0e667a4bca5f63129",
        "91889d9e757e96b4ab93b3d9f892dd629f455437ad41b941908ca90768e51c53",
    ),
];

/// Primes of 1536 bits that are 3 modulo 4.
const BLUM_1536: [&str; 2] = [
    concat!(
        "c85d2968d74ed53320d65056fab46d6bf22a1c4c767cff26bd5f1c0629389901f4a1385714c588d84280448864b4c362",
        "d518e843477f8e77c564e6fcfb528f9846a8b7b48f4a5838fc75bd648fa7f233132761b4f50f5f115b1cc73f85fae751",
        "801b32db4c2851d838264cd75b711f7a31223f9fb6ccb46f8c1eb751659e47aae59b87ad421333d96c47ac91e7bf2cca",
        "91ba59045913cb60bdc7f49cd1a95fcc6a6adc5dd9f867fda93f06b4a8ada4eb7b6792d4c74116bee006f0294e269fb7",
    ),
    concat!(
        "fa01a18898786da611606bfdbc0032467bf3b567d63c38e9cf1432348b6c505d41857dbc48326c2f28383a9484261573",
        "3f709ce0583a50f5bd64819ab6004368fe8a564bb413124c23fd9a7688c6f35cf6b8ff544a938888734de64256e6561c",
        "594cf5defb09bb234ec032154304dc97f6defc144fe3e3c3a197f1ba431445a403c6dcfaccdc918bf3cda32a83812ced",
        "172421a4e221d55776690cfdec42e3aabcd0519002140f26c3e3093a2f33434e0ae4c9b0ba7717dc8905ba8fa3f8897b",
    ),
];

/// A Blum prime of 1024 bits that an attacker chose: `p − 1` is twice the product of
/// [`SMOOTH_FACTORS`].
const SMOOTH_1024: &str = concat!(
    "ef2d003fba76ff217509b437ea8ee9d8b15992bbbd5716824990b875d2a8255bec3107009602ba5a133c800f4d743b8e",
    "cfc2bc008191455f0265598ec7427137d30858a71cd120820224157531ca4d92e5a117ee2cf076faafe92dabe624fd00",
    "81eac83ccd71a8c67c717aa97cb6b5d7523ba53a290e5c1f984c5a54dd151783",
);

/// The odd factors of one less than [`smooth_prime_1024`].
pub const SMOOTH_FACTORS: [u64; 84] = [
    2089, 2113, 2141, 2153, 2161, 2351, 2377, 2417, 2521, 2593, 2707, 2729, 2909, 2927, 2953, 3109, 3119,
    3257, 3331, 3517, 3529, 3581, 3673, 3701, 3733, 3853, 3911, 3923, 4057, 4111, 4211, 4261, 4397, 4507,
    4513, 4549, 4787, 4793, 4831, 4889, 4919, 4943, 4957, 5051, 5209, 5407, 5413, 5443, 5471, 5501, 5581,
    5741, 5783, 5801, 5807, 5849, 5981, 5987, 6089, 6133, 6143, 6163, 6217, 6329, 6367, 6389, 6397, 6529,
    6563, 6689, 6763, 6949, 6971, 7127, 7283, 7457, 7517, 7549, 7591, 7621, 7643, 7703, 7789, 7993,
];

/// A Blum prime of 1024 bits modulo which discrete logarithms are easy. Every proof about a
/// Paillier modulus holds for a product with it.
#[must_use]
pub fn smooth_prime_1024() -> Natural {
    parse(SMOOTH_1024)
}

fn parse(digits: &str) -> Natural {
    Natural::from_be_bytes(&hex::decode(digits).unwrap_or_default())
}

/// Four Blum primes of 1024 bits.
#[must_use]
pub fn blum_primes_1024() -> [Natural; 4] {
    BLUM_1024.map(parse)
}

/// Four safe primes of 1024 bits.
#[must_use]
pub fn safe_primes_1024() -> [Natural; 4] {
    SAFE_1024.map(parse)
}

/// Two Blum primes of 1536 bits.
#[must_use]
pub fn blum_primes_1536() -> [Natural; 2] {
    BLUM_1536.map(parse)
}

/// One of two 2048-bit Paillier keys: `which` odd or even.
///
/// # Panics
/// Never: the primes are fixed.
#[must_use]
pub fn decryption_key(which: usize, arithmetic: &'static dyn Arithmetic) -> DecryptionKey {
    let [a, b, c, d] = blum_primes_1024();
    let (p, q) = if which.is_multiple_of(2) { (a, b) } else { (c, d) };
    DecryptionKey::from_primes(&p, &q, arithmetic).unwrap_or_else(|error| panic!("{error}"))
}

/// One of two 2048-bit sets of ring-Pedersen parameters, with their secret: `which` odd or even.
///
/// # Panics
/// Never: the primes are fixed.
#[must_use]
pub fn ring_pedersen(
    which: usize,
    arithmetic: &'static dyn Arithmetic,
    entropy: &mut dyn Entropy,
) -> (Parameters, Trapdoor) {
    let [a, b, c, d] = safe_primes_1024();
    let (p, q) = if which.is_multiple_of(2) { (a, b) } else { (c, d) };
    Parameters::from_safe_primes(&p, &q, arithmetic, entropy).unwrap_or_else(|| panic!("fixed primes"))
}
