//! Exchanges a credential of a directory that `duet init` filled, while all processes run.
//!
//! An exchange has three steps. [`Step::Prepare`] makes the next secret, which is accepted from
//! then on. [`Step::Switch`] puts it into use. [`Step::Retire`] ends the acceptance of the old one.
//! Between two steps the operator restarts every process that has to know. So no process ever
//! presents a secret that another does not accept, in whichever order they are restarted.
//!
//! Repeating an interrupted step completes it.

use core::{fmt, str::FromStr};

use duet_protocol::ids::TenantId;
use serde::{Serialize, Serializer};
use std::path::PathBuf;
use zeroize::Zeroizing;

use duet_bus::{NkeySeed, Role};

use crate::{
    broker_keys,
    certificates::Family,
    layout::Layout,
    reader::{ReadError, read_secret_file},
    secret_file::{SecretFile, Stage},
    writer::{InitError, Made, random_hex, random_token, write_secret},
};

/// A credential that can be exchanged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Credential {
    /// A role's key at the broker: `nkey/<role>`.
    Nkey(Role),
    /// A tenant's token for the HTTP API: `token/<tenant>`.
    Token(TenantId),
    /// The key that signs results: `orchestrator-key`.
    OrchestratorKey,
    /// The key that signs the gateways' audit log: `gateway-key`.
    GatewayKey,
    /// The certificates that the broker shows to clients, and their authority: `tls`.
    Tls,
    /// The certificates that the nodes of a cluster show each other, and their authority:
    /// `route-tls`.
    RouteTls,
}

/// The text is not a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of nkey/ROLE, token/TENANT, orchestrator-key, gateway-key, tls and route-tls")]
pub struct UnknownCredential(pub String);

/// A step of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the next secret, which is accepted beside the one in use.
    Prepare,
    /// Use the next secret. The old one is still accepted.
    Switch,
    /// Stop accepting the old secret.
    Retire,
}

/// The state of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The credential.
    pub credential: Credential,
    /// The stage of its exchange.
    pub stage: Stage,
    /// The public half of the secret in use, if it has one: an nkey, or an Ed25519 key in
    /// hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_use: Option<String>,
    /// The public half of the other accepted secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    /// The processes that need the current files and a restart before the next step. Empty when no
    /// exchange is under way, or when no process has to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
    /// The files that were written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] InitError),
    /// The credential is at another stage.
    #[error("{credential} is {stage}; {expected}")]
    OutOfTurn {
        /// The credential.
        credential: Credential,
        /// The stage of its exchange.
        stage: Stage,
        /// What comes next.
        expected: &'static str,
    },
    /// The directory's broker has no nodes.
    #[error("route-tls is what nodes of a cluster show each other, and there are none here")]
    NoNodes,
}

impl From<ReadError> for RotationError {
    fn from(error: ReadError) -> Self {
        Self::File(error.into())
    }
}

