//! The parties that receive a new wallet's shares, from a file of the owner. It has the form of the
//! configuration of this deployment's page (`config.json`).

use std::{fs, path::Path};

use duet_protocol::{
    admission::AdmissionToken,
    ids::{CardFingerprint, PartyId},
};
use duet_wire::strict_json;
use serde::Deserialize;

use crate::error::CliError;

/// The largest file, in bytes. A larger one is the wrong file.
const MAX_FILE_SIZE_BYTES: usize = 64 * 1024;

/// A party that receives a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedParty {
    /// Its name.
    pub(crate) party: PartyId,
    /// Its card's fingerprint, from the organisation that runs it.
    pub(crate) fingerprint: CardFingerprint,
    /// The admission token for all owners with this configuration, if there is one.
    pub(crate) token: Option<AdmissionToken>,
}

/// The parties that receive the shares 2 and 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parties {
    /// The holder of share 2.
    pub(crate) service: ListedParty,
    /// The holder of share 3.
    pub(crate) partner: ListedParty,
}

/// The file's members that concern parties. The page uses the others.
#[derive(Deserialize)]
struct Document {
    parties: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    role: Role,
    name: String,
    fingerprint: String,
    token: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Service,
    Partner,
}

/// Reads the parties from `file`.
///
/// # Errors
/// When the file cannot be read or a member does not parse. When it names no party, or two, for a
/// role.
pub(crate) fn read(file: &Path) -> Result<Parties, CliError> {
    let text = fs::read(file).map_err(|error| CliError::input(format!("{}: {error}", file.display())))?;
    parse(&text).map_err(|problem| {
        CliError::input(format!("{}: {problem}", file.display())).remedy(
            "It is the page's config.json: `parties` lists role, name and fingerprint of the service and of \
             the partner, and maybe their admission tokens (deploy/README.md).",
        )
    })
}

fn parse(text: &[u8]) -> Result<Parties, String> {
    let document = strict_json::parse(text, MAX_FILE_SIZE_BYTES).map_err(|error| error.to_string())?;
    let Document { parties } = serde_json::from_value(document).map_err(|error| error.to_string())?;
    let of = |role: Role, name: &str| {
        let mut found = parties.iter().enumerate().filter(|(_, entry)| entry.role == role);
        let (at, entry) = found.next().ok_or_else(|| format!("`parties` names no {name}"))?;
        if let Some((other, _)) = found.next() {
            return Err(format!("parties[{other}].role: there is a {name} already"));
        }
        let wrong = |member: &str, why: &dyn std::fmt::Display| format!("parties[{at}].{member}: {why}");
        Ok(ListedParty {
            party: entry.name.parse().map_err(|error| wrong("name", &error))?,
            fingerprint: entry.fingerprint.parse().map_err(|error| wrong("fingerprint", &error))?,
            token: entry
                .token
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(|error| wrong("token", &error))?,
        })
    };
    Ok(Parties { service: of(Role::Service, "service")?, partner: of(Role::Partner, "partner")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(parties: &str) -> Result<Parties, String> {
        parse(format!(r#"{{"gateway": "https://gateway.example", "parties": [{parties}]}}"#).as_bytes())
    }

    #[test]
    fn a_pages_configuration_names_both_parties() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let service = format!(r#"{{"role": "service", "name": "acme", "fingerprint": "{one}"}}"#);
        let partner = format!(r#"{{"role": "partner", "name": "bank", "fingerprint": "{two}"}}"#);
        let read = document(&format!("{partner}, {service}")).unwrap();
        assert_eq!((read.service.party.as_str(), read.partner.party.as_str()), ("acme", "bank"));
        assert_eq!(read.service.fingerprint.to_string(), one);
        for (parties, problem) in [
            (service.clone(), "names no partner"),
            (format!("{service}, {service}, {partner}"), "parties[1].role"),
            (format!("{service}, {}", partner.replace(&two, "2")), "parties[1].fingerprint"),
            (format!("{service}, {}", partner.replace("bank", "Bank")), "parties[1].name"),
            (format!("{service}, {}", partner.replace('}', r#", "token": "x"}"#)), "parties[1].token"),
            (format!("{service}, {}", partner.replace("name", "party")), "party"),
            (format!("{service}, {}", partner.replace("partner", "auditor")), "auditor"),
        ] {
            let refused = document(&parties).unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
    }
}
