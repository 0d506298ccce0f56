//! The proxy where two things meet: a reload and a queue, a goodbye and a connect, an empty pipe and a pause.
//!
//! A stopped process is told several things at once, so that they meet in one turn of its loop.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::daemon::{Daemon, private_file};
use common::proxy::{WAYS, balanced, hello, proxy};
use common::sender::Sender;
use common::tcp::{Deaf, End, Peer, Upstream, arrival, greeted, pattern};
use common::{wait_for, wait_until};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// A daemon with a configuration of one proxy, and where it listens.
fn configured(dir: &std::path::Path, lines: &str) -> (Daemon, SocketAddr) {
    let file = private_file(dir, "beacond.conf", &format!("[proxy]\naccess-log\n{lines}"));
    let daemon = Daemon::start_with("info", dir, &format!("-c {file}"));
    let addr = daemon.proxying();
    (daemon, addr)
}

/// Has it take another configuration.
#[track_caller]
fn reload(daemon: &Daemon, dir: &std::path::Path, text: &str) {
    private_file(dir, "beacond.conf", text);
    let mark = daemon.mark();
    daemon.signal("HUP");
    daemon.line_after(mark, "configuration reloaded");
}

/// A member of the balancer of [`balanced`].
#[track_caller]
fn join(daemon: &Daemon, address: SocketAddr) -> Sender {
    let sender = Sender::new(daemon.listening());
    sender.announce(&format!("http://{address}"), "");
    daemon.line(&format!("added backend http://{address} to balancer://web"));
    sender
}

#[test]
fn a_goodbye_and_a_connect_in_one_turn_cut_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "--on-leave cut");
    let (one, two) = (Upstream::greeting(), Upstream::greeting());
    let sender = join(&daemon, one.addr);
    let mut client = Peer::connect(daemon.proxying());
    assert_eq!(greeted(&mut client), one.addr);
    join(&daemon, two.addr);
    daemon.settled();
    daemon.signal("STOP");
    sender.leave(&one.url());
    let _next = Peer::connect(daemon.proxying());
    daemon.signal("CONT");
    daemon.line("left backend");
    daemon.settled();
    assert!(!client.quiet(), "it is cut");
    daemon.ended(client.addr, "left");
}

#[test]
fn a_member_that_goes_while_it_is_connected_is_judged_once_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "--on-leave cut --connect-timeout 5");
    let deaf = Deaf::start();
    let sender = join(&daemon, deaf.addr);
    let client = Peer::connect(daemon.proxying());
    daemon.settled();
    sender.leave(&format!("http://{}", deaf.addr));
    daemon.line("left backend");
    deaf.hear();
    daemon.ended(client.addr, "left");
}

#[cfg(not(beacond_portable))]
#[test]
fn a_stream_that_pauses_gives_its_pipe_back() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, arrivals) = Upstream::by_hand();
    let (daemon, addr) = proxy(dir.path(), &format!("--route default={}", upstream.addr));
    let at_rest = daemon.descriptors();
    let mut pairs: Vec<(Peer, Peer)> = (0..24).map(|_| (Peer::connect(addr), arrival(&arrivals))).collect();
    // The last piece is a small one, and finds a grant for more.
    let bytes = common::tcp::pattern((3 << 20) + 100);
    for _ in 0..3 {
        for (client, server) in &mut pairs {
            let (mut stream, sent) = (server.stream.try_clone().unwrap(), bytes.clone());
            let sent = std::thread::spawn(move || std::io::Write::write_all(&mut stream, &sent).unwrap());
            assert!(client.exact(bytes.len()) == bytes);
            sent.join().unwrap();
        }
    }
    daemon.settled();
    let pipes = daemon.descriptors() - at_rest - 2 * pairs.len();
    assert!(pipes <= 2 * 16, "{pipes} descriptors more than the sessions and the pipes kept for reuse");
}

