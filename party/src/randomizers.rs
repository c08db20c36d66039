//! `r̃^N mod N²` for answers: computed while messages 2 and 3 travel, or chosen from a table.
//!
//! This is most of a responder's work. A randomizer belongs to one session and depends on its
//! message 1. None is prepared in advance, because a copy of this process's memory would use it a
//! second time.
//!
//! For a frequently used key the worker builds a table ([`RandomizerTable`]), from which each
//! randomizer costs a fifth. Nothing of it is ever stored.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use duet_protocol::{
    enrolment::VerifiedEnrolment,
    ids::PaillierKeyId,
    paillier::EncryptionKey,
    randomizer::{OneTimeRandomizer, RandomizerTable, RandomizerTableBuilder, SessionRandomizer},
    responder::AwaitingOpening,
};
use lru::LruCache;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::compute::{Abandoned, Compute, system_rng};

/// The most keys whose use is tracked. A service's partner sees one key for each tenant.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// How long a table must be unused before it gives way to a table of another key.
const IDLE_TABLE: Duration = Duration::from_secs(600);

/// Decides which keys get tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomizerSettings {
    /// The most tables at a time. Each takes 5 MB, and once some 90 s of a core. Default 4; 0 turns
    /// tables off.
    pub tables: usize,
    /// The number of answers under a key, since the worker started, before its table is built.
    /// Default 1,000.
    pub table_after: u64,
}

impl Default for RandomizerSettings {
    fn default() -> Self {
        Self { tables: 4, table_after: 1_000 }
    }
}

/// The tables, and the bound on randomizers computed before message 3. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Randomizers {
    pools: Arc<Mutex<LruCache<PaillierKeyId, Pool>>>,
    settings: RandomizerSettings,
    /// Message 1 may be a replay, so work for it alone is bounded: one computation for each core.
    early: Arc<Semaphore>,
    taken: Family<SourceLabel, Counter>,
}

/// The source of a randomizer, as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Debug)]
struct Pool {
    table: Table,
    answered: u64,
    last: Instant,
}

#[derive(Debug, Default)]
enum Table {
    #[default]
    None,
    Building,
    Built(Arc<RandomizerTable>),
}

impl Default for Pool {
    fn default() -> Self {
        Self { table: Table::None, answered: 0, last: Instant::now() }
    }
}

impl Pool {
    fn table(&self) -> Option<Arc<RandomizerTable>> {
        match &self.table {
            Table::Built(table) => Some(Arc::clone(table)),
            Table::None | Table::Building => None,
        }
    }
}

/// The randomizer of a session that waits for message 3.
#[derive(Debug)]
pub(crate) struct Begun(Source);

#[derive(Debug)]
enum Source {
    Early(AbortOnDropHandle<Result<SessionRandomizer, Abandoned>>),
    Table(Arc<RandomizerTable>),
    Late,
}

/// What an answer is computed with.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A randomizer, computed in the meantime.
    Computed(SessionRandomizer),
    /// A table to choose a randomizer from.
    Table(Arc<RandomizerTable>),
    /// Nothing yet: the randomizer is computed together with the answer.
    Nothing,
}

impl Randomizers {
    /// Starts without tables.
    #[must_use]
    pub fn new(settings: RandomizerSettings) -> Self {
        let taken = Family::default();
        for source in ["early", "table", "late"] {
            drop(taken.get_or_create(&SourceLabel { source }));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            pools: Arc::new(Mutex::new(LruCache::new(MAX_KEYS))),
            settings,
            early: Arc::new(Semaphore::new(cores)),
            taken,
        }
    }

    /// Adds the number of tables, and the sources of randomizers, to `registry`.
    pub(crate) fn register_metrics(&self, registry: &mut Registry) {
        registry.register(
            "duet_randomizers_taken",
            "the source of each answer's randomizer: computed `early`, while messages 2 and 3 \
             travelled; chosen from a `table`; or computed `late`, with the answer. Watch for: mostly \
             `late` on a busy worker: too few tables",
            self.taken.clone(),
        );
        registry.register_collector(Box::new(Tables(self.clone())));
    }

