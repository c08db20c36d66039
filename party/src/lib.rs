//! A party: whoever holds one share of wallets, checks what it is asked to sign, and signs.

pub mod at_rest;
pub mod store;
