//! HashiCorp Vault's transit engine. It encrypts and decrypts under keys that never leave it.
//!
//! Opening a store or wrapping its key takes one call of Vault's
//! [HTTP interface](https://developer.hashicorp.com/vault/api-docs/secret/transit):
//! `POST /v1/MOUNT/encrypt/KEY`, `…/decrypt/KEY` or `…/rewrap/KEY`. The token needs the capability
//! `update` on these paths, and no other.
//!
//! # Security
//! Vault sees the store's key. So TLS is required beyond this machine. The client follows no
//! redirect and uses no proxy. Our copies of sent and received data are wiped. Buffers in the HTTP
//! and TLS libraries are not.

use std::{fmt, net::IpAddr, time::Duration};

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable as _};
use base64ct::{Base64, Encoding as _};
use bytes::Bytes;
use duet_bus::pem;
use reqwest::{
    Certificate, Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect,
};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{KeyEncryption, KeyEncryptionError, Source, VaultTransitError, WrappedKey};
use crate::at_rest::KeyEncryptionKey;

/// How long one call may take, including the connection.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// A limit far above any answer: a wrapped key and what surrounds it have less than 1 KiB.
const MAX_ANSWER_SIZE_BYTES: usize = 64 * 1024;
/// The length up to which an error quotes Vault's reason.
const MAX_REASON_CHARS: usize = 200;

impl VaultTransitError {
    /// Whether the same call may succeed later without a change of settings.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Sealed { .. } | Self::Busy { .. })
    }
}

/// The address and key of Vault, and the token.
#[derive(Clone)]
pub struct VaultTransitOptions {
    /// Vault's address, without a path: `https://vault.example:8200`.
    pub url: String,
    /// Where the engine is mounted, usually `transit`.
    pub mount: String,
    /// The name of the engine's key.
    pub key: String,
    /// Vault's namespace, if it has any.
    pub namespace: Option<String>,
    /// The token that may use the key.
    pub token: Zeroizing<String>,
    /// The authorities that Vault's certificate is checked against (PEM), instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// How long to try again while Vault cannot be reached, is sealed or is busy. A call that has
    /// begun may take [`CALL_TIMEOUT`] longer.
    pub patience: Duration,
}

impl fmt::Debug for VaultTransitOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultTransitOptions")
            .field("url", &self.url)
            .field("mount", &self.mount)
            .field("key", &self.key)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// A key of Vault's transit engine.
#[derive(Debug)]
pub struct VaultTransit {
    http: Client,
    base: Url,
    mount: String,
    key: String,
    headers: HeaderMap,
    patience: Duration,
}

fn settings(reason: impl Into<String>) -> VaultTransitError {
    VaultTransitError::Settings(reason.into())
}

/// Whether `name` is one segment of a path, so that it cannot change the path.
fn is_segment(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(allowed) && !name.bytes().all(|byte| byte == b'.')
}

