//! What `duet init` writes into a directory, and reading it back.
//!
//! | path | what | who needs it |
//! |---|---|---|
//! | `nkeys/<role>.nk` | the role's nkey seed | that role's process |
//! | `tls/ca.pem` | the certificate authority | everyone who connects |
//! | `tls/server.pem`, `tls/server.key` | the broker's certificate and key | the broker |
//! | `tls/names` | names and addresses in the broker's certificate, one a line | `duet credentials` |
//! | `broker.env` | public nkeys and paths for `nats.conf` | the broker |
//! | `orchestrator.key` | the Ed25519 key that signs results, hexadecimal | the orchestrators |
//! | `gateway.key` | the Ed25519 key that signs the gateways' audit log, hexadecimal | the gateways |
//! | `tokens/<tenant>` | the tenant's bearer token for the HTTP API | orchestrators, the tenant |
//! | `jetstream/` | the broker's store | the broker |
//! | `nodes/<name>/` | what one node of a cluster needs, see [`crate::nodes`] | that node |
//!
//! While one is exchanged its file holds two, see [`crate::secret_file`] and [`crate::rotation`].
//!
//! Files are readable by their owner alone, and directories likewise. Running it again adds what
//! is missing and changes nothing that is there. The authority's private key is not kept: when one
//! of the TLS files is missing, all are made anew.
//!
//! This is for development and for one machine. Across hosts each process is given its own file
//! and no other.

use core::{fmt, str::FromStr};
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use duet_protocol::ids::TenantId;
use ed25519_dalek::SigningKey;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    broker_keys, certificates,
    nodes::{self, Node, NodeLayout},
    role::Role,
    secret_file::SecretFile,
};

/// How every bearer token starts, so that a leaked one can be searched for.
const TOKEN_MARK: &str = "duet_";

/// An nkey seed of a user. Wiped on drop and never printed.
///
/// The NATS client keeps a copy of its own while it is connected, which is not wiped.
#[derive(Clone)]
pub struct NkeySeed(Zeroizing<String>);

/// The text is no nkey seed of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an nkey seed of a user (58 characters that begin with SU)")]
pub struct InvalidSeed;

impl NkeySeed {
    /// Draws a new one.
    ///
    /// # Errors
    /// When the operating system has no entropy.
    pub fn generate() -> Result<Self, InitError> {
        let mut entropy = Zeroizing::new([0; 32]);
        getrandom::fill(entropy.as_mut()).map_err(|_| InitError::Entropy)?;
        nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, *entropy)
            .and_then(|pair| pair.seed())
            .map(|seed| Self(seed.into()))
            .map_err(|_| InitError::Entropy)
    }

    /// The public nkey, as `nats.conf` wants it.
    ///
    /// # Errors
    /// Never for a parsed seed; the library's signature allows for it.
    pub fn public_key(&self) -> Result<String, InvalidSeed> {
        nkeys::KeyPair::from_seed(&self.0).map(|pair| pair.public_key()).map_err(|_| InvalidSeed)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The seed as its file holds it.
    pub(crate) fn into_text(self) -> Zeroizing<String> {
        self.0
    }
}

impl FromStr for NkeySeed {
    type Err = InvalidSeed;
    fn from_str(text: &str) -> Result<Self, InvalidSeed> {
        match nkeys::KeyPair::from_seed(text) {
            Ok(pair) if text.starts_with("SU") && pair.seed().is_ok() => Ok(Self(text.to_owned().into())),
            _ => Err(InvalidSeed),
        }
    }
}

impl fmt::Debug for NkeySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NkeySeed(…)")
    }
}

/// A tenant's bearer token. Wiped on drop and never printed.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// The token, to be sent or hashed; not to be logged.
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

    /// The names and addresses that the broker's certificate has, one a line.
    #[must_use]
    pub fn server_names(&self) -> PathBuf {
        self.directory.join("tls").join("names")
    }

    /// The broker's private key.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.directory.join("tls").join("server.key")
    }

    /// The broker's environment, one `NAME=value` a line.
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

    /// Reads the other key that signs results, while the key is exchanged.
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

    /// Reads all tenants' tokens: all that are accepted of each.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_tokens(&self) -> Result<BTreeMap<TenantId, Vec<Token>>, ReadError> {
        let path = self.tokens();
        let io = |source| ReadError::Io { path: path.clone(), source };
        let mut tokens = BTreeMap::new();
        for entry in fs::read_dir(&path).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            // Anything else there, an editor's backup for example, is no tenant.
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

    /// Where everything of one node of a cluster lies.
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

/// Reads an environment as pairs, with values as `nats-server` wants them.
pub(crate) fn read_environment(path: PathBuf) -> Result<Vec<(String, String)>, ReadError> {
    let text = read_secret(&path)?;
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.split_once('=').ok_or_else(|| ReadError::Malformed {
                path: path.clone(),
                expected: "lines of NAME=value",
            })?;
            // The outer quotes are the shell's, the inner ones the broker's.
            let value = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap_or(value);
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Why a credential was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}; `duet init` makes it", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} does not hold {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Others than the owner may read the file.
    #[error("{} can be read by others; run `chmod 600` on it, and replace what it holds if they did", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

