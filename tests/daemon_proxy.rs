//! Bytes through the proxy, both by copying and by splicing: whole, in order, with their ends as they were.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::proxy::{WAYS, proxy};
use common::tcp::{Deaf, End, Peer, Upstream, arrival, closed_port, narrow, pattern};
use common::wait_for;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

/// More than the kernel's buffers of four sockets hold.
const MUCH: usize = 24 << 20;

const MIB: usize = 1 << 20;

/// Writes all of `bytes` from a thread of its own, and ends; says how many the connection has taken.
fn writer(peer: &Peer, bytes: Vec<u8>) -> (JoinHandle<()>, Arc<AtomicU64>) {
    let (mut stream, taken) = (peer.stream.try_clone().unwrap(), Arc::new(AtomicU64::new(0)));
    let told = Arc::clone(&taken);
    let thread = spawn(move || {
        for part in bytes.chunks(16384) {
            stream.write_all(part).unwrap();
            told.fetch_add(part.len() as u64, Ordering::SeqCst);
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    });
    (thread, taken)
}

/// Waits until no more bytes are taken.
fn stalled(taken: &AtomicU64) {
    let mut seen = (taken.load(Ordering::SeqCst), Instant::now());
    wait_for("a writer is held", || {
        let now = taken.load(Ordering::SeqCst);
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        (seen.1.elapsed() > Duration::from_millis(200)).then_some(())
    });
}

#[test]
fn bytes_arrive_whole_both_ways_however_late_they_are_read() {
    for way in WAYS {
        let dir = tempfile::tempdir().unwrap();
        let (upstream, arrivals) = Upstream::by_hand();
        let (daemon, addr) = proxy(dir.path(), &format!("{way} --route default={}", upstream.addr));
        let mut client = Peer::connect(addr);
        let mut server = arrival(&arrivals);
        narrow(&client.stream);
        narrow(&server.stream);
        client.send(b"ping");
        assert_eq!(server.exact(4), b"ping");
        let base = daemon.proc("VmRSS");
        let bytes = pattern(MUCH);
        let (up, up_taken) = writer(&client, bytes.clone());
        let (down, down_taken) = writer(&server, bytes.clone());
        stalled(&up_taken);
        stalled(&down_taken);
        assert!(up_taken.load(Ordering::SeqCst) < MUCH as u64, "somebody holds all of it");
        let grown = daemon.proc("VmRSS").saturating_sub(base);
        assert!(grown < 3072, "{way}: {grown} KiB more while nobody reads");
        let reader = spawn(move || (server.rest(), server));
        let (got, end) = client.rest();
        assert!(got == bytes && end == End::Fin, "{way}: down: {} bytes, {end:?}", got.len());
        let ((got, end), _server) = reader.join().unwrap();
        assert!(got == bytes && end == End::Fin, "{way}: up: {} bytes, {end:?}", got.len());
        up.join().unwrap();
        down.join().unwrap();
        let session = daemon.ended(client.addr, "done");
        assert_eq!(session.number("in"), MUCH as u64 + 4, "{}", session.0);
        assert_eq!(session.number("out"), MUCH as u64, "{}", session.0);
        let grown = daemon.proc("VmRSS").saturating_sub(base);
        assert!(grown < 3072, "{way}: {grown} KiB more afterwards");
    }
}

#[test]
fn a_side_that_has_finished_still_hears_the_other() {
    for way in WAYS {
        let dir = tempfile::tempdir().unwrap();
        let (upstream, arrivals) = Upstream::by_hand();
        let (daemon, addr) = proxy(dir.path(), &format!("{way} --route default={}", upstream.addr));
        // The client finishes first, and the answer is late.
        let mut client = Peer::connect(addr);
        client.send(b"question");
        client.finish();
        let mut server = arrival(&arrivals);
        assert_eq!(server.rest(), (b"question".to_vec(), End::Fin), "{way}");
        daemon.settled();
        assert!(client.quiet(), "{way}: the half that is open stays open");
        let answer = pattern(4 * MIB);
        server.send(&answer[..MIB]);
        assert_eq!(client.exact(MIB), answer[..MIB], "{way}");
        let (sent, _) = writer(&server, answer[MIB..].to_vec());
        let (got, end) = client.rest();
        assert!(got == answer[MIB..] && end == End::Fin, "{way}: {} bytes, {end:?}", got.len());
        sent.join().unwrap();
        assert_eq!(daemon.ended(client.addr, "done").number("out"), answer.len() as u64);
        // The server finishes first, and the client goes on.
        let mut client = Peer::connect(addr);
        let mut server = arrival(&arrivals);
        server.send(b"greeting");
        server.finish();
        assert_eq!(client.rest(), (b"greeting".to_vec(), End::Fin), "{way}");
        let (sent, _) = writer(&client, answer.clone());
        let (got, end) = server.rest();
        assert!(got == answer && end == End::Fin, "{way}: {} bytes, {end:?}", got.len());
        sent.join().unwrap();
        daemon.ended(client.addr, "done");
    }
}

#[test]
fn a_finish_with_no_byte_before_it_is_passed_on_too() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, arrivals) = Upstream::by_hand();
    let (daemon, addr) = proxy(dir.path(), &format!("--route default={}", upstream.addr));
    let mut client = Peer::connect(addr);
    client.finish();
    let mut server = arrival(&arrivals);
    assert_eq!(server.end(), End::Fin);
    server.send(b"answer");
    server.finish();
    assert_eq!(client.rest(), (b"answer".to_vec(), End::Fin));
    daemon.ended(client.addr, "done");
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    for way in WAYS {
        let dir = tempfile::tempdir().unwrap();
        let (upstream, arrivals) = Upstream::by_hand();
        let (daemon, addr) = proxy(dir.path(), &format!("{way} --route default={}", upstream.addr));
        let pair = |bytes: usize| {
            let client = Peer::connect(addr);
            let mut server = arrival(&arrivals);
            let (mut stream, sent) = (client.stream.try_clone().unwrap(), pattern(bytes));
            let sent = spawn(move || stream.write_all(&sent).unwrap());
            assert_eq!(server.exact(bytes), pattern(bytes));
            sent.join().unwrap();
            (client, server)
        };
        // Early, and after enough bytes to splice.
        for bytes in [1, 4 * MIB] {
            let (mut client, server) = pair(bytes);
            server.reset();
            assert_eq!(client.end(), End::Reset, "{way}: the client sees the server's reset");
            daemon.ended(client.addr, "server-reset");
            let (client, mut server) = pair(bytes);
            let from = client.addr;
            client.reset();
            assert_eq!(server.end(), End::Reset, "{way}: the server sees the client's reset");
            daemon.ended(from, "client-reset");
        }
        // A reset of the half that is open, after the other has finished.
        let (mut client, mut server) = pair(10);
        client.finish();
        assert_eq!(server.end(), End::Fin);
        server.reset();
        assert_eq!(client.end(), End::Reset, "{way}: a reset after a finish");
        daemon.ended(client.addr, "server-reset");
    }
}

