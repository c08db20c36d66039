//! The broker's clock, and how far this machine's is from it.
//!
//! `now` is this machine's steady clock plus its distance to the broker's clock: the middle of the
//! shortest of the last eight round trips. Before the first answer, the machine's own clock counts.
//!
//! A process whose machine is more than a second off says so in its log, and one that is more than
//! five seconds off is not ready. Orchestrators read the clock when they ask the nodes for their
//! settings ([`BrokerClock::learn`]). Parties and gateways follow it ([`BrokerClock::follow`]).

use core::time::Duration;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use duet_wire::{Code, Refusal, validity};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
    registry::{Registry, Unit},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

mod readings;

pub use readings::Apart;

use crate::{
    connect::Bus,
    event::connection_changed,
    gather::{self, Answer},
    inspect::NodeClock,
};
use readings::{Reading, Readings};

/// A machine's clock that differs by more is worth a line in the log, in milliseconds.
const NOTED_MS: u64 = 1_000;

/// A process on a machine whose clock differs by more is not ready, in milliseconds.
const WRONG_MS: u64 = 5_000;

/// How often parties and gateways ask the broker for its time.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// How long the first answer may take.
const FIRST_ANSWER: Duration = Duration::from_millis(1500);

/// How this machine's clock stands to the broker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Standing {
    #[default]
    Right,
    Noted,
    Wrong,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    readings: Mutex<Readings>,
    /// What was last logged.
    logged: Mutex<Standing>,
}

/// The broker's time. Cheap to clone; clones share what they know.
#[derive(Debug, Clone)]
pub struct BrokerClock(Arc<Inner>);

impl Default for BrokerClock {
    /// The machine's own clock, until [`Self::learn`] is told of the broker's.
    fn default() -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            readings: Mutex::default(),
            logged: Mutex::default(),
        }))
    }
}

impl BrokerClock {
    fn readings(&self) -> MutexGuard<'_, Readings> {
        self.0.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moment by this machine's steady clock, in milliseconds since this clock was made.
    fn steady_ms(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.0.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The broker's time in milliseconds since 1970. `None` until the broker has told it.
    fn broker_ms(&self) -> Option<u64> {
        let offset_ms = self.readings().offset_ms()?;
        Some(self.steady_ms(Instant::now()).saturating_add_signed(offset_ms))
    }

    /// The broker's time in milliseconds since 1970, or this machine's while the broker has told
    /// none.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.broker_ms().unwrap_or_else(machine_ms)
    }

    /// How far the broker's clock is ahead of this machine's, in milliseconds. `None` until the
    /// broker has told its time.
    #[must_use]
    pub fn ahead_ms(&self) -> Option<i64> {
        self.broker_ms().map(|broker_ms| difference_ms(broker_ms, machine_ms()))
    }

    /// Two nodes of the broker whose clocks differ, if any do.
    #[must_use]
    pub fn apart(&self) -> Option<Apart> {
        self.readings().apart().cloned()
    }

    /// How this machine's clock stands, which it shows, and which the broker's does.
    fn standing(&self) -> (Standing, u64, u64) {
        let machine_ms = machine_ms();
        let broker_ms = self.broker_ms().unwrap_or(machine_ms);
        // What the shortest round trip hides is no fault of this machine.
        let hidden_ms = self.readings().within_ms();
        let differs_by_ms = machine_ms.abs_diff(broker_ms).saturating_sub(hidden_ms);
        let standing = if differs_by_ms > WRONG_MS {
            Standing::Wrong
        } else if differs_by_ms > NOTED_MS {
            Standing::Noted
        } else {
            Standing::Right
        };
        (standing, machine_ms, broker_ms)
    }

    /// That this machine's clock is not far off the broker's.
    ///
    /// # Errors
    /// `clock-differs`, with both times and the difference.
    pub fn require_right_machine(&self) -> Result<(), Refusal> {
        match self.standing() {
            (Standing::Right | Standing::Noted, ..) => Ok(()),
            (Standing::Wrong, machine_ms, broker_ms) => {
                Err(Refusal::new(Code::ClockDiffers, differ(machine_ms, broker_ms)))
            }
        }
    }

    /// Notes what the broker's nodes told of their clocks when they were asked together. Logs how
    /// this machine's clock stands, when that has changed.
    pub fn learn(&self, clocks: &[Answer<NodeClock>]) {
        let expected = clocks.iter().map(|answer| answer.value.nodes).max().unwrap_or_default();
        let round: Vec<Reading> = clocks
            .iter()
            .map(|answer| {
                let (sent_ms, received_ms) =
                    (self.steady_ms(answer.sent_at), self.steady_ms(answer.received_at));
                Reading::taken(&answer.value.node, answer.value.now_ms, sent_ms, received_ms)
            })
            .collect();
        self.readings().note(round, expected);
        self.log();
    }

    fn log(&self) {
        let (standing, machine_ms, broker_ms) = self.standing();
        let mut logged = self.0.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if *logged == standing {
            return;
        }
        *logged = standing;
        let differ = differ(machine_ms, broker_ms);
        match standing {
            Standing::Right => tracing::info!("this machine's clock agrees with the broker's"),
            Standing::Noted => tracing::warn!("clocks differ: {differ}"),
            Standing::Wrong => tracing::error!("clocks differ: {differ}; this process is not ready"),
        }
    }

