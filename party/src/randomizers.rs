//! `r̃^N mod N²` for answers: computed while messages 2 and 3 travel, or chosen from a table.
//!
//! It is most of a responder's work. It belongs to one session, whose message 1 it depends on: none
//! lies ready, because a copy of this process's memory would use it a second time. For a key that
//! was answered under often a table is built ([`RandomizerTable`]), from which each one costs a
//! fifth. Nothing of it is ever stored.

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

/// Keys that are kept warm at a time. A service's partner sees one key per tenant.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// How long a table must have been of no use before it gives way to one for another key.
const IDLE_TABLE: Duration = Duration::from_secs(600);

/// Which keys have tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomizerSettings {
    /// Keys that have a table at a time: 5 MB each, and once some 90 s of a core. Default 4; 0
    /// turns tables off.
    pub tables: usize,
    /// Answers under a key, since the worker's start, after which its table is built. Default
    /// 1,000.
    pub table_after: u64,
}

impl Default for RandomizerSettings {
    fn default() -> Self {
        Self { tables: 4, table_after: 1_000 }
    }
}

/// The tables, and how many randomizers are computed before message 3. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Randomizers {
    pools: Arc<Mutex<LruCache<PaillierKeyId, Pool>>>,
    settings: RandomizerSettings,
    /// Message 1 can be a replay, so what is computed for it alone is bounded: one for each core.
    early: Arc<Semaphore>,
    taken: Family<SourceLabel, Counter>,
}

/// Where a randomizer came from.
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

/// The randomizer of a session whose message 3 is due.
#[derive(Debug)]
pub(crate) struct Begun(Source);

#[derive(Debug)]
enum Source {
    Early(AbortOnDropHandle<Result<SessionRandomizer, Abandoned>>),
    Table(Arc<RandomizerTable>),
    Late,
}

/// What an answer is made with.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It was computed meanwhile.
    Computed(SessionRandomizer),
    /// To be chosen from this table.
    Table(Arc<RandomizerTable>),
    /// To be computed with the answer.
    Nothing,
}

impl Randomizers {
    /// No tables yet.
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

    /// Has `registry` show how many tables there are, and what answers took their randomizers from.
    pub(crate) fn register_metrics(&self, registry: &mut Registry) {
        registry.register(
            "duet_randomizers_taken",
            "What answers took their randomizer from",
            self.taken.clone(),
        );
        registry.register_collector(Box::new(Tables(self.clone())));
    }

    /// Begins the randomizer of a session whose message 1 is there, where its key has no table and
    /// a core's turn is free. Dropping what this returns ends it.
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
                    // Until it is done: work that has begun is not ended by dropping its future.
                    let _permit = permit;
                    draw.compute()
                })
                .await
        };
        Begun(Source::Early(AbortOnDropHandle::new(tokio::spawn(computing))))
    }

    /// Waits for what was begun. Only now the answer counts towards a table: message 3 shows that
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

    /// Starts to build the table of an enrolment's key, if it has earned one.
    pub(crate) fn keep_up(&self, enrolment: &Arc<VerifiedEnrolment>, compute: &Compute) {
        if self.begins_table(enrolment.paillier_key()) {
            let (randomizers, enrolment, compute) = (self.clone(), Arc::clone(enrolment), compute.clone());
            tokio::spawn(async move { randomizers.build(enrolment, &compute).await });
        }
    }

    /// Draws a table's numbers one at a time, each in its turn among the sessions' work, so that a
    /// busy worker gets its table as well.
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
            // Never foreign: it was drawn for the same key.
            builder.add(drawn).map_err(|_| Abandoned)?;
        }
        compute.run(move || builder.finish()).await?.map_err(|_| Abandoned)
    }

    /// Whether the key gets a table now; from then on it is being built.
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

    /// The key's pool; that of the key that was not used for the longest time makes room for it.
    fn pool<T>(&self, key: PaillierKeyId, f: impl FnOnce(&mut Pool) -> T) -> T {
        self.with(|pools| f(pools.get_or_insert_mut(key, Pool::default)))
    }

    fn with<T>(&self, f: impl FnOnce(&mut LruCache<PaillierKeyId, Pool>) -> T) -> T {
        f(&mut self.pools.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts the tables when it is asked.
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
        let help = "Tables of randomizers, each for one initiator's Paillier key";
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
