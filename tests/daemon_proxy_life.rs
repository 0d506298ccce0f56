//! The proxy as a process: reload under load, many sessions, limits, few descriptors, rest, and its end.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::daemon::{Daemon, args, private_file, run};
use common::proxy::{WAYS, proxy};
use common::tcp::{End, Peer, Upstream, arrival, greeted, many_descriptors, pattern};
use common::wait_until;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::spawn;
use std::time::Duration;

const SESSIONS: usize = 2000;

/// Short sessions, one after another, until told to stop: how many, and how many failed.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Load {
    fn start(proxy: SocketAddr) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = spawn(move || {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                if let Err(error) = exchange(proxy) {
                    failures.push(error.to_string());
                }
                counted.fetch_add(1, Ordering::SeqCst);
            }
            failures
        });
        Load { stop, done, thread }
    }

    /// Waits for another `count` sessions.
    #[track_caller]
    fn more(&self, count: usize) {
        let wanted = self.done.load(Ordering::SeqCst) + count;
        wait_until("the load goes on", || self.done.load(Ordering::SeqCst) >= wanted);
    }

    #[track_caller]
    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        let failures = self.thread.join().unwrap();
        assert!(failures.is_empty(), "{} failed: {failures:?}", failures.len());
    }
}

fn exchange(proxy: SocketAddr) -> std::io::Result<()> {
    let mut peer = Peer::new(TcpStream::connect(proxy)?);
    peer.send(b"short");
    peer.finish();
    let mut all = Vec::new();
    peer.stream.read_to_end(&mut all)?;
    if all.ends_with(b"short") { Ok(()) } else { Err(std::io::Error::other(format!("{} bytes", all.len()))) }
}

fn config(dir: &std::path::Path, target: SocketAddr) -> String {
    let text = format!("[proxy]\nlisten 127.0.0.1:0\naccess-log\nroute default={target}\n");
    private_file(dir, "beacond.conf", &text)
}

#[test]
fn reloads_under_load_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let upstreams = [Upstream::greeting(), Upstream::greeting()];
    let file = config(dir.path(), upstreams[0].addr);
    let daemon = Daemon::start_with("info", dir.path(), &format!("-c {file}"));
    let addr = daemon.proxying();
    let mut live = Peer::connect(addr);
    assert_eq!(greeted(&mut live), upstreams[0].addr);
    let load = [Load::start(addr), Load::start(addr)];
    for round in 1..=5 {
        load[0].more(50);
        let target = upstreams[round % 2].addr;
        config(dir.path(), target);
        let mark = daemon.mark();
        daemon.signal("HUP");
        daemon.line_after(mark, "configuration reloaded");
        assert_eq!(greeted(&mut Peer::connect(addr)), target, "new sessions take the new route");
        live.echoed(b"still here");
    }
    load.into_iter().for_each(Load::end);
    live.echoed(&pattern(100_000));
    live.finish();
    assert_eq!(live.end(), End::Fin);
    daemon.ended(live.addr, "done");
}

#[test]
fn a_reload_may_move_the_listener() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let file = config(dir.path(), upstream.addr);
    let daemon = Daemon::start(dir.path(), &format!("-c {file}"));
    let old = daemon.proxying();
    let mut live = Peer::connect(old);
    live.echoed(b"before");
    let new = common::free_port(common::own_ip());
    private_file(
        dir.path(),
        "beacond.conf",
        &format!("[proxy]\nlisten {new}\naccess-log\nroute default={}\n", upstream.addr),
    );
    daemon.signal("HUP");
    daemon.line(&format!("listening for connections on {new}"));
    wait_until("the old address is closed", || TcpStream::connect(old).is_err());
    Peer::connect(new).echoed(b"new");
    live.echoed(b"after");
}

