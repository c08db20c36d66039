//! Certificates in files, and those that servers present.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use duet_bus::pem;
use futures::future::join_all;
use reqwest::Url;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::commands::doctor::{command::DoctorCommand, facts::CertificateFacts};

/// How deep below a credentials directory certificates lie.
const MAX_DEPTH: usize = 3;

/// The most files that are read.
const MAX_FILES: usize = 256;

/// The longest greeting of a broker, in bytes.
const MAX_GREETING_SIZE_BYTES: u64 = 64 * 1024;

/// The broker's port in a URL without one.
const BROKER_PORT: u16 = 4222;

/// Whether a server speaks before TLS begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Greeting {
    /// One line, as a NATS server does.
    Line,
    None,
}

/// Reads the certificates of the credentials directory, and those of the broker and of
/// orchestrators behind TLS.
pub(super) async fn look(
    command: &DoctorCommand,
    orchestrators: &[Url],
    patience: Duration,
) -> Vec<CertificateFacts> {
    let mut files = Vec::new();
    if let Some(directory) = &command.credentials.credentials {
        list(directory, MAX_DEPTH, &mut files);
    }
    files.extend(command.broker.nats_ca.clone());
    files.sort();
    files.dedup();
    let mut facts: Vec<CertificateFacts> = files.iter().flat_map(|file| in_file(file)).collect();

    let brokers = command.broker.nats_url.split(',').filter_map(|url| Url::parse(url.trim()).ok());
    let brokers = brokers.filter(|url| url.scheme() == "tls" || command.broker.nats_ca.is_some());
    let servers = brokers.map(|url| (url, Greeting::Line));
    let secured = orchestrators.iter().filter(|url| url.scheme() == "https");
    let servers = servers.chain(secured.cloned().map(|url| (url, Greeting::None)));
    facts.extend(
        join_all(servers.map(|(url, greeting)| presented(url, greeting, patience)))
            .await
            .into_iter()
            .flatten(),
    );
    facts
}

/// Lists PEM files below `directory`, without following links.
fn list(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    // A directory that cannot be read has no certificate that this command could use.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() && depth > 1 {
            list(&path, depth - 1, files);
        } else if kind.is_file()
            && path.extension().is_some_and(|end| end == "pem")
            && files.len() < MAX_FILES
        {
            files.push(path);
        }
    }
}

fn in_file(file: &Path) -> Vec<CertificateFacts> {
    let source = file.display().to_string();
    let unreadable = |why: String| vec![CertificateFacts { source: source.clone(), validity: Err(why) }];
    let text = match pem::read(file) {
        Ok(text) => text,
        Err(error) => return unreadable(error.to_string()),
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => unreadable("it holds no certificate".to_owned()),
        Ok(certificates) => certificates
            .iter()
            .map(|certificate| CertificateFacts { source: source.clone(), validity: validity(certificate) })
            .collect(),
        Err(error) => unreadable(error.to_string()),
    }
}

fn validity(certificate: &[u8]) -> Result<(i64, i64), String> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let validity = certificate.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// The certificate that a server presents. `None` when it cannot be reached, which other checks
/// find.
async fn presented(url: Url, greeting: Greeting, patience: Duration) -> Option<CertificateFacts> {
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_or_known_default().unwrap_or(BROKER_PORT);
    let stream = timeout(patience, TcpStream::connect((host.as_str(), port))).await.ok()?.ok()?;
    let shown = timeout(patience, handshake(stream, &host, greeting)).await;
    let shown = shown.unwrap_or_else(|_| Err(io::Error::other("no answer in time")));
    let validity = match shown {
        Ok(certificate) => validity(&certificate),
        Err(error) => Err(format!("no certificate was presented: {error}")),
    };
    Some(CertificateFacts { source: format!("{host}:{port}"), validity })
}

async fn handshake(stream: TcpStream, host: &str, greeting: Greeting) -> io::Result<CertificateDer<'static>> {
    let mut stream = BufReader::new(stream);
    if greeting == Greeting::Line {
        // The server sends nothing more before TLS.
        (&mut stream).take(MAX_GREETING_SIZE_BYTES).read_until(b'\n', &mut Vec::new()).await?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream.into_inner()).await?;
    let (_, connection) = stream.get_ref();
    let first = connection.peer_certificates().and_then(<[_]>::first);
    first.map(|certificate| certificate.clone().into_owned()).ok_or_else(|| io::Error::other("it has none"))
}

/// Accepts every certificate.
///
/// # Security
/// Nothing is sent over a connection that it accepted: the doctor reads how long the certificate is
/// valid, also of one that has expired, and hangs up. Everything else connects with checks.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
