//! Endpoints: entries of a bucket, changed by compare-and-swap.

use duet_bus::{
    Bus,
    deliveries::{Cursor, CursorStart},
    kv::{Bucket, Entry, Key, WriteError},
    streams::StorageError,
};
use duet_queue::store::StoreFailure;
use duet_wire::{
    Code, Problem, Refusal, TenantId,
    record::Kept,
    signing::SigningKey,
    stored_record,
    webhook::{EndpointId, SECRET_SIZE_BYTES, Secret},
};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{WebhookSettings, address};
use crate::jobs::StoreError;

/// How many replays of one endpoint may run at once.
const MAX_REPLAYS: usize = 4;

/// How often a change is decided anew because another orchestrator wrote first.
const MAX_CONFLICTS: usize = 16;

/// How long beyond a delivery's deadline an orchestrator may take to acknowledge a result, or to
/// store that it waits.
pub(super) const ACK_GRACE: core::time::Duration = core::time::Duration::from_secs(5);

/// The stored record of where a tenant's results are delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct Endpoint {
    pub(crate) id: EndpointId,
    pub(crate) tenant: TenantId,
    pub(crate) url: String,
    pub(crate) created_at_ms: u64,
    /// The last result before the endpoint was added. Later results are delivered.
    pub(crate) starts_after: u64,
    /// Since when every attempt has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failing_since_ms: Option<u64>,
    /// When a failing endpoint may be tried again; `None` for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) probe_at_ms: Option<u64>,
    /// How often it was tried since it fails.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) probes: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) disabled: Option<Disabled>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replays: Vec<Replay>,
    #[serde(default)]
    pub(crate) replays_begun: u32,
    #[serde(skip)]
    pub(crate) kept: Kept,
}

const fn is_zero(number: &u32) -> bool {
    *number == 0
}

stored_record!(Endpoint);

/// Why nothing is delivered to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// Since when, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why, for a person.
    pub reason: String,
}

/// A span of results that is delivered once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Which of the endpoint's replays, from 1.
    pub number: u32,
    /// The replay begins with results stored at this time, in milliseconds since 1970.
    pub from_ms: u64,
    /// It ends with results stored at this time.
    pub until_ms: u64,
}

/// A sequence of results to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// Results as they are stored.
    Live,
    /// A replay, by its number.
    Replay(u32),
}

impl Endpoint {
    pub(crate) fn key(&self) -> Key {
        Key::from((&self.tenant, self.id))
    }

    /// The sequences that are delivered to it now.
    pub(crate) fn sources(&self) -> Vec<Source> {
        if self.disabled.is_some() {
            return Vec::new();
        }
        let replays = self.replays.iter().map(|replay| Source::Replay(replay.number));
        core::iter::once(Source::Live).chain(replays).collect()
    }

    pub(crate) fn replay(&self, number: u32) -> Option<Replay> {
        self.replays.iter().copied().find(|replay| replay.number == number)
    }

    /// Its place in the results. `None` for a replay that is over.
    pub(crate) fn cursor(&self, source: Source, settings: &WebhookSettings) -> Option<Cursor> {
        let start = match source {
            Source::Live => CursorStart::After(self.starts_after),
            Source::Replay(number) => CursorStart::At(self.replay(number)?.from_ms),
        };
        Some(Cursor {
            name: self.cursor_name(source),
            tenant: self.tenant.clone(),
            start,
            ack_wait: settings.timeout + ACK_GRACE,
            // Results that an earlier version left to rest at the broker count for up to eight
            // hours. They leave room for others.
            max_under_way: i64::from(settings.max_under_way) * 2,
        })
    }

    pub(crate) fn cursor_name(&self, source: Source) -> String {
        match source {
            Source::Live => format!("webhook_{}", self.id),
            Source::Replay(number) => format!("webhook_{}_{number}", self.id),
        }
    }

