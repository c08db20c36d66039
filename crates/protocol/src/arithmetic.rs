//! Modular arithmetic, primes and the Paillier operations, in two implementations that pass the
//! same tests and interoperate.
//!
//! - `gmp()`: kzen-paillier on curv-kzen and GMP (feature `gmp`). The faster one, and the native
//!   default. It is not constant-time and does not wipe its memory, so callers blind operations on
//!   secrets (see [`Arithmetic::is_constant_time`]).
//! - [`constant_time()`]: crypto-bigint and crypto-primes, for wasm32 and for builds without GMP.
//!
//! Both work on [`Natural`]s; a conversion costs microseconds where an operation costs
//! milliseconds.

mod constant_time;
#[cfg(feature = "gmp")]
mod gmp;
mod jacobi;
mod operations;
mod primes;

pub use constant_time::constant_time;
#[cfg(feature = "gmp")]
pub use gmp::gmp;
pub use jacobi::jacobi_symbol;
pub use operations::{
    Arithmetic, CHOICE_BITS, Choices, FixedBase, GROUP_SIZE, Modulus, PaillierOperations, PrimeKind,
    PrimeProgress,
};
pub use primes::search_prime;

/// The implementation used unless another one is asked for: GMP when it is built in.
#[must_use]
pub fn default_arithmetic() -> &'static dyn Arithmetic {
    #[cfg(feature = "gmp")]
    {
        gmp()
    }
    #[cfg(not(feature = "gmp"))]
    {
        constant_time()
    }
}

#[cfg(test)]
mod tests;
