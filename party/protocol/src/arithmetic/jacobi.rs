//! The Jacobi symbol.

use crate::natural::Natural;

/// The Jacobi symbol `(a / n)` for odd `n`: 1, −1, or 0 when they share a factor; `None` when `n`
/// is even. Variable-time: for public numbers.
///
/// Cohen, *A Course in Computational Algebraic Number Theory*, algorithm 1.4.10.
#[must_use]
pub fn jacobi_symbol(a: &Natural, n: &Natural) -> Option<i8> {
    if !n.is_odd() {
        return None;
    }
    let mut symbol = 1;
    let mut numerator = a.rem(n)?;
    let mut denominator = n.clone();
    while !numerator.is_zero() {
        let twos = numerator.as_boxed().trailing_zeros_vartime();
        numerator = numerator.shr(twos);
        let denominator_low = denominator.low_u64();
        if twos % 2 == 1 && matches!(denominator_low & 7, 3 | 5) {
            symbol = -symbol;
        }
        if numerator.low_u64() & 3 == 3 && denominator_low & 3 == 3 {
            symbol = -symbol;
        }
        let remainder = denominator.rem(&numerator)?;
        denominator = core::mem::replace(&mut numerator, remainder);
    }
    Some(if denominator.is_one() { symbol } else { 0 })
}