    /// The secret that verifies deliveries. It is derived by HKDF (RFC 5869), under a name of its
    /// own, from the key that signs results. Every orchestrator has that key, so the secret is
    /// stored nowhere.
    pub(crate) fn secret(&self, result_key: &SigningKey) -> Result<Secret, Refusal> {
        let seed = Zeroizing::new(result_key.to_bytes());
        let mut bytes = Zeroizing::new([0; SECRET_SIZE_BYTES]);
        let name = format!("duet/v1/webhook-secret\n{}\n{}", self.tenant, self.id);
        Hkdf::<Sha256>::new(None, &*seed).expand(name.as_bytes(), &mut *bytes).map_err(|_| {
            Refusal::new(Code::Internal, "the orchestrator cannot derive the webhook's secret")
        })?;
        Ok(Secret::new(&bytes))
    }
}

/// All endpoints.
#[derive(Clone)]
pub(crate) struct Endpoints {
    bucket: Bucket<Endpoint>,
}

fn unavailable(error: &StorageError) -> Refusal {
    tracing::warn!(%error, "a webhook's cursor is out of reach");
    Refusal::new(Code::StorageUnavailable, "the stream of results does not answer; try again")
}

fn no_such() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such webhook")
}

impl Endpoints {
    pub(crate) const fn new(bucket: Bucket<Endpoint>) -> Self {
        Self { bucket }
    }

    pub(crate) const fn bucket(&self) -> &Bucket<Endpoint> {
        &self.bucket
    }

