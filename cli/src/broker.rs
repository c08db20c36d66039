//! Connects to the broker with the settings of the command line.

use std::time::Duration;

use duet_bus::{Bus, ConnectError, ConnectSettings, NkeySeed, Role};
use duet_credentials::Layout;
use duet_protocol::ids::PartyId;
use duet_wire::Code;

use crate::{
    commands::init::read_error,
    config::{BrokerOptions, CredentialsOptions},
    error::CliError,
    secrets,
};

/// How long a server tries to reach the broker: in effect, for ever.
pub(crate) const SERVER_PATIENCE: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long other commands try to reach the broker.
pub(crate) const COMMAND_PATIENCE: Duration = Duration::from_secs(15);

/// Connects as `role`. While the broker cannot be reached, it tries again until `patience` is over.
///
/// # Errors
/// When a credential is missing, or when the broker refuses it or cannot be reached.
pub(crate) async fn connect(
    options: &BrokerOptions,
    credentials: &CredentialsOptions,
    role: Role,
    patience: Duration,
) -> Result<Bus, CliError> {
    Bus::connect(settings(options, credentials, role, patience)?).await.map_err(|error| connect_error(&error))
}

/// The settings of a connection as `role`.
///
/// # Errors
/// When a credential is missing or malformed.
pub(crate) fn settings(
    options: &BrokerOptions,
    credentials: &CredentialsOptions,
    role: Role,
    patience: Duration,
) -> Result<ConnectSettings, CliError> {
    let layout = credentials.credentials.as_deref().map(Layout::new);
    let seed: NkeySeed = match (&options.nats_nkey, &layout) {
        (Some(file), _) => secrets::read_secret_file(file)?.in_use().parse().map_err(|error| {
            CliError::input(format!("{} does not hold an nkey seed: {error}", file.display()))
        })?,
        (None, Some(layout)) => layout.read_seed(role).map_err(read_error)?,
        (None, None) => {
            return Err(CliError::usage(format!("no credential for the broker is given (role {role})"))
                .remedy("Give --credentials DIR (made by `duet init`) or --nats-nkey FILE."));
        }
    };
    let ca_file = options
        .nats_ca
        .clone()
        .or_else(|| layout.map(|layout| layout.ca_certificate()).filter(|file| file.exists()));
    Ok(ConnectSettings {
        urls: options.nats_url.split(',').map(|url| url.trim().to_owned()).collect(),
        role,
        seed,
        ca_file,
        name: None,
        patience,
    })
}

/// Why the connection failed, and what the operator should check.
pub(crate) fn connect_error(error: &ConnectError) -> CliError {
    let message = error.to_string();
    match error {
        ConnectError::Unreachable { .. } => CliError::new(Code::BrokerUnreachable, message),
        ConnectError::Refused { .. } => CliError::new(Code::Unauthorized, message)
            .remedy("Check --nats-nkey: the broker knows other keys."),
        ConnectError::Tls { .. } => CliError::new(Code::BrokerUnreachable, message).remedy(
            "Check --nats-ca: the broker's certificate comes from another authority, or names another host.",
        ),
        ConnectError::Url { .. } => CliError::usage(message),
    }
}

/// The broker's user for a party.
pub(crate) fn role_of(party: &PartyId) -> Result<Role, CliError> {
    party
        .as_str()
        .parse()
        .map_err(|error| CliError::usage(format!("the broker has no user with the party's name: {error}")))
}
