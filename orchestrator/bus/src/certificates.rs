//! Development certificates: an authority for what clients connect to, and one for the nodes of a
//! cluster among themselves. Their private keys are not kept.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use zeroize::Zeroizing;

use crate::credentials::{InitError, InitSettings, Layout, Made, write_secret};

/// Days for which the certificates are valid.
const VALIDITY_DAYS: i64 = 825;

/// A certificate to be issued, and where it and its key go.
struct Wanted {
    common_name: String,
    names: Vec<String>,
    certificate: PathBuf,
    key: PathBuf,
}

/// What all certificates of one authority are for.
#[derive(Clone, Copy)]
enum Use {
    /// Showing it to clients.
    Server,
    /// Showing it to other nodes, as whoever connects and as whoever is connected to.
    Route,
}

/// Makes the broker's certificates and those of its nodes, unless they are all there.
pub(crate) fn make(layout: &Layout, settings: &InitSettings, made: &mut Made) -> Result<(), InitError> {
    let mut servers = vec![Wanted {
        common_name: "Duet development broker".to_owned(),
        names: settings.server_names.clone(),
        certificate: layout.server_certificate(),
        key: layout.server_key(),
    }];
    let mut routes = Vec::new();
    let mut route_authorities = vec![layout.route_ca_certificate()];
    for node in &settings.nodes {
        let own = layout.node(node.name());
        let mut names = settings.server_names.clone();
        names.push(node.host().to_owned());
        names.dedup();
        servers.push(Wanted {
            common_name: format!("Duet broker {}", node.name()),
            names,
            certificate: own.server_certificate(),
            key: own.server_key(),
        });
        routes.push(Wanted {
            common_name: format!("Duet node {}", node.name()),
            names: vec![node.host().to_owned()],
            certificate: own.route_certificate(),
            key: own.route_key(),
        });
        route_authorities.push(own.route_ca_certificate());
    }
    issue("Duet development authority", &[layout.ca_certificate()], &servers, Use::Server, made)?;
    if !routes.is_empty() {
        issue("Duet development cluster", &route_authorities, &routes, Use::Route, made)?;
    }
    Ok(())
}

/// Issues `wanted` under a new authority, whose certificate goes to each of `authorities`: all
/// files, or none when all are there.
fn issue(
    authority_name: &str,
    authorities: &[PathBuf],
    wanted: &[Wanted],
    purpose: Use,
    made: &mut Made,
) -> Result<(), InitError> {
    let files = wanted.iter().flat_map(|one| [&one.certificate, &one.key]).chain(authorities);
    if files.into_iter().all(|file| file.exists()) {
        return Ok(());
    }
    let not_before = time::OffsetDateTime::now_utc() - time::Duration::DAY;
    let not_after = not_before + time::Duration::days(VALIDITY_DAYS);
    let params = |names: Vec<String>, common_name: &str| -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        (params.not_before, params.not_after) = (not_before, not_after);
        Ok(params)
    };

    let mut authority = params(Vec::new(), authority_name)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let mut put = |file: &Path, content: Zeroizing<String>| -> Result<(), InitError> {
        write_secret(file, content.as_bytes())?;
        made.files.push(file.to_owned());
        Ok(())
    };
    for file in authorities {
        put(file, authority_certificate.pem().into())?;
    }
    for one in wanted {
        let mut certificate = params(one.names.clone(), &one.common_name)?;
        certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        certificate.extended_key_usages = match purpose {
            Use::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Use::Route => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        certificate.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        put(&one.certificate, certificate.signed_by(&key, &issuer)?.pem().into())?;
        put(&one.key, key.serialize_pem().into())?;
    }
    Ok(())
}