/// A header value that is never printed, not even in a trace of the HTTP library.
fn secret_header(value: &str) -> Result<HeaderValue, VaultTransitError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| settings("Vault's token has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl VaultTransit {
    /// A key in Vault. This sends nothing to Vault yet.
    ///
    /// # Errors
    /// When the address, a name, the token or a certificate is invalid.
    pub fn new(options: &VaultTransitOptions) -> Result<Self, VaultTransitError> {
        let base: Url =
            options.url.parse().map_err(|error| settings(format!("Vault's address is no URL: {error}")))?;
        let host = base.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match base.scheme() {
            "https" => {}
            "http" if here => {}
            "http" => return Err(settings("beyond this machine Vault is reached by https only")),
            _ => return Err(settings("Vault's address has to begin with https://")),
        }
        if base.path() != "/" || base.query().is_some() || base.fragment().is_some() {
            return Err(settings("Vault's address has to end with the host or the port"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(settings("Vault's address must not have a password in it"));
        }
        let mount = options.mount.trim_matches('/');
        if !mount.split('/').all(is_segment) {
            return Err(settings("the mount of Vault's transit engine cannot be a path"));
        }
        if !is_segment(&options.key) {
            return Err(settings("the name of Vault's key cannot be one"));
        }
        if options.token.is_empty() {
            return Err(settings("Vault's token is empty"));
        }
        let mut headers = HeaderMap::new();
        headers.insert("X-Vault-Token", secret_header(&options.token)?);
        headers.insert("X-Vault-Request", HeaderValue::from_static("true"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(namespace) = &options.namespace {
            let namespace =
                HeaderValue::from_str(namespace).map_err(|_| settings("Vault's namespace cannot be one"))?;
            headers.insert("X-Vault-Namespace", namespace);
        }
        // TLS uses the process's provider. If another one is installed already, it serves as well.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut client = Client::builder()
            .timeout(CALL_TIMEOUT)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .user_agent(concat!("duet/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &options.authorities {
            let authorities = Certificate::from_pem_bundle(&pem::unmarked(pem))
                .map_err(|error| settings(format!("Vault's authorities are no PEM certificates: {error}")))?;
            if authorities.is_empty() {
                return Err(settings("there is no certificate among Vault's authorities"));
            }
            client = client.tls_certs_only(authorities);
        }
        let http = client.build().map_err(|error| settings(format!("no HTTP client: {error}")))?;
        Ok(Self {
            http,
            base,
            mount: mount.to_owned(),
            key: options.key.clone(),
            headers,
            patience: options.patience,
        })
    }

    fn url(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Calls until an answer comes, or until a repetition is pointless.
    async fn call(&self, operation: &str, input: Field<'_>) -> Result<Answer, VaultTransitError> {
        let path = format!("v1/{}/{operation}/{}", self.mount, self.key);
        let url = self.base.join(&path).map_err(|_| settings("Vault's address is no URL"))?;
        let patience = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_total_delay(Some(self.patience))
            .without_max_times()
            .with_jitter();
        (|| self.call_once(url.clone(), &path, input))
            .retry(patience)
            .when(VaultTransitError::may_pass)
            .notify(|error, pause| tracing::warn!(%error, ?pause, "trying again"))
            .await
    }

    async fn call_once(&self, url: Url, path: &str, input: Field<'_>) -> Result<Answer, VaultTransitError> {
        let sent = self.http.post(url).headers(self.headers.clone()).body(input.to_body()).send().await;
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let body = self.read(&mut response, path).await?;
        if response.status() == StatusCode::OK {
            return Ok(Answer { path: path.to_owned(), body });
        }
        Err(self.refusal(path, response.status(), &body))
    }

    async fn read(
        &self,
        response: &mut Response,
        path: &str,
    ) -> Result<Zeroizing<Vec<u8>>, VaultTransitError> {
        // With this capacity the body never moves, which would leave a copy behind.
        let mut body = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_SIZE_BYTES));
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_SIZE_BYTES {
                return Err(VaultTransitError::Answer { path: path.to_owned(), reason: "it is too large" });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, error: &reqwest::Error) -> VaultTransitError {
        // The innermost cause says most: connection refused, no such host, an unknown authority.
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |cause| cause.source());
        let reason = match causes.last() {
            _ if error.is_timeout() => "no answer in time".to_owned(),
            cause => cause.map(ToString::to_string).unwrap_or_default(),
        };
        VaultTransitError::Unreachable { url: self.url(), reason }
    }

    fn refusal(&self, path: &str, status: StatusCode, body: &[u8]) -> VaultTransitError {
        #[derive(Default, Deserialize)]
        struct Errors {
            #[serde(default)]
            errors: Vec<String>,
        }
        let Errors { errors } = serde_json::from_slice(body).unwrap_or_default();
        let said: String = errors.join("; ").split_whitespace().collect::<Vec<_>>().join(" ");
        let reason: String = said.chars().take(MAX_REASON_CHARS).collect();
        let (url, path, code) = (self.url(), path.to_owned(), status.as_u16());
        match status {
            StatusCode::FORBIDDEN => VaultTransitError::Denied { path },
            StatusCode::SERVICE_UNAVAILABLE if reason.contains("sealed") => VaultTransitError::Sealed { url },
            StatusCode::NOT_FOUND => VaultTransitError::NoKey { path, reason },
            StatusCode::BAD_REQUEST if reason.contains("key not found") => {
                VaultTransitError::NoKey { path, reason }
            }
            // The answer of some versions to a ciphertext of another key.
            StatusCode::INTERNAL_SERVER_ERROR if reason.contains("message authentication failed") => {
                VaultTransitError::Refused { path, status: code, reason }
            }
            StatusCode::TOO_MANY_REQUESTS => VaultTransitError::Busy { url, status: code, reason },
            _ if status.is_server_error() => VaultTransitError::Busy { url, status: code, reason },
            _ if status.is_redirection() => {
                let reason = "it sends us to another address; name that one".to_owned();
                VaultTransitError::Refused { path, status: code, reason }
            }
            _ => VaultTransitError::Refused { path, status: code, reason },
        }
    }

    fn wrapped(&self, answer: &Answer) -> Result<WrappedKey, VaultTransitError> {
        let ciphertext = answer.field("ciphertext")?;
        if !ciphertext.starts_with("vault:v") {
            return Err(answer.wrong("its ciphertext is none"));
        }
        Ok(WrappedKey::WrappedByTransit {
            mount: self.mount.clone(),
            key: self.key.clone(),
            ciphertext: ciphertext.to_owned(),
        })
    }

    /// The ciphertext in `wrapped`, if this key encrypted it.
    fn ciphertext<'a>(&self, wrapped: &'a WrappedKey) -> Result<&'a str, KeyEncryptionError> {
        match wrapped {
            WrappedKey::WrappedByTransit { mount, key, ciphertext } => {
                if (mount, key) != (&self.mount, &self.key) {
                    let expected = format!("{mount}/{key}");
                    let offered = format!("{}/{}", self.mount, self.key);
                    return Err(VaultTransitError::OtherKey { expected, offered }.into());
                }
                // It comes from the store and goes into a JSON document without escaping.
                if !ciphertext.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=:-_".contains(&byte)) {
                    return Err(KeyEncryptionError::WrongKey);
                }
                Ok(ciphertext)
            }
            other => Err(KeyEncryptionError::Source { expected: other.source(), offered: Source::Transit }),
        }
    }
}

/// The only field of a call. Its value contains no character that JSON escapes.
#[derive(Debug, Clone, Copy)]
struct Field<'a> {
    name: &'static str,
    value: &'a str,
}