#[test]
fn two_thousand_sessions_at_once() {
    many_descriptors();
    let upstream = Upstream::echo();
    for way in WAYS {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("proxy --listen 127.0.0.1:0 {way} --route default={}", upstream.addr);
        let daemon = Daemon::start_with("info", dir.path(), &line);
        let addr = daemon.proxying();
        let at_rest = daemon.descriptors();
        let mut clients: Vec<Peer> = (0..SESSIONS).map(|_| Peer::connect(addr)).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            assert!(client.send(&n.to_be_bytes()));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.exact(8), n.to_be_bytes());
        }
        assert!(daemon.descriptors() >= at_rest + 2 * SESSIONS);
        // A thousand of them at once, more than a read of them holds.
        for client in &mut clients[..SESSIONS / 2] {
            assert!(client.send(&pattern(40_000)));
        }
        for client in &mut clients[..SESSIONS / 2] {
            assert_eq!(client.exact(40_000), pattern(40_000));
        }
        for client in &mut clients {
            client.finish();
        }
        for client in &mut clients {
            assert_eq!(client.end(), End::Fin);
        }
        wait_until("all are gone", || daemon.counter("proxy.end.done") == SESSIONS as u64);
        // Pipes for reuse may stay; nothing grows with the sessions that have been.
        wait_until("their descriptors are closed", || daemon.descriptors() <= at_rest + 256);
        assert_eq!(daemon.counter("proxy.accepted"), SESSIONS as u64);
        assert_eq!(daemon.counter("proxy.bytes_in"), daemon.counter("proxy.bytes_out"));
    }
}

#[test]
fn sessions_that_do_nothing_wake_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let line = format!("proxy --listen 127.0.0.1:0 --route default={}", upstream.addr);
    let daemon = Daemon::start_with("info", dir.path(), &line);
    let addr = daemon.proxying();
    let mut clients: Vec<Peer> = (0..50).map(|_| Peer::connect(addr)).collect();
    clients.iter_mut().for_each(|client| client.echoed(b"once"));
    daemon.settled();
    let before = daemon.proc("voluntary_ctxt_switches");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(daemon.proc("voluntary_ctxt_switches"), before, "wake-ups in a second of rest");
    clients.iter_mut().for_each(|client| client.echoed(b"again"));
}

#[test]
fn out_of_descriptors_it_waits_and_does_not_spin() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let (daemon, addr) = proxy(dir.path(), &format!("--route default={}", upstream.addr));
    let mut live: Vec<Peer> = (0..5).map(|_| Peer::connect(addr)).collect();
    live.iter_mut().for_each(|client| client.echoed(b"live"));
    daemon.no_descriptor_left();
    let mut late: Vec<Peer> = (0..5).map(|_| Peer::connect(addr)).collect();
    wait_until("it has noticed", || {
        daemon.log().iter().any(|line| line.contains("descriptor") || line.contains("open files"))
    });
    live.iter_mut().for_each(|client| client.echoed(b"goes on"));
    let (cpu, log) = (daemon.cpu(), daemon.mark());
    std::thread::sleep(Duration::from_secs(1));
    let spent = daemon.cpu() - cpu;
    assert!(spent < Duration::from_millis(150), "{spent:?} of CPU in a second of waiting");
    let lines = daemon.log().split_off(log);
    assert!(lines.len() < 30, "it says so again and again: {lines:#?}");
    daemon.limit_descriptors(1000);
    Peer::connect(addr).echoed(b"served");
    // Who waited in the queue is served; who was turned away knows it.
    for client in &mut late {
        client.send(b"x");
        client.finish();
        let (got, end) = client.rest();
        assert!(got == b"x" && end == End::Fin || got.is_empty() && end != End::Open, "{got:?} {end:?}");
    }
    live.iter_mut().for_each(|client| client.echoed(b"still"));
}

/// A client beyond the limit of sessions: it is turned away with a reason, or waits in the kernel's queue.
fn one_too_many(daemon: &Daemon, addr: SocketAddr) -> Option<Peer> {
    let mut extra = Peer::connect(addr);
    extra.send(b"waited");
    daemon.settled();
    if extra.quiet() {
        return Some(extra);
    }
    assert_ne!(extra.end(), End::Open);
    daemon.ended(extra.addr, "session-limit");
    None
}

/// There is room: who has waited is served.
fn waits_no_more(extra: Option<Peer>) {
    if let Some(mut extra) = extra {
        assert_eq!(extra.exact(6), b"waited");
    }
}

