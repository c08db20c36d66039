//! The store that both back ends are: every method of [`ShareStore`](super::ShareStore), over
//! [`Backend`](super::backend::Backend).

pub(super) mod audit;
pub(super) mod keys;
pub(super) mod pending;
pub(super) mod policy;
pub(super) mod records;
mod sessions;
pub(super) mod wallets;
mod witness;
