//! Signing requests: JSON documents. The requester signs the exact bytes, and every process keeps
//! them, so that each party checks what the requester wrote.

use core::{fmt, str::FromStr};

use duet_protocol::{
    ids::{ShareIndex, WalletId},
    transcript,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    DerivationPath, IdempotencyKey, JobId, TenantId,
    encoding::{exact_text, hex_array},
    error::{Code, Problem, Refusal},
    ids::sha256,
    payload::{Payload, PayloadError},
    signing::{self, Identity, Purpose},
    strict_json::{self, JsonError, Node, StrictValue},
};

/// The largest request document in bytes.
pub const MAX_REQUEST_SIZE_BYTES: usize = 128 * 1024;

/// The version of the request document that this build writes. It also reads
/// [`UNDATED_REQUEST_VERSION`].
pub const REQUEST_VERSION: u8 = 2;

/// The version of the request document without `issued_at`. Parties accept it while it expires
/// within a day, see [`crate::validity`].
pub const UNDATED_REQUEST_VERSION: u8 = 1;

/// Two parties that sign together. The one with the lower index initiates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pair {
    /// `device+service`.
    DeviceService,
    /// `device+partner`.
    DevicePartner,
    /// `service+partner`: the owner's device takes no part.
    ServicePartner,
}

/// The text names no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected device+service, device+partner or service+partner")]
pub struct InvalidPair;

impl Pair {
    /// All three.
    pub const ALL: [Self; 3] = [Self::DeviceService, Self::DevicePartner, Self::ServicePartner];

    /// The share of the initiator, which starts and learns the signature first.
    #[must_use]
    pub const fn initiator(self) -> ShareIndex {
        match self {
            Self::DeviceService | Self::DevicePartner => ShareIndex::Device,
            Self::ServicePartner => ShareIndex::Service,
        }
    }

    /// The share of the responder.
    #[must_use]
    pub const fn responder(self) -> ShareIndex {
        match self {
            Self::DeviceService => ShareIndex::Service,
            Self::DevicePartner | Self::ServicePartner => ShareIndex::Partner,
        }
    }

    /// The pair as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeviceService => "device+service",
            Self::DevicePartner => "device+partner",
            Self::ServicePartner => "service+partner",
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Pair {
    type Err = InvalidPair;
    fn from_str(text: &str) -> Result<Self, InvalidPair> {
        Self::ALL.into_iter().find(|pair| pair.as_str() == text).ok_or(InvalidPair)
    }
}

impl Serialize for Pair {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A request for one signature.
///
/// In JSON every field is required except `path` (default `m`) and `pairs` (default
/// `device+service`, then `service+partner`). No other field is allowed. `issued_at` belongs to
/// version 2 alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SigningRequest {
    /// The document's version: [`REQUEST_VERSION`] or [`UNDATED_REQUEST_VERSION`].
    pub version: u8,
    /// The tenant that owns the wallet.
    pub tenant: TenantId,
    /// The wallet that signs.
    pub wallet: WalletId,
    /// Which of the wallet's keys signs: the root key `m` or a BIP-32 child.
    pub path: DerivationPath,
    /// What is signed.
    pub payload: Payload,
    /// The requester's name for the job.
    pub idempotency_key: IdempotencyKey,
    /// When the requester signed it, in seconds since 1970; `None` in version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<u64>,
    /// When it expires, in seconds since 1970. No party signs at or after this time.
    pub expires_at: u64,
    /// Which pairs may sign, in order of preference.
    pub pairs: Vec<Pair>,
}

/// Why a signing request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The document exceeds its size limit.
    #[error("the request has {size} bytes, at most {MAX_REQUEST_SIZE_BYTES} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The signature is not by the requester's key over the document.
    #[error("the signature is not by the requester's key over exactly this document")]
    BadSignature,
    /// The document has a version that this build does not read.
    #[error(
        "version: this build reads versions {UNDATED_REQUEST_VERSION} and {REQUEST_VERSION} of the signing request"
    )]
    UnsupportedVersion,
    /// The document is malformed.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The payload has no digest.
    #[error(transparent)]
    Payload(JsonError),
}

impl From<PayloadError> for RequestError {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Json(e) => Self::Json(e),
            PayloadError::TypedData(e) => Self::Payload(e),
        }
    }
}

impl RequestError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::TooLarge,
            Self::BadSignature => Code::BadSignature,
            Self::UnsupportedVersion => Code::UnsupportedVersion,
            Self::Json(_) => Code::MalformedJson,
            Self::Payload(_) => Code::InvalidPayload,
        }
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let problem = Self::new(error.code(), error.to_string());
        match error {
            RequestError::Json(e) | RequestError::Payload(e) => problem.at(e.path),
            RequestError::UnsupportedVersion => problem.at("version"),
            RequestError::TooLarge { .. } | RequestError::BadSignature => problem,
        }
    }
}

impl SigningRequest {
    /// Reads a request from the document's exact bytes.
    ///
    /// # Errors
    /// See [`RequestError`]. A document over the size limit is not parsed.
    pub fn from_json(body: &[u8]) -> Result<Self, RequestError> {
        if body.len() > MAX_REQUEST_SIZE_BYTES {
            return Err(RequestError::TooLarge { size: body.len() });
        }
        let value = strict_json::parse(body, MAX_REQUEST_SIZE_BYTES)?;
        Self::read(&Node::root(&value))
    }

