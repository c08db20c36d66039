//! Asks processes, the broker and files for what the checks judge. Each question has a deadline,
//! and what is not answered becomes a fact as well.

mod broker;
mod certificates;
mod moment;
mod parties;
mod processes;
mod tenants;

use futures::future::join_all;

use self::moment::{milliseconds, now_ms};
use crate::{
    commands::doctor::{command::DoctorCommand, facts::Facts},
    error::CliError,
};

/// Gathers everything.
///
/// # Errors
/// When the command line names an address that is no URL.
pub(super) async fn all(command: &DoctorCommand) -> Result<Facts, CliError> {
    let patience = command.timeout.0;
    let (urls, others) = (command.orchestrators()?, command.others()?);
    let ((broker, bus), orchestrators, others, certificates) = tokio::join!(
        broker::look(command, patience),
        join_all(urls.iter().map(|url| processes::orchestrator(url, patience))),
        join_all(others.iter().map(|url| processes::other(url, patience))),
        certificates::look(command, &urls, patience),
    );
    let parties = command.parties.iter().map(|party| {
        let connected = broker.connected.as_ref();
        let connected = connected.map(|connected| connected.get(party.as_str()).copied().unwrap_or(0));
        parties::look(&bus, party, connected, patience)
    });
    let (parties, tenants) =
        tokio::join!(join_all(parties), tenants::look(command, &orchestrators, patience));
    if let Ok(bus) = bus {
        bus.drain().await;
    }
    Ok(Facts {
        now_ms: now_ms(),
        stuck_after_ms: milliseconds(command.stuck_after.0),
        broker,
        parties,
        orchestrators,
        others,
        certificates,
        tenants,
    })
}
