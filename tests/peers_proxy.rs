//! Real HAProxy and nginx as neighbours of the proxy: in front of it they tell it who the client is, behind it they
//! are told.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::haproxy_tcp::{HaproxyTcp, certificate};
use common::nginx::Nginx;
use common::proxy::{header, proxy};
use common::tcp::{End, Peer, Upstream, greeted, lines, pattern};
use common::{Answer, free_port, get, own_ip};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Frontend and backend that pass everything to `to` with these words on the server line.
fn in_front(dir: &Path, to: SocketAddr, words: &str) -> (HaproxyTcp, SocketAddr) {
    let addr = free_port(own_ip());
    let sections = format!("listen in\n  bind {addr}\n  server s {to} {words}");
    (HaproxyTcp::start(dir, &sections, &[addr]), addr)
}

/// A session through a neighbour, of any size; the proxy must know the client behind the neighbour.
#[track_caller]
fn known_through(daemon: &common::daemon::Daemon, neighbour: SocketAddr, upstream: SocketAddr) {
    let mut client = Peer::connect(neighbour);
    let bytes = pattern(300_000);
    client.send(&bytes[..100]);
    assert_eq!(greeted(&mut client), upstream);
    let mut stream = client.stream.try_clone().unwrap();
    let rest = bytes[100..].to_vec();
    let sent = std::thread::spawn(move || stream.write_all(&rest).unwrap());
    assert_eq!(client.exact(bytes.len()), bytes);
    sent.join().unwrap();
    client.finish();
    assert_eq!(client.end(), End::Fin);
    let session = daemon.ended(client.addr, "done");
    assert!(session.get("peer").starts_with("127."), "{}", session.0);
    assert_eq!(session.number("in"), bytes.len() as u64, "without the header: {}", session.0);
}

#[test]
fn neighbours_in_front_say_who_the_client_is() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::greeting();
    let (daemon, addr) = proxy(dir.path(), &format!("--accept-proxy --route default={}", upstream.addr));
    for words in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"] {
        let (_haproxy, front) = in_front(dir.path(), addr, words);
        known_through(&daemon, front, upstream.addr);
    }
    let nginx = Nginx::in_front_of(dir.path(), addr);
    known_through(&daemon, nginx.addr, upstream.addr);
}

#[test]
fn health_checks_of_a_neighbour_are_local_and_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::greeting();
    let (daemon, addr) = proxy(dir.path(), &format!("--accept-proxy --route default={}", upstream.addr));
    let words = "check inter 50ms send-proxy-v2 check-send-proxy";
    let (_haproxy, front) = in_front(dir.path(), addr, words);
    common::wait_until("checks arrive", || daemon.counter("proxy.accepted") >= 5);
    known_through(&daemon, front, upstream.addr);
}

#[test]
fn a_neighbour_that_ends_tls_passes_on_name_and_all() {
    let dir = tempfile::tempdir().unwrap();
    let ups = [Upstream::greeting(), Upstream::greeting()];
    let (daemon, addr) = proxy(
        dir.path(),
        &format!(
            "--accept-proxy --route authority:shop.example.net={} --route default={}",
            ups[0].addr, ups[1].addr
        ),
    );
    let (front, pem) = (free_port(own_ip()), certificate(dir.path(), "shop"));
    let sections = format!(
        "listen in\n  bind {front} ssl crt {} alpn h2,http/1.1\n  unique-id-format id-%ci-%cp\n  \
         server s {addr} send-proxy-v2 proxy-v2-options authority,unique-id,ssl,cert-cn,ssl-cipher,crc32c",
        pem.display()
    );
    let _haproxy = HaproxyTcp::start(dir.path(), &sections, &[front]);
    for (name, to) in [("Shop.example.net", &ups[0]), ("other.example.net", &ups[1])] {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &front.to_string(), "-servername", name, "-alpn", "h2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"hello\n").unwrap();
        let mut output = lines(child.stdout.take().unwrap());
        assert_eq!(output(), to.addr.to_string(), "{name}");
        assert_eq!(output(), "hello", "{name}");
        drop(input);
        let _ = child.kill();
        let _ = child.wait();
        let fragment = format!("authority={}", name.to_lowercase());
        let line = common::wait_for("its session has ended", || {
            daemon.sessions().into_iter().find(|s| s.0.to_lowercase().contains(&fragment))
        });
        assert!(line.get("src").starts_with("127."), "{}", line.0);
    }
}