impl Credential {
    /// All credentials of a directory.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn all(layout: &Layout) -> Result<Vec<Self>, RotationError> {
        let mut all: Vec<Self> = Role::ALL.map(Self::Nkey).to_vec();
        all.extend(layout.read_tokens()?.into_keys().map(Self::Token));
        all.extend([Self::OrchestratorKey, Self::GatewayKey, Self::Tls]);
        if !Family::routes_there(layout)?.is_empty() {
            all.push(Self::RouteTls);
        }
        Ok(all)
    }

    /// The credential's state.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn standing(&self, layout: &Layout) -> Result<Standing, RotationError> {
        self.standing_after(layout, None, Made::default())
    }

    /// Takes a step. Repeating it changes nothing, but completes an interrupted one.
    ///
    /// # Errors
    /// When it is not the credential's next step, or files cannot be read or written.
    pub fn take(&self, layout: &Layout, step: Step) -> Result<Standing, RotationError> {
        let mut made = Made::default();
        match self.kind(layout)? {
            Kind::Secret { path, draw } => self.exchange(layout, step, path, draw, &mut made)?,
            Kind::Family(family) => {
                let stage = family.stage()?;
                self.check(step, stage)?;
                match (step, stage) {
                    (Step::Prepare, Stage::Settled) => family.prepare(&mut made)?,
                    (Step::Switch, Stage::Prepared) => family.switch(&mut made)?,
                    (Step::Retire, Stage::Switched) => family.retire(&mut made)?,
                    _ => {}
                }
            }
        }
        self.standing_after(layout, Some(step), made)
    }

    /// Takes a step for a secret with a file of its own.
    fn exchange(
        &self,
        layout: &Layout,
        step: Step,
        path: PathBuf,
        draw: Draw,
        made: &mut Made,
    ) -> Result<(), RotationError> {
        let file = read_secret_file(path.clone(), EXPECTED)?;
        let stage = file.stage();
        self.check(step, stage)?;
        let (file, is_changed) = match (step, stage) {
            (Step::Prepare, Stage::Settled) => (file.prepared(draw()?), true),
            (Step::Switch, Stage::Prepared) => (file.switched(), true),
            (Step::Retire, Stage::Switched) => (file.retired(), true),
            _ => (file, false),
        };
        let names = |file: &SecretFile, made: &mut Made| match self {
            Self::Nkey(role) => broker_keys::update(layout, *role, file, made),
            _ => Ok(()),
        };
        // The broker's environment drops the old key before the file does. After an interruption
        // the step can be repeated, and no key is accepted that the file no longer has.
        if step == Step::Retire {
            names(&file, made)?;
        }
        if is_changed {
            write_secret(&path, file.to_text().as_bytes())?;
            made.files.push(path);
        }
        if step != Step::Retire {
            names(&file, made)?;
        }
        Ok(())
    }

    /// Whether `step` can be taken at `stage`.
    fn check(&self, step: Step, stage: Stage) -> Result<(), RotationError> {
        let expected = match (step, stage) {
            (Step::Prepare, Stage::Settled | Stage::Prepared)
            | (Step::Switch, Stage::Prepared | Stage::Switched)
            | (Step::Retire, Stage::Switched) => return Ok(()),
            (_, Stage::Settled) => "`prepare` comes first",
            (_, Stage::Prepared) => "`switch` comes first",
            (_, Stage::Switched) => "`retire` comes first",
        };
        Err(RotationError::OutOfTurn { credential: self.clone(), stage, expected })
    }

    fn kind(&self, layout: &Layout) -> Result<Kind, RotationError> {
        let secret = |path, draw| Kind::Secret { path, draw };
        Ok(match self {
            Self::Nkey(role) => secret(layout.nkey(*role), || Ok(NkeySeed::generate()?.into_text())),
            Self::Token(tenant) => secret(layout.token(tenant), random_token),
            Self::OrchestratorKey => secret(layout.orchestrator_key(), random_hex),
            Self::GatewayKey => secret(layout.gateway_key(), random_hex),
            Self::Tls => Kind::Family(Family::servers_there(layout)?),
            Self::RouteTls => {
                let family = Family::routes_there(layout)?;
                if family.is_empty() {
                    return Err(RotationError::NoNodes);
                }
                Kind::Family(family)
            }
        })
    }

    fn standing_after(
        &self,
        layout: &Layout,
        step: Option<Step>,
        made: Made,
    ) -> Result<Standing, RotationError> {
        let (stage, in_use, other) = match self.kind(layout)? {
            Kind::Family(family) => (family.stage()?, None, None),
            Kind::Secret { path, .. } => {
                let file = read_secret_file(path, EXPECTED)?;
                (file.stage(), self.public(file.in_use()), file.other().and_then(|text| self.public(text)))
            }
        };
        let step = match stage {
            Stage::Prepared => Some(Step::Prepare),
            Stage::Switched => Some(Step::Switch),
            // The files do not show which restarts follow the last step.
            Stage::Settled => step,
        };
        let restart = step.map(|step| self.restart(step)).unwrap_or_default();
        Ok(Standing { credential: self.clone(), stage, in_use, other, restart, files: made.files })
    }

    /// The public half of a secret. `None` if it has none or is malformed.
    fn public(&self, secret: &str) -> Option<String> {
        match self {
            Self::Nkey(_) => secret.parse::<NkeySeed>().ok()?.public_key().ok(),
            Self::OrchestratorKey | Self::GatewayKey => {
                let mut bytes = Zeroizing::new([0; 32]);
                hex::decode_to_slice(secret, bytes.as_mut()).ok()?;
                let key = ed25519_dalek::SigningKey::from_bytes(&bytes);
                Some(hex::encode(key.verifying_key().as_bytes()))
            }
            Self::Token(_) | Self::Tls | Self::RouteTls => None,
        }
    }

    /// The processes to restart after a step.
    fn restart(&self, step: Step) -> Vec<String> {
        let processes = [Role::Orchestrator, Role::Service, Role::Partner, Role::Gateway];
        match (self, step) {
            (Self::Nkey(_), Step::Prepare | Step::Retire)
            | (Self::RouteTls, _)
            | (Self::Tls, Step::Switch) => {
                vec!["broker".to_owned()]
            }
            (Self::Nkey(role), Step::Switch) => vec![role.to_string()],
            (Self::Tls, Step::Prepare | Step::Retire) => processes.map(|role| role.to_string()).to_vec(),
            (Self::Token(_), Step::Prepare | Step::Retire) | (Self::OrchestratorKey, _) => {
                vec![Role::Orchestrator.to_string()]
            }
            (Self::Token(tenant), Step::Switch) => vec![format!("tenant {tenant}")],
            (Self::GatewayKey, Step::Switch) => vec![Role::Gateway.to_string()],
            // Only auditors need its public key; no process accepts it.
            (Self::GatewayKey, Step::Prepare | Step::Retire) => Vec::new(),
        }
    }
}

