//! Who is asked before a session goes on: the verdict hook, and an upstream that wants an HTTP CONNECT.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::PATIENCE;
use common::daemon::{Daemon, args, private_file};
use common::proxy::{header, hello, proxy};
use common::tcp::{End, Peer, Upstream, arrival, greeted, pattern};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;
use std::time::{Duration, Instant};

/// A verdict hook: what it was asked, and answers by a function; no answer is silence.
struct Hook {
    path: PathBuf,
    asked: Receiver<Value>,
}

impl Hook {
    fn start(dir: &Path, answer: impl Fn(&Value) -> Option<String> + Clone + Send + 'static) -> Hook {
        let path = dir.join("auth");
        let _ = std::fs::remove_file(&path);
        let (listener, (sender, asked)) = (UnixListener::bind(&path).unwrap(), channel());
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let (sender, answer) = (sender.clone(), answer.clone());
                spawn(move || {
                    let mut out: UnixStream = stream.try_clone().unwrap();
                    for line in BufReader::new(stream).lines().map_while(Result::ok) {
                        let question: Value = serde_json::from_str(&line).expect(&line);
                        let _ = sender.send(question.clone());
                        if let Some(said) = answer(&question) {
                            let _ = out.write_all(format!("{said}\n").as_bytes());
                        }
                    }
                });
            }
        });
        Hook { path, asked }
    }

    #[track_caller]
    fn question(&self) -> Value {
        self.asked.recv_timeout(PATIENCE).expect("the hook is asked")
    }
}

/// A proxy with a hook; `default` is where it leads when the hook names nothing.
fn guarded(dir: &Path, hook: &Hook, default: SocketAddr, more: &str) -> (Daemon, SocketAddr) {
    proxy(dir, &format!("--sniff --auth unix:{} {more} --route default={default}", hook.path.display()))
}

#[test]
fn the_hook_allows_denies_and_names_targets() {
    let dir = tempfile::tempdir().unwrap();
    let ups = [Upstream::greeting(), Upstream::greeting()];
    let other = ups[1].addr;
    let hook = Hook::start(dir.path(), move |question| {
        Some(match question["sni"].as_str() {
            Some("www.example.net") => "allow".to_owned(),
            Some("alpn.example.net") => format!("allow {other}"),
            _ => "deny not in the list".to_owned(),
        })
    });
    let (daemon, addr) = guarded(dir.path(), &hook, ups[0].addr, "");
    for (id, to) in [("openssl_default", &ups[0]), ("openssl_alpn", &ups[1])] {
        let (mut client, bytes) = (Peer::connect(addr), hello(id));
        client.send(&bytes);
        assert_eq!(greeted(&mut client), to.addr, "{id}");
        assert_eq!(client.exact(bytes.len()), bytes);
        let question = hook.question();
        assert!(question.to_string().contains(&client.addr.ip().to_string()), "{question}");
        if id == "openssl_alpn" {
            assert!(question.to_string().contains("http/1.1"), "{question}");
        }
        client.finish();
        assert_eq!(client.end(), End::Fin);
        daemon.ended(client.addr, "done");
    }
    let mut client = Peer::connect(addr);
    client.send(&hello("curl_default"));
    assert_ne!(client.end(), End::Open);
    daemon.ended(client.addr, "auth-denied");
    daemon.line("not in the list");
}

#[test]
fn bytes_wait_for_the_verdict_and_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::echo();
    let (let_go, held) = channel::<()>();
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    let hook = Hook::start(dir.path(), move |question| {
        if question["sni"] == "www.example.net" {
            held.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        Some("allow".to_owned())
    });
    let (_daemon, addr) = guarded(dir.path(), &hook, upstream.addr, "--auth-timeout 20");
    let (mut slow, first) = (Peer::connect(addr), hello("openssl_default"));
    slow.send(&first);
    let more = pattern(200_000);
    let mut stream = slow.stream.try_clone().unwrap();
    let tail = more.clone();
    let sent = spawn(move || stream.write_all(&tail).unwrap());
    let (mut quick, bytes) = (Peer::connect(addr), hello("openssl_alpn"));
    quick.send(&bytes);
    assert_eq!(hook.question()["sni"], "www.example.net");
    assert_eq!(quick.exact(bytes.len()), bytes);
    assert!(slow.quiet());
    let_go.send(()).unwrap();
    assert_eq!(slow.exact(first.len()), first);
    assert_eq!(slow.exact(more.len()), more);
    sent.join().unwrap();
}

