//! Subjects. This module alone builds them from parsed identifiers and parses them again.

use core::{fmt, str::FromStr};

use duet_protocol::ids::{PartyId, SessionId, TenantId, WalletId};
use duet_wire::{InstanceId, webhook::EndpointId};

/// How every subject begins. The version changes with the wire format.
pub const PREFIX: &str = "duet.v1";

/// Who speaks: the `<from>` token, which the broker fixes per role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Speaker {
    /// The orchestrators.
    Orchestrator,
    /// A gateway in its own name, for its audit records. Everything else it forwards as `device`.
    Gateway,
    /// A party, the device included.
    Party(PartyId),
}

impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orchestrator => f.write_str("orchestrator"),
            Self::Gateway => f.write_str("gateway"),
            Self::Party(party) => party.fmt(f),
        }
    }
}

impl From<PartyId> for Speaker {
    fn from(party: PartyId) -> Self {
        match party.as_str() {
            "orchestrator" => Self::Orchestrator,
            "gateway" => Self::Gateway,
            _ => Self::Party(party),
        }
    }
}

impl From<&PartyId> for Speaker {
    fn from(party: &PartyId) -> Self {
        Self::from(party.clone())
    }
}

/// One concrete subject to publish on: every identifier is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Announces an accepted job of a tenant.
    ///
    /// From orchestrators, into the stream `DUET_JOBS`, a work queue.
    Job(TenantId),
    /// A job that no orchestrator will try again, with its history.
    ///
    /// From orchestrators, into the stream `DUET_DEAD`.
    Dead(TenantId),
    /// An invitation to one free worker of a party.
    ///
    /// A request of an orchestrator to the party's queue group.
    Invite(PartyId),
    /// An invitation to one worker of a party, by what it offered.
    ///
    /// A request of an orchestrator to the worker.
    InviteWorker {
        /// The worker's party.
        party: PartyId,
        /// The worker.
        instance: InstanceId,
    },
    /// How many seats a worker has, and how many of them are free.
    ///
    /// From the worker to every orchestrator, over core NATS, when the number changes and every
    /// second.
    Seats {
        /// The worker's party.
        party: PartyId,
        /// The worker.
        instance: InstanceId,
    },
    /// That an orchestrator has jobs to start, so that it gets a part of the free seats.
    ///
    /// From the orchestrator to every other one, over core NATS, every second.
    AtWork(InstanceId),
    /// Takes a worker's seat back: its session does not take place.
    ///
    /// From an orchestrator to one worker, over core NATS. If it is lost, the worker waits until
    /// its deadline.
    Release {
        /// The worker's party.
        party: PartyId,
        /// The worker.
        instance: InstanceId,
    },
    /// A round message of a session.
    ///
    /// From one side to the other, over core NATS. A lost message costs a retry.
    Round {
        /// The session.
        session: SessionId,
        /// Who sends.
        from: PartyId,
        /// Who receives.
        to: PartyId,
    },
    /// How a session ended for one side.
    ///
    /// A request to the orchestrators' queue group, sent until acknowledged.
    Outcome {
        /// The session.
        session: SessionId,
        /// Who reports.
        from: PartyId,
    },
    /// Progress of a session.
    ///
    /// From either side or an orchestrator, over core NATS. It may be lost.
    Event {
        /// The session.
        session: SessionId,
        /// Who reports.
        from: Speaker,
    },
    /// Share packages, receipts, commits for a party.
    ///
    /// A request of a device to the party's queue group.
    Share(PartyId),
    /// Cards, wallet facts, enrolments, rotation.
    ///
    /// A request to the party's queue group.
    Card {
        /// Who asks.
        from: Speaker,
        /// Who answers.
        to: PartyId,
    },
    /// Jobs waiting for a wallet's owner.
    ///
    /// A request of a device to the orchestrators' queue group.
    Approval(WalletId),
    /// A tenant's signed results.
    ///
    /// From orchestrators, into the stream `DUET_RESULTS`.
    Result(TenantId),
    /// A tenant's jobs that ended without a signature.
    ///
    /// From orchestrators, into the stream `DUET_RESULTS`.
    Ended(TenantId),
    /// The log of a webhook endpoint's deliveries.
    ///
    /// From orchestrators, into the stream `DUET_DELIVERIES`.
    Delivery(EndpointId),
    /// A writer's chained and signed audit records.
    ///
    /// From the writer, into the stream `DUET_AUDIT`.
    Audit(Speaker),
    /// How far a party's audit chain goes.
    ///
    /// From the party, into the stream `DUET_HEADS`, which keeps the newest only.
    Head(PartyId),
    /// Each node's version, clock and storage settings.
    ///
    /// A request of an orchestrator that every node of the broker answers.
    Broker,
    /// Each node's clock, and its counts of connections and messages.
    ///
    /// A request of a party's worker or a gateway that every node of the broker answers.
    Clock,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(tenant) => write!(f, "{PREFIX}.job.{tenant}"),
            Self::Dead(tenant) => write!(f, "{PREFIX}.dead.{tenant}"),
            Self::Invite(party) => write!(f, "{PREFIX}.invite.{party}"),
            Self::InviteWorker { party, instance } => write!(f, "{PREFIX}.invite.{party}.{instance}"),
            Self::Seats { party, instance } => write!(f, "{PREFIX}.seats.{party}.{instance}"),
            Self::AtWork(instance) => write!(f, "{PREFIX}.atwork.{instance}"),
            Self::Release { party, instance } => write!(f, "{PREFIX}.release.{party}.{instance}"),
            Self::Round { session, from, to } => write!(f, "{PREFIX}.round.{session}.{from}.{to}"),
            Self::Outcome { session, from } => write!(f, "{PREFIX}.outcome.{session}.{from}"),
            Self::Event { session, from } => write!(f, "{PREFIX}.event.{session}.{from}"),
            Self::Share(party) => write!(f, "{PREFIX}.share.{party}"),
            Self::Card { from, to } => write!(f, "{PREFIX}.card.{from}.{to}"),
            Self::Approval(wallet) => write!(f, "{PREFIX}.approval.{wallet}"),
            Self::Result(tenant) => write!(f, "{PREFIX}.result.{tenant}"),
            Self::Ended(tenant) => write!(f, "{PREFIX}.ended.{tenant}"),
            Self::Delivery(endpoint) => write!(f, "{PREFIX}.delivery.{endpoint}"),
            Self::Audit(from) => write!(f, "{PREFIX}.audit.{from}"),
            Self::Head(party) => write!(f, "{PREFIX}.head.{party}"),
            Self::Broker => write!(f, "{PREFIX}.broker"),
            Self::Clock => write!(f, "{PREFIX}.clock"),
        }
    }
}

