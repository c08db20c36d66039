//! `duet wallet backup`, `rehearse` and `restore`: the backup files of this machine's wallets. They
//! are the page's as well.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::Args;
use duet_party::{
    at_rest::{
        age::{DecryptError, WorkFactor},
        backup::{Backup, BackupError, Contents, RestoreError},
        device::DeviceIdentity,
    },
    device::Device,
};
use duet_wire::Code;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    device::{self, DeviceOptions, WalletReport},
    error::{CliError, ErrorCode},
    input,
    output::Output,
    request::WalletName,
    secrets::{self, Passphrase, PassphraseUse},
};

/// The passphrase of a backup file.
const PASSPHRASE: Passphrase = Passphrase {
    of: "the backup file",
    variable: "DUET_BACKUP_PASSPHRASE",
    remedy: "Give --backup-passphrase-file, or set DUET_BACKUP_PASSPHRASE.",
};

/// A new passphrase has at least so many characters, as on the page.
const MIN_PASSPHRASE_CHARACTERS: usize = 10;

#[derive(Debug, Clone, Args)]
struct PassphraseOptions {
    /// File with the passphrase of the backup file (or the passphrase itself in
    /// DUET_BACKUP_PASSPHRASE) [default: a prompt]
    #[arg(long, env = "DUET_BACKUP_PASSPHRASE_FILE", value_name = "FILE")]
    backup_passphrase_file: Option<PathBuf>,
}

impl PassphraseOptions {
    fn read(&self, usage: PassphraseUse) -> Result<Zeroizing<String>, CliError> {
        secrets::passphrase(self.backup_passphrase_file.as_ref(), &PASSPHRASE, usage)
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct BackupArguments {
    /// The wallet [default: the only one]
    wallet: Option<WalletName>,
    /// File to write; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseOptions,
    #[command(flatten)]
    device: DeviceOptions,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct OpenArguments {
    /// The backup file, of this command or of the page
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseOptions,
    #[command(flatten)]
    device: DeviceOptions,
}

impl OpenArguments {
    fn open(&self) -> Result<(DeviceIdentity, u64), CliError> {
        open(&self.file, &self.passphrase.read(PassphraseUse::Enter)?)
    }
}

#[derive(Debug, Serialize)]
struct BackedUp {
    file: PathBuf,
    wallet: WalletReport,
}

impl fmt::Display for BackedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  backup file {}, which was opened again\n  Keep it and its passphrase apart from this machine. Try it with \
             `duet wallet rehearse` from time to time.",
            self.wallet,
            self.file.display()
        )
    }
}

#[derive(Debug, Serialize)]
struct Rehearsed {
    made_at_ms: u64,
    wallet: WalletReport,
}

impl fmt::Display for Rehearsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  the backup file opens and brings this wallet back", self.wallet)
    }
}

#[derive(Debug, Serialize)]
struct Restored {
    made_at_ms: u64,
    wallet: WalletReport,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  It is back, and signs nothing until `duet wallet rotate` ran here.\n  If the lost machine may be in other \
             hands, make a new wallet then and send everything there: the old share still signs.",
            self.wallet
        )
    }
}

/// Writes a wallet's backup file, and opens it again.
pub(super) async fn backup(arguments: BackupArguments, output: Output) -> Result<(), CliError> {
    let device = arguments.device.open().await?;
    let wallet = device::pick(&device, arguments.wallet.as_ref()).await?.id;
    // Before a passphrase is asked for.
    if arguments.out.exists() {
        return Err(secrets::exists_already(&arguments.out));
    }
    let passphrase = arguments.passphrase.read(PassphraseUse::Choose)?;
    if passphrase.chars().count() < MIN_PASSPHRASE_CHARACTERS {
        return Err(CliError::input(format!(
            "the passphrase has less than {MIN_PASSPHRASE_CHARACTERS} characters"
        ))
        .remedy("Choose a longer one: someone who gets the file can try passphrases without limit."));
    }
    let made = device.back_up(wallet).await?.to_file(&passphrase, WorkFactor::RECOMMENDED)?;
    secrets::write_new_file(&arguments.out, &made)?;
    let wallet = device.note_opened_backup(&open(&arguments.out, &passphrase)?.0).await?;
    let wallet = WalletReport::in_full(&device, &wallet).await?;
    output.emit(&BackedUp { file: arguments.out, wallet })
}

/// Opens a backup file of a wallet of this machine, and notes the time.
pub(super) async fn rehearse(arguments: OpenArguments, output: Output) -> Result<(), CliError> {
    let device = arguments.device.open().await?;
    let (part, made_at_ms) = arguments.open()?;
    let wallet = device.note_opened_backup(&part).await?;
    let wallet = WalletReport::in_full(&device, &wallet).await?;
    output.emit(&Rehearsed { made_at_ms, wallet })
}

/// Puts a wallet back from its backup file.
pub(super) async fn restore(arguments: OpenArguments, output: Output) -> Result<(), CliError> {
    // Before a store is made for it.
    let (part, made_at_ms) = arguments.open()?;
    let (device, wallet) = Device::restore(arguments.device.store_or_make().await?, &part).await?;
    let wallet = WalletReport::in_full(&device, &wallet).await?;
    output.emit(&Restored { made_at_ms, wallet })
}

/// The device's part in the backup file `file`, and when the file was made, in milliseconds since
/// 1970.
fn open(file: &Path, passphrase: &str) -> Result<(DeviceIdentity, u64), CliError> {
    let backup = Backup::from_file(passphrase, &input::read_bounded(file)?).map_err(|error| {
        let wrong = matches!(error, RestoreError::Decrypt(DecryptError::WrongPassphrase));
        let code = if wrong { ErrorCode::Shared(Code::WrongPassphrase) } else { ErrorCode::File };
        let refused = CliError::new(code, format!("{}: {error}", file.display()));
        if wrong { refused.remedy("Give the passphrase that was chosen for this file.") } else { refused }
    })?;
    let made_at_ms = backup.made_at_ms();
    match backup.into_contents() {
        Contents::Device(part) => Ok((part, made_at_ms)),
        Contents::Third(_) => Err(CliError::input(format!(
            "{} holds share 3 of a wallet, and a device holds share 1",
            file.display()
        ))),
    }
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        Self::internal(error.to_string())
    }
}
