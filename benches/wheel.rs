//! What a timer costs, beside an ordered map doing the same in the same run.

use beacond::wheel::Wheel;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::collections::BTreeMap;
use std::hint::black_box;

const SIZES: [u64; 3] = [100, 10_000, 100_000];

/// Deadlines spread over a minute, in no order.
fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 60_000
}

fn wheel_of(size: u64) -> Wheel<u64> {
    let mut wheel = Wheel::new();
    for n in 0..size {
        wheel.arm(spread(n), n);
    }
    wheel
}

fn map_of(size: u64) -> BTreeMap<(u64, u64), u64> {
    (0..size).map(|n| ((spread(n), n), n)).collect()
}

fn arm_and_cancel(c: &mut Criterion) {
    for size in SIZES {
        let mut wheel = wheel_of(size);
        let mut n = size;
        c.bench_function(&format!("cancel and arm, wheel of {size}"), |b| {
            b.iter(|| {
                n += 1;
                let id = wheel.arm(black_box(spread(n)), n);
                wheel.cancel(id)
            });
        });
        let mut map = map_of(size);
        c.bench_function(&format!("cancel and arm, map of {size}"), |b| {
            b.iter(|| {
                n += 1;
                let key = (black_box(spread(n)), n);
                map.insert(key, n);
                map.remove(&key)
            });
        });
    }
}

/// The life of a lazily armed timer: it fires, and is armed again for later.
fn fire_and_arm(c: &mut Criterion) {
    for size in SIZES {
        c.bench_function(&format!("next, fire and arm again, wheel of {size}"), |b| {
            let mut wheel = wheel_of(size);
            b.iter(|| {
                let now = wheel.next().unwrap_or_default();
                let n = wheel.pop(now);
                n.map(|n| wheel.arm(now + 60_000, n))
            });
        });
        c.bench_function(&format!("next, fire and arm again, map of {size}"), |b| {
            let mut map = map_of(size);
            b.iter(|| {
                let ((now, _), n) = map.pop_first()?;
                map.insert((now + 60_000, n), n)
            });
        });
    }
}

/// Everything falls due at once: the cascades of a whole wheel, and all its timers.
fn long_jump(c: &mut Criterion) {
    c.bench_function("all of 100000 after a long silence, wheel", |b| {
        let all = |wheel: &mut Wheel<u64>| while wheel.pop(60_000).is_some() {};
        b.iter_batched_ref(|| wheel_of(100_000), all, BatchSize::LargeInput);
    });
}

criterion_group!(benches, arm_and_cancel, fire_and_arm, long_jump);
criterion_main!(benches);
