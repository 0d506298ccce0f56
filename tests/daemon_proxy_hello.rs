//! First flights: what is sniffed, what is refused and why, how long they may take, and what is kept of them.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::daemon::{Daemon, program, run};
use common::proxy::{header, hello, proxy};
use common::tcp::{End, Peer, Upstream, greeted};
use common::{PATIENCE, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A client that sends these bytes; the session must end, with this reason.
#[track_caller]
fn refused(dir: &Path, line: &str, bytes: &[u8], reason: &str) {
    let (daemon, addr) = proxy(dir, line);
    let mut client = Peer::connect(addr);
    client.send(bytes);
    assert_ne!(client.end(), End::Open, "{line}");
    let session = daemon.ended(client.addr, reason);
    assert_eq!(session.number("out"), 0, "{}", session.0);
    assert_eq!(daemon.counter(&format!("proxy.end.{}", reason.replace('-', "_"))), 1);
}

#[test]
fn every_refusal_has_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let upstream = Upstream::echo();
    let to = upstream.addr;
    let named = format!("--route www.example.net={to}");
    refused(dir, "--route default=reject", b"", "rejected");
    refused(dir, &format!("--deny 127.0.0.0/8 --route default={to}"), b"", "denied");
    refused(dir, &format!("--allow 10.0.0.0/8 --route default={to}"), b"", "denied");
    refused(dir, &named, &hello("openssl_alpn"), "no-route");
    refused(dir, &format!("{named} --route alpn.example.net=reject"), &hello("openssl_alpn"), "rejected");
    refused(dir, &format!("{named} --require-sni"), &hello("openssl_noservername"), "no-sni");
    refused(dir, &format!("{named} --require-sni"), &hello("other_ssh"), "not-tls");
    for id in ["server_hello", "sni_two_in_list", "sni_list_len_short", "sni_nul", "hs_len_ffffff"] {
        let default = format!("{named} --route default={to} --require-sni");
        let (daemon, addr) = proxy(dir, &default);
        let mut client = Peer::connect(addr);
        client.send(&hello(id));
        assert_ne!(client.end(), End::Open, "{id}");
        let reason = daemon.session(client.addr);
        assert!(["bad-hello", "too-long"].contains(&reason.get("end")), "{id}: {}", reason.0);
    }
    refused(dir, &format!("{named} --hello-size 1k"), &hello("openssl_alpn_big"), "too-long");
    refused(dir, &format!("--accept-proxy --route default={to}"), b"GET / HTTP/1.1\r\n\r\n", "bad-header");
    refused(
        dir,
        &format!("{named} --hello-timeout 200ms"),
        &hello("openssl_default")[..100],
        "hello-timeout",
    );
    refused(dir, &format!("{named} --hello-timeout 200ms"), b"", "hello-timeout");
    refused(
        dir,
        &format!("--accept-proxy --hello-timeout 200ms --route default={to}"),
        b"PROXY",
        "hello-timeout",
    );
    refused(dir, "--route default=no-such-host.invalid:80", b"", "resolve-failed");
    refused(dir, "--route default=connect:127.0.0.1:1", b"hello", "no-host");
}

#[test]
fn who_leaves_before_the_end_of_the_hello_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let (daemon, addr) = proxy(dir.path(), &format!("--route www.example.net={}", upstream.addr));
    let mut client = Peer::connect(addr);
    client.send(&hello("openssl_default")[..50]);
    client.finish();
    assert_ne!(client.end(), End::Open);
    daemon.ended(client.addr, "client-gone");
}