    /// Begins the randomizer of a session after its message 1, if its key has no table and a core
    /// is free. Dropping the returned value stops it.
    pub(crate) fn begin(
        &self,
        state: &AwaitingOpening,
        enrolment: &VerifiedEnrolment,
        compute: &Compute,
    ) -> Begun {
        if let Some(table) = self.with(|pools| pools.peek(&enrolment.paillier_key()).and_then(Pool::table)) {
            return Begun(Source::Table(table));
        }
        let Ok(permit) = Arc::clone(&self.early).try_acquire_owned() else { return Begun(Source::Late) };
        let (draw, compute) = (state.draw_randomizer(&mut system_rng()), compute.clone());
        let computing = async move {
            compute
                .run(move || {
                    // Held until the end: work that has begun continues after its future was
                    // dropped.
                    let _permit = permit;
                    draw.compute()
                })
                .await
        };
        Begun(Source::Early(AbortOnDropHandle::new(tokio::spawn(computing))))
    }

    /// Waits for the randomizer. Only now the answer counts towards a table: message 3 proves that
    /// the initiator takes part.
    ///
    /// # Errors
    /// When the process is stopping.
    pub(crate) async fn take(&self, begun: Begun, enrolment: &VerifiedEnrolment) -> Result<Taken, Abandoned> {
        let (taken, source) = match begun.0 {
            Source::Early(computing) => (Taken::Computed(computing.await.map_err(|_| Abandoned)??), "early"),
            Source::Table(table) => (Taken::Table(table), "table"),
            Source::Late => (Taken::Nothing, "late"),
        };
        self.pool(enrolment.paillier_key(), |pool| {
            pool.answered += 1;
            pool.last = Instant::now();
        });
        self.taken.get_or_create(&SourceLabel { source }).inc();
        Ok(taken)
    }

    /// Starts to build the table of an enrolment's key, if the key has reached the threshold.
    pub(crate) fn keep_up(&self, enrolment: &Arc<VerifiedEnrolment>, compute: &Compute) {
        if self.begins_table(enrolment.paillier_key()) {
            let (randomizers, enrolment, compute) = (self.clone(), Arc::clone(enrolment), compute.clone());
            tokio::spawn(async move { randomizers.build(enrolment, &compute).await });
        }
    }

    /// Draws the numbers of a table one at a time, each in turn with the sessions' work. So even a
    /// busy worker completes its table.
    async fn build(&self, enrolment: Arc<VerifiedEnrolment>, compute: &Compute) {
        let key = enrolment.paillier_key();
        tracing::info!(paillier_key = %key, "building a table of randomizers");
        let table = self.drawn(&enrolment, compute).await;
        let built = table.is_ok();
        self.pool(key, |pool| pool.table = table.map_or(Table::None, |table| Table::Built(Arc::new(table))));
        if built {
            tracing::info!(paillier_key = %key, "built a table of randomizers");
        }
    }

    async fn drawn(
        &self,
        enrolment: &Arc<VerifiedEnrolment>,
        compute: &Compute,
    ) -> Result<RandomizerTable, Abandoned> {
        let mut builder = RandomizerTableBuilder::new(enrolment.encryption_key());
        while builder.missing() > 0 {
            let enrolment = Arc::clone(enrolment);
            let drawn = compute.run(move || draw(enrolment.encryption_key())).await?;
            // It was drawn for the same key, so it is never refused.
            builder.add(drawn).map_err(|_| Abandoned)?;
        }
        compute.run(move || builder.finish()).await?.map_err(|_| Abandoned)
    }

    /// Whether the key gets a table now. If so, marks the table as being built.
    fn begins_table(&self, key: PaillierKeyId) -> bool {
        let RandomizerSettings { tables, table_after, .. } = self.settings;
        self.with(|pools| {
            let has_earned = |pool: &Pool| pool.answered >= table_after && matches!(pool.table, Table::None);
            if tables == 0 || !pools.peek(&key).is_some_and(has_earned) {
                return false;
            }
            if pools.iter().filter(|(_, pool)| !matches!(pool.table, Table::None)).count() >= tables {
                let idle = |(_, pool): &(&PaillierKeyId, &mut Pool)| {
                    matches!(pool.table, Table::Built(_)) && pool.last.elapsed() > IDLE_TABLE
                };
                let Some((_, pool)) = pools.iter_mut().find(idle) else { return false };
                pool.table = Table::None;
                pool.answered = 0;
            }
            pools.get_mut(&key).is_some_and(|pool| {
                pool.table = Table::Building;
                true
            })
        })
    }

