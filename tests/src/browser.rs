//! A browser's party, natively: what a page's worker says to a gateway, with the protocol crate and
//! the gateway's frames, and nothing of the native device.

pub mod device;
pub mod socket;
