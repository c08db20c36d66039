//! The path of each credential below the directory, and its reader.

use core::fmt;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use duet_bus::{ConnectSettings, NkeySeed, Role};

use duet_protocol::ids::TenantId;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::{
    node::NodeLayout,
    reader::{ReadError, read_environment, read_secret_file},
    secret_file::SecretFile,
};

/// How every bearer token starts, so that a leaked one can be searched for.
pub(crate) const TOKEN_MARK: &str = "duet_";

/// A tenant's bearer token. Wiped on drop and never printed.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// The token, to be sent or hashed. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The paths below a credentials directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// The layout of `directory`, which need not exist.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The directory itself.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A role's nkey seed.
    #[must_use]
    pub fn nkey(&self, role: Role) -> PathBuf {
        self.directory.join("nkeys").join(format!("{role}.nk"))
    }

    /// The certificate authority.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.directory.join("tls").join("ca.pem")
    }

    /// The broker's certificate.
    #[must_use]
    pub fn server_certificate(&self) -> PathBuf {
        self.directory.join("tls").join("server.pem")
    }

    /// The names and addresses in the broker's certificate, one per line.
    #[must_use]
    pub fn server_names(&self) -> PathBuf {
        self.directory.join("tls").join("names")
    }

    /// The broker's private key.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.directory.join("tls").join("server.key")
    }

    /// The broker's environment, one `NAME=value` per line.
    #[must_use]
    pub fn broker_environment(&self) -> PathBuf {
        self.directory.join("broker.env")
    }

    /// The broker's store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.directory.join("jetstream")
    }

    /// The orchestrator's signing key.
    #[must_use]
    pub fn orchestrator_key(&self) -> PathBuf {
        self.directory.join("orchestrator.key")
    }

    /// The key that signs the gateways' audit log.
    #[must_use]
    pub fn gateway_key(&self) -> PathBuf {
        self.directory.join("gateway.key")
    }

    /// The directory of tokens, one file per tenant.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        self.directory.join("tokens")
    }

    /// A tenant's token.
    #[must_use]
    pub fn token(&self, tenant: &TenantId) -> PathBuf {
        self.tokens().join(tenant.as_str())
    }

    /// Reads a role's seed.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_seed(&self, role: Role) -> Result<NkeySeed, ReadError> {
        let file = self.read_nkey_file(role)?;
        file.in_use()
            .parse()
            .map_err(|_| ReadError::Malformed { path: self.nkey(role), expected: "an nkey seed" })
    }

    /// The settings for a connection to the broker at `url` as `role`, with the credentials of this
    /// directory.
    ///
    /// # Errors
    /// When the role's seed cannot be read or is malformed.
    pub fn connect_settings(&self, role: Role, url: &str) -> Result<ConnectSettings, ReadError> {
        let ca_file = self.ca_certificate();
        Ok(ConnectSettings {
            ca_file: ca_file.exists().then_some(ca_file),
            ..ConnectSettings::new(role, self.read_seed(role)?, url)
        })
    }

    pub(crate) fn read_nkey_file(&self, role: Role) -> Result<SecretFile, ReadError> {
        read_secret_file(self.nkey(role), "an nkey seed")
    }

    /// Reads the key that signs results.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_orchestrator_key(&self) -> Result<SigningKey, ReadError> {
        signing_key(self.orchestrator_key(), self.read_orchestrator_key_file()?.in_use())
    }

    /// Reads the other key that signs results, during an exchange.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_other_orchestrator_key(&self) -> Result<Option<SigningKey>, ReadError> {
        let file = self.read_orchestrator_key_file()?;
        file.other().map(|digits| signing_key(self.orchestrator_key(), digits)).transpose()
    }

    fn read_orchestrator_key_file(&self) -> Result<SecretFile, ReadError> {
        read_secret_file(self.orchestrator_key(), DIGITS)
    }

    /// Reads the key that signs the gateways' audit log.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_gateway_key(&self) -> Result<SigningKey, ReadError> {
        let path = self.gateway_key();
        let file = read_secret_file(path.clone(), DIGITS)?;
        signing_key(path, file.in_use())
    }

    /// Reads all tenants' tokens: for each tenant all that are accepted.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_tokens(&self) -> Result<BTreeMap<TenantId, Vec<Token>>, ReadError> {
        let path = self.tokens();
        let io = |source| ReadError::Io { path: path.clone(), source };
        let mut tokens = BTreeMap::new();
        for entry in fs::read_dir(&path).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            // Any other file there, for example an editor's backup, is no tenant's.
            let Some(tenant) = name.to_str().and_then(|name| name.parse::<TenantId>().ok()) else { continue };
            let file = read_secret_file(self.token(&tenant), A_TOKEN)?;
            let accepted = file.accepted().map(|text| token(self.token(&tenant), text));
            let accepted = accepted.collect::<Result<_, _>>()?;
            tokens.insert(tenant, accepted);
        }
        Ok(tokens)
    }

    /// Reads the broker's environment as pairs, with values as `nats-server` wants them.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_broker_environment(&self) -> Result<Vec<(String, String)>, ReadError> {
        read_environment(self.broker_environment())
    }

    /// The folders of a cluster's nodes.
    pub(crate) fn nodes(&self) -> PathBuf {
        self.directory.join("nodes")
    }

    /// The names of the nodes that have a folder.
    pub(crate) fn node_names(&self) -> Result<Vec<String>, ReadError> {
        let failed = |source| ReadError::Io { path: self.nodes(), source };
        let entries = match fs::read_dir(self.nodes()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if entry.path().is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The paths of one node of a cluster.
    #[must_use]
    pub fn node(&self, name: &str) -> NodeLayout {
        NodeLayout::new(&self.nodes().join(name))
    }

    /// The authority of the certificates that nodes show each other.
    #[must_use]
    pub fn route_ca_certificate(&self) -> PathBuf {
        self.directory.join("tls").join("route-ca.pem")
    }
}

/// The content of a key's file.
const DIGITS: &str = "64 hexadecimal digits";
/// The content of a token's file.
const A_TOKEN: &str = "a token of this program's making";

fn signing_key(path: PathBuf, digits: &str) -> Result<SigningKey, ReadError> {
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, bytes.as_mut())
        .map_err(|_| ReadError::Malformed { path, expected: DIGITS })?;
    Ok(SigningKey::from_bytes(&bytes))
}

fn token(path: PathBuf, text: &str) -> Result<Token, ReadError> {
    if text.strip_prefix(TOKEN_MARK).is_none_or(|rest| rest.len() < 32) {
        return Err(ReadError::Malformed { path, expected: A_TOKEN });
    }
    Ok(Token(text.to_owned().into()))
}