/// The text is not a subject of Duet, or one of its tokens is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not one of Duet's subjects")]
pub struct UnknownSubject(pub String);

impl FromStr for Address {
    type Err = UnknownSubject;
    fn from_str(text: &str) -> Result<Self, UnknownSubject> {
        parse(text).ok_or_else(|| UnknownSubject(text.to_owned()))
    }
}

/// The address `text` spells, if every token parses.
fn parse(text: &str) -> Option<Address> {
    let tokens: Vec<&str> = text.strip_prefix(PREFIX)?.strip_prefix('.')?.split('.').collect();
    Some(match tokens.as_slice() {
        ["job", tenant] => Address::Job(tenant.parse().ok()?),
        ["dead", tenant] => Address::Dead(tenant.parse().ok()?),
        ["invite", party] => Address::Invite(party.parse().ok()?),
        ["invite", party, instance] => {
            Address::InviteWorker { party: party.parse().ok()?, instance: instance.parse().ok()? }
        }
        ["seats", party, instance] => {
            Address::Seats { party: party.parse().ok()?, instance: instance.parse().ok()? }
        }
        ["atwork", instance] => Address::AtWork(instance.parse().ok()?),
        ["release", party, instance] => {
            Address::Release { party: party.parse().ok()?, instance: instance.parse().ok()? }
        }
        ["round", session, from, to] => {
            Address::Round { session: session.parse().ok()?, from: from.parse().ok()?, to: to.parse().ok()? }
        }
        ["outcome", session, from] => {
            Address::Outcome { session: session.parse().ok()?, from: from.parse().ok()? }
        }
        ["event", session, from] => Address::Event { session: session.parse().ok()?, from: speaker(from)? },
        ["share", party] => Address::Share(party.parse().ok()?),
        ["card", from, to] => Address::Card { from: speaker(from)?, to: to.parse().ok()? },
        ["approval", wallet] => Address::Approval(wallet.parse().ok()?),
        ["result", tenant] => Address::Result(tenant.parse().ok()?),
        ["ended", tenant] => Address::Ended(tenant.parse().ok()?),
        ["delivery", endpoint] => Address::Delivery(endpoint.parse().ok()?),
        ["audit", from] => Address::Audit(speaker(from)?),
        ["head", party] => Address::Head(party.parse().ok()?),
        ["broker"] => Address::Broker,
        ["clock"] => Address::Clock,
        _ => return None,
    })
}

