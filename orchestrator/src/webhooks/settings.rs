//! The settings of webhooks.

use core::time::Duration;

use duet_queue::settings::{InvalidSetting, check};

/// How results are delivered to tenants' endpoints.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Whether endpoints may have addresses that are not public: of this machine, of private
    /// networks, of the link. Default no. Otherwise a tenant could make the orchestrator connect to
    /// what only it can reach.
    pub allow_private: bool,
    /// How long one delivery may take, from resolving the name to the answer's head. Default 15 s
    /// (the specification advises 15 to 30); 100 ms to 1 min.
    pub timeout: Duration,
    /// The pause before the second attempt at a result. Each further pause is four times as long,
    /// at most 8 h, and a random part of up to half is taken off. Default 5 s; 10 ms to 1 h.
    pub first_pause: Duration,
    /// How many attempts a result gets at an endpoint. Default 10, over about a day; 1 to 20.
    /// Attempts while the endpoint accepts no result at all do not count.
    pub max_attempts: u32,
    /// How many results may be under way from one orchestrator to one endpoint at once, and as many
    /// retries. Default 16; 1 to 256.
    pub max_under_way: u16,
    /// How many deliveries to one endpoint may wait to be retried before it is disabled. Default
    /// 10,000; 1 to 10,000. Deliveries that are under way at that moment come on top.
    pub max_retries: usize,
    /// How long an endpoint may fail without a success before it is disabled. Default 3 days; 1 s
    /// to 30 days, which is how long results are kept.
    pub disable_after: Duration,
    /// How many endpoints a tenant may have. Default 16; 1 to 64. Each is a consumer at the broker.
    pub max_endpoints: usize,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            allow_private: false,
            timeout: Duration::from_secs(15),
            first_pause: Duration::from_secs(5),
            max_attempts: 10,
            max_under_way: 16,
            max_retries: 10_000,
            disable_after: Duration::from_secs(3 * 86_400),
            max_endpoints: 16,
        }
    }
}

impl WebhookSettings {
    /// # Errors
    /// The first setting outside its bounds.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        check(
            (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.timeout),
            "webhook timeout",
            "100 ms to 1 min",
        )?;
        check(
            (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&self.first_pause),
            "webhook first_pause",
            "10 ms to 1 h",
        )?;
        check((1..=20).contains(&self.max_attempts), "webhook max_attempts", "1 to 20")?;
        check((1..=256).contains(&self.max_under_way), "webhook max_under_way", "1 to 256")?;
        check((1..=10_000).contains(&self.max_retries), "webhook max_retries", "1 to 10,000")?;
        check(
            (Duration::from_secs(1)..=Duration::from_secs(30 * 86_400)).contains(&self.disable_after),
            "webhook disable_after",
            "1 s to 30 days",
        )?;
        check((1..=64).contains(&self.max_endpoints), "webhook max_endpoints", "1 to 64")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_bounds() {
        assert_eq!(WebhookSettings::default().check(), Ok(()));
        let settings = WebhookSettings { max_attempts: 0, ..WebhookSettings::default() };
        assert_eq!(settings.check().unwrap_err().setting, "webhook max_attempts");
    }
}
