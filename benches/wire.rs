//! Cost of one datagram without the kernel's part: a typical announcement of 130 bytes verified and parsed, one with a
//! wrong MAC, one by a member's own key, and the admission of a url.

use beacond::beacon::admission::Admission;
use beacond::beacon::auth::{self, Key, Signed};
use beacond::beacon::gate::Gate;
use beacond::beacon::member_keys::MemberKeys;
use beacond::beacon::wire::{Announce, Body};
use beacond::clock::{Mono, Now};
use beacond::secret::Secret;
use beacond::url::Url;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

const NOW: Now = Now { mono: Mono::ZERO, unix_us: 1_780_646_570_123_456 };
const SKEW: Duration = Duration::from_secs(30);
const URL: &str = "http://10.0.0.1:8080";

fn heard(gate: &mut Gate, datagram: &[u8]) -> bool {
    gate.open(datagram).is_ok_and(|opened| {
        let body = Body::parse(opened.text);
        gate.hear(&opened, &body, NOW, |url| url == URL.as_bytes()).is_ok()
    })
}

fn datagram(key: &Key) -> Vec<u8> {
    let url = Url::parse(URL.as_bytes()).expect("a url");
    let said = Announce {
        url: Some(&url),
        host: "web-1",
        pid: 41564,
        seq: 3,
        ts: NOW.unix_us,
        every: Some(Duration::from_secs(5)),
        weight: Some(1),
        to: Some("web"),
    };
    let mut text = said.to_text();
    key.sign(&mut text);
    text
}

fn datagrams(c: &mut Criterion) {
    let keys = [Key::from_secret(b"a-long-random-shared-cluster-secret")];
    let good = datagram(&keys[0]);
    let wrong = datagram(&Key::from_secret(b"another"));
    println!("datagram: {} bytes", good.len());
    c.bench_function("MAC", |b| {
        b.iter(|| Signed::read(black_box(&good)).map(|signed| signed.is_by(&keys[0])));
    });
    c.bench_function("verify and parse", |b| {
        b.iter(|| auth::verify(black_box(&good), &keys, NOW.unix_us, SKEW));
    });
    c.bench_function("wrong MAC", |b| {
        b.iter(|| auth::verify(black_box(&wrong), &keys, NOW.unix_us, SKEW));
    });

    let mut gate = Gate {
        keys: keys.to_vec(),
        member_keys: None,
        admission: Admission::default(),
        balancer: "web".to_owned(),
        max_skew: SKEW,
    };
    c.bench_function("gate, known url", |b| {
        b.iter(|| heard(&mut gate, black_box(&good)));
    });
    let master = Secret::new(b"a master key of good length");
    let own = datagram(&Key::from_secret(master.member_passphrase("web", URL).bytes()));
    gate.keys.clear();
    gate.member_keys = Some(MemberKeys::new(vec![master], "web", 256));
    c.bench_function("gate, known url, member's key", |b| {
        b.iter(|| heard(&mut gate, black_box(&own)));
    });
}

fn admission(c: &mut Criterion) {
    let policy = Admission::default();
    for raw in [URL, "https://[2001:db8::5]/"] {
        c.bench_function(&format!("admit {raw}"), |b| b.iter(|| policy.admit(black_box(raw.as_bytes()))));
    }
    let master = Secret::new(b"a master key of good length");
    c.bench_function("derive a member's key", |b| {
        b.iter(|| Key::from_secret(master.member_passphrase("web", black_box(URL)).bytes()));
    });
}

criterion_group!(benches, datagrams, admission);
criterion_main!(benches);
