//! Sessions and members: who is chosen, what happens when one refuses, and what to sessions of one that is gone.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::daemon::Daemon;
use common::proxy::{balanced, printed};
use common::sender::Sender;
use common::tcp::{Deaf, End, Peer, Upstream, closed_port, greeted};
use common::wait_until;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Announces `address` and waits until it is a member.
#[track_caller]
fn join(daemon: &Daemon, address: SocketAddr, more: &str) -> Sender {
    let sender = Sender::new(daemon.listening());
    sender.announce(&format!("http://{address}"), more);
    daemon.line(&format!("added backend http://{address} to balancer://web"));
    sender
}

/// Who answers `count` sessions, one after the other.
fn answers(proxy: SocketAddr, count: usize) -> BTreeMap<SocketAddr, usize> {
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        let mut client = Peer::connect(proxy);
        *seen.entry(greeted(&mut client)).or_default() += 1;
        client.finish();
        assert_eq!(client.end(), End::Fin);
    }
    seen
}

#[test]
fn without_members_there_is_a_reason_and_with_the_first_there_is_service() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "");
    let proxy = daemon.proxying();
    let mut client = Peer::connect(proxy);
    assert_ne!(client.end(), End::Open);
    daemon.ended(client.addr, "no-member");
    let upstream = Upstream::greeting();
    join(&daemon, upstream.addr, "");
    assert_eq!(answers(proxy, 3), BTreeMap::from([(upstream.addr, 3)]));
}

#[test]
fn round_robin_shares_by_weight() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "--balance roundrobin --slow-start 0");
    let upstreams = [Upstream::greeting(), Upstream::greeting()];
    join(&daemon, upstreams[0].addr, " weight=1");
    join(&daemon, upstreams[1].addr, " weight=3");
    let seen = answers(daemon.proxying(), 20);
    assert_eq!(seen, BTreeMap::from([(upstreams[0].addr, 5), (upstreams[1].addr, 15)]));
}

#[test]
fn a_source_keeps_its_member_with_hash() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "--balance hash --slow-start 0");
    let upstreams: Vec<_> = (0..4).map(|_| Upstream::greeting()).collect();
    for upstream in &upstreams {
        join(&daemon, upstream.addr, "");
    }
    assert_eq!(answers(daemon.proxying(), 12).len(), 1, "one source, one member");
}

#[test]
fn the_least_busy_member_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "--balance leastconn --slow-start 0");
    let upstreams: Vec<_> = (0..3).map(|_| Upstream::greeting()).collect();
    for upstream in &upstreams {
        join(&daemon, upstream.addr, "");
    }
    let mut clients: Vec<_> = (0..12).map(|_| Peer::connect(daemon.proxying())).collect();
    let mut seen: BTreeMap<_, usize> = BTreeMap::new();
    for client in &mut clients {
        *seen.entry(greeted(client)).or_default() += 1;
    }
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [4, 4, 4]);
}

#[test]
fn a_member_that_refuses_costs_nobody_anything() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "--balance roundrobin --slow-start 0");
    let (upstream, gone) = (Upstream::greeting(), closed_port());
    join(&daemon, gone, "");
    join(&daemon, upstream.addr, "");
    let mut retried = 0;
    for _ in 0..20 {
        let start = Instant::now();
        let mut client = Peer::connect(daemon.proxying());
        assert_eq!(greeted(&mut client), upstream.addr);
        assert!(start.elapsed() < Duration::from_millis(500), "the next at once: {:?}", start.elapsed());
        // What came before the first connect was refused is not lost.
        client.echoed(b"first flight");
        client.finish();
        assert_eq!(client.end(), End::Fin);
        retried += usize::from(daemon.ended(client.addr, "done").number("tries") == 2);
    }
    assert!(retried >= 1, "round robin has tried the one that is gone");
    assert!(retried <= 10, "one that refuses is let be for a while: {retried}");
    assert_eq!(daemon.counter("proxy.retry"), retried as u64);
}

