//! The folder that `duet init --node NAME=HOST …` writes for each node of a cluster, and its
//! reader.
//!
//! | path below `nodes/<name>/` | what |
//! |---|---|
//! | `node.env` | name, addresses and public nkeys for `deploy/nats/node.conf`; no path, since the folder moves to the node's host |
//! | `server.pem`, `server.key` | what the node shows to clients, from the authority in `tls/ca.pem` |
//! | `route.pem`, `route.key`, `route-ca.pem` | what the nodes show each other, and their own authority |

use core::{fmt, str::FromStr};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    initialise::{InitError, InitSettings, Made, make_secret, public_nkeys, quoted},
    layout::{Layout, ReadError, read_environment},
};

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

/// The names of the nodes that have a folder.
pub(crate) fn names(layout: &Layout) -> Result<Vec<String>, ReadError> {
    let failed = |source| ReadError::Io { path: layout.nodes(), source };
    let entries = match fs::read_dir(layout.nodes()) {
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

/// The nodes that have a folder, with the hosts that their environments name.
pub(crate) fn known(layout: &Layout) -> Result<Vec<Node>, ReadError> {
    let known = |name: String| {
        let path = layout.node(&name).environment();
        let pairs = read_environment(path.clone())?;
        let host = pairs.iter().find(|(variable, _)| variable == HOST_VARIABLE);
        host.and_then(|(_, host)| format!("{name}={}", host.trim_matches('"')).parse().ok())
            .ok_or(ReadError::Malformed { path, expected: "the environment of a node" })
    };
    names(layout)?.into_iter().map(known).collect()
}

/// The variable with the host that a node listens on.
const HOST_VARIABLE: &str = "DUET_BROKER_HOST";

/// Makes the environments that are missing.
pub(crate) fn make_environments(
    layout: &Layout,
    settings: &InitSettings,
    made: &mut Made,
) -> Result<(), InitError> {
    for node in &settings.nodes {
        let content = environment(layout, settings, node)?;
        make_secret(&layout.node(node.name()).environment(), made, || Ok(content.into()))?;
    }
    Ok(())
}

/// The variables that `node.conf` reads from its environment, except for paths.
fn environment(layout: &Layout, settings: &InitSettings, node: &Node) -> Result<String, InitError> {
    let text = |value: &str| quoted(Path::new(value));
    // An IPv6 address needs brackets before a port.
    let at = |host: &str, port: u16| {
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    };
    let routes: Vec<String> = settings
        .nodes
        .iter()
        .map(|other| format!("\"tls://{}\"", at(other.host(), settings.cluster_port)))
        .collect();
    let mut lines = vec![
        format!("DUET_NODE_NAME={}", text(node.name())?),
        format!("{HOST_VARIABLE}={}", text(node.host())?),
        format!("DUET_BROKER_PORT={}", settings.port),
        format!("DUET_MONITOR_LISTEN={}", text(&format!("127.0.0.1:{}", settings.monitor_port))?),
        format!("DUET_CLUSTER_LISTEN={}", text(&at(node.host(), settings.cluster_port))?),
        format!("DUET_CLUSTER_ADVERTISE={}", text(&at(node.host(), settings.cluster_port))?),
        format!("DUET_CLUSTER_ROUTES='[{}]'", routes.join(", ")),
    ];
    lines.extend(public_nkeys(layout)?);
    lines.push(String::new());
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initialise;

    #[test]
    fn each_node_gets_its_own_folder_and_all_know_all() {
        let directory = tempfile::tempdir().unwrap();
        let nodes = ["n1=10.0.0.1", "n2=broker-2.example", "n3=fd00::3"].map(|node| node.parse().unwrap());
        let settings = InitSettings { nodes: nodes.to_vec(), ..InitSettings::default() };
        initialise(directory.path(), &settings).unwrap();
        assert_eq!(initialise(directory.path(), &settings).unwrap(), Made::default());
        let layout = Layout::new(directory.path());
        let own = layout.node("n3").read_environment().unwrap();
        let value = |name: &str| {
            own.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).unwrap()
        };
        assert_eq!(value("DUET_NODE_NAME"), "\"n3\"");
        assert_eq!(value("DUET_CLUSTER_LISTEN"), "\"[fd00::3]:6222\"");
        assert_eq!(
            value("DUET_CLUSTER_ROUTES"),
            r#"["tls://10.0.0.1:6222", "tls://broker-2.example:6222", "tls://[fd00::3]:6222"]"#
        );
        assert_eq!(
            std::fs::read(layout.node("n1").route_ca_certificate()).unwrap(),
            std::fs::read(layout.route_ca_certificate()).unwrap()
        );
        assert_ne!(
            std::fs::read(layout.route_ca_certificate()).unwrap(),
            std::fs::read(layout.ca_certificate()).unwrap()
        );
    }

    #[test]
    fn what_would_not_survive_the_brokers_configuration_is_no_node() {
        for text in ["n1", "=h", "N1=h", "n1=", "n1=a b", "n1=\"a\"", "n1=a$b"] {
            assert_eq!(text.parse::<Node>(), Err(InvalidNode), "{text}");
        }
    }
}
