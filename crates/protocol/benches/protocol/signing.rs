//! Signing: each step of the device and service pair, and whole signatures, both parties together.
//! Nothing is switched off: proofs, the responder's signature, the final verification.

use std::{
    cell::LazyCell,
    thread,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion};
use duet_adversary::world::{Job, Pair, World, good};
use duet_protocol::{
    arithmetic::{Arithmetic, default_arithmetic},
    initiator::Initiator,
    randomizer::{RandomizerTable, RandomizerTableBuilder},
    responder::Responder,
};

use crate::{ONE_OPERATION, arithmetics, group};

/// How long the samples of what all cores do take together: many signatures on each core for one
/// sample, which ends with the last.
const MANY_ON_EACH_CORE: Duration = Duration::from_secs(15);

/// How long it takes all cores together, each of which runs `sign` `count` times: what a core does
/// when the others have as much to do, beside it in the caches and in the processor's heat.
fn on_all_cores(
    arithmetic: &'static dyn Arithmetic,
    count: u64,
    sign: impl Fn(&mut World) + Sync,
) -> Duration {
    let cores = thread::available_parallelism().unwrap().get();
    let mut worlds: Vec<World> = (0_u64..).take(cores).map(|seed| World::new(arithmetic, seed)).collect();
    let started = Instant::now();
    thread::scope(|scope| {
        for world in &mut worlds {
            scope.spawn(|| (0..count).for_each(|_| sign(world)));
        }
    });
    started.elapsed()
}

pub(crate) fn benches(criterion: &mut Criterion) {
    const PAIR: Pair = Pair::DeviceService;
    const SIZE: BatchSize = BatchSize::PerIteration;
    for (name, arithmetic) in arithmetics() {
        let mut world = World::new(arithmetic, 1);
        let wallet = world.wallet(None);
        let enrolment = wallet.enrolment(PAIR);
        let key = enrolment.encryption_key();
        let job = Job::random(&mut world.rng, "m/0");
        // The set-up and the measured step of a benchmark draw from generators of their own.
        let mut rng = crate::rng();
        let mut group = group(criterion, name, "sign");

        group.bench_function("p1.start", |b| {
            b.iter_batched(
                || wallet.initiator(&world, PAIR, &job),
                |setup| Initiator::start(setup, &mut rng).unwrap(),
                SIZE,
            );
        });
        group.bench_function("p2.accept", |b| {
            b.iter_batched(
                || {
                    let setup = wallet.initiator(&world, PAIR, &job);
                    let (_, message1) = Initiator::start(setup, &mut world.rng).unwrap();
                    (wallet.responder(&world, PAIR, &job), message1)
                },
                |(setup, message1)| Responder::accept(setup, &message1, &mut rng).unwrap(),
                SIZE,
            );
        });
        group.bench_function("p1.open", |b| {
            b.iter_batched(
                || wallet.open(&mut world, PAIR, &job),
                |(initiator, _, [_, message2])| initiator.receive(&message2, &mut rng).unwrap(),
                SIZE,
            );
        });
        group.bench_function("p2.open", |b| {
            b.iter_batched(
                || {
                    let (initiator, responder, [_, message2]) = wallet.open(&mut world, PAIR, &job);
                    let (_, message3) = initiator.receive(&message2, &mut world.rng).unwrap();
                    (responder, message3)
                },
                |(responder, message3)| responder.receive(&message3).unwrap(),
                SIZE,
            );
        });
        group.bench_function("p2", |b| {
            b.iter_batched(
                || wallet.run_to_answer(&mut world, PAIR, &job).1,
                |ready| ready.respond(job.charged(&wallet), None, &mut rng).unwrap(),
                SIZE,
            );
        });
        group.bench_function("p2.precomputed", |b| {
            b.iter_batched(
                || {
                    let ready = wallet.run_to_answer(&mut world, PAIR, &job).1;
                    let randomizer = ready.draw_randomizer(&mut world.rng).compute();
                    (ready, randomizer)
                },
                |(ready, randomizer)| {
                    ready.respond(job.charged(&wallet), Some(randomizer), &mut rng).unwrap()
                },
                SIZE,
            );
        });
        group.bench_function("p1.finish", |b| {
            b.iter_batched(
                || {
                    let (awaiting, ready, _) = wallet.run_to_answer(&mut world, PAIR, &job);
                    (awaiting, ready.respond(job.charged(&wallet), None, &mut world.rng).unwrap().0)
                },
                |(awaiting, message4)| good(awaiting.receive(&message4, &mut rng).unwrap(), &job),
                SIZE,
            );
        });
        group.bench_function("total", |b| b.iter(|| wallet.sign(&mut world, PAIR, &job)));
        if arithmetic.name() == default_arithmetic().name() {
            group.measurement_time(MANY_ON_EACH_CORE);
            group.bench_function("total.all-cores", |b| {
                b.iter_custom(|count| {
                    on_all_cores(arithmetic, count, |world| {
                        wallet.sign(world, PAIR, &job);
                    })
                });
            });
            group.measurement_time(ONE_OPERATION);
            // As after an hour of one tenant's payouts: what follows measures prepared enrolments.
            // A minute and a half of work, done only when this benchmark is selected.
            let table = LazyCell::new(|| {
                enrolment.prepare();
                let (mut rng, mut table) = (crate::rng(), RandomizerTableBuilder::new(key));
                while table.missing() > 0 {
                    table.add(key.make_randomizer(&mut rng)).unwrap();
                }
                table.finish().unwrap()
            });
            group.bench_function("randomizer.table", |b| {
                let table = &*table;
                b.iter(|| table.make_randomizer(&mut rng));
            });
            group.bench_function("p2.table", |b| {
                let table = &*table;
                b.iter_batched(
                    || wallet.run_to_answer(&mut world, PAIR, &job).1,
                    |ready| {
                        let randomizer = ready.draw_randomizer(&mut rng).choose(table);
                        ready.respond(job.charged(&wallet), Some(randomizer), &mut rng).unwrap()
                    },
                    SIZE,
                );
            });
            let with_table = |table: &RandomizerTable, world: &mut World| {
                let (awaiting, ready, _) = wallet.run_to_answer(world, PAIR, &job);
                let randomizer = ready.draw_randomizer(&mut world.rng).choose(table);
                let (message4, _) =
                    ready.respond(job.charged(&wallet), Some(randomizer), &mut world.rng).unwrap();
                good(awaiting.receive(&message4, &mut world.rng).unwrap(), &job)
            };
            group.bench_function("total.table", |b| {
                let table = &*table;
                b.iter(|| with_table(table, &mut world));
            });
            group.measurement_time(MANY_ON_EACH_CORE);
            group.bench_function("total.table.all-cores", |b| {
                let table = &*table;
                b.iter_custom(|count| {
                    on_all_cores(arithmetic, count, |world| drop(with_table(table, world)))
                });
            });
        }
        group.finish();
    }
}
