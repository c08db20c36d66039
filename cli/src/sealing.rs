//! Chooses what opens a share store, from the options.

use std::path::PathBuf;

use clap::Args;
use duet_party::{
    at_rest::{Argon2Cost, KeyError},
    compute::Compute,
    key_encryption::{
        KeyEncryption, KeyEncryptionError, KeyFile, Passphrase, Source, VaultTransit, VaultTransitError,
        VaultTransitOptions,
    },
    vault::UnlockError,
};
use zeroize::Zeroizing;

use crate::{
    config::{SealOptions, VaultOptions},
    error::{CliError, ErrorCode},
    secrets::{self, PassphraseUse},
};

/// The passphrase of a share store.
const PASSPHRASE: secrets::Passphrase = secrets::Passphrase {
    of: "the share store",
    variable: "DUET_PASSPHRASE",
    remedy: "Give --key-file, --key-credential, --passphrase-file or --vault-key, or set DUET_PASSPHRASE.",
};

/// The passphrase that replaces it.
const NEW_PASSPHRASE: secrets::Passphrase = secrets::Passphrase {
    of: "the share store",
    variable: "DUET_NEW_PASSPHRASE",
    remedy: "Give --new-passphrase-file, or set DUET_NEW_PASSPHRASE.",
};

/// What will open a share store after `rewrap`.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub(crate) struct NewSealOptions {
    /// File of 32 random bytes that will open the store; created if it does not exist
    #[arg(long, value_name = "FILE", help_heading = "What is to open the store")]
    new_key_file: Option<PathBuf>,
    /// The same 32 bytes as a credential that systemd hands to the service
    #[arg(long, value_name = "NAME", help_heading = "What is to open the store")]
    new_key_credential: Option<String>,
    /// File with the passphrase that will open the store
    #[arg(long, value_name = "FILE", help_heading = "What is to open the store")]
    new_passphrase_file: Option<PathBuf>,
    /// A passphrase will open the store: from DUET_NEW_PASSPHRASE, or from a prompt
    #[arg(long, help_heading = "What is to open the store")]
    new_passphrase: bool,
    /// Key of HashiCorp Vault's transit engine that will open the store, in the Vault of
    /// --vault-url
    #[arg(long, value_name = "NAME", help_heading = "What is to open the store")]
    new_vault_key: Option<String>,
}

impl SealOptions {
    /// What opens the share store: the source that the options name, else `DUET_PASSPHRASE`, else a
    /// passphrase from a prompt.
    ///
    /// # Errors
    /// When a named source cannot be read, or when there is neither a secret nor a terminal.
    pub(crate) fn source(&self, usage: PassphraseUse) -> Result<Box<dyn KeyEncryption>, CliError> {
        if let Some(file) = &self.key_file {
            return Ok(Box::new(KeyFile::at(file)));
        }
        if let Some(name) = &self.key_credential {
            return credential(name);
        }
        if let Some(key) = &self.vault_key {
            return self.vault.transit(key);
        }
        secrets::passphrase(self.passphrase_file.as_ref(), &PASSPHRASE, usage).map(stretched)
    }
}

impl NewSealOptions {
    /// What will open the share store, if the options name it.
    ///
    /// # Errors
    /// When a named source cannot be read.
    pub(crate) fn source(&self, vault: &VaultOptions) -> Result<Option<Box<dyn KeyEncryption>>, CliError> {
        if let Some(file) = &self.new_key_file {
            return Ok(Some(Box::new(KeyFile::at(file))));
        }
        if let Some(name) = &self.new_key_credential {
            return credential(name).map(Some);
        }
        if let Some(key) = &self.new_vault_key {
            return vault.transit(key).map(Some);
        }
        if self.new_passphrase_file.is_none() && !self.new_passphrase {
            return Ok(None);
        }
        let file = self.new_passphrase_file.as_ref();
        secrets::passphrase(file, &NEW_PASSPHRASE, PassphraseUse::Choose).map(stretched).map(Some)
    }
}

fn credential(name: &str) -> Result<Box<dyn KeyEncryption>, CliError> {
    let found = KeyFile::credential(name).map_err(UnlockError::from)?;
    Ok(Box::new(found))
}

fn stretched(passphrase: Zeroizing<String>) -> Box<dyn KeyEncryption> {
    Box::new(Passphrase::new(passphrase, Argon2Cost::RECOMMENDED, Compute::per_core()))
}