#[test]
fn status_tells_when_a_member_is_back_though_nothing_happens() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "--timeout 60", "--balance roundrobin --slow-start 0");
    let upstream = Upstream::greeting();
    join(&daemon, closed_port(), "");
    join(&daemon, upstream.addr, "");
    answers(daemon.proxying(), 8);
    daemon.line("left out http://");
    let status = format!("status --control {}", daemon.control.display());
    assert!(printed(&status).contains("connections to it failed"));
    wait_until("its five seconds are over", || !printed(&status).contains("connections to it failed"));
}

#[test]
fn a_member_that_does_not_answer_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "--balance roundrobin --slow-start 0 --connect-timeout 200ms");
    let (upstream, deaf) = (Upstream::greeting(), Deaf::start());
    join(&daemon, deaf.addr, "");
    join(&daemon, upstream.addr, "");
    assert_eq!(answers(daemon.proxying(), 4), BTreeMap::from([(upstream.addr, 4)]));
    assert!(daemon.counter("proxy.retry") >= 1);
}

#[test]
fn when_all_refuse_the_session_ends_after_three() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "");
    for _ in 0..4 {
        join(&daemon, closed_port(), "");
    }
    let mut client = Peer::connect(daemon.proxying());
    assert_ne!(client.end(), End::Open);
    assert_eq!(daemon.ended(client.addr, "connect-failed").number("tries"), 3);
}

/// How a member goes.
#[derive(Clone, Copy, Debug)]
enum Going {
    Silent,
    Goodbye,
}

/// A session of a member, and the member gone.
fn orphan(dir: &std::path::Path, going: Going, policy: &str) -> (Daemon, Upstream, Peer) {
    let (listen, proxy) = match going {
        Going::Silent => ("--timeout 400ms", format!("--on-evict {policy}")),
        Going::Goodbye => ("", format!("--on-leave {policy}")),
    };
    let daemon = balanced(dir, listen, &proxy);
    let upstream = Upstream::echo();
    let sender = join(&daemon, upstream.addr, "");
    let mut client = Peer::connect(daemon.proxying());
    client.echoed(b"before");
    match going {
        Going::Silent => drop(daemon.line("evicted backend")),
        Going::Goodbye => {
            sender.leave(&upstream.url());
            daemon.line("left backend");
        }
    }
    (daemon, upstream, client)
}

#[test]
fn sessions_of_a_member_that_is_gone_are_kept_if_so_wanted() {
    for going in [Going::Silent, Going::Goodbye] {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, _upstream, mut client) = orphan(dir.path(), going, "keep");
        client.echoed(b"after");
        let mut late = Peer::connect(daemon.proxying());
        assert_ne!(late.end(), End::Open, "{going:?}: nothing new for it");
        daemon.ended(late.addr, "no-member");
        client.echoed(b"still");
        client.finish();
        assert_eq!(client.end(), End::Fin);
        daemon.ended(client.addr, "done");
    }
}

#[test]
fn sessions_of_a_member_that_is_gone_may_end_in_time() {
    for (going, reason) in [(Going::Silent, "evicted"), (Going::Goodbye, "left")] {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, _upstream, mut client) = orphan(dir.path(), going, "drain:700ms");
        let start = Instant::now();
        client.echoed(b"after");
        assert_ne!(client.end(), End::Open, "{going:?}");
        assert!(start.elapsed() > Duration::from_millis(300), "{going:?}: not before: {:?}", start.elapsed());
        daemon.ended(client.addr, reason);
    }
}

#[test]
fn sessions_of_a_member_that_is_gone_are_cut_if_so_wanted() {
    for (going, reason) in [(Going::Silent, "evicted"), (Going::Goodbye, "left")] {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, _upstream, mut client) = orphan(dir.path(), going, "cut");
        assert_ne!(client.end(), End::Open, "{going:?}");
        daemon.ended(client.addr, reason);
    }
}

#[test]
fn a_member_that_returns_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "--on-leave cut");
    let upstream = Upstream::greeting();
    let sender = join(&daemon, upstream.addr, "");
    assert_eq!(answers(daemon.proxying(), 1).len(), 1);
    sender.leave(&upstream.url());
    daemon.line("left backend");
    sender.announce(&upstream.url(), "");
    daemon.line("re-enabled backend");
    assert_eq!(answers(daemon.proxying(), 2), BTreeMap::from([(upstream.addr, 2)]));
    wait_until("all sessions are counted", || daemon.counter("proxy.end.done") == 3);
}
