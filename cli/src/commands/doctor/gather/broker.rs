//! The broker, as its operator and as an orchestrator see it.

use std::time::Duration;

use duet_bus::{
    Bus, ConnectError, Role,
    inspect::{InspectError, StreamReport},
};

use crate::{
    broker,
    commands::doctor::{
        command::DoctorCommand,
        facts::{BrokerFacts, NoConnection, Told, Unasked},
    },
    config::BrokerOptions,
};

/// The name of the doctor's connections, so that they are not taken for a process's.
const NAME: &str = "doctor";

/// Looks at the broker. Also returns the connection as an orchestrator, for questions to parties.
pub(super) async fn look(command: &DoctorCommand, patience: Duration) -> (BrokerFacts, Told<Bus>) {
    let operators = BrokerOptions { nats_nkey: command.sys_nkey.clone(), ..command.broker.clone() };
    let (bus, operator) = tokio::join!(
        connect(command, &command.broker, Role::Orchestrator, patience),
        connect(command, &operators, Role::Sys, patience),
    );
    let connection = match &bus {
        Ok(Ok(_)) => Ok(Ok(())),
        Ok(Err(why)) => Ok(Err(why.clone())),
        Err(why) => Err(why.clone()),
    };
    let bus = connected(bus);
    let streams = match &bus {
        Ok(bus) => streams(bus, patience).await,
        Err(why) => Err(why.clone()),
    };
    let operator = connected(operator);
    let (nodes, connected) = match &operator {
        Ok(bus) => {
            let nodes = bus.nodes(patience).await.map_err(|error| unanswered(&error));
            let connected = bus.connected(nodes.iter().flatten().count(), patience).await.ok();
            (nodes, connected)
        }
        Err(why) => (Err(why.clone()), None),
    };
    if let Ok(bus) = operator {
        bus.drain().await;
    }
    (BrokerFacts { connection, nodes, connected, streams }, bus)
}

/// Connects as `role`. The outer error is that no credential is given.
async fn connect(
    command: &DoctorCommand,
    options: &BrokerOptions,
    role: Role,
    patience: Duration,
) -> Told<Result<Bus, NoConnection>> {
    let mut settings = broker::settings(options, &command.credentials, role, patience).map_err(|error| {
        let option = if role == Role::Sys { "--sys-nkey" } else { "--nats-nkey" };
        Unasked {
            why: error.to_string(),
            remedy: format!("Give --credentials DIR with nkeys/{role}.nk, or {option} FILE."),
        }
    })?;
    settings.name = Some(NAME.to_owned());
    Ok(Bus::connect(settings).await.map_err(|error| {
        let message = error.to_string();
        match error {
            ConnectError::Unreachable { .. } | ConnectError::Url { .. } => NoConnection::Unreachable(message),
            ConnectError::Refused { .. } => NoConnection::Refused(message),
            ConnectError::Tls { .. } => NoConnection::Untrusted(message),
        }
    }))
}

/// The connection, or why nothing can be asked over it.
fn connected(connection: Told<Result<Bus, NoConnection>>) -> Told<Bus> {
    connection?.map_err(|error| {
        let (NoConnection::Unreachable(why) | NoConnection::Refused(why) | NoConnection::Untrusted(why)) =
            error;
        Unasked { why, remedy: "Mend what the check `broker` names.".to_owned() }
    })
}

async fn streams(bus: &Bus, patience: Duration) -> Told<Vec<(String, Option<StreamReport>)>> {
    let mut reports = Vec::new();
    for name in duet_orchestrator::stream_names() {
        let report = bus.stream_report(&name, patience).await.map_err(|error| unanswered(&error))?;
        reports.push((name, report));
    }
    Ok(reports)
}

fn unanswered(error: &InspectError) -> Unasked {
    Unasked {
        why: error.to_string(),
        remedy: "If the broker's nodes have no leader, mend that first. Otherwise compare its users and permissions \
                 with deploy/nats/broker.conf."
            .to_owned(),
    }
}
