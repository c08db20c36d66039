//! Several signing requests in one document. The document has no signature: each request in it is
//! signed, and is accepted or refused on its own.

use serde::{Deserialize, Serialize};

use crate::{
    JobId, Priority, SignedRequest, TenantId,
    ids::sha256,
    request::MAX_REQUEST_SIZE_BYTES,
    strict_json::{self, JsonError, Node},
};

/// How many requests a batch has at most. Each is a durable write, and the batch gets one answer.
pub const MAX_BATCH_ITEMS: usize = 500;

/// The largest batch in bytes. Larger requests fit in fewer per batch.
pub const MAX_BATCH_SIZE_BYTES: usize = 4 * 1024 * 1024;

/// A batch's id. It depends on its jobs' idempotency keys, so the same keys are the same batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub JobId);

impl BatchId {
    /// The id of the batch of these jobs of `tenant`. Order and repetition of `jobs` do not matter.
    #[must_use]
    pub fn derive(tenant: &TenantId, jobs: &[JobId]) -> Self {
        let mut jobs: Vec<JobId> = jobs.to_vec();
        jobs.sort_unstable();
        jobs.dedup();
        // A tenant's name contains no zero byte, and all job ids have the same length.
        let mut text = [b"duet/v1/batch\0", tenant.as_str().as_bytes(), b"\0"].concat();
        text.extend(jobs.iter().flat_map(JobId::as_bytes));
        let mut id = [0; 16];
        id.iter_mut().zip(sha256(&text)).for_each(|(to, from)| *to = from);
        Self(JobId(id))
    }
}

impl core::fmt::Display for BatchId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

impl core::str::FromStr for BatchId {
    type Err = duet_protocol::ids::InvalidId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for BatchId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BatchId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        JobId::deserialize(deserializer).map(Self)
    }
}

/// One request of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchItem {
    /// The request.
    pub request: SignedRequest,
    /// Its priority.
    pub priority: Priority,
    /// Whether its transaction may be one that another job has signed or will sign.
    pub repeat_digest: bool,
}

/// A submitted batch: `{"requests": [{"body": "…", "requester": "…", "signature": "…",
/// "priority": "normal", "repeat_digest": false}, …]}`, where `body` is a signing request's exact
/// text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRequest {
    /// The requests, at least one and at most [`MAX_BATCH_ITEMS`].
    pub items: Vec<BatchItem>,
}

impl BatchRequest {
    /// Reads a batch. Does not look into the requests themselves.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn from_json(document: &[u8]) -> Result<Self, JsonError> {
        let value = strict_json::parse(document, MAX_BATCH_SIZE_BYTES)?;
        let requests = Node::root(&value).object(&["requests"])?.required("requests")?;
        let mut items = Vec::new();
        for node in requests.array()? {
            if items.len() == MAX_BATCH_ITEMS {
                return Err(requests.error(format_args!("a batch has at most {MAX_BATCH_ITEMS} requests")));
            }
            items.push(read_item(&node)?);
        }
        if items.is_empty() {
            return Err(requests.error("expected at least one request"));
        }
        Ok(Self { items })
    }

    /// Writes the batch as a document.
    ///
    /// # Errors
    /// Never for a batch that [`Self::from_json`] returned.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Item<'a> {
            #[serde(flatten)]
            request: &'a SignedRequest,
            #[serde(skip_serializing_if = "Priority::is_normal")]
            priority: Priority,
            #[serde(skip_serializing_if = "core::ops::Not::not")]
            repeat_digest: bool,
        }
        let requests: Vec<Item<'_>> = self
            .items
            .iter()
            .map(|BatchItem { request, priority, repeat_digest }| Item {
                request,
                priority: *priority,
                repeat_digest: *repeat_digest,
            })
            .collect();
        serde_json::to_vec(&serde_json::json!({ "requests": requests }))
    }
}

fn read_item(node: &Node<'_>) -> Result<BatchItem, JsonError> {
    let fields = node.object(&["body", "requester", "signature", "priority", "repeat_digest"])?;
    let body = fields.required("body")?;
    let text = body.text()?;
    if text.len() > MAX_REQUEST_SIZE_BYTES {
        return Err(body.error(format_args!("a request has at most {MAX_REQUEST_SIZE_BYTES} bytes")));
    }
    Ok(BatchItem {
        request: SignedRequest {
            body: text.as_bytes().to_vec(),
            requester: bare_hex(&fields.required("requester")?)?,
            signature: bare_hex(&fields.required("signature")?)?,
        },
        priority: fields.field("priority").map_or(Ok(Priority::default()), |priority| priority.parse())?,
        repeat_digest: fields.field("repeat_digest").map_or(Ok(false), |repeats| {
            repeats.value.as_bool().ok_or_else(|| repeats.error("expected true or false"))
        })?,
    })
}

/// `N` bytes in hexadecimal without `0x`, as requesters' keys are written.
fn bare_hex<const N: usize>(node: &Node<'_>) -> Result<[u8; N], JsonError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(node.text()?, &mut bytes)
        .map_err(|_| node.error(format_args!("expected {} hexadecimal digits", 2 * N)))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::SigningKey;

    fn item(body: &str) -> BatchItem {
        let request = SignedRequest::sign(body.as_bytes().to_vec(), &SigningKey::from_bytes(&[1; 32]));
        BatchItem { request, priority: Priority::High, repeat_digest: body == "{}" }
    }

    #[test]
    fn a_batch_round_trips_byte_for_byte() {
        let batch = BatchRequest { items: vec![item("{ \"a\":1}"), item("{}")] };
        assert_eq!(BatchRequest::from_json(&batch.to_json().unwrap()), Ok(batch));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| BatchRequest::from_json(text.as_bytes()).unwrap_err().path;
        assert_eq!(wrong("{}"), "requests");
        assert_eq!(wrong(r#"{"requests": []}"#), "requests");
        assert_eq!(
            wrong(r#"{"requests": [{"body": "", "requester": "00", "signature": ""}]}"#),
            "requests[0].requester"
        );
        assert_eq!(wrong(r#"{"requests": [{"body": "", "urgent": true}]}"#), "requests[0].urgent");
        let whole = String::from_utf8(BatchRequest { items: vec![item("{}")] }.to_json().unwrap()).unwrap();
        assert_eq!(
            wrong(&whole.replace(r#""repeat_digest":true"#, r#""repeat_digest":1"#)),
            "requests[0].repeat_digest"
        );
        let batch = BatchRequest { items: vec![item(""); MAX_BATCH_ITEMS + 1] };
        assert_eq!(BatchRequest::from_json(&batch.to_json().unwrap()).unwrap_err().path, "requests");
    }

    #[test]
    fn the_same_jobs_are_the_same_batch() {
        let (acme, globex) = ("acme".parse().unwrap(), "globex".parse().unwrap());
        let (one, two) = (JobId([1; 16]), JobId([2; 16]));
        let id = BatchId::derive(&acme, &[one, two]);
        assert_eq!(id, BatchId::derive(&acme, &[two, one, two]));
        assert_ne!(id, BatchId::derive(&acme, &[one]));
        assert_ne!(id, BatchId::derive(&globex, &[one, two]));
    }
}