#[test]
fn a_server_that_does_not_care_for_the_rest_is_heard_to_its_end() {
    for way in WAYS {
        let dir = tempfile::tempdir().unwrap();
        let answer = pattern(1000);
        let said = answer.clone();
        // It reads a little, answers, and closes with unread bytes: its kernel resets the connection.
        let upstream = Upstream::start(move |mut peer| {
            peer.exact(16);
            peer.send(&said);
        });
        let (daemon, addr) = proxy(dir.path(), &format!("{way} --route default={}", upstream.addr));
        for _ in 0..10 {
            let mut client = Peer::connect(addr);
            let mut stream = client.stream.try_clone().unwrap();
            let sent = spawn(move || drop(stream.write_all(&pattern(4 * MIB))));
            assert_eq!(client.exact(answer.len()), answer, "{way}");
            sent.join().unwrap();
            client.finish();
            client.rest();
            daemon.session(client.addr);
        }
    }
}

#[test]
fn after_a_clean_end_nobody_sees_a_reset() {
    for way in WAYS {
        let dir = tempfile::tempdir().unwrap();
        // It takes everything, answers and closes, each time a little differently.
        let upstream = Upstream::start(|mut peer| {
            let (bytes, end) = peer.rest();
            assert_eq!(end, End::Fin);
            peer.send(&bytes[..bytes.len() / 4]);
        });
        let (daemon, addr) = proxy(dir.path(), &format!("{way} --route default={}", upstream.addr));
        for round in 0..20 {
            let bytes = pattern((4 * MIB) >> (round / 2));
            let mut client = Peer::connect(addr);
            let (sent, _) = writer(&client, bytes.clone());
            let (got, end) = client.rest();
            assert!(
                got == bytes[..bytes.len() / 4] && end == End::Fin,
                "{way}: {} bytes, {end:?}",
                got.len()
            );
            sent.join().unwrap();
            daemon.ended(client.addr, "done");
        }
        assert_eq!(daemon.counter("proxy.end.done"), 20);
        assert_eq!(daemon.counter("proxy.accepted"), 20);
    }
}

#[test]
fn silence_has_limits() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, arrivals) = Upstream::by_hand();
    let line = format!("--idle-timeout 300ms --half-close-timeout 300ms --route default={}", upstream.addr);
    let (daemon, addr) = proxy(dir.path(), &line);
    let mut client = Peer::connect(addr);
    let mut server = arrival(&arrivals);
    client.send(b"x");
    server.exact(1);
    let start = Instant::now();
    assert_ne!(client.end(), End::Open);
    assert_ne!(server.end(), End::Open);
    assert!(start.elapsed() >= Duration::from_millis(280), "{:?}", start.elapsed());
    daemon.ended(client.addr, "idle");
    let (daemon, addr) = proxy(dir.path(), &line.replace("idle-timeout 300ms", "idle-timeout 60"));
    let mut client = Peer::connect(addr);
    let _server = arrival(&arrivals);
    client.finish();
    assert_ne!(client.end(), End::Open);
    daemon.ended(client.addr, "half-idle");
}

#[test]
fn traffic_keeps_a_session_from_being_idle() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let (daemon, addr) =
        proxy(dir.path(), &format!("--idle-timeout 400ms --route default={}", upstream.addr));
    let mut client = Peer::connect(addr);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1200) {
        client.echoed(b"beat");
        std::thread::sleep(Duration::from_millis(40));
    }
    client.finish();
    assert_eq!(client.end(), End::Fin);
    daemon.ended(client.addr, "done");
}

#[test]
fn a_target_that_does_not_take_the_connection_ends_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, addr) = proxy(dir.path(), &format!("--route default={}", closed_port()));
    let mut client = Peer::connect(addr);
    let start = Instant::now();
    assert_ne!(client.end(), End::Open);
    assert!(start.elapsed() < Duration::from_secs(1), "refused at once: {:?}", start.elapsed());
    daemon.ended(client.addr, "connect-failed");

    let deaf = Deaf::start();
    let line = format!("--connect-timeout 200ms --connect-deadline 500ms --route default={}", deaf.addr);
    let (daemon, addr) = proxy(dir.path(), &line);
    let mut client = Peer::connect(addr);
    assert_ne!(client.end(), End::Open);
    daemon.ended(client.addr, "connect-timeout");
}
