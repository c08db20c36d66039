//! How often an attack that gains from repetition is tried.

/// `short`, or `long` under `cargo xtask attack --long`.
#[must_use]
pub fn tries(short: u32, long: u32) -> u32 {
    if std::env::var_os("DUET_ATTACK_LONG").is_some() { long } else { short }
}