#[test]
fn who_is_told_to_end_is_not_knocked_at_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let (daemon, addr) =
        configured(dir.path(), &format!("listen 127.0.0.1:0\nroute default={}\n", upstream.addr));
    let mut live = Peer::connect(addr);
    live.echoed(b"x");
    let other = common::free_port([127, 0, 0, 1].into());
    private_file(
        dir.path(),
        "beacond.conf",
        &format!("[proxy]\nlisten {other}\nroute default={}\n", upstream.addr),
    );
    daemon.signal("HUP");
    daemon.line("sessions go on for up to");
    daemon.settled();
    assert!(TcpStream::connect(addr).is_err(), "its socket is closed although nothing happens any more");
    live.echoed(b"goes on");
}

#[test]
fn a_reload_may_change_the_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let addr = common::free_port(common::own_ip());
    let config =
        |backlog| format!("[proxy]\nlisten {addr}\nbacklog {backlog}\nroute default={}\n", upstream.addr);
    let file = private_file(dir.path(), "beacond.conf", &config(10));
    let daemon = Daemon::start_with("info", dir.path(), &format!("-c {file}"));
    let mut live = Peer::connect(daemon.proxying());
    live.echoed(b"before");
    reload(&daemon, dir.path(), &config(77));
    live.echoed(b"after");
    Peer::connect(addr).echoed(b"new");
    let sockets = std::process::Command::new("ss").args(["-Hltn", "src", &addr.to_string()]).output();
    if let Ok(out) = sockets {
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.split_whitespace().any(|word| word == "77"), "{text}");
    }
}

#[test]
fn who_has_knocked_is_let_in_before_the_door_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let (daemon, addr) = proxy(dir.path(), &format!("--accept-batch 4 --route default={}", upstream.addr));
    daemon.settled();
    daemon.signal("STOP");
    let mut clients: Vec<Peer> = (0..100).map(|_| Peer::connect(addr)).collect();
    daemon.signal("TERM");
    daemon.signal("CONT");
    for client in &mut clients {
        client.echoed(b"let in");
    }
}

#[test]
fn a_reload_that_makes_room_lets_in_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let config = |limit| {
        format!("[proxy]\nlisten 127.0.0.1:0\nmax-sessions {limit}\nroute default={}\n", upstream.addr)
    };
    let file = private_file(dir.path(), "beacond.conf", &config(1));
    let daemon = Daemon::start_with("info", dir.path(), &format!("-c {file}"));
    let addr = daemon.proxying();
    let mut live = Peer::connect(addr);
    live.echoed(b"x");
    let mut waiting = Peer::connect(addr);
    daemon.line("sessions in use");
    reload(&daemon, dir.path(), &config(2));
    waiting.echoed(b"let in");
}

#[test]
fn a_reload_that_shortens_patience_is_for_silent_sessions_too() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let config = |time| {
        format!(
            "[proxy]\nlisten 127.0.0.1:0\naccess-log\nidle-timeout {time}\nconnect-timeout 10ms\nroute default={}\n",
            upstream.addr
        )
    };
    let file = private_file(dir.path(), "beacond.conf", &config("0"));
    let daemon = Daemon::start_with("info", dir.path(), &format!("-c {file}"));
    let mut client = Peer::connect(daemon.proxying());
    client.echoed(b"x");
    // No timer of its beginning is left to help.
    std::thread::sleep(Duration::from_millis(50));
    daemon.settled();
    reload(&daemon, dir.path(), &config("300ms"));
    daemon.ended(client.addr, "idle");
}

#[test]
fn members_are_not_blamed_for_descriptors_that_we_lack() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = balanced(dir.path(), "", "--sniff");
    let upstreams = [Upstream::greeting(), Upstream::greeting(), Upstream::greeting()];
    let _senders: Vec<Sender> = upstreams.iter().map(|upstream| join(&daemon, upstream.addr)).collect();
    let mut clients: Vec<Peer> = (0..12).map(|_| Peer::connect(daemon.proxying())).collect();
    wait_until("all are accepted", || daemon.counter("proxy.accepted") == clients.len() as u64);
    daemon.settled();
    daemon.no_descriptor_left();
    for client in &mut clients {
        client.send(b"not tls");
    }
    daemon.line("why=Too many open files");
    daemon.settled();
    // To ask takes one, too.
    daemon.limit_descriptors(1000);
    assert_eq!(daemon.counter("proxy.ejected"), 0, "{:#?}", daemon.log());
}

