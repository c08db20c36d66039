//! The folder that `duet init --node NAME=HOST …` writes for each node of a cluster, and its
//! reader.
//!
//! | path below `nodes/<name>/` | what |
//! |---|---|
//! | `node.env` | name, addresses and public nkeys for `deploy/nats/node.conf`; no path, since the folder moves to the node's host |
//! | `server.pem`, `server.key` | what the node shows to clients, from the authority in `tls/ca.pem` |
//! | `route.pem`, `route.key`, `route-ca.pem` | what the nodes show each other, and their own authority |

use std::path::Path;

pub use crate::node::{InvalidNode, Node, NodeLayout};
use crate::{
    broker_keys::public_nkeys,
    layout::Layout,
    reader::{ReadError, read_environment},
    settings::InitSettings,
    writer::{InitError, Made, make_secret, quoted},
};

/// The nodes that have a folder, with the hosts that their environments name.
pub(crate) fn known(layout: &Layout) -> Result<Vec<Node>, ReadError> {
    let known = |name: String| {
        let path = layout.node(&name).environment();
        let pairs = read_environment(path.clone())?;
        let host = pairs.iter().find(|(variable, _)| variable == HOST_VARIABLE);
        host.and_then(|(_, host)| format!("{name}={}", host.trim_matches('"')).parse().ok())
            .ok_or(ReadError::Malformed { path, expected: "the environment of a node" })
    };
    layout.node_names()?.into_iter().map(known).collect()
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
