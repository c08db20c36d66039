//! The gateway: how a browser party will reach the broker.
//!
//! Nothing is served here yet; the crate holds the place so that dependencies already point the
//! right way. What it will be: a WebSocket server that authenticates a device by a challenge signed
//! with the device key registered for its wallet, bounds rates, message sizes and idle time, checks
//! the origin, and forwards only the subjects of sessions that this device takes part in. It will
//! speak to the broker with the credential whose `<from>` token is `device`, and see sealed bytes
//! only. Until then a device on the command line speaks to the broker itself, with that credential.