#[test]
fn what_nobody_takes_is_not_taken_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, arrivals) = Upstream::by_hand();
    let (daemon, addr) = proxy(dir.path(), &format!("--route default={}", upstream.addr));
    let client = Peer::connect(addr);
    let from = client.addr;
    let mut server = arrival(&arrivals);
    assert_eq!(server.stream.set_write_timeout(Some(common::PATIENCE)).ok(), Some(()));
    // It closes with nothing unread: an end, and a reset as soon as more comes.
    drop(client);
    assert_eq!(server.end(), End::Fin);
    let start = Instant::now();
    let part = vec![0; 1 << 16];
    wait_for("the server is told that nobody listens", || (0..16).any(|_| !server.send(&part)).then_some(()));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    daemon.session(from);
}

#[test]
fn a_hook_that_is_asked_by_many_at_once_answers_all() {
    use std::io::{BufRead, BufReader, Write};
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let path = dir.path().join("auth");
    // One at a time, and few may wait.
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(1).unwrap();
    let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            std::thread::sleep(Duration::from_millis(2));
            let _ = stream.write_all(b"allow\n");
        }
    });
    let line = format!("--auth unix:{} --route default={}", path.display(), upstream.addr);
    let (daemon, addr) = proxy(dir.path(), &line);
    daemon.settled();
    daemon.signal("STOP");
    let mut clients: Vec<Peer> = (0..40).map(|_| Peer::connect(addr)).collect();
    daemon.signal("CONT");
    for client in &mut clients {
        client.echoed(b"let in");
    }
    wait_until("all are in", || daemon.counter("proxy.end.auth_failed") == 0);
}

/// Sends `before`, an urgent byte that is no part of the stream, and `after`.
fn send_around_urgent(peer: &mut Peer, before: &[u8], after: &[u8]) {
    assert!(peer.send(before));
    assert_eq!(socket2::SockRef::from(&peer.stream).send_out_of_band(b"!").unwrap(), 1);
    assert!(peer.send(after));
}

#[test]
fn what_is_behind_urgent_data_arrives_as_well() {
    let bulk = pattern(8 << 20);
    for way in WAYS {
        let dir = tempfile::tempdir().unwrap();
        let (upstream, arrivals) = Upstream::by_hand();
        let (daemon, addr) = proxy(dir.path(), &format!("{way} --sniff --route default={}", upstream.addr));
        // All of it lies there before anything is read: a read stops at the mark, and no event tells of the rest.
        daemon.signal("STOP");
        let mut client = Peer::connect(addr);
        let hello = hello("openssl_default");
        send_around_urgent(&mut client, &hello[..100], &hello[100..]);
        daemon.signal("CONT");
        let mut server = arrival(&arrivals);
        assert_eq!(server.exact(hello.len()), hello, "{way}: the first flight");
        daemon.signal("STOP");
        send_around_urgent(&mut client, b"before", b"after");
        send_around_urgent(&mut server, b"this", b"that");
        daemon.signal("CONT");
        assert_eq!(server.exact(11), b"beforeafter", "{way}");
        assert_eq!(client.exact(8), b"thisthat", "{way}");
        // In bulk, on a session that no mark has slowed yet.
        client = Peer::connect(addr);
        client.send(b"x");
        server = arrival(&arrivals);
        server.exact(1);
        for _ in 0..2 {
            std::thread::scope(|scope| {
                scope.spawn(|| send_around_urgent(&mut client, &bulk, &bulk));
                assert!(server.exact(2 * bulk.len()) == bulk.repeat(2), "{way}: other bytes");
            });
            std::mem::swap(&mut client, &mut server);
        }
        // With the end at its heels: to a pipe the mark looks like the end.
        for tail in 1..40 {
            let (mut client, sent) = (Peer::connect(addr), bulk[..2 << 20].to_vec());
            let sender =
                std::thread::spawn(move || send_around_urgent(&mut client, &sent, &sent[..tail * 1000]));
            let (got, end) = arrival(&arrivals).rest();
            assert_eq!((got.len(), end), ((2 << 20) + tail * 1000, End::Fin), "{way}");
            sender.join().unwrap();
        }
    }
}
