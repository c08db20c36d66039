//! Creates what is missing in a credentials directory.

use std::path::Path;

use duet_bus::{NkeySeed, Role};

use crate::{
    broker_keys::{self, public_nkeys},
    certificates,
    layout::Layout,
    nodes,
    settings::InitSettings,
    writer::{InitError, Made, make_directory, make_secret, quoted, random_hex, random_token},
};

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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use std::{collections::BTreeMap, fs, path::PathBuf};

    use super::*;
    use crate::reader::ReadError;

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