#[test]
fn a_hook_that_fails_lets_nobody_in_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::greeting();
    for said in [None, Some("perhaps"), Some("")] {
        let hook = Hook::start(dir.path(), move |_| said.map(str::to_owned));
        let (daemon, addr) = guarded(dir.path(), &hook, upstream.addr, "--auth-timeout 200ms");
        let mut client = Peer::connect(addr);
        client.send(&hello("openssl_default"));
        assert_ne!(client.end(), End::Open, "{said:?}");
        daemon.ended(client.addr, "auth-failed");
        let (_daemon, addr) =
            guarded(dir.path(), &hook, upstream.addr, "--auth-timeout 200ms --auth-fail-open");
        let mut client = Peer::connect(addr);
        client.send(&hello("openssl_default"));
        assert_eq!(greeted(&mut client), upstream.addr, "{said:?}");
    }
    let nobody = Hook { path: dir.path().join("nobody"), asked: channel().1 };
    let (daemon, addr) = guarded(dir.path(), &nobody, upstream.addr, "");
    let mut client = Peer::connect(addr);
    client.send(&hello("openssl_default"));
    assert_ne!(client.end(), End::Open);
    daemon.ended(client.addr, "auth-failed");
}

#[test]
fn a_verdict_may_be_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::greeting();
    let hook = Hook::start(dir.path(), |_| Some("allow".to_owned()));
    let (daemon, addr) = guarded(dir.path(), &hook, upstream.addr, "--auth-cache 60");
    for _ in 0..3 {
        let mut client = Peer::connect(addr);
        client.send(&hello("openssl_default"));
        greeted(&mut client);
        client.finish();
        client.rest();
        daemon.ended(client.addr, "done");
    }
    hook.question();
    assert!(hook.asked.try_recv().is_err(), "asked once");
}

/// The head of a request, up to its empty line, byte by byte: what follows stays.
fn head(peer: &mut Peer) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(peer.exact(1));
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn a_connect_upstream_is_told_host_port_and_headers() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, arrivals) = Upstream::by_hand();
    let file = private_file(dir.path(), "headers", "X-Name: {sni}{authority}\nX-Country: {country}\n");
    let mut words = args(&format!(
        "proxy --listen 127.0.0.1:0 --access-log --accept-proxy --sniff --country AT --header-file {file} \
         --route default=connect:{} --header",
        upstream.addr
    ));
    words.push("X-Client: {client_ip} {client_port} {client_ip_hex}".to_owned());
    let daemon = Daemon::start_args(dir.path(), &words);
    let addr = daemon.proxying();
    let frame = header("seed_frame");
    let mut client = Peer::connect(addr);
    client.send(&frame);
    let mut server = arrival(&arrivals);
    let said = head(&mut server);
    assert!(said.starts_with("CONNECT httpbin.org:443 HTTP/1.1\r\n"), "{said}");
    assert!(said.to_lowercase().contains("\r\nhost: httpbin.org:443\r\n"), "{said}");
    assert!(said.contains("\r\nX-Client: 100.64.0.0 28197 64400000\r\n"), "{said}");
    assert!(said.contains("\r\nX-Country: AT\r\n") && said.contains("\r\nX-Name: httpbin.org"), "{said}");
    // The answer comes in pieces, and the last of them carries bytes of the tunnel.
    for part in ["HTTP/1.1 200 Conn", "ection established\r\nVia: x\r\n\r", "\nearly"] {
        server.send(part.as_bytes());
    }
    assert_eq!(server.exact(frame.len() - 42), frame[42..]);
    assert_eq!(client.exact(5), b"early");
    let bytes = pattern(1 << 20);
    server.send(&bytes[..100_000]);
    assert_eq!(client.exact(100_000), bytes[..100_000]);
    client.finish();
    assert_eq!(server.end(), End::Fin);
    server.finish();
    assert_eq!(client.end(), End::Fin);
    daemon.ended("100.64.0.0:28197".parse().unwrap(), "done");
}

#[test]
fn an_upstream_that_says_anything_else_ends_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, arrivals) = Upstream::by_hand();
    let line = format!(
        "--sniff --connect-timeout 500ms --connect-deadline 500ms --route default=connect:{}",
        upstream.addr
    );
    let (daemon, addr) = proxy(dir.path(), &line);
    let cases = [
        (Some("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), &["upstream-refused"][..]),
        (Some("HTTP/1.1 407 Who?\r\n\r\n"), &["upstream-refused"]),
        (Some("SSH-2.0-OpenSSH_9.6\r\n"), &["upstream-bad"]),
        (Some("HTTP/1.1 200 OK\r\n"), &["upstream-bad", "connect-timeout"]),
        (None, &["connect-timeout", "upstream-bad"]),
    ];
    for (said, reasons) in cases {
        let (mut client, start) = (Peer::connect(addr), Instant::now());
        client.send(&hello("openssl_default"));
        let mut server = arrival(&arrivals);
        assert!(head(&mut server).starts_with("CONNECT www.example.net:"));
        server.send(said.unwrap_or_default().as_bytes());
        assert_ne!(client.end(), End::Open, "{said:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{said:?}");
        let session = daemon.session(client.addr);
        assert!(reasons.contains(&session.get("end")), "{said:?}: {}", session.0);
    }
    daemon.line("403");
}