    /// A clock that follows the broker's as a party or a gateway may: it asks at once, on each new
    /// connection, and every half minute, until the handle is dropped. Waits for the first answer,
    /// two and a half seconds at most.
    ///
    /// A broker whose configuration does not let this role ask tells no time, which is logged once.
    pub async fn follow(bus: &Bus) -> (Self, AbortOnDropHandle<()>) {
        let (clock, bus) = (Self::default(), bus.clone());
        let mut events = bus.events();
        let mut is_told = clock.ask(&bus, true).await;
        let following = {
            let clock = clock.clone();
            async move {
                loop {
                    timeout(ASK_EVERY, connection_changed(&mut events)).await.ok();
                    is_told = clock.ask(&bus, is_told).await;
                }
            }
        };
        (clock, AbortOnDropHandle::new(tokio::spawn(following)))
    }

    /// Asks the nodes once. Logs if they tell no time and `was_told` is true. Returns whether they
    /// tell it, as far as this is known.
    async fn ask(&self, bus: &Bus, was_told: bool) -> bool {
        let reason = match bus.clocks(FIRST_ANSWER).await {
            Ok(clocks) if !clocks.is_empty() => {
                self.learn(&clocks);
                return true;
            }
            // The next connection may be to another server. Its loss is logged.
            Err(_) if !bus.is_connected() => return was_told,
            Ok(_) => "no node's answer is understood".to_owned(),
            Err(error) => error.to_string(),
        };
        if was_told {
            tracing::warn!(
                %reason,
                "the broker does not tell this process its time, so nothing here notices a wrong clock; load \
                 this version's broker.conf"
            );
        }
        false
    }

    /// Registers how far the broker's clock is ahead of this machine's. Nothing is shown until the
    /// broker has told its time.
    pub fn register_metrics(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Skew(self.clone())));
    }
}

/// Reads the difference when the metrics are read.
#[derive(Debug)]
struct Skew(BrokerClock);

impl Collector for Skew {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), core::fmt::Error> {
        let Some(ahead_ms) = self.0.ahead_ms() else { return Ok(()) };
        let skew = ConstGauge::new(ahead_ms as f64 / 1000.0);
        let help = "how far the clock of the `broker` is ahead of this machine's (negative: behind); missing \
             while the broker tells no time. Watch for: more than 5 or less than −5: set this machine's \
             clock";
        let kind = skew.metric_type();
        let mut metric = encoder.encode_descriptor("duet_clock_skew", help, Some(&Unit::Seconds), kind)?;
        skew.encode(metric.encode_family(&[("against", "broker")])?)
    }
}

/// What this machine's own clock shows, in milliseconds since 1970; 0 if it is set before 1970.
#[must_use]
pub fn machine_ms() -> u64 {
    gather::now_ms()
}

/// How far `theirs_ms` is ahead of `ours_ms`, in milliseconds.
fn difference_ms(theirs_ms: u64, ours_ms: u64) -> i64 {
    i64::try_from(i128::from(theirs_ms) - i128::from(ours_ms)).unwrap_or_default()
}

/// Says that this machine's clock differs from the broker's, with both times.
fn differ(machine_ms: u64, broker_ms: u64) -> String {
    let relation = validity::relation(machine_ms, broker_ms);
    let (shows, is) = (written(machine_ms), written(broker_ms));
    format!(
        "this machine's clock is {relation} the broker's, which times the jobs: it shows {shows}, the \
         broker's {is}; set this machine's clock"
    )
}

/// A moment in milliseconds since 1970, as RFC 3339 writes it, in UTC.
fn written(moment_ms: u64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(moment_ms) * 1_000_000).ok();
    let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{moment_ms} ms since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of a node alone, whose clock is so far ahead of this machine's.
    fn told(ahead_ms: i64) -> [Answer<NodeClock>; 1] {
        let now_ms = machine_ms().saturating_add_signed(ahead_ms);
        let at = Instant::now();
        let value = NodeClock { node: "n1".to_owned(), now_ms, nodes: 1 };
        [Answer { value, sent_ms: 0, received_ms: 0, sent_at: at, received_at: at }]
    }

    fn shown(clock: &BrokerClock) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        clock.register_metrics(&mut registry);
        prometheus_client::encoding::prometheus_text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn the_broker_tells_the_time_and_not_this_machine() {
        let clock = BrokerClock::default();
        assert_eq!(clock.ahead_ms(), None);
        assert!(
            clock.now_ms() >= machine_ms() - 1_000,
            "before the first answer, this machine's clock counts"
        );
        assert!(!shown(&clock).contains("duet_clock_skew"));
        clock.learn(&told(-300_000));
        assert!(clock.now_ms() < machine_ms() - 299_000);
        let refusal = clock.require_right_machine().unwrap_err();
        assert_eq!(refusal.code, Code::ClockDiffers);
        assert!(refusal.message.contains("this machine's clock is 5 min ahead of the broker's"), "{refusal}");
        clock.learn(&told(3_000));
        assert_eq!(clock.require_right_machine(), Ok(()), "worth a line in the log and no more");
        assert_eq!(clock.standing().0, Standing::Noted);
        assert!(shown(&clock).contains("duet_clock_skew_seconds{against=\"broker\"} "), "{}", shown(&clock));
    }

    #[test]
    fn both_times_are_named() {
        let said = differ(1_796_047_628_798, 1_796_047_622_798);
        assert!(said.starts_with("this machine's clock is 6 s ahead of the broker's"), "{said}");
        assert!(
            said.contains("it shows 2026-11-30T14:07:08.798Z, the broker's 2026-11-30T14:07:02.798Z"),
            "{said}"
        );
        assert_eq!([difference_ms(5, 2), difference_ms(2, 5)], [3, -3]);
    }
}
