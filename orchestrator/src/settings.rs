//! The settings of an orchestrator's HTTP interface, with defaults that fit one host.

use core::{num::NonZeroU32, time::Duration};

use duet_queue::settings::{InvalidSetting, check};
use duet_wire::request::MAX_REQUEST_SIZE_BYTES;

/// Limits of the HTTP interface.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The largest request body, in bytes. Default and upper bound 128 KiB, the limit of a signing
    /// request; at least 1 KiB. A lower limit refuses large typed data earlier. Each open request
    /// may hold this much.
    pub max_body_bytes: usize,
    /// How long a request may take until its answer begins. Default 10 s; 100 ms to 5 min. A lower
    /// limit frees slots earlier when the broker stalls. If it is too low, submissions fail that a
    /// slow disk would still have stored; sending them again with the same key is harmless.
    pub request_timeout: Duration,
    /// How many requests run at once; one more is refused with 503. Default 256; 1 to 65 536.
    /// Bounds memory to about this times the body limit.
    pub max_concurrent_requests: usize,
    /// How many event streams may be open at once; one more is refused with 429. Default 1024;
    /// 1 to 65 536. Each holds a broker subscription while its job runs.
    pub max_event_streams: usize,
    /// How many event streams one tenant may have open. Default 256; 1 to 65 536.
    pub max_event_streams_per_tenant: usize,
    /// How many requests a second one tenant may make, and twice as many at once; one more is
    /// refused with 429. Default 1000; 1 to 1 000 000. That serves programs that poll and submit
    /// one by one; batches and event streams need far fewer. A higher limit lets one tenant take
    /// more of the process's time from the others.
    pub requests_per_second_per_tenant: NonZeroU32,
    /// How often an idle event stream sends a comment. Default 15 s; 1 s to 5 min. It must be
    /// shorter than the idle timeout of proxies on the way.
    pub keep_alive: Duration,
}

const DEFAULT_REQUESTS_PER_SECOND: NonZeroU32 = match NonZeroU32::new(1000) {
    Some(rate) => rate,
    None => NonZeroU32::MIN,
};

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            max_body_bytes: MAX_REQUEST_SIZE_BYTES,
            request_timeout: Duration::from_secs(10),
            max_concurrent_requests: 256,
            max_event_streams: 1024,
            max_event_streams_per_tenant: 256,
            requests_per_second_per_tenant: DEFAULT_REQUESTS_PER_SECOND,
            keep_alive: Duration::from_secs(15),
        }
    }
}

impl HttpSettings {
    /// # Errors
    /// The first setting outside its bounds.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        check(
            (1024..=MAX_REQUEST_SIZE_BYTES).contains(&self.max_body_bytes),
            "max_body_bytes",
            "1024 to 131072",
        )?;
        check(
            (Duration::from_millis(100)..=Duration::from_secs(300)).contains(&self.request_timeout),
            "request_timeout",
            "100 ms to 5 min",
        )?;
        check((1..=65_536).contains(&self.max_concurrent_requests), "max_concurrent_requests", "1 to 65536")?;
        check((1..=65_536).contains(&self.max_event_streams), "max_event_streams", "1 to 65536")?;
        check(
            (1..=65_536).contains(&self.max_event_streams_per_tenant),
            "max_event_streams_per_tenant",
            "1 to 65536",
        )?;
        check(
            self.requests_per_second_per_tenant.get() <= 1_000_000,
            "requests_per_second_per_tenant",
            "1 to 1000000",
        )?;
        check(
            (Duration::from_secs(1)..=Duration::from_secs(300)).contains(&self.keep_alive),
            "keep_alive",
            "1 s to 5 min",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_bounds() {
        assert_eq!(HttpSettings::default().check(), Ok(()));
    }

    #[test]
    fn a_setting_outside_its_bounds_is_named() {
        let settings = HttpSettings { keep_alive: Duration::ZERO, ..HttpSettings::default() };
        assert_eq!(settings.check().unwrap_err().setting, "keep_alive");
    }
}
