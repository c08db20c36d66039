//! Development certificates: one authority for the servers that clients connect to, and one for the
//! nodes of a cluster among themselves. Their private keys are not kept.
//!
//! During the exchange of a family of certificates, the next certificates lie beside those in use,
//! with `.next` at the end of their names. So does the next authority. The authority's file then
//! holds both authorities.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use zeroize::Zeroizing;

use crate::{
    layout::Layout,
    node::Node,
    nodes,
    reader::read_secret,
    secret_file::Stage,
    settings::InitSettings,
    writer::{InitError, Made, write_secret},
};

/// Days for which the certificates are valid.
const VALIDITY_DAYS: i64 = 825;

/// A certificate to issue, and the paths for it and its key.
struct Wanted {
    common_name: String,
    names: Vec<String>,
    certificate: PathBuf,
    key: PathBuf,
}

/// The purpose of all certificates of one authority.
#[derive(Clone, Copy)]
enum Use {
    /// Shown to clients.
    Server,
    /// Shown to other nodes, both by the connecting node and by the accepting one.
    Route,
}

/// The certificates of one authority, and the path for the authority's own.
pub(crate) struct Family {
    name: &'static str,
    purpose: Use,
    wanted: Vec<Wanted>,
    /// Files with the same content. The first one is read.
    authorities: Vec<PathBuf>,
}

/// Makes the certificates of the broker and of its nodes, unless they all exist.
pub(crate) fn make(layout: &Layout, settings: &InitSettings, made: &mut Made) -> Result<(), InitError> {
    Family::servers(layout, &settings.server_names, &settings.nodes).make(made)?;
    Family::routes(layout, &settings.nodes).make(made)
}

impl Family {
    /// The certificates that the broker and its nodes show to clients.
    fn servers(layout: &Layout, names: &[String], nodes: &[Node]) -> Self {
        let mut wanted = vec![Wanted {
            common_name: "Duet development broker".to_owned(),
            names: names.to_vec(),
            certificate: layout.server_certificate(),
            key: layout.server_key(),
        }];
        for node in nodes {
            let own = layout.node(node.name());
            let mut names = names.to_vec();
            names.push(node.host().to_owned());
            names.dedup();
            wanted.push(Wanted {
                common_name: format!("Duet broker {}", node.name()),
                names,
                certificate: own.server_certificate(),
                key: own.server_key(),
            });
        }
        Self {
            name: "Duet development authority",
            purpose: Use::Server,
            wanted,
            authorities: vec![layout.ca_certificate()],
        }
    }

    /// The certificates that nodes show each other.
    fn routes(layout: &Layout, nodes: &[Node]) -> Self {
        let mut wanted = Vec::new();
        let mut authorities = vec![layout.route_ca_certificate()];
        for node in nodes {
            let own = layout.node(node.name());
            wanted.push(Wanted {
                common_name: format!("Duet node {}", node.name()),
                names: vec![node.host().to_owned()],
                certificate: own.route_certificate(),
                key: own.route_key(),
            });
            authorities.push(own.route_ca_certificate());
        }
        Self { name: "Duet development cluster", purpose: Use::Route, wanted, authorities }
    }

    /// The existing servers' certificates, for the names they were made for.
    pub(crate) fn servers_there(layout: &Layout) -> Result<Self, InitError> {
        let names = read_secret(&layout.server_names())?;
        let names: Vec<String> =
            names.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(Self::servers(layout, &names, &nodes::known(layout)?))
    }

    /// The existing nodes' certificates.
    pub(crate) fn routes_there(layout: &Layout) -> Result<Self, InitError> {
        Ok(Self::routes(layout, &nodes::known(layout)?))
    }

    /// Whether the family has no certificates.
    pub(crate) const fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Issues all certificates under a new authority, unless all files exist.
    fn make(&self, made: &mut Made) -> Result<(), InitError> {
        if self.is_empty() || self.leaves().chain(&self.authorities).all(|file| file.exists()) {
            return Ok(());
        }
        self.issue(Path::to_owned, made)
    }