/// The content of a secret's file.
const EXPECTED: &str = "a secret, and at most one other that is accepted";

/// Draws a new secret.
type Draw = fn() -> Result<Zeroizing<String>, InitError>;

/// How a credential is stored.
enum Kind {
    /// In a file of its own.
    Secret { path: PathBuf, draw: Draw },
    /// As certificates with their authority.
    Family(Family),
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nkey(role) => write!(f, "nkey/{role}"),
            Self::Token(tenant) => write!(f, "token/{tenant}"),
            Self::OrchestratorKey => f.write_str("orchestrator-key"),
            Self::GatewayKey => f.write_str("gateway-key"),
            Self::Tls => f.write_str("tls"),
            Self::RouteTls => f.write_str("route-tls"),
        }
    }
}

impl FromStr for Credential {
    type Err = UnknownCredential;
    fn from_str(text: &str) -> Result<Self, UnknownCredential> {
        let unknown = || UnknownCredential(text.to_owned());
        match text.split_once('/') {
            Some(("nkey", role)) => role.parse().map(Self::Nkey).map_err(|_| unknown()),
            Some(("token", tenant)) => tenant.parse().map(Self::Token).map_err(|_| unknown()),
            Some(_) => Err(unknown()),
            None => match text {
                "orchestrator-key" => Ok(Self::OrchestratorKey),
                "gateway-key" => Ok(Self::GatewayKey),
                "tls" => Ok(Self::Tls),
                "route-tls" => Ok(Self::RouteTls),
                _ => Err(unknown()),
            },
        }
    }
}

impl Serialize for Credential {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;
    use crate::{InitSettings, initialise};

