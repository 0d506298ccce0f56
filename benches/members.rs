//! What the member table costs: a refresh, the memory of a member, and that no announcement ever pays for the rest.

use beacond::clock::{Mono, Now};
use beacond::members::{Announce, BalancerId, Heard, Members, Policy, WhenDeaf};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

const MANY: usize = 100_000;
const TIMEOUT: Duration = Duration::from_secs(30);

fn url(n: usize) -> String {
    format!("http://10.{}.{}.{}:8080", n >> 16 & 255, n >> 8 & 255, n & 255)
}

fn urls(count: usize) -> Vec<String> {
    (0..count).map(url).collect()
}

fn announce(url: &str, ts: i64) -> Announce<'_> {
    let every = Some(Duration::from_secs(5));
    Announce {
        url: url.as_bytes(),
        ts,
        timeout: TIMEOUT,
        every,
        host: b"web-1.example",
        ..Announce::default()
    }
}

fn empty(max_members: usize) -> (Members, BalancerId) {
    let policy = Policy {
        max_members,
        forget: Duration::from_secs(3600),
        keep_last: false,
        when_deaf: WhenDeaf::Evict,
        timeout: TIMEOUT,
        max_skew: Duration::from_secs(30),
    };
    let mut members = Members::new([1, 2]);
    let b = members.balancer("bench", policy, Mono::ZERO);
    (members, b)
}

fn filled(urls: &[String]) -> (Members, BalancerId) {
    let (mut members, b) = empty(urls.len());
    for url in urls {
        let heard = members.announce(b, &announce(url, 1), Mono(1));
        assert!(matches!(heard, Heard::Added(..)));
    }
    (members, b)
}

fn refresh(c: &mut Criterion) {
    for count in [256, MANY] {
        let urls = urls(count);
        let (mut members, b) = filled(&urls);
        let (mut ts, mut at) = (1, 0);
        c.bench_function(&format!("refresh, {count} members in no order"), |bench| {
            bench.iter(|| {
                ts += 1;
                at = (at + 61_803) % count;
                members.announce(b, black_box(&announce(&urls[at], ts)), Mono(2))
            });
        });
        c.bench_function(&format!("replay, {count} members in no order"), |bench| {
            bench.iter(|| {
                at = (at + 61_803) % count;
                members.announce(b, black_box(&announce(&urls[at], 0)), Mono(2))
            });
        });
        c.bench_function(&format!("evict all {count} at once"), |bench| {
            let all =
                |(members, _): &mut (Members, BalancerId)| members.expire(Mono(31_000_000), &mut |_| {});
            bench.iter_batched_ref(|| filled(&urls), all, BatchSize::LargeInput);
        });
        c.bench_function(&format!("text of the state file, {count} members"), |bench| {
            let now = Now { mono: Mono(2), unix_us: 1_780_646_570_123_456 };
            bench.iter(|| members.snapshot(now));
        });
    }
}

/// Prints what 100,000 members take, by the process's resident memory, and the slowest single insert on the way
/// there beside a growing hash map's. Each place's best of several runs, so that only what is always slow shows.
fn growth(_: &mut Criterion) {
    let urls = urls(MANY);
    let before = resident();
    let (reserved, _) = empty(MANY);
    println!("reserved for {MANY} members, none there: {} KiB touched", (resident() - before) / 1024);
    drop(reserved);
    let before = resident();
    let kept = filled(&urls);
    println!("bytes per member at {MANY}: {}", (resident() - before) / MANY);
    drop(kept);

    let table = slowest(|nth| {
        let (mut members, b) = empty(MANY);
        for url in &urls {
            nth(&mut || {
                black_box(members.announce(b, &announce(url, 1), Mono(1)));
            });
        }
    });
    let map = slowest(|nth| {
        let mut map: HashMap<Vec<u8>, [u64; 16]> = HashMap::new();
        for url in &urls {
            nth(&mut || {
                black_box(map.insert(url.as_bytes().to_vec(), [0; 16]));
            });
        }
    });
    println!("single insert while filling {MANY}: median, slowest");
    println!("  member table   {:>7.2?} {:>9.2?}", table.0, table.1);
    println!("  growing map    {:>7.2?} {:>9.2?}", map.0, map.1);
}

/// Takes the next step of a fill and times it.
type Nth<'a> = dyn FnMut(&mut dyn FnMut()) + 'a;

/// Median and slowest of the steps that `fill` hands to its argument, each the best of seven fills.
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn slowest(fill: impl Fn(&mut Nth<'_>)) -> (Duration, Duration) {
    let mut best = vec![Duration::MAX; MANY];
    for _ in 0..7 {
        let mut places = best.iter_mut();
        fill(&mut |step| {
            let start = Instant::now();
            step();
            let took = start.elapsed();
            if let Some(place) = places.next() {
                *place = took.min(*place);
            }
        });
    }
    best.sort_unstable();
    (best[MANY / 2], best[MANY - 1])
}

/// Resident bytes of this process (`/proc/self/statm`, second field, in pages).
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4096
}

criterion_group!(benches, growth, refresh);
criterion_main!(benches);