    /// Calls `f` with the statistics of a key. A new key replaces the one that was not used for the
    /// longest time.
    fn pool<T>(&self, key: PaillierKeyId, f: impl FnOnce(&mut Pool) -> T) -> T {
        self.with(|pools| f(pools.get_or_insert_mut(key, Pool::default)))
    }

    fn with<T>(&self, f: impl FnOnce(&mut LruCache<PaillierKeyId, Pool>) -> T) -> T {
        f(&mut self.pools.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts the tables when metrics are collected.
#[derive(Debug)]
struct Tables(Randomizers);

impl Collector for Tables {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), core::fmt::Error> {
        let (mut building, mut built) = (0_i64, 0_i64);
        self.0.with(|pools| {
            for (_, pool) in pools.iter() {
                match pool.table {
                    Table::None => {}
                    Table::Building => building += 1,
                    Table::Built(_) => built += 1,
                }
            }
        });
        let help = "tables of randomizers, each for one initiator's Paillier key: `building` or `built`";
        let mut metric =
            encoder.encode_descriptor("duet_randomizer_tables", help, None, MetricType::Gauge)?;
        for (state, count) in [("building", building), ("built", built)] {
            ConstGauge::new(count).encode(metric.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }
}

fn draw(key: &EncryptionKey) -> OneTimeRandomizer {
    key.make_randomizer(&mut system_rng())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [PaillierKeyId; 3] = [PaillierKeyId([1; 16]), PaillierKeyId([2; 16]), PaillierKeyId([3; 16])];

    fn randomizers(tables: usize) -> Randomizers {
        Randomizers::new(RandomizerSettings { tables, table_after: 2 })
    }

    fn answer(randomizers: &Randomizers, key: PaillierKeyId, times: u64) {
        randomizers.pool(key, |pool| pool.answered += times);
    }

    #[test]
    fn a_key_earns_one_table_by_its_answers() {
        let [key, other, _] = KEYS;
        let randomizers = randomizers(4);
        assert!(!randomizers.begins_table(key), "it has no pool yet");
        answer(&randomizers, key, 1);
        answer(&randomizers, other, 1);
        assert!(!randomizers.begins_table(key));
        answer(&randomizers, key, 1);
        assert!(randomizers.begins_table(key));
        assert!(!randomizers.begins_table(key), "it is being built");
        assert!(!randomizers.begins_table(other), "the other key has earned nothing");
    }

    #[test]
    fn there_are_no_more_tables_than_allowed_and_idle_ones_give_way() {
        let [first, second, third] = KEYS;
        let randomizers = randomizers(1);
        for key in KEYS {
            answer(&randomizers, key, 2);
        }
        assert!(randomizers.begins_table(first));
        assert!(!randomizers.begins_table(second), "a table that is being built stays");
        let built = || {
            let key = duet_protocol::test_fixtures::decryption_key(
                0,
                duet_protocol::arithmetic::default_arithmetic(),
            );
            let mut builder = RandomizerTableBuilder::new(key.encryption_key());
            let number = duet_protocol::natural::Natural::one();
            while builder.missing() > 0 {
                builder.add(OneTimeRandomizer::chosen(key.encryption_key(), number.clone())).unwrap();
            }
            Arc::new(builder.finish().unwrap())
        };
        randomizers.pool(first, |pool| pool.table = Table::Built(built()));
        assert!(!randomizers.begins_table(second), "a table in use stays");
        let long_ago = Instant::now().checked_sub(2 * IDLE_TABLE).unwrap();
        randomizers.pool(first, |pool| pool.last = long_ago);
        assert!(randomizers.begins_table(second));
        assert!(!randomizers.begins_table(third));
        assert!(!randomizers.begins_table(first), "it starts to earn again");
        assert!(randomizers.pool(first, |pool| pool.table()).is_none());
    }

    #[test]
    fn none_are_built_when_tables_are_off() {
        let randomizers = randomizers(0);
        answer(&randomizers, KEYS[0], 1_000_000);
        assert!(!randomizers.begins_table(KEYS[0]));
    }
}
