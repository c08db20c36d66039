//! P1* searches the plaintexts of many answers for traces of the responder's share: a mask that is
//! too narrow, a multiplier that is not reduced, a plaintext that wraps.

use duet_actors::tries::tries;
use duet_adversary::test_fixtures::{self, rng};
use duet_protocol::{
    arithmetic::default_arithmetic,
    curve::{self, SecretScalar},
    natural::Natural,
    paillier::{Ciphertext, masked_plaintext},
};

/// Cells of the histogram over the highest bits of the mask.
const CELLS: usize = 16;

/// The 99.99 % quantile of χ² with 15 degrees of freedom.
const LIMIT: f64 = 44.3;

#[test]
fn plaintexts_of_answers__should_tell_nothing_but_their_residue() {
    let answers = tries(128, 20_000);
    let key = test_fixtures::decryption_key(0, default_arithmetic());
    let public = key.encryption_key();
    let order = curve::order();
    let mut rng = rng(6);
    // The extremes of the responder's possible values, and one between.
    let mut worst = 0.0_f64;
    let mut longest = 0;
    for multiplier in [Natural::one(), order.minus_one()] {
        let v = curve::reduce(&multiplier);
        let x = SecretScalar::random(&mut rng);
        let (enrolled, _) = public.encrypt(&x.to_natural(), &mut rng).unwrap();
        let mut cells = [0_u32; CELLS];
        for _ in 0..answers {
            let u = SecretScalar::random(&mut rng);
            let masked = masked_plaintext(u.as_scalar(), &mut rng);
            let randomizer = public.make_randomizer(&mut rng);
            let answer = public.affine(&enrolled, &v, &masked, randomizer).unwrap();
            let answer = Ciphertext::parse(answer.as_natural(), public).unwrap();
            let plaintext = key.decrypt(&answer, &mut rng);
            let expected = v * *x.as_scalar() + *u.as_scalar();
            assert_eq!(curve::reduce(&plaintext), expected, "it does not wrap");
            longest = longest.max(plaintext.bit_length());
            // What P1* sees besides the residue: (v·x + u)/q + ρ. Its top four bits are ρ's.
            let (rest, _) = plaintext.div_rem(&order).unwrap();
            let cell = (0..4).fold(0, |cell, bit| cell << 1 | usize::from(rest.bit(640 - bit)));
            cells[cell] += 1;
        }
        let mean = f64::from(answers) / CELLS as f64;
        let chi: f64 = cells.iter().map(|&count| (f64::from(count) - mean).powi(2) / mean).sum();
        worst = worst.max(chi);
        assert!(chi < LIMIT, "χ² = {chi:.1} over {cells:?}");
    }
    assert!(longest <= 898, "{longest} bits");
    eprintln!(
        "evidence: answers = {}; χ² at most = {worst:.1} (limit {LIMIT}); longest plaintext = {longest} bits",
        2 * answers
    );
}