#[test]
fn the_name_decides_in_the_agreed_order() {
    let dir = tempfile::tempdir().unwrap();
    let ups: Vec<Upstream> = (0..4).map(|_| Upstream::greeting()).collect();
    let line = format!(
        "--route www.example.net={} --route *.example.net={} --route alpn:h2={} --route default={}",
        ups[0].addr, ups[1].addr, ups[2].addr, ups[3].addr
    );
    let (daemon, addr) = proxy(dir.path(), &line);
    let cases = [
        ("openssl_default", 0, "www.example.net"),
        ("openssl_upper", 0, "www.example.net"),
        ("openssl_traildot", 0, "www.example.net"),
        ("openssl_alpn", 1, "alpn.example.net"),
        ("curl_default", 2, "httpbin.org"),
        ("curl_ip", 2, ""),
        ("openssl_noservername", 3, ""),
        ("frag_3rec", 1, "app.example.net"),
        ("chromium_default", 1, "chromium.example.net"),
        ("other_ssh", 3, ""),
    ];
    for (id, to, sni) in cases {
        let (bytes, mut client) = (hello(id), Peer::connect(addr));
        client.send(&bytes);
        assert_eq!(greeted(&mut client), ups[to].addr, "{id}");
        assert_eq!(client.exact(bytes.len()), bytes, "{id}: the first flight arrives untouched");
        client.finish();
        assert_eq!(client.end(), End::Fin);
        let session = daemon.ended(client.addr, "done");
        assert_eq!(session.get("sni").to_lowercase().trim_end_matches('.'), sni, "{}", session.0);
    }
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::greeting();
    let (daemon, addr) =
        proxy(dir.path(), &format!("--accept-proxy --route chromium.example.net={}", upstream.addr));
    let mut client = Peer::connect(addr);
    let bytes = hello("chromium_default");
    let all = [b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", &bytes[..]].concat();
    for byte in &all {
        assert!(client.send(std::slice::from_ref(byte)));
    }
    assert_eq!(greeted(&mut client), upstream.addr);
    assert_eq!(client.exact(bytes.len()), bytes);
    client.finish();
    assert_eq!(client.end(), End::Fin);
    let session = daemon.ended("192.0.2.7:4711".parse().unwrap(), "done");
    assert_eq!(session.get("peer"), client.addr.to_string(), "{}", session.0);
    assert_eq!(session.get("listen"), "127.0.0.1:0", "{}", session.0);
}

#[test]
fn a_hello_that_never_ends_is_closed_in_time_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let (daemon, addr) =
        proxy(dir.path(), &format!("--hello-timeout 500ms --route www.example.net={}", upstream.addr));
    let (mut client, start) = (Peer::connect(addr), Instant::now());
    // A drip does not prolong it.
    for byte in &hello("openssl_default")[..300] {
        if start.elapsed() > Duration::from_secs(2) || !client.send(std::slice::from_ref(byte)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_ne!(client.end(), End::Open);
    assert!(start.elapsed() > Duration::from_millis(450), "{:?}", start.elapsed());
    daemon.ended(client.addr, "hello-timeout");
}

#[test]
fn too_many_first_flights_push_out_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let (daemon, addr) = proxy(
        dir.path(),
        &format!("--max-hello 2 --hello-timeout 60 --route *.example.net={}", upstream.addr),
    );
    let bytes = hello("openssl_default");
    let mut clients: Vec<Peer> = Vec::new();
    for n in 0..3 {
        clients.push(Peer::connect(addr));
        clients[n].send(&bytes[..100]);
        wait_until("it is accepted", || daemon.counter("proxy.accepted") == n as u64 + 1);
    }
    assert_ne!(clients[0].end(), End::Open);
    daemon.ended(clients[0].addr, "hello-limit");
    for client in &mut clients[1..] {
        client.send(&bytes[100..]);
        assert_eq!(client.exact(bytes.len()), bytes);
    }
}

#[test]
fn a_server_that_speaks_first_is_waited_for_if_so_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::greeting();
    let (_daemon, addr) =
        proxy(dir.path(), &format!("--sniff --server-first 200ms --route default={}", upstream.addr));
    assert_eq!(greeted(&mut Peer::connect(addr)), upstream.addr);
}

#[test]
fn headers_are_taken_only_from_where_they_may_come() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::greeting();
    let bytes = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n";
    let line = |from| format!("--accept-proxy --accept-proxy-from {from} --route default={}", upstream.addr);
    let (daemon, addr) = proxy(dir.path(), &line("10.0.0.0/8"));
    let mut client = Peer::connect(addr);
    client.send(bytes);
    assert_ne!(client.end(), End::Open);
    let session = daemon.session(client.addr);
    assert!(["denied", "bad-header"].contains(&session.get("end")), "{}", session.0);
    let (daemon, addr) = proxy(dir.path(), &line("127.0.0.0/8"));
    let mut client = Peer::connect(addr);
    client.send(bytes);
    assert_eq!(greeted(&mut client), upstream.addr);
    client.finish();
    assert_eq!(client.end(), End::Fin);
    daemon.ended("192.0.2.7:4711".parse().unwrap(), "done");
}