#[test]
fn the_limit_of_sessions_follows_from_the_limit_of_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let line = format!("proxy --listen 127.0.0.1:0 --access-log --route default={}", upstream.addr);
    let daemon = Daemon::spawn_limited(200, &dir.path().join("control"), &args(&line));
    let addr = daemon.proxying();
    let said = daemon.line("listening for connections on ");
    let limit: usize =
        said.split("up to ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap();
    assert!((10..100).contains(&limit), "{said}");
    let mut live: Vec<Peer> = (0..limit).map(|_| Peer::connect(addr)).collect();
    live.iter_mut().for_each(|client| client.echoed(b"one of them"));
    let extra = one_too_many(&daemon, addr);
    drop(live.pop());
    waits_no_more(extra);
    drop(live.pop());
    wait_until("there is room again", || {
        let mut next = Peer::connect(addr);
        next.send(b"x");
        next.finish();
        next.rest().0 == b"x"
    });
}

#[test]
fn sessions_are_limited_in_all_and_by_source() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let (daemon, addr) = proxy(dir.path(), &format!("--max-sessions 2 --route default={}", upstream.addr));
    assert!(daemon.line("listening for connections on ").contains("up to 2 sessions"));
    let mut live = [Peer::connect(addr), Peer::connect(addr)];
    live.iter_mut().for_each(|client| client.echoed(b"live"));
    let extra = one_too_many(&daemon, addr);
    drop(live);
    waits_no_more(extra);

    let line = format!("--max-sessions-per-source 1 --route default={}", upstream.addr);
    let (daemon, addr) = proxy(dir.path(), &line);
    let mut live = Peer::connect(addr);
    live.echoed(b"live");
    let mut extra = Peer::connect(addr);
    assert_ne!(extra.end(), End::Open);
    daemon.ended(extra.addr, "source-limit");
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    other.bind(&SocketAddr::from((common::own_ip(), 0)).into()).unwrap();
    other.connect(&addr.into()).unwrap();
    Peer::new(other.into()).echoed(b"another source");
    live.finish();
    assert_eq!(live.end(), End::Fin);
    daemon.ended(live.addr, "done");
    Peer::connect(addr).echoed(b"the next");
}

/// A daemon with a session, and told to end.
fn draining(dir: &std::path::Path, more: &str) -> (Daemon, Upstream, Peer) {
    let upstream = Upstream::echo();
    let (daemon, addr) = proxy(dir, &format!("{more} --route default={}", upstream.addr));
    let mut client = Peer::connect(addr);
    client.echoed(b"before");
    daemon.signal("TERM");
    wait_until("nothing new is accepted", || TcpStream::connect(addr).is_err());
    (daemon, upstream, client)
}

#[test]
fn told_to_end_it_ends_with_its_last_session() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, _upstream, mut client) = draining(dir.path(), "--drain-timeout 60");
    client.echoed(&pattern(100_000));
    client.finish();
    assert_eq!(client.end(), End::Fin);
    assert_eq!(daemon.wait(), Some(0));
    daemon.ended(client.addr, "done");
}

#[test]
fn told_to_end_it_does_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, _upstream, mut client) = draining(dir.path(), "--drain-timeout 500ms");
    assert_eq!(client.end(), End::Reset, "what is cut off is told so");
    assert_eq!(daemon.wait(), Some(0));
    daemon.ended(client.addr, "drained");
}

#[test]
fn told_twice_it_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, _upstream, mut client) = draining(dir.path(), "--drain-timeout 60");
    client.echoed(b"still");
    daemon.signal("TERM");
    daemon.wait();
    assert_ne!(client.end(), End::Open);
}

#[test]
fn a_session_in_progress_can_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, arrivals) = Upstream::by_hand();
    let (daemon, addr) = proxy(dir.path(), &format!("--route default={}", upstream.addr));
    let mut client = Peer::connect(addr);
    let mut server = arrival(&arrivals);
    client.send(b"four");
    server.exact(4);
    server.send(b"sixsix");
    client.exact(6);
    let out = run(&format!("status --sessions --control {}", daemon.control.display()));
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    let row = text.lines().find(|line| line.contains(&client.addr.to_string())).expect(&text);
    assert!(row.contains(&upstream.addr.to_string()), "{row}");
    client.finish();
    server.finish();
    daemon.ended(client.addr, "done");
    let out = run(&format!("status --sessions --control {}", daemon.control.display()));
    assert!(!String::from_utf8_lossy(&out.stdout).contains(&client.addr.to_string()), "{out:?}");
}