/// What [`initialise`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitSettings {
    /// Tenants of the HTTP API; each gets a token. Default `demo`.
    pub tenants: Vec<TenantId>,
    /// Names and addresses in the broker's certificate. Default localhost, 127.0.0.1 and ::1.
    pub server_names: Vec<String>,
    /// Where the broker listens. Default 127.0.0.1.
    pub host: String,
    /// On which port. Default 4222.
    pub port: u16,
    /// On which port of the loopback its monitoring listens. Default 8222.
    pub monitor_port: u16,
    /// The nodes of a cluster; none by default. They listen on the ports above, each on its own host.
    pub nodes: Vec<Node>,
    /// On which port the nodes listen for each other. Default 6222.
    pub cluster_port: u16,
}

impl Default for InitSettings {
    fn default() -> Self {
        Self {
            // A literal that satisfies the token's rules.
            tenants: "demo".parse().into_iter().collect(),
            server_names: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
            host: "127.0.0.1".to_owned(),
            port: 4222,
            monitor_port: 8222,
            nodes: Vec::new(),
            cluster_port: 6222,
        }
    }
}

/// What [`initialise`] found missing and made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The new files, in the order of their making.
    pub files: Vec<PathBuf>,
}

/// Why nothing, or not everything, was made. Running it again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file or directory cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there already cannot be read.
    #[error(transparent)]
    Existing(#[from] ReadError),
    /// The operating system has no entropy.
    #[error("the operating system gives no random bytes")]
    Entropy,
    /// The certificates cannot be made with these names.
    #[error("no certificate for these names: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The path cannot be passed to the broker.
    #[error("{} cannot be passed to the broker: use a path without quotes, backslashes and line breaks", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
}

/// Makes what is missing in `directory`.
///
/// # Errors
/// See [`InitError`]. Files are put in place whole or not at all.
pub fn initialise(directory: &Path, settings: &InitSettings) -> Result<Made, InitError> {
    make_directory(directory)?;
    let directory =
        directory.canonicalize().map_err(|source| InitError::Io { path: directory.to_owned(), source })?;
    let layout = Layout::new(&directory);
    for below in ["nkeys", "tls", "tokens", "jetstream"] {
        make_directory(&directory.join(below))?;
    }
    for node in &settings.nodes {
        make_directory(layout.node(node.name()).directory())?;
    }
    let mut made = Made::default();
    for role in Role::ALL {
        make_secret(&layout.nkey(role), &mut made, || Ok(NkeySeed::generate()?.into_text()))?;
    }
    let names = settings.server_names.join("\n");
    make_secret(&layout.server_names(), &mut made, || Ok(names.into()))?;
    certificates::make(&layout, settings, &mut made)?;
    make_secret(&layout.orchestrator_key(), &mut made, random_hex)?;
    make_secret(&layout.gateway_key(), &mut made, random_hex)?;
    for tenant in &settings.tenants {
        make_secret(&layout.token(tenant), &mut made, random_token)?;
    }
    let environment = broker_environment(&layout, settings)?;
    make_secret(&layout.broker_environment(), &mut made, || Ok(environment.into()))?;
    nodes::make_environments(&layout, settings, &mut made)?;
    broker_keys::complete(&layout, &mut made)?;
    Ok(made)
}

/// What `nats.conf` takes from its environment. Port -1 there means a free one.
fn broker_environment(layout: &Layout, settings: &InitSettings) -> Result<String, InitError> {
    let mut lines = vec![
        "# For nats.conf: set -a; . ./broker.env; nats-server -c nats.conf".to_owned(),
        format!("DUET_BROKER_HOST={}", quoted(Path::new(&settings.host))?),
        format!("DUET_BROKER_PORT={}", settings.port),
        format!(
            "DUET_MONITOR_LISTEN={}",
            quoted(Path::new(&format!("127.0.0.1:{}", settings.monitor_port)))?
        ),
        format!("DUET_STORE_DIR={}", quoted(&layout.store())?),
        format!("DUET_TLS_CERT={}", quoted(&layout.server_certificate())?),
        format!("DUET_TLS_KEY={}", quoted(&layout.server_key())?),
    ];
    lines.extend(public_nkeys(layout)?);
    lines.push(String::new());
    Ok(lines.join("\n"))
}

/// Every role's public nkeys, as lines of an environment.
pub(crate) fn public_nkeys(layout: &Layout) -> Result<Vec<String>, InitError> {
    Ok(broker_keys::all(layout)?.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// A value quoted twice: single quotes for the shell, and inside them double quotes for
/// `nats-server`, which parses a variable's value like a piece of its configuration and would end
/// an unquoted one at a space, a comma or a `#`.
pub(crate) fn quoted(path: &Path) -> Result<String, InitError> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '\'', '\\', '\n', '\r', '$']) => Ok(format!("'\"{text}\"'")),
        _ => Err(InitError::Path { path: path.to_owned() }),
    }
}

/// A new token.
pub(crate) fn random_token() -> Result<Zeroizing<String>, InitError> {
    Ok(format!("{TOKEN_MARK}{}", random_hex()?.as_str()).into())
}