#[test]
fn a_header_that_lies_about_its_checksum_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::greeting();
    let (daemon, addr) = proxy(dir.path(), &format!("--accept-proxy --route default={}", upstream.addr));
    let mut bytes = header("hap_v2_crc");
    bytes[16] ^= 1;
    let mut client = Peer::connect(addr);
    client.send(&bytes);
    assert_ne!(client.end(), End::Open);
    daemon.ended(client.addr, "bad-header");
}

/// A HAProxy that answers every request with what it was told of the connection.
fn teller(dir: &Path) -> (HaproxyTcp, SocketAddr) {
    let addr = free_port(own_ip());
    let sections = format!(
        "frontend tell\n  mode http\n  bind {addr} accept-proxy\n  http-request return status 200 content-type \
         text/plain lf-string \"%[src]:%[src_port] %[dst]:%[dst_port] [%[fc_pp_authority]] [%[fc_pp_unique_id]]\""
    );
    (HaproxyTcp::start(dir, &sections, &[addr]), addr)
}

#[test]
fn a_neighbour_behind_is_told_who_the_client_is() {
    let dir = tempfile::tempdir().unwrap();
    let (_haproxy, teller) = teller(dir.path());
    for version in ["v1", "v2"] {
        let (daemon, addr) = proxy(dir.path(), &format!("--send-proxy {version} --route default={teller}"));
        let Answer::Http(200, body) = get(addr, "/") else { panic!("{version}: no answer") };
        let session = common::wait_for("its session has ended", || daemon.sessions().pop());
        assert_eq!(body, format!("{} {addr} [] []", session.get("src")), "{version}");
    }
}

#[test]
fn what_came_in_a_header_goes_out_in_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_haproxy, teller) = teller(dir.path());
    let (_daemon, addr) =
        proxy(dir.path(), &format!("--accept-proxy --send-proxy v2 --route default={teller}"));
    let told = |header: &[u8]| {
        let mut client = Peer::connect(addr);
        client.send(&[header, b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"].concat());
        let (bytes, _) = client.rest();
        String::from_utf8_lossy(&bytes).lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(told(&header("seed_frame")[..42]), "100.64.0.0:28197 100.64.0.0:443 [httpbin.org] []");
    let said = told(&header("hap_tls_all_cert")[..192]);
    assert!(said.starts_with("127.0.0.1:56006 127.0.0.1:"), "{said}");
    assert!(said.to_lowercase().contains("[shop.example.net] ["), "{said}");
    assert!(!said.ends_with("[]"), "the unique id: {said}");
    assert!(told(b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n").starts_with("2001:db8::1:4711 "));
}

#[test]
fn header_and_first_flight_leave_together() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, arrivals) = Upstream::by_hand();
    let line = format!("--sniff --send-proxy v2 --route default={}", upstream.addr);
    let (_daemon, addr) = proxy(dir.path(), &line);
    let hello = common::proxy::hello("openssl_default");
    let mut client = Peer::connect(addr);
    client.send(&hello);
    let mut server = common::tcp::arrival(&arrivals);
    let mut first = vec![0; 4096];
    let count = std::io::Read::read(&mut server.stream, &mut first).unwrap();
    assert!(first[..count].starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "a header");
    assert!(first[..count].ends_with(&hello), "in the same segment: {count} bytes");
}

#[test]
fn nginx_behind_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let nginx = Nginx::behind(dir.path(), upstream.addr);
    for version in ["v1", "v2"] {
        let (daemon, addr) =
            proxy(dir.path(), &format!("--send-proxy {version} --route default={}", nginx.addr));
        let mut client = Peer::connect(addr);
        client.echoed(b"through both");
        client.finish();
        assert_eq!(client.end(), End::Fin, "{version}");
        daemon.ended(client.addr, "done");
        nginx.logged(&format!("{} {} ", client.addr.ip(), client.addr.port()));
    }
}