    /// The files of certificates and keys.
    fn leaves(&self) -> impl Iterator<Item = &PathBuf> {
        self.wanted.iter().flat_map(|one| [&one.certificate, &one.key])
    }

    /// The authority's file that is read.
    fn authority(&self) -> PathBuf {
        self.authorities.first().cloned().unwrap_or_default()
    }

    /// The stage of this family's exchange. An interrupted preparation has changed nothing yet.
    pub(crate) fn stage(&self) -> Result<Stage, InitError> {
        let authority = self.authority();
        if !next(&authority).exists() {
            return Ok(Stage::Settled);
        }
        let is_trusted = read_secret(&authority)?.contains(read_secret(&next(&authority))?.trim());
        Ok(if !is_trusted {
            Stage::Settled
        } else if self.leaves().any(|file| next(file).exists()) {
            Stage::Prepared
        } else {
            Stage::Switched
        })
    }

    /// Issues the next certificates beside those in use, and makes clients trust both authorities.
    pub(crate) fn prepare(&self, made: &mut Made) -> Result<(), InitError> {
        let before = read_secret(&self.authority())?;
        self.issue(next, made)?;
        let both = format!("{}\n{}", before.trim(), read_secret(&next(&self.authority()))?.as_str());
        // The file that is read comes last. Until it is written, the exchange has not begun.
        for file in self.authorities.iter().rev() {
            put(file, both.as_bytes(), made)?;
        }
        Ok(())
    }

    /// Moves the next certificates into the place of those in use.
    pub(crate) fn switch(&self, made: &mut Made) -> Result<(), InitError> {
        for file in self.leaves().filter(|file| next(file).exists()) {
            fs::rename(next(file), file).map_err(|source| InitError::Io { path: file.clone(), source })?;
            made.files.push(file.clone());
        }
        Ok(())
    }

    /// Makes clients trust only the new authority.
    pub(crate) fn retire(&self, made: &mut Made) -> Result<(), InitError> {
        let alone = read_secret(&next(&self.authority()))?;
        for file in self.authorities.iter().rev() {
            put(file, alone.as_bytes(), made)?;
            match fs::remove_file(next(file)) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(InitError::Io { path: next(file), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Issues all certificates under a new authority. `place` maps each file to the path to write.
    /// The authority's files come last.
    fn issue(&self, place: impl Fn(&Path) -> PathBuf, made: &mut Made) -> Result<(), InitError> {
        let not_before = time::OffsetDateTime::now_utc() - time::Duration::DAY;
        let not_after = not_before + time::Duration::days(VALIDITY_DAYS);
        let params = |names: Vec<String>, common_name: &str| -> Result<CertificateParams, rcgen::Error> {
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, common_name);
            (params.not_before, params.not_after) = (not_before, not_after);
            Ok(params)
        };

        let mut authority = params(Vec::new(), self.name)?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_key = KeyPair::generate()?;
        let authority_certificate = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        for one in &self.wanted {
            let mut certificate = params(one.names.clone(), &one.common_name)?;
            certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            certificate.extended_key_usages = match self.purpose {
                Use::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
                Use::Route => {
                    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
                }
            };
            certificate.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate()?;
            put(&place(&one.certificate), certificate.signed_by(&key, &issuer)?.pem().as_bytes(), made)?;
            put(&place(&one.key), Zeroizing::new(key.serialize_pem()).as_bytes(), made)?;
        }
        for file in self.authorities.iter().rev() {
            put(&place(file), authority_certificate.pem().as_bytes(), made)?;
        }
        Ok(())
    }
}

/// The path of `file`'s successor until it takes the place of `file`.
fn next(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

fn put(file: &Path, content: &[u8], made: &mut Made) -> Result<(), InitError> {
    write_secret(file, content)?;
    made.files.push(file.to_owned());
    Ok(())
}