fn speaker(token: &str) -> Option<Speaker> {
    token.parse::<PartyId>().ok().map(Speaker::from)
}

/// What a subscription listens to: a subject, possibly with wildcards, and an optional queue group.
/// Within a queue group each message goes to one member only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    subject: String,
    queue: Option<String>,
}

/// The queue group of the orchestrators.
const ORCHESTRATORS: &str = "orchestrator";

impl Filter {
    /// The subject with its wildcards.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The queue group, when there is one.
    #[must_use]
    pub fn queue(&self) -> Option<&str> {
        self.queue.as_deref()
    }

    fn plain(subject: String) -> Self {
        Self { subject, queue: None }
    }

    fn queued(subject: String, queue: &str) -> Self {
        Self { subject, queue: Some(queue.to_owned()) }
    }

    /// A party's invitations, each to one worker.
    #[must_use]
    pub fn invites(party: &PartyId) -> Self {
        Self::queued(Address::Invite(party.clone()).to_string(), party.as_str())
    }

    /// One worker's invitations. The group is that of [`Self::invites`]. Outside of it the broker
    /// lets no subscriber see them.
    #[must_use]
    pub fn invites_to(party: &PartyId, instance: &InstanceId) -> Self {
        let address = Address::InviteWorker { party: party.clone(), instance: instance.clone() };
        Self::queued(address.to_string(), party.as_str())
    }

    /// The offers of every party's workers.
    #[must_use]
    pub fn seats() -> Self {
        Self::plain(format!("{PREFIX}.seats.*.*"))
    }

    /// The orchestrators that have jobs to start.
    #[must_use]
    pub fn at_work() -> Self {
        Self::plain(format!("{PREFIX}.atwork.*"))
    }

    /// The releases of one worker's seats.
    #[must_use]
    pub fn releases(party: &PartyId, instance: &InstanceId) -> Self {
        Self::plain(Address::Release { party: party.clone(), instance: instance.clone() }.to_string())
    }

    /// The messages that `from` sends to `to` in one session.
    #[must_use]
    pub fn rounds(session: SessionId, from: &PartyId, to: &PartyId) -> Self {
        Self::plain(Address::Round { session, from: from.clone(), to: to.clone() }.to_string())
    }

    /// The outcomes of every session, each to one orchestrator.
    #[must_use]
    pub fn outcomes() -> Self {
        Self::queued(format!("{PREFIX}.outcome.*.*"), ORCHESTRATORS)
    }

    /// The progress of one session, from every speaker.
    #[must_use]
    pub fn events_of(session: SessionId) -> Self {
        Self::plain(format!("{PREFIX}.event.{session}.*"))
    }

    /// The progress of every session.
    #[must_use]
    pub fn events() -> Self {
        Self::plain(format!("{PREFIX}.event.*.*"))
    }

    /// Share packages for a party, each to one worker.
    #[must_use]
    pub fn shares(party: &PartyId) -> Self {
        Self::queued(Address::Share(party.clone()).to_string(), party.as_str())
    }

    /// Card requests to a party from any speaker, each to one worker.
    #[must_use]
    pub fn cards(to: &PartyId) -> Self {
        Self::queued(format!("{PREFIX}.card.*.{to}"), to.as_str())
    }

    /// Approval requests for every wallet, each to one orchestrator.
    #[must_use]
    pub fn approvals() -> Self {
        Self::queued(format!("{PREFIX}.approval.*"), ORCHESTRATORS)
    }

    /// A tenant's results as they are published. The HTTP API has the earlier ones.
    #[must_use]
    pub fn results(tenant: &TenantId) -> Self {
        Self::plain(Address::Result(tenant.clone()).to_string())
    }

    /// Every writer's audit records as they are published.
    #[must_use]
    pub fn audits() -> Self {
        Self::plain(format!("{PREFIX}.audit.*"))
    }
}

