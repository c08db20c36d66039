//! `duet party init`: sets up a party.

use std::fmt;

use clap::{Args, ValueEnum};
use duet_party::{Party, SetUpProgress};
use duet_protocol::{
    ids::{CardFingerprint, PartyId, ShareIndex},
    paillier::ModulusSize,
};
use serde::Serialize;

use crate::{
    config::StoreOptions, error::CliError, output::Output, progress, secrets::PassphraseUse,
    share_store::OpenStore, store_location::StoreLocation,
};

/// A modulus's size in bits.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModulusBits {
    #[value(name = "2048")]
    Bits2048,
    #[value(name = "3072")]
    Bits3072,
}

impl From<ModulusBits> for ModulusSize {
    fn from(bits: ModulusBits) -> Self {
        match bits {
            ModulusBits::Bits2048 => Self::Bits2048,
            ModulusBits::Bits3072 => Self::Bits3072,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct InitArguments {
    /// The party's name: `service` holds share 2, `partner` share 3, others state their share
    #[arg(long, env = "DUET_PARTY", value_name = "NAME")]
    party: PartyId,
    /// The share that it will hold [default: by its name]
    #[arg(long, value_name = "2|3", value_parser = clap::value_parser!(u8).range(2..=3))]
    share: Option<u8>,
    /// The size of the modulus of its proof parameters
    #[arg(long, value_name = "BITS", default_value = "2048")]
    modulus_bits: ModulusBits,
    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Debug, Serialize)]
struct SetUp {
    party: PartyId,
    share: u8,
    fingerprint: CardFingerprint,
    store: StoreLocation,
    key_file_created: bool,
}

impl fmt::Display for SetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} holds share {} of its wallets, in {}\nits card's fingerprint, for others to pin: {}",
            self.party, self.share, self.store, self.fingerprint
        )
    }
}

/// The share that a party of this name holds by default.
fn share_of(party: &PartyId) -> Option<ShareIndex> {
    match party.as_str() {
        "service" => Some(ShareIndex::Service),
        "partner" => Some(ShareIndex::Partner),
        _ => None,
    }
}

pub(super) async fn init(arguments: InitArguments, output: Output) -> Result<(), CliError> {
    let share = match arguments.share {
        Some(2) => ShareIndex::Service,
        Some(_) => ShareIndex::Partner,
        None => share_of(&arguments.party).ok_or_else(|| {
            CliError::usage(format!("a party named {} may hold share 2 or share 3", arguments.party))
                .remedy("Give --share 2 or --share 3.")
        })?,
    };
    let source = arguments.store.seal.source(PassphraseUse::Choose)?;
    let key_file_created = arguments.store.seal.key_file.as_ref().is_some_and(|file| !file.exists());
    let store = OpenStore::create(&arguments.store, source.as_ref()).await?;
    // Each of the two primes takes some 1,700 candidates. The number varies, so the bar may exceed
    // it.
    let bar = progress::bar(output, 2 * 1700, "safe primes");
    let shown = bar.clone();
    let on_progress = move |step| match step {
        SetUpProgress::Primes { candidates } => {
            let (position, length) = (shown.position(), shown.length().unwrap_or(0));
            // Candidates are counted per prime: the count falls when the search for the second
            // prime begins.
            let candidates = u64::from(candidates);
            let position = if candidates >= position { candidates } else { position + 1 };
            shown.set_position(position.min(length.saturating_sub(1)));
        }
        SetUpProgress::Proof => shown.set_message("proof"),
        SetUpProgress::Store => shown.set_message("storing"),
    };
    let party =
        Party::set_up(store.context, arguments.party, share, arguments.modulus_bits.into(), on_progress)
            .await?;
    bar.finish_and_clear();
    output.emit(&SetUp {
        party: party.id().clone(),
        share: share.into(),
        fingerprint: party.card().fingerprint(),
        store: arguments.store.place.store,
        key_file_created,
    })
}
