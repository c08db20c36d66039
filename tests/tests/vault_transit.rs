//! A stand-in for HashiCorp Vault, which is not available here. It implements the used part of the
//! transit engine's documented HTTP interface, with real encryption, and the ways in which a Vault
//! refuses.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    path::Path as FilePath,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, anyhow};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
    serve::Listener,
};
use base64ct::{Base64, Encoding as _};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, aead::Aead as _};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The token that may use the keys.
pub(crate) const TOKEN: &str = "hvs.test-token";
const NONCE_SIZE_BYTES: usize = 12;

/// The behaviour of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It works.
    Working,
    /// It was started but not unsealed.
    Sealed,
    /// It accepts requests and does not answer.
    Silent,
    /// It is not Vault.
    Strange,
    /// It redirects clients to another server.
    Elsewhere,
}

/// A server on this machine. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct VaultTransitServer {
    url: String,
    state: Arc<Mutex<Engine>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Engine {
    mood: Mood,
    /// The versions of each key, of which the first has number 1.
    keys: HashMap<String, Vec<[u8; 32]>>,
    /// The oldest version that may decrypt.
    min_decryption_version: usize,
    calls: Vec<String>,
}

impl VaultTransitServer {
    /// Starts a server with these keys.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(crate) async fn start(keys: &[&str]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        Self::serve(listener, url, keys)
    }

    /// Starts a server that speaks only TLS, on all addresses of the loopback.
    ///
    /// # Errors
    /// When it cannot listen, or when the files (PEM) contain no certificate with its key.
    pub(crate) async fn start_encrypted(
        keys: &[&str],
        certificate: &FilePath,
        key: &FilePath,
    ) -> Result<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(key)?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        let tcp = TcpListener::bind("0.0.0.0:0").await?;
        let url = format!("https://127.0.0.1:{}", tcp.local_addr()?.port());
        Self::serve(Encrypted { tcp, acceptor: Arc::new(config).into() }, url, keys)
    }

    fn serve(listener: impl Listener<Addr: fmt::Debug>, url: String, keys: &[&str]) -> Result<Self> {
        let state = Arc::new(Mutex::new(Engine {
            mood: Mood::Working,
            keys: HashMap::new(),
            min_decryption_version: 1,
            calls: Vec::new(),
        }));
        let router = Router::new()
            .route("/v1/transit/{operation}/{key}", post(answer))
            .fallback(|| async {
                refuse(StatusCode::NOT_FOUND, "no handler for route. route entry not found.")
            })
            .with_state(Arc::clone(&state));
        let task = tokio::spawn(async move {
            // Ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        let server = Self { url, state, task };
        for key in keys {
            server.rotate(key)?;
        }
        Ok(server)
    }

    /// Its address.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Changes its behaviour.
    pub(crate) fn set(&self, mood: Mood) {
        self.engine().mood = mood;
    }

    /// Makes a key, or a new version of a key.
    ///
    /// # Errors
    /// When the system provides no randomness.
    pub(crate) fn rotate(&self, key: &str) -> Result<()> {
        let mut version = [0; 32];
        getrandom::fill(&mut version).map_err(|error| anyhow!("no randomness: {error}"))?;
        self.engine().keys.entry(key.to_owned()).or_default().push(version);
        Ok(())
    }

    /// Makes versions before this one unable to decrypt.
    pub(crate) fn retire_before(&self, version: usize) {
        self.engine().min_decryption_version = version;
    }

    /// Deletes a key for good.
    pub(crate) fn delete(&self, key: &str) {
        self.engine().keys.remove(key);
    }

    /// The calls since the last question, as `decrypt/name`.
    #[must_use]
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.engine().calls)
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections, and returns each after its TLS handshake.
struct Encrypted {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // A client that does not trust the certificate hangs up.
            let Ok((stream, address)) = self.tcp.accept().await else { continue };
            if let Ok(encrypted) = self.acceptor.accept(stream).await {
                return (encrypted, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

impl Drop for VaultTransitServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({"errors": [reason]}))).into_response()
}

async fn answer(
    State(state): State<Arc<Mutex<Engine>>>,
    Path((operation, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(input): Json<Value>,
) -> Response {
    let mood = {
        let mut engine = state.lock().unwrap_or_else(PoisonError::into_inner);
        engine.calls.push(format!("{operation}/{name}"));
        engine.mood
    };
    match mood {
        Mood::Working => {}
        Mood::Sealed => return refuse(StatusCode::SERVICE_UNAVAILABLE, "Vault is sealed"),
        Mood::Silent => std::future::pending().await,
        Mood::Strange => return "<html>Welcome</html>".into_response(),
        Mood::Elsewhere => {
            return (StatusCode::TEMPORARY_REDIRECT, [("location", "http://127.0.0.1:1/")]).into_response();
        }
    }
    if headers.get("x-vault-token").is_none_or(|token| token != TOKEN) {
        return refuse(StatusCode::FORBIDDEN, "permission denied");
    }
    let engine = state.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(versions) = engine.keys.get(&name) else {
        // Encryption creates a key if the token may create one. This token may not.
        return match operation.as_str() {
            "encrypt" => refuse(StatusCode::FORBIDDEN, "permission denied"),
            _ => refuse(StatusCode::BAD_REQUEST, "encryption key not found"),
        };
    };
    let field = |name: &str| input.get(name).and_then(Value::as_str).unwrap_or_default();
    let done = match operation.as_str() {
        "encrypt" => Base64::decode_vec(field("plaintext"))
            .map_err(|_| "failed to base64-decode plaintext")
            .and_then(|plaintext| encrypt(versions, &plaintext))
            .map(|ciphertext| json!({"ciphertext": ciphertext, "key_version": versions.len()})),
        "decrypt" => decrypt(versions, engine.min_decryption_version, field("ciphertext"))
            .map(|plaintext| json!({"plaintext": Base64::encode_string(&plaintext)})),
        "rewrap" => decrypt(versions, engine.min_decryption_version, field("ciphertext"))
            .and_then(|plaintext| encrypt(versions, &plaintext))
            .map(|ciphertext| json!({"ciphertext": ciphertext, "key_version": versions.len()})),
        _ => return refuse(StatusCode::NOT_FOUND, "unsupported path"),
    };
    match done {
        Ok(data) => {
            Json(json!({"request_id": "1", "lease_id": "", "data": data, "warnings": null})).into_response()
        }
        Err(reason) => refuse(StatusCode::BAD_REQUEST, reason),
    }
}

fn encrypt(versions: &[[u8; 32]], plaintext: &[u8]) -> Result<String, &'static str> {
    let key = versions.last().ok_or("no version")?;
    let mut nonce = [0; NONCE_SIZE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| "no randomness")?;
    let sealed = ChaCha20Poly1305::new(key.into())
        .encrypt(&Nonce::from(nonce), plaintext)
        .map_err(|_| "failed to encrypt")?;
    let ciphertext = Base64::encode_string(&[nonce.as_slice(), &sealed].concat());
    Ok(format!("vault:v{}:{ciphertext}", versions.len()))
}

fn decrypt(versions: &[[u8; 32]], oldest: usize, ciphertext: &str) -> Result<Vec<u8>, &'static str> {
    let (version, sealed) = ciphertext
        .strip_prefix("vault:v")
        .and_then(|rest| rest.split_once(':'))
        .ok_or("invalid ciphertext: no prefix")?;
    let version: usize =
        version.parse().map_err(|_| "invalid ciphertext: version number could not be decoded")?;
    if version < oldest {
        return Err("ciphertext or signature version is disallowed by policy (too old)");
    }
    let key = version.checked_sub(1).and_then(|index| versions.get(index));
    let key = key.ok_or("invalid ciphertext: version is too new")?;
    let sealed = Base64::decode_vec(sealed).map_err(|_| "invalid ciphertext: could not decode base64")?;
    let (nonce, sealed) =
        sealed.split_first_chunk::<NONCE_SIZE_BYTES>().ok_or("invalid ciphertext: too short")?;
    ChaCha20Poly1305::new(key.into())
        .decrypt(&Nonce::from(*nonce), sealed)
        .map_err(|_| "invalid ciphertext: unable to decrypt")
}
