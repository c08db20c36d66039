//! Creates what is missing in a credentials directory.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use duet_bus::{NkeySeed, Role, nkey::NoEntropy};
use duet_protocol::ids::TenantId;
use zeroize::Zeroizing;

use crate::{
    broker_keys, certificates,
    layout::{Layout, ReadError, TOKEN_MARK},
    nodes::{self, Node},
};

/// What [`initialise`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitSettings {
    /// Tenants of the HTTP API; each gets a token. Default `demo`.
    pub tenants: Vec<TenantId>,
    /// Names and addresses in the broker's certificate. Default localhost, 127.0.0.1 and ::1.
    pub server_names: Vec<String>,
    /// Where the broker listens. Default 127.0.0.1.
    pub host: String,
    /// The broker's port. Default 4222.
    pub port: u16,
    /// The port of the broker's monitoring on the loopback. Default 8222.
    pub monitor_port: u16,
    /// The nodes of a cluster. None by default. They listen on the ports above, each on its own
    /// host.
    pub nodes: Vec<Node>,
    /// The port on which the nodes listen for each other. Default 6222.
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

/// The files that [`initialise`] found missing and made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The new files, in the order in which they were made.
    pub files: Vec<PathBuf>,
}

/// Why not everything was made. Another run continues from there.
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
    /// An existing file cannot be read.
    #[error(transparent)]
    Existing(#[from] ReadError),
    /// The operating system has no entropy.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
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
/// See [`InitError`]. Each file is written whole or not at all.
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

/// The variables that `nats.conf` reads from its environment. Port -1 means a free port.
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

/// A value quoted twice: in single quotes for the shell, and inside them in double quotes for
/// `nats-server`. The server parses a variable's value like a piece of its configuration, and would
/// end an unquoted one at a space, a comma or a `#`.
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
    getrandom::fill(bytes.as_mut()).map_err(|_| NoEntropy)?;
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

/// Writes a file whole, flushed to disk, and readable only by its owner.
pub(crate) fn write_secret(path: &Path, content: &[u8]) -> Result<(), InitError> {
    let io = |source| InitError::Io { path: path.to_owned(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    // A file left by an interrupted run may have other permissions.
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use std::collections::BTreeMap;

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
}