impl Field<'_> {
    /// The body of the call. It is wiped after its last user dropped it.
    fn to_body(self) -> Bytes {
        let pieces = ["{\"", self.name, "\":\"", self.value, "\"}"];
        let mut body = Zeroizing::new(Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
        pieces.iter().for_each(|piece| body.extend_from_slice(piece.as_bytes()));
        Bytes::from_owner(body)
    }
}

/// Vault's answer, wiped on drop.
struct Answer {
    path: String,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    fn field(&self, name: &'static str) -> Result<&str, VaultTransitError> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            data: Data<'a>,
        }
        #[derive(Deserialize)]
        struct Data<'a> {
            ciphertext: Option<&'a str>,
            plaintext: Option<&'a str>,
        }
        let document: Document<'_> =
            serde_json::from_slice(&self.body).map_err(|_| self.wrong("it does not parse"))?;
        let value = if name == "plaintext" { document.data.plaintext } else { document.data.ciphertext };
        value.ok_or_else(|| self.wrong("what was asked for is not in it"))
    }

    fn wrong(&self, reason: &'static str) -> VaultTransitError {
        VaultTransitError::Answer { path: self.path.clone(), reason }
    }
}

#[async_trait]
impl KeyEncryption for VaultTransit {
    fn source(&self) -> Source {
        Source::Transit
    }

    async fn wrap(&self, key: &KeyEncryptionKey) -> Result<WrappedKey, KeyEncryptionError> {
        let plaintext = Zeroizing::new(Base64::encode_string(key.expose()));
        let answer = self.call("encrypt", Field { name: "plaintext", value: &plaintext }).await?;
        Ok(self.wrapped(&answer)?)
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<KeyEncryptionKey, KeyEncryptionError> {
        let ciphertext = self.ciphertext(wrapped)?;
        let answer = self.call("decrypt", Field { name: "ciphertext", value: ciphertext }).await?;
        let mut key = Zeroizing::new([0; 32]);
        let decoded = Base64::decode(answer.field("plaintext")?, key.as_mut_slice());
        if decoded.map(<[u8]>::len) != Ok(key.len()) {
            return Err(answer.wrong("its plaintext is no key").into());
        }
        Ok(KeyEncryptionKey::from_bytes(key))
    }

    async fn rewrap(&self, wrapped: &WrappedKey) -> Result<WrappedKey, KeyEncryptionError> {
        let ciphertext = self.ciphertext(wrapped)?;
        let answer = self.call("rewrap", Field { name: "ciphertext", value: ciphertext }).await?;
        Ok(self.wrapped(&answer)?)
    }
}
