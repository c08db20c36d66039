//! The gateway, as browsers and strangers use it: real processes, a real broker, and a WebSocket
//! client.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

mod bounds;
mod floods;
mod pages;
mod proxies;
mod refusals;
mod signing;