/// 32 random bytes in hexadecimal.
pub(crate) fn random_hex() -> Result<Zeroizing<String>, InitError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|_| InitError::Entropy)?;
    Ok(hex::encode(bytes.as_ref()).into())
}

pub(crate) fn make_directory(path: &Path) -> Result<(), InitError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| InitError::Io { path: path.to_owned(), source })
}

/// Writes the file unless it exists.
pub(crate) fn make_secret(
    path: &Path,
    made: &mut Made,
    content: impl FnOnce() -> Result<Zeroizing<String>, InitError>,
) -> Result<(), InitError> {
    if !path.exists() {
        write_secret(path, content()?.as_bytes())?;
        made.files.push(path.to_owned());
    }
    Ok(())
}

/// Puts a file in place whole, on disk, and readable by its owner alone.
pub(crate) fn write_secret(path: &Path, content: &[u8]) -> Result<(), InitError> {
    let io = |source| InitError::Io { path: path.to_owned(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    // A left-over of an interrupted run may have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(io)?;
    file.write_all(content).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&temporary, path).map_err(io)
}

/// What a file of a key holds.
const DIGITS: &str = "64 hexadecimal digits";
/// What a file of a token holds.
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

/// Reads a file of one secret, or of two while it is exchanged.
pub(crate) fn read_secret_file(path: PathBuf, expected: &'static str) -> Result<SecretFile, ReadError> {
    SecretFile::parse(&read_secret(&path)?).map_err(|_| ReadError::Malformed { path, expected })
}

/// Reads a small text file that only its owner may read.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, ReadError> {
    use std::os::unix::fs::PermissionsExt as _;
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(io)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(ReadError::Exposed { path: path.to_owned() });
    }
    let mut bytes = fs::read(path).map_err(io)?;
    match core::str::from_utf8(&bytes) {
        Ok(text) => {
            // Some editors put a byte order mark before a text.
            let text = Zeroizing::new(text.trim_start_matches('\u{feff}').to_owned());
            bytes.zeroize();
            Ok(text)
        }
        Err(_) => {
            bytes.zeroize();
            Err(ReadError::Malformed { path: path.to_owned(), expected: "UTF-8 text" })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn tree(directory: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut pending = vec![directory.to_owned()];
        while let Some(path) = pending.pop() {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            if path.is_dir() {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                found.insert(path, (mode, Vec::new()));
            } else {
                found.insert(path.clone(), (mode, fs::read(&path).unwrap()));
            }
        }
        found
    }

    #[test]
    fn running_it_again_changes_nothing_and_adds_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("with a space");
        let made = initialise(&path, &InitSettings::default()).unwrap();
        assert!(!made.files.is_empty());
        let before = tree(&path);
        assert_eq!(initialise(&path, &InitSettings::default()).unwrap(), Made::default());
        assert_eq!(tree(&path), before);

        let more = InitSettings {
            tenants: vec!["demo".parse().unwrap(), "acme".parse().unwrap()],
            ..InitSettings::default()
        };
        let layout = Layout::new(&path.canonicalize().unwrap());
        assert_eq!(initialise(&path, &more).unwrap().files, [layout.token(&"acme".parse().unwrap())]);
        assert_eq!(layout.read_tokens().unwrap().len(), 2);
    }

    #[test]
    fn only_the_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        initialise(&path, &InitSettings::default()).unwrap();
        for (file, (mode, _)) in tree(&path) {
            assert_eq!(mode, if file.is_dir() { 0o700 } else { 0o600 }, "{}", file.display());
        }
        let layout = Layout::new(&path);
        let key = layout.orchestrator_key();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(layout.read_orchestrator_key(), Err(ReadError::Exposed { .. })));
    }

    #[test]
    fn what_was_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        initialise(directory.path(), &InitSettings::default()).unwrap();
        let layout = Layout::new(directory.path());
        let environment: BTreeMap<_, _> = layout.read_broker_environment().unwrap().into_iter().collect();
        for role in Role::ALL {
            let public = layout.read_seed(role).unwrap().public_key().unwrap();
            assert!(public.starts_with('U'));
            assert_eq!(environment.get(&role.nkey_variable()), Some(&public));
            assert_ne!(environment.get(&role.other_nkey_variable()), Some(&public));
        }
        assert!(layout.read_orchestrator_key().is_ok() && layout.read_gateway_key().is_ok());
        assert!(environment["DUET_TLS_CERT"].starts_with("\"/"));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let seed = NkeySeed::generate().unwrap();
        assert!(!format!("{seed:?}").contains(seed.expose()));
    }

    #[test]
    fn seeds_of_other_kinds_are_refused() {
        let account = nkeys::KeyPair::new_account().seed().unwrap();
        assert!(account.parse::<NkeySeed>().is_err());
        assert!("SUAA".parse::<NkeySeed>().is_err());
        let user = nkeys::KeyPair::new_user();
        assert!(user.seed().unwrap().parse::<NkeySeed>().is_ok());
        assert!(user.public_key().parse::<NkeySeed>().is_err());
    }
}
