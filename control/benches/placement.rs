//! How long it takes to find places for a large fleet.

use criterion::{Criterion, criterion_group, criterion_main};
use flotilla_control::simulation::LargePlacement;

fn placement(criterion: &mut Criterion) {
    let fleet = LargePlacement::new(10_000, 200);
    criterion.bench_function("place 10,000 environments on 200 workers", |bencher| {
        bencher.iter(|| assert_eq!(fleet.place_all(), 10_000));
    });
    criterion.bench_function("rebalance 10,000 environments after the 200th worker joined", |bencher| {
        bencher.iter(|| assert_ne!(fleet.rebalance_after_a_join(), 0));
    });
}

criterion_group!(benches, placement);
criterion_main!(benches);
