//! `duet party accept-culprit` and `duet wallet accept-culprit`: permit signing with a responder
//! again after a bad signature.

use std::fmt;

use duet_party::{Context, culprits};
use duet_protocol::ids::CardFingerprint;
use serde::Serialize;

use crate::{error::CliError, output::Output};

/// What locked keys may have cost a wallet.
#[derive(Debug, Serialize)]
pub(crate) struct LossReport {
    wallet: String,
    failures: u32,
    max_bits_lost: u32,
    move_funds: bool,
}

impl From<culprits::Loss> for LossReport {
    fn from(loss: culprits::Loss) -> Self {
        Self {
            wallet: loss.wallet.to_string(),
            failures: loss.failures,
            max_bits_lost: loss.max_bits,
            move_funds: loss.should_move_funds(),
        }
    }
}

impl fmt::Display for LossReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wallet, failures, max_bits_lost, move_funds } = self;
        write!(
            f,
            "wallet {wallet}: {failures} locked keys in its life, {max_bits_lost} bits of it lost at most"
        )?;
        if *move_funds {
            write!(f, "; move its funds to a new wallet")?;
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct AcceptedCulprit {
    card: CardFingerprint,
    locks: u32,
    accepted: bool,
    wallets: Vec<LossReport>,
}

impl fmt::Display for AcceptedCulprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "goes on with card {}; its next bad signature is final", self.card)?;
        for wallet in &self.wallets {
            write!(f, "\n{wallet}")?;
        }
        Ok(())
    }
}

/// Records the acceptance, and reports what the locks may have cost.
///
/// # Errors
/// When the card locked no key, or more than one.
pub(crate) async fn accept(context: &Context, card: CardFingerprint, output: Output) -> Result<(), CliError> {
    let accepted = culprits::accept(context, card).await?;
    output.emit(&AcceptedCulprit {
        card,
        locks: accepted.standing.locks,
        accepted: accepted.standing.is_accepted,
        wallets: accepted.losses.into_iter().map(LossReport::from).collect(),
    })
}
