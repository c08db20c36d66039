//! A browser's party as a native program. It sends what a page's worker sends to a gateway, with
//! the protocol crate and the gateway's frames. It uses nothing of the native device.

pub mod device;
pub mod socket;