    fn directory() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let nodes = ["n1=10.0.0.1", "n2=broker-2.example"].map(|node| node.parse().unwrap()).to_vec();
        initialise(directory.path(), &InitSettings { nodes, ..InitSettings::default() }).unwrap();
        let layout = Layout::new(&directory.path().canonicalize().unwrap());
        (directory, layout)
    }

    fn environments(layout: &Layout) -> Vec<BTreeMap<String, String>> {
        let broker = layout.read_broker_environment().unwrap();
        let nodes = ["n1", "n2"].map(|name| layout.node(name).read_environment().unwrap());
        [broker].into_iter().chain(nodes).map(|pairs| pairs.into_iter().collect()).collect()
    }

    #[test]
    fn an_nkey_is_accepted_by_every_node_from_the_first_step_to_the_last() {
        let (_directory, layout) = directory();
        let credential = Credential::Nkey(Role::Service);
        let before = environments(&layout);
        let old = credential.standing(&layout).unwrap().in_use.unwrap();
        let accepted = |expected: &[&String]| {
            for environment in environments(&layout) {
                let named = ["DUET_NKEY_SERVICE", "DUET_NKEY_SERVICE_OTHER"].map(|name| &environment[name]);
                assert_ne!(named[0], named[1]);
                assert!(expected.iter().all(|key| named.contains(key)), "{named:?}");
                for (name, value) in &before[0] {
                    if name.starts_with("DUET_NKEY") && !name.contains("SERVICE") {
                        assert_eq!(&environment[name], value, "{name}");
                    }
                }
            }
        };
        let prepared = credential.take(&layout, Step::Prepare).unwrap();
        let new = prepared.other.clone().unwrap();
        assert_eq!((prepared.stage, prepared.in_use.as_ref()), (Stage::Prepared, Some(&old)));
        accepted(&[&old, &new]);
        // A repeated step completes the first one and makes no third key.
        assert_eq!(credential.take(&layout, Step::Prepare).unwrap().other.as_ref(), Some(&new));
        credential.take(&layout, Step::Switch).unwrap();
        accepted(&[&old, &new]);
        assert_eq!(layout.read_seed(Role::Service).unwrap().public_key().unwrap(), new);
        // A node that is added during the exchange gets both keys, too.
        fs::remove_file(layout.node("n2").environment()).unwrap();
        let nodes = vec!["n2=broker-2.example".parse().unwrap()];
        initialise(layout.directory(), &InitSettings { nodes, ..InitSettings::default() }).unwrap();
        accepted(&[&old, &new]);
        credential.take(&layout, Step::Retire).unwrap();
        accepted(&[&new]);
        for environment in environments(&layout) {
            assert!(environment.values().all(|value| *value != old));
        }
    }

    #[test]
    fn a_step_out_of_turn_is_refused() {
        let (_directory, layout) = directory();
        for credential in Credential::all(&layout).unwrap() {
            let refused = |step| {
                let refused = credential.take(&layout, step);
                assert!(
                    matches!(refused, Err(RotationError::OutOfTurn { .. })),
                    "{credential} {step:?}: {refused:?}"
                );
            };
            refused(Step::Switch);
            refused(Step::Retire);
            credential.take(&layout, Step::Prepare).unwrap();
            refused(Step::Retire);
            credential.take(&layout, Step::Switch).unwrap();
            credential.take(&layout, Step::Switch).unwrap();
            refused(Step::Prepare);
            assert_eq!(credential.take(&layout, Step::Retire).unwrap().stage, Stage::Settled);
            refused(Step::Retire);
        }
    }

    fn private(directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
            if path.is_dir() {
                private(&path);
            } else {
                assert!(path.extension().is_none_or(|end| end != "next"), "{}", path.display());
            }
        }
    }

    #[test]
    fn certificates_change_after_their_authority_is_trusted_and_before_the_old_one_is_not() {
        let (_directory, layout) = directory();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        for (credential, authority, leaf) in [
            (Credential::Tls, layout.ca_certificate(), layout.node("n2").server_certificate()),
            (
                Credential::RouteTls,
                layout.node("n1").route_ca_certificate(),
                layout.node("n2").route_certificate(),
            ),
        ] {
            let (old_authority, old) = (read(authority.clone()), read(leaf.clone()));
            credential.take(&layout, Step::Prepare).unwrap();
            let both = read(authority.clone());
            assert!(both.starts_with(old_authority.trim()) && both.matches("BEGIN CERT").count() == 2);
            assert_eq!(read(leaf.clone()), old);
            credential.take(&layout, Step::Switch).unwrap();
            assert_eq!(read(authority.clone()), both);
            assert_ne!(read(leaf.clone()), old);
            credential.take(&layout, Step::Retire).unwrap();
            let alone = read(authority.clone());
            assert!(both.ends_with(&alone) && alone.matches("BEGIN CERT").count() == 1);
        }
        private(layout.directory());
    }

    #[test]
    fn a_preparation_that_was_interrupted_is_begun_again() {
        let (_directory, layout) = directory();
        let before = fs::read_to_string(layout.ca_certificate()).unwrap();
        Credential::Tls.take(&layout, Step::Prepare).unwrap();
        // The authority's file is written last.
        write_secret(&layout.ca_certificate(), before.as_bytes()).unwrap();
        assert_eq!(Credential::Tls.standing(&layout).unwrap().stage, Stage::Settled);
        assert_eq!(Credential::Tls.take(&layout, Step::Prepare).unwrap().stage, Stage::Prepared);
        Credential::Tls.take(&layout, Step::Switch).unwrap();
        Credential::Tls.take(&layout, Step::Retire).unwrap();
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let (_directory, layout) = directory();
        for credential in Credential::all(&layout).unwrap() {
            assert_eq!(credential.to_string().parse(), Ok(credential));
        }
        for text in ["", "nkey", "nkey/", "nkey/root", "token/", "tls/x", "passphrase"] {
            assert!(text.parse::<Credential>().is_err(), "{text}");
        }
    }
}
