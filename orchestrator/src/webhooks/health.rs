//! An endpoint's health: whether it fails, when it may be probed, and when it is disabled. All
//! orchestrators share it, in the endpoint's entry.

use duet_wire::Refusal;

use super::{
    WebhookSettings,
    deliver::Attempt,
    endpoint::{Disabled, Endpoint},
    schedule,
};
use crate::{
    clock::whole_millis,
    orchestrator::{Orchestrator, jitter},
};

impl Endpoint {
    /// Whether every attempt has failed since the last success.
    pub(super) const fn is_failing(&self) -> bool {
        self.failing_since_ms.is_some()
    }

    /// When it may be probed, while it fails; 0 for now.
    pub(super) fn next_probe_ms(&self) -> u64 {
        self.probe_at_ms.unwrap_or_default()
    }

    /// Forgets how it failed.
    pub(super) fn recovers(&mut self) {
        (self.failing_since_ms, self.probe_at_ms, self.probes) = (None, None, 0);
    }

    fn disables(&mut self, now_ms: u64, reason: String) {
        self.disabled.get_or_insert(Disabled { at_ms: now_ms, reason });
    }

    /// Takes over the outcome of an attempt. `chance`, from 0 to 1, shortens the pause until the
    /// next probe.
    fn note(
        &mut self,
        attempt: &Attempt,
        is_probe: bool,
        now_ms: u64,
        settings: &WebhookSettings,
        chance: f64,
    ) {
        let Some(error) = &attempt.error else {
            self.recovers();
            return;
        };
        // Attempts that were under way when the endpoint began to fail are no further probes.
        if is_probe || self.probe_at_ms.is_none() {
            self.probes = self.probes.saturating_add(1);
            let pause = schedule::probe_after(self.probes, settings, chance);
            self.probe_at_ms = Some(now_ms.saturating_add(whole_millis(pause)));
        }
        let asked = now_ms.saturating_add(whole_millis(schedule::asked(attempt.retry_after)));
        self.probe_at_ms = self.probe_at_ms.max(Some(asked));
        let since = *self.failing_since_ms.get_or_insert(now_ms);
        if attempt.is_gone {
            self.disables(now_ms, format!("it says that it is gone: {error}"));
        } else if now_ms.saturating_sub(since) >= whole_millis(settings.disable_after) {
            self.disables(now_ms, format!("it failed for too long: {error}"));
        }
    }
}

impl Orchestrator {
    /// Records the outcome of an attempt in the endpoint's entry, where it changes something.
    /// Returns the entry then.
    pub(super) async fn note_attempt(
        &self,
        endpoint: &Endpoint,
        attempt: &Attempt,
        is_probe: bool,
    ) -> Option<Endpoint> {
        let now = self.clock.now_ms();
        if attempt.error.is_none() {
            self.retries.accepted(endpoint.id, now);
            if !endpoint.is_failing() {
                return None;
            }
        } else if !attempt.is_gone && self.retries.has_accepted_since(endpoint.id, attempt.at_ms) {
            // It accepted another result meanwhile: it is this one that it refuses.
            return None;
        }
        let settings = self.deliverer.settings();
        self.change_endpoint(endpoint, |endpoint| {
            let before = endpoint.clone();
            endpoint.note(attempt, is_probe, now, settings, jitter());
            Ok(*endpoint != before)
        })
        .await
    }

    /// Takes the next probe of a failing endpoint, so that no other orchestrator makes it until
    /// this one had the time to.
    ///
    /// # Errors
    /// When the next probe may be made, in milliseconds since 1970, if it may not be made now.
    pub(super) async fn take_probe(&self, endpoint: &Endpoint, until_ms: u64) -> Result<(), u64> {
        let (now, mut taken) = (self.clock.now_ms(), false);
        let changed = self.change_endpoint(endpoint, |endpoint| {
            taken = endpoint.is_failing() && endpoint.next_probe_ms() <= now;
            if taken {
                endpoint.probe_at_ms = Some(until_ms);
            }
            Ok(taken)
        });
        match changed.await {
            Some(_) if taken => Ok(()),
            // It has recovered, or another orchestrator probes it.
            Some(endpoint) => Err(endpoint.next_probe_ms()),
            None => Err(now.saturating_add(whole_millis(super::worker::PAUSE))),
        }
    }

    /// Disables an endpoint for which too many deliveries wait.
    pub(super) async fn disable_full(&self, endpoint: &Endpoint) {
        let most = self.deliverer.settings().max_retries;
        self.change_endpoint(endpoint, |endpoint| {
            let was_disabled = endpoint.disabled.is_some();
            endpoint.disables(
                self.clock.now_ms(),
                format!("{most} deliveries wait to be retried, and no more are kept"),
            );
            Ok(!was_disabled)
        })
        .await;
    }

    async fn change_endpoint(
        &self,
        endpoint: &Endpoint,
        edit: impl FnMut(&mut Endpoint) -> Result<bool, Refusal>,
    ) -> Option<Endpoint> {
        match self.webhooks.change(&endpoint.key(), edit).await {
            Ok(changed) => {
                if let (None, Some(Disabled { reason, .. })) = (&endpoint.disabled, &changed.disabled) {
                    tracing::warn!(endpoint = %endpoint.id, reason, "webhook disabled");
                }
                Some(changed)
            }
            Err(refusal) => {
                tracing::debug!(endpoint = %endpoint.id, %refusal, "a webhook's state was not noted");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn endpoint() -> Endpoint {
        serde_json::from_str(
            r#"{"id":"01010101010101010101010101010101","tenant":"acme","url":"https://example.com/",
               "created_at_ms":0,"starts_after":7}"#,
        )
        .unwrap()
    }

    fn attempt(error: Option<&str>) -> Attempt {
        Attempt {
            at_ms: 0,
            took_ms: 0,
            status: None,
            error: error.map(str::to_owned),
            retry_after: None,
            is_gone: false,
        }
    }

    #[test]
    fn probes_grow_apart_until_one_succeeds() {
        let settings = WebhookSettings::default();
        let mut endpoint = endpoint();
        let failed = attempt(Some("no"));
        let mut now = 1_000;
        let mut pauses = Vec::new();
        endpoint.note(&failed, false, now, &settings, 0.0);
        // Another that was under way does not move the probe.
        endpoint.note(&failed, false, now, &settings, 0.0);
        for _ in 0..4 {
            pauses.push((endpoint.next_probe_ms() - now) / 1_000);
            now = endpoint.next_probe_ms();
            endpoint.note(&failed, true, now, &settings, 0.0);
        }
        assert_eq!(pauses, [5, 20, 30, 30]);
        assert_eq!(endpoint.failing_since_ms, Some(1_000));
        endpoint.note(&attempt(None), true, now, &settings, 0.0);
        assert_eq!(endpoint, self::endpoint());
    }

    #[test]
    fn an_endpoint_may_ask_for_a_later_probe_and_is_disabled_in_time() {
        let settings = WebhookSettings::default();
        let mut endpoint = endpoint();
        let asks = Attempt { retry_after: Some(Duration::from_secs(600)), ..attempt(Some("later")) };
        endpoint.note(&asks, false, 1_000, &settings, 0.5);
        assert_eq!(endpoint.next_probe_ms(), 601_000);
        assert_eq!(endpoint.disabled, None);
        let too_late = 1_000 + whole_millis(settings.disable_after);
        endpoint.note(&attempt(Some("no")), true, too_late, &settings, 0.0);
        assert_eq!(endpoint.disabled.unwrap().reason, "it failed for too long: no");
    }
}
