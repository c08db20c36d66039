//! A node of a cluster, and its folder.

use core::{fmt, str::FromStr};
use std::path::{Path, PathBuf};

use crate::reader::{ReadError, read_environment};

/// A node of a cluster: its name, and the host where it listens and the others find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    name: String,
    host: String,
}

/// The text is not a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected NAME=HOST: a name of lower-case letters, digits and hyphens, at most 32; a host name or an address"
)]
pub struct InvalidNode;

impl Node {
    /// The server's name in the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name or address of its host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.host)
    }
}

impl FromStr for Node {
    type Err = InvalidNode;
    fn from_str(text: &str) -> Result<Self, InvalidNode> {
        let (name, host) = text.split_once('=').ok_or(InvalidNode)?;
        let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let in_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
        let fine = (1..=32).contains(&name.len())
            && name.chars().all(in_name)
            && (1..=253).contains(&host.len())
            && host.chars().all(in_host);
        if fine { Ok(Self { name: name.to_owned(), host: host.to_owned() }) } else { Err(InvalidNode) }
    }
}

/// The paths of one node's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLayout {
    directory: PathBuf,
}

impl NodeLayout {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The folder itself.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The certificate for clients.
    #[must_use]
    pub fn server_certificate(&self) -> PathBuf {
        self.directory.join("server.pem")
    }

    /// Its key.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.directory.join("server.key")
    }

    /// The certificate for the other nodes.
    #[must_use]
    pub fn route_certificate(&self) -> PathBuf {
        self.directory.join("route.pem")
    }

    /// Its key.
    #[must_use]
    pub fn route_key(&self) -> PathBuf {
        self.directory.join("route.key")
    }

    /// The authority of the other nodes' certificates.
    #[must_use]
    pub fn route_ca_certificate(&self) -> PathBuf {
        self.directory.join("route-ca.pem")
    }

    /// The node's environment, one `NAME=value` per line.
    #[must_use]
    pub fn environment(&self) -> PathBuf {
        self.directory.join("node.env")
    }

    /// Reads the node's environment as pairs, with values as `nats-server` wants them, and adds the
    /// paths of this folder's certificates and keys.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_environment(&self) -> Result<Vec<(String, String)>, ReadError> {
        let mut pairs = read_environment(self.environment())?;
        for (name, file) in [
            ("DUET_TLS_CERT", self.server_certificate()),
            ("DUET_TLS_KEY", self.server_key()),
            ("DUET_ROUTE_CERT", self.route_certificate()),
            ("DUET_ROUTE_KEY", self.route_key()),
            ("DUET_ROUTE_CA", self.route_ca_certificate()),
        ] {
            pairs.push((name.to_owned(), format!("\"{}\"", file.display())));
        }
        Ok(pairs)
    }
}