#[cfg(test)]
mod tests {
    use duet_test_docs::{Item, Variant, table};

    use super::*;
    use crate::streams::{AUDIT, DEAD, DELIVERIES, HEADS, JOBS, RESULTS};

    fn party(name: &str) -> PartyId {
        name.parse().unwrap()
    }

    /// Every kind of address.
    fn addresses() -> Vec<Address> {
        let session = SessionId([0xab; 16]);
        let tenant: TenantId = "demo".parse().unwrap();
        vec![
            Address::Job(tenant.clone()),
            Address::Dead(tenant.clone()),
            Address::Invite(party("service")),
            Address::InviteWorker { party: party("service"), instance: "01JX".parse().unwrap() },
            Address::Seats { party: party("service"), instance: "01JX".parse().unwrap() },
            Address::AtWork("01JX".parse().unwrap()),
            Address::Release { party: party("service"), instance: "01JX".parse().unwrap() },
            Address::Round { session, from: party("device"), to: party("service") },
            Address::Outcome { session, from: party("partner") },
            Address::Event { session, from: Speaker::Orchestrator },
            Address::Share(party("partner")),
            Address::Card { from: Speaker::Orchestrator, to: party("service") },
            Address::Card { from: party("service").into(), to: party("partner") },
            Address::Approval(WalletId([1; 32])),
            Address::Result(tenant.clone()),
            Address::Ended(tenant),
            Address::Delivery(EndpointId([2; 16])),
            Address::Audit(Speaker::Gateway),
            Address::Head(party("service")),
            Address::Broker,
            Address::Clock,
        ]
    }

    #[test]
    fn every_address_round_trips() {
        for address in addresses() {
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn the_table_of_subjects_is_that_of_the_code() {
        let streams = [JOBS, DEAD, RESULTS, AUDIT, HEADS, DELIVERIES];
        let placeholder = |kind: &str| match kind {
            "TenantId" => "tenant",
            "PartyId" => "party",
            "WalletId" => "wallet",
            "EndpointId" => "endpoint",
            "InstanceId" => "instance",
            "Speaker" => "from",
            _ => panic!("no name for a token of the type {kind}"),
        };
        let row = |variant: &Variant| {
            let is_it =
                |address: &&Address| format!("{address:?}").split([' ', '(']).next() == Some(&variant.name);
            let address = addresses().iter().find(is_it).unwrap().to_string();
            let tokens: Vec<&str> = match &variant.wraps {
                Some(kind) => vec![placeholder(kind)],
                None => variant.fields.iter().map(|field| &*field.name).collect(),
            };
            let name = address.split('.').nth(2).unwrap();
            let subject =
                tokens.iter().fold(format!("{PREFIX}.{name}"), |text, token| format!("{text}.<{token}>"));
            assert_eq!(subject.split('.').count(), address.split('.').count(), "{address}");
            let [meaning, carried] = &variant.paragraphs[..] else { panic!("two paragraphs: {variant:?}") };
            for stream in carried.split('`').filter(|name| name.starts_with("DUET_")) {
                assert!(streams.contains(&stream), "{stream}");
            }
            [format!("`{subject}`"), meaning.clone(), carried.clone()]
        };
        let variants = Item::read(include_str!("subjects.rs"), "enum Address").unwrap().variants;
        let table = table(["subject", "what", "how it travels"], variants.iter().map(row));
        duet_test_docs::part("docs/subjects.md", "subjects", &table).unwrap();
    }

    #[test]
    fn subjects_are_spelt_as_nats_conf_expects() {
        let session = SessionId([0xab; 16]);
        assert_eq!(
            Address::Round { session, from: party("device"), to: party("service") }.to_string(),
            "duet.v1.round.abababababababababababababababab.device.service",
        );
        assert_eq!(Filter::invites(&party("service")).queue(), Some("service"));
        assert_eq!(Filter::cards(&party("service")).subject(), "duet.v1.card.*.service");
    }

    #[test]
    fn what_is_no_subject_of_ours_is_refused() {
        for text in [
            "",
            "duet.v1",
            "duet.v1.",
            "duet.v2.job.demo",
            "duet.v1.job",
            "duet.v1.job.*",
            "duet.v1.job.demo.more",
            "duet.v1.round.00.device.service",
            "duet.v1.release.service.*",
            "duet.v1.event.abababababababababababababababab.>",
            "duet.v1.unknown.demo",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
