//! Tests stored wallets and backups through the crate's public interface.

#[cfg(test)]
mod wallets;