/// What `beacond decode KIND` says of a file.
fn decoded(kind: &str, text: &str) -> String {
    let mut child = Command::new(program())
        .args(["decode", kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn refused_first_flights_are_kept_and_can_be_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("dump");
    std::fs::create_dir(&kept).unwrap();
    let upstream = Upstream::echo();
    let line = format!("--dump {} --dump-files 3 --route www.example.net={}", kept.display(), upstream.addr);
    let (daemon, addr) = proxy(dir.path(), &line);
    let files = || {
        let mut files: Vec<_> =
            std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    for id in ["openssl_default", "sni_two_in_list", "server_hello"] {
        let mut client = Peer::connect(addr);
        client.send(&hello(id));
        client.finish();
        client.rest();
        daemon.session(client.addr);
    }
    wait_until("two are kept", || files().len() == 2);
    let verdicts = files()
        .iter()
        .map(|file| decoded("hello", &std::fs::read_to_string(file).unwrap()))
        .collect::<Vec<_>>();
    assert!(verdicts.iter().all(|verdict| verdict.contains("bad-hello ")), "{verdicts:?}");
    for file in files() {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    for _ in 0..5 {
        let mut client = Peer::connect(addr);
        client.send(&hello("sni_nul"));
        client.rest();
        daemon.session(client.addr);
    }
    wait_until("no more than three", || files().len() == 3);
}

/// The lines of `beacond trace` as they come.
fn trace(daemon: &Daemon, line: &str) -> std::sync::mpsc::Receiver<String> {
    let mut child = Command::new(program())
        .args(["trace", "--control", daemon.control.to_str().unwrap()])
        .args(line.split(' '))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let out = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        let _ = child.wait();
    });
    receiver
}

#[test]
fn sessions_can_be_watched_in_a_running_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::greeting();
    let (daemon, addr) = proxy(dir.path(), &format!("--route *.example.net={}", upstream.addr));
    let lines = trace(&daemon, "--sni alpn.example.net --count 1 --for 20s");
    let session = |id: &str| {
        let mut client = Peer::connect(addr);
        client.send(&hello(id));
        greeted(&mut client);
        client.finish();
        client.rest();
        daemon.session(client.addr);
        client.addr
    };
    // The watcher may still be on its way: sessions go on until one is seen.
    let start = Instant::now();
    let mut seen = Vec::new();
    while seen.is_empty() {
        assert!(start.elapsed() < PATIENCE, "nothing is seen");
        session("openssl_default");
        session("openssl_alpn");
        seen.extend(lines.recv_timeout(Duration::from_millis(50)));
    }
    while let Ok(line) = lines.recv_timeout(PATIENCE) {
        seen.push(line);
    }
    let text = seen.join("\n");
    assert!(text.contains("alpn.example.net"), "{text}");
    assert!(!text.contains("www.example.net"), "only what was asked for: {text}");
}

#[test]
fn headers_of_every_kind_are_decoded() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let said = decoded("proxy", &format!("{}\n", hex(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n")));
    assert!(said.starts_with("proxy version=1 src=192.0.2.7:4711 dst=192.0.2.1:443 used=41"), "{said}");
    let said = decoded("hello", &format!("{}\n", hex(&hello("openssl_alpn"))));
    assert!(said.starts_with("sni name=alpn.example.net route=alpn.example.net used=340"), "{said}");
    let said = decoded("proxy", &format!("{}\n", hex(&header("seed_frame"))));
    assert!(said.starts_with("proxy version=2 src=100.64.0.0:28197 dst=100.64.0.0:443 used=42"), "{said}");
    assert!(said.contains("authority=httpbin.org"), "{said}");
}

#[test]
fn what_is_refused_can_be_watched_too() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, addr) = proxy(dir.path(), "--sniff --hello-timeout 200ms --route default=reject");
    let lines = trace(&daemon, "--count 4 --for 20s");
    let refused = |bytes: &[u8]| {
        let mut client = Peer::connect(addr);
        client.send(bytes);
        assert_ne!(client.end(), End::Open);
        daemon.session(client.addr);
    };
    let start = Instant::now();
    let mut seen = Vec::new();
    while seen.is_empty() {
        assert!(start.elapsed() < PATIENCE, "nothing is seen");
        refused(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00");
        seen.extend(lines.recv_timeout(Duration::from_millis(50)));
    }
    refused(b"\x16\x03");
    (0..4).for_each(|_| refused(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"));
    while let Ok(line) = lines.recv_timeout(PATIENCE) {
        seen.push(line);
    }
    let text = seen.join("\n");
    assert!(text.contains("end=bad-hello") && text.contains("end=hello-timeout"), "{text}");
    assert!(text.contains("first flight, 10 bytes"), "{text}");
    // A session's number stands once in a line.
    assert!(seen.iter().all(|line| line.matches("} ").count() <= 1), "{text}");
}

#[test]
fn a_folder_for_dumps_must_be_there() {
    let missing = run("proxy --listen 127.0.0.1:0 --route default=reject --dump /no/such/folder");
    let said = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(1), "{said}");
    assert!(said.contains("--dump): /no/such/folder: No such file or directory"), "{said}");
}