    /// Writes the request as a document to sign.
    ///
    /// # Errors
    /// When it is over the size limit.
    pub fn to_json(&self) -> Result<Vec<u8>, RequestError> {
        let body = serde_json::to_vec(self).map_err(|e| JsonError::new("$", e))?;
        if body.len() > MAX_REQUEST_SIZE_BYTES {
            return Err(RequestError::TooLarge { size: body.len() });
        }
        Ok(body)
    }

    fn read(node: &Node<'_>) -> Result<Self, RequestError> {
        let fields = node.object(&[
            "version",
            "tenant",
            "wallet",
            "path",
            "payload",
            "idempotency_key",
            "issued_at",
            "expires_at",
            "pairs",
        ])?;
        let version = fields.required("version")?.value.as_u64();
        let version = [UNDATED_REQUEST_VERSION, REQUEST_VERSION]
            .into_iter()
            .find(|known| version == Some(u64::from(*known)))
            .ok_or(RequestError::UnsupportedVersion)?;
        let issued_at = match (version, fields.field("issued_at")) {
            (UNDATED_REQUEST_VERSION, None) => None,
            (UNDATED_REQUEST_VERSION, Some(issued_at)) => {
                return Err(issued_at.error("version 1 states no time of issue; write version 2").into());
            }
            _ => Some(seconds(&fields.required("issued_at")?)?),
        };
        Ok(Self {
            version,
            tenant: fields.required("tenant")?.parse()?,
            wallet: fields.required("wallet")?.parse()?,
            path: fields.field("path").map_or(Ok(DerivationPath::default()), |path| path.parse())?,
            payload: Payload::read(&fields.required("payload")?)?,
            idempotency_key: fields.required("idempotency_key")?.parse()?,
            issued_at,
            expires_at: seconds(&fields.required("expires_at")?)?,
            pairs: fields.field("pairs").map_or_else(
                || Ok(vec![Pair::DeviceService, Pair::ServicePartner]),
                |pairs| read_pairs(&pairs),
            )?,
        })
    }

    /// The id of the job that this request names.
    #[must_use]
    pub fn job(&self) -> JobId {
        JobId::derive(&self.tenant, &self.idempotency_key)
    }

    /// What is signed, and by which key: a SHA-256 over wallet, path and `digest`, the payload's.
    /// Requests under one idempotency key agree in it.
    #[must_use]
    pub fn signs(&self, digest: [u8; 32]) -> [u8; 32] {
        transcript::hash("signs", &(self.wallet, &self.path, digest))
    }
}

fn seconds(node: &Node<'_>) -> Result<u64, JsonError> {
    node.value.as_u64().ok_or_else(|| node.error("expected a number of seconds since 1970"))
}

fn read_pairs(node: &Node<'_>) -> Result<Vec<Pair>, JsonError> {
    let mut pairs = Vec::new();
    for item in node.array()? {
        let pair = item.parse::<Pair>()?;
        if pairs.contains(&pair) {
            return Err(item.error("the pair is there twice"));
        }
        pairs.push(pair);
    }
    if pairs.is_empty() {
        return Err(node.error("expected at least one pair"));
    }
    Ok(pairs)
}

impl<'de> Deserialize<'de> for SigningRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let StrictValue(value) = StrictValue::deserialize(deserializer)?;
        Self::read(&Node::root(&value)).map_err(D::Error::custom)
    }
}

/// A request's exact bytes with its requester's signature. Not verified until [`Self::verify`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRequest {
    /// The document, byte for byte.
    #[serde(with = "exact_text")]
    pub body: Vec<u8>,
    /// The requester's Ed25519 key.
    #[serde(with = "hex_array")]
    pub requester: [u8; 32],
    /// Ed25519 over the tag `duet/v1/signing-request` and the document.
    #[serde(with = "hex_array")]
    pub signature: [u8; 64],
}

impl SignedRequest {
    /// Signs the document's bytes as they are.
    #[must_use]
    pub fn sign(body: Vec<u8>, key: &impl Identity) -> Self {
        let signature = signing::sign(Purpose::SigningRequest, &body, key);
        Self { body, requester: key.verification_key(), signature }
    }

    /// Checks the size, the signature, and then the document. It does not check whether the wallet
    /// allows this requester.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn verify(&self) -> Result<SigningRequest, RequestError> {
        if self.body.len() > MAX_REQUEST_SIZE_BYTES {
            return Err(RequestError::TooLarge { size: self.body.len() });
        }
        signing::verify(Purpose::SigningRequest, &self.body, &self.requester, &self.signature)
            .map_err(|_| RequestError::BadSignature)?;
        SigningRequest::from_json(&self.body)
    }

    /// The hash by which two submissions under one key are compared: of the requester and the
    /// document's exact bytes. (They determine the signature; any other is refused.)
    #[must_use]
    pub fn content_hash(&self) -> [u8; 32] {
        sha256(&[&self.requester[..], &self.body].concat())
    }
}

impl fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedRequest")
            .field("body", &String::from_utf8_lossy(&self.body))
            .field("requester", &hex::encode(self.requester))
            .finish_non_exhaustive()
    }
}