impl VaultOptions {
    fn transit(&self, key: &str) -> Result<Box<dyn KeyEncryption>, CliError> {
        let url = self.vault_url.clone().ok_or_else(|| {
            CliError::usage("no address of Vault is given").remedy("Give --vault-url or set DUET_VAULT_URL.")
        })?;
        let token = secrets::file_or_variable(self.vault_token_file.as_ref(), "DUET_VAULT_TOKEN")?
            .ok_or_else(|| {
                CliError::usage("there is no token for Vault")
                    .remedy("Give --vault-token-file or set DUET_VAULT_TOKEN.")
            })?;
        let authorities = match &self.vault_ca {
            Some(file) => {
                Some(std::fs::read(file).map_err(|error| CliError::io(&file.display().to_string(), &error))?)
            }
            None => None,
        };
        let options = VaultTransitOptions {
            url,
            mount: self.vault_mount.clone(),
            key: key.to_owned(),
            namespace: self.vault_namespace.clone(),
            token,
            authorities,
            patience: self.vault_patience,
        };
        let transit = VaultTransit::new(&options)
            .map_err(|error| UnlockError::from(KeyEncryptionError::from(error)))?;
        Ok(Box::new(transit))
    }
}

/// What the operator can do about a store that does not open.
pub(crate) fn remedy(error: &KeyEncryptionError) -> Option<&'static str> {
    Some(match error {
        KeyEncryptionError::Source { expected: Source::Key, .. } => {
            "Give --key-file or --key-credential with the key that the store was made with."
        }
        KeyEncryptionError::Source { expected: Source::Passphrase, .. } => {
            "Give the store's passphrase (--passphrase-file, DUET_PASSPHRASE), and none of --key-file, --key-credential, --vault-key."
        }
        KeyEncryptionError::Source { expected: Source::Transit, .. } => {
            "Give --vault-url, --vault-key and --vault-token-file."
        }
        KeyEncryptionError::NoCredential { .. } => {
            "Name it in the unit, LoadCredentialEncrypted=NAME:FILE, and have systemd start the program; elsewhere give --key-file."
        }
        KeyEncryptionError::Key(KeyError::File { .. }) => {
            "Name the key file that the store was made with; without it only a backup's own key helps."
        }
        KeyEncryptionError::Transit(VaultTransitError::Unreachable { .. }) => {
            "Check --vault-url and --vault-ca, and that Vault runs."
        }
        KeyEncryptionError::Transit(VaultTransitError::Sealed { .. }) => {
            "Unseal Vault (`vault operator unseal`)."
        }
        KeyEncryptionError::Transit(VaultTransitError::Denied { .. }) => {
            "Check that the token has not expired (`vault token lookup`) and that its policy allows `update` on this path."
        }
        KeyEncryptionError::Transit(VaultTransitError::NoKey { .. }) => {
            "Check --vault-mount and --vault-key. A key that was deleted in Vault is gone: only a backup whose key is elsewhere opens."
        }
        KeyEncryptionError::Transit(VaultTransitError::OtherKey { .. }) => {
            "Give --vault-mount and --vault-key as they were, or change them by `duet party rewrap`."
        }
        KeyEncryptionError::Transit(VaultTransitError::Refused { status: 300..=399, .. }) => {
            "Name Vault's active node, or a load balancer before it, in --vault-url."
        }
        KeyEncryptionError::Transit(VaultTransitError::Refused { .. }) => {
            "Look at the key in Vault: its min_decryption_version may be above the version that encrypted the store's key."
        }
        _ => return None,
    })
}

/// The error code for a store's key that was not decrypted.
pub(crate) const fn code(error: &KeyEncryptionError) -> Option<ErrorCode> {
    Some(match error {
        KeyEncryptionError::Source { .. } => ErrorCode::Shared(duet_wire::Code::WrongPassphrase),
        KeyEncryptionError::NoCredential { .. }
        | KeyEncryptionError::Key(
            KeyError::File { .. } | KeyError::Length(_) | KeyError::Permissions { .. },
        ) => ErrorCode::File,
        KeyEncryptionError::Transit(VaultTransitError::Settings(_)) => ErrorCode::Usage,
        KeyEncryptionError::Transit(error) if error.may_pass() => ErrorCode::VaultUnreachable,
        KeyEncryptionError::Transit(_) => ErrorCode::VaultRefused,
        _ => return None,
    })
}

impl From<UnlockError> for CliError {
    fn from(error: UnlockError) -> Self {
        let (code, remedy) = match &error {
            UnlockError::KeyEncryption(error) => (code(error), remedy(error)),
            _ => (None, None),
        };
        let shown = Self::new(code.unwrap_or(ErrorCode::Shared(error.code())), error.to_string());
        match remedy {
            Some(remedy) => shown.remedy(remedy),
            None => shown,
        }
    }
}
