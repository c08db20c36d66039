//! Key generation: the device's part, each receiver's part, and all of it together, prime search
//! and every proof included. Both receivers are verified one after the other, on one thread.

use criterion::Criterion;
use duet_adversary::world::World;
use duet_protocol::keygen;

use crate::{arithmetics, group};

pub(crate) fn benches(criterion: &mut Criterion) {
    for (name, arithmetic) in arithmetics() {
        let mut world = World::new(arithmetic, 1);
        let setup = world.dealer_setup();
        let pending = world.deal(None);
        let mut group = group(criterion, name, "keygen");
        group.bench_function("deal", |b| b.iter(|| keygen::deal(&setup, &mut (), &mut world.rng).unwrap()));
        group.bench_function("verify-package", |b| b.iter(|| world.prepare(&pending, 0)));
        group.bench_function("total", |b| {
            b.iter(|| {
                let pending = keygen::deal(&setup, &mut (), &mut world.rng).unwrap().pending;
                [world.prepare(&pending, 0), world.prepare(&pending, 1)]
            });
        });
        group.finish();
    }
}