    /// Adds an endpoint. Every later result is delivered to it.
    pub(crate) async fn add(
        &self,
        bus: &Bus,
        tenant: &TenantId,
        url: &str,
        settings: &WebhookSettings,
        now_ms: u64,
    ) -> Result<Endpoint, Problem> {
        let url = address::endpoint_url(url, settings.allow_private)?;
        // Two that are added at the same moment can exceed the limit by one.
        if self.of(tenant, settings).await?.len() >= settings.max_endpoints {
            let refusal = Refusal::new(
                Code::Quota,
                format!("a tenant has at most {} webhooks", settings.max_endpoints),
            );
            return Err(refusal.into());
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        let endpoint = Endpoint {
            id: EndpointId(id),
            tenant: tenant.clone(),
            url: url.to_string(),
            created_at_ms: now_ms,
            starts_after: bus.last_result().await.map_err(|error| unavailable(&error))?,
            failing_since_ms: None,
            probe_at_ms: None,
            probes: 0,
            disabled: None,
            replays: Vec::new(),
            replays_begun: 0,
            kept: Kept::default(),
        };
        self.bucket
            .create(&endpoint.key(), &endpoint)
            .await
            .map_err(|error| Refusal::from(StoreError::from(error)))?;
        Ok(endpoint)
    }

    /// A tenant's endpoints, in the order in which they were last changed.
    pub(crate) async fn of(
        &self,
        tenant: &TenantId,
        settings: &WebhookSettings,
    ) -> Result<Vec<Endpoint>, Refusal> {
        // More than the limit, in case some were added at the same moment.
        let limit = settings.max_endpoints.saturating_mul(2);
        let found = self
            .bucket
            .list(&Key::all_of(tenant), limit)
            .await
            .map_err(|error| Refusal::from(StoreError::from(error)))?;
        Ok(found.into_iter().map(|(_, entry)| entry.value).collect())
    }

    pub(crate) async fn get(&self, tenant: &TenantId, id: EndpointId) -> Result<Endpoint, Refusal> {
        Ok(self.entry(&Key::from((tenant, id))).await?.value)
    }

    async fn entry(&self, key: &Key) -> Result<Entry<Endpoint>, Refusal> {
        let entry = self.bucket.get(key).await.map_err(|error| Refusal::from(StoreError::from(error)))?;
        entry.ok_or_else(no_such)
    }

    /// Applies `edit` to an endpoint. `edit` returns whether there is anything to write.
    pub(crate) async fn change(
        &self,
        key: &Key,
        mut edit: impl FnMut(&mut Endpoint) -> Result<bool, Refusal>,
    ) -> Result<Endpoint, Refusal> {
        for _ in 0..MAX_CONFLICTS {
            let Entry { value: mut endpoint, revision } = self.entry(key).await?;
            if !edit(&mut endpoint)? {
                return Ok(endpoint);
            }
            match self.bucket.update(key, &endpoint, revision).await {
                Ok(_) => return Ok(endpoint),
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(StoreError::from(error).into()),
            }
        }
        Err(StoreError(StoreFailure::Contended).into())
    }

    /// Removes an endpoint and its places in the results.
    pub(crate) async fn remove(
        &self,
        bus: &Bus,
        tenant: &TenantId,
        id: EndpointId,
    ) -> Result<Endpoint, Refusal> {
        let key = Key::from((tenant, id));
        for _ in 0..MAX_CONFLICTS {
            let Entry { value: endpoint, revision } = self.entry(&key).await?;
            match self.bucket.purge(&key, revision).await {
                Ok(()) => {}
                Err(WriteError::Conflict { .. }) => continue,
                Err(error) => return Err(StoreError::from(error).into()),
            }
            let replays = endpoint.replays.iter().map(|replay| Source::Replay(replay.number));
            for source in replays.chain([Source::Live]) {
                // A removed endpoint's cursor has no reader, and does not take room for long.
                if let Err(error) = bus.remove_cursor(&endpoint.cursor_name(source)).await {
                    tracing::warn!(endpoint = %id, %error, "a removed webhook's cursor is left behind");
                }
            }
            return Ok(endpoint);
        }
        Err(StoreError(StoreFailure::Contended).into())
    }

    /// Starts a replay of the results stored in a span of time.
    pub(crate) async fn begin_replay(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        from_ms: u64,
        until_ms: u64,
    ) -> Result<Endpoint, Refusal> {
        self.change(&Key::from((tenant, id)), |endpoint| {
            if endpoint.disabled.is_some() {
                return Err(Refusal::new(Code::Conflict, "the webhook is disabled; enable it first"));
            }
            if endpoint.replays.len() >= MAX_REPLAYS {
                return Err(Refusal::new(
                    Code::QueueFull,
                    format!("{MAX_REPLAYS} replays are under way; try again when one has ended"),
                ));
            }
            endpoint.replays_begun = endpoint.replays_begun.saturating_add(1);
            endpoint.replays.push(Replay { number: endpoint.replays_begun, from_ms, until_ms });
            Ok(true)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: u8, tenant: &str) -> Endpoint {
        Endpoint {
            id: EndpointId([id; 16]),
            tenant: tenant.parse().unwrap(),
            url: "https://example.com/".to_owned(),
            created_at_ms: 0,
            starts_after: 7,
            failing_since_ms: None,
            probe_at_ms: None,
            probes: 0,
            disabled: None,
            replays: vec![Replay { number: 3, from_ms: 1, until_ms: 2 }],
            replays_begun: 3,
            kept: Kept::default(),
        }
    }

    #[test]
    fn every_endpoint_has_a_secret_of_its_own() {
        let (key, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let secret = |endpoint: Endpoint, key| endpoint.secret(key).unwrap().expose().to_string();
        let first = secret(endpoint(1, "acme"), &key);
        assert_eq!(first, secret(endpoint(1, "acme"), &key));
        assert_ne!(first, secret(endpoint(2, "acme"), &key));
        assert_ne!(first, secret(endpoint(1, "acme2"), &key));
        assert_ne!(first, secret(endpoint(1, "acme"), &other));
    }

    #[test]
    fn a_disabled_endpoint_gets_nothing() {
        let mut endpoint = endpoint(1, "acme");
        assert_eq!(endpoint.sources(), [Source::Live, Source::Replay(3)]);
        assert!(endpoint.cursor(Source::Replay(4), &WebhookSettings::default()).is_none());
        endpoint.disabled = Some(Disabled { at_ms: 1, reason: String::new() });
        assert!(endpoint.sources().is_empty());
    }
}
