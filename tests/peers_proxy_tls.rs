//! Real TLS clients and servers with the proxy between them: it reads names and changes nothing.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::haproxy_tcp::{HaproxyTcp, certificate};
use common::proxy::{WAYS, proxy};
use common::{free_port, own_ip, wait_until};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// TLS servers, each of which answers with its number and what it saw of the client's hello.
struct Servers {
    _haproxy: HaproxyTcp,
    addrs: Vec<SocketAddr>,
}

impl Servers {
    fn start(dir: &Path, count: usize) -> Servers {
        let pem = certificate(dir, "servers");
        let addrs: Vec<_> = (0..count).map(|_| free_port(own_ip())).collect();
        let one = |(n, addr): (usize, &SocketAddr)| {
            format!(
                "frontend f{n}\n  mode http\n  bind {addr} ssl crt {} alpn h2,http/1.1\n  http-request return status \
                 200 content-type text/plain lf-string \"{n} [%[ssl_fc_sni]] [%[ssl_fc_alpn]]\"\n",
                pem.display()
            )
        };
        let sections: String = addrs.iter().enumerate().map(one).collect();
        Servers { _haproxy: HaproxyTcp::start(dir, &sections, &addrs), addrs }
    }
}

/// The last line of what a client printed.
#[track_caller]
fn last_line(mut child: Child, input: &[u8]) -> String {
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input);
        // openssl s_client ends with its input; the answer ends the connection.
        let out = child.wait_with_output().unwrap();
        drop(stdin);
        return last(&out.stdout);
    }
    last(&child.wait_with_output().unwrap().stdout)
}

fn last(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().last().unwrap_or_default().to_owned()
}

fn spawn(program: &str, words: &[&str], stdin: Stdio) -> Child {
    let mut command = Command::new(program);
    command.args(words).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect(program)
}

fn curl(proxy: SocketAddr, name: &str, more: &[&str]) -> String {
    let to = format!("::{}:{}", proxy.ip(), proxy.port());
    let url = format!("https://{name}/");
    let words = [&["-sk", "--max-time", "20", "--connect-to", &to, &url], more].concat();
    last_line(spawn("curl", &words, Stdio::null()), b"")
}

fn s_client(proxy: SocketAddr, more: &[&str]) -> String {
    let to = proxy.to_string();
    let words = [&["s_client", "-quiet", "-connect", &to], more].concat();
    last_line(spawn("openssl", &words, Stdio::piped()), b"GET / HTTP/1.0\r\n\r\n")
}

const PYTHON: &str = "
import socket, ssl, sys
host, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
if len(sys.argv) > 4: context.set_alpn_protocols(sys.argv[4].split(','))
with context.wrap_socket(socket.create_connection((host, port), 20), server_hostname=name) as s:
    s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    said = b''
    while part := s.recv(4096): said += part
    print(said.decode().splitlines()[-1])
";

fn python(proxy: SocketAddr, name: &str, alpn: &[&str]) -> String {
    let (ip, port) = (proxy.ip().to_string(), proxy.port().to_string());
    let words = [&["-c", PYTHON, &ip, &port, name], alpn].concat();
    last_line(spawn("python3", &words, Stdio::null()), b"")
}

#[test]
fn real_clients_reach_the_server_of_their_name() {
    let dir = tempfile::tempdir().unwrap();
    let servers = Servers::start(dir.path(), 4);
    let [exact, wild, alpn, default] = servers.addrs[..] else { panic!("four") };
    for way in WAYS {
        let line = format!(
            "{way} --sniff --route a.example.net={exact} --route *.example.net={wild} --route alpn:h2={alpn} \
             --route default={default}"
        );
        let (daemon, addr) = proxy(dir.path(), &line);
        assert_eq!(curl(addr, "a.example.net", &[]), "0 [a.example.net] [h2]");
        assert_eq!(curl(addr, "b.example.net", &["--http1.1"]), "1 [b.example.net] [http/1.1]");
        assert_eq!(curl(addr, "elsewhere.org", &[]), "2 [elsewhere.org] [h2]");
        assert_eq!(curl(addr, "elsewhere.org", &["--no-alpn"]), "3 [elsewhere.org] []");
        assert_eq!(s_client(addr, &["-servername", "A.Example.net"]), "0 [A.Example.net] []");
        assert_eq!(s_client(addr, &["-servername", "x.y.example.net"]), "1 [x.y.example.net] []");
        assert_eq!(s_client(addr, &["-noservername", "-tls1_2"]), "3 [] []");
        assert_eq!(python(addr, "a.example.net", &[]), "0 [a.example.net] []");
        assert_eq!(python(addr, "elsewhere.org", &["http/1.1"]), "3 [elsewhere.org] [http/1.1]");
        assert_eq!(python(addr, "", &[]), "3 [] []");
        wait_until("ten sessions have ended", || daemon.sessions().len() == 10);
        for session in daemon.sessions() {
            assert!(!session.get("target").is_empty() && session.number("out") > 500, "{}", session.0);
            assert!(["done", "client-reset"].contains(&session.get("end")), "{}", session.0);
        }
        let names =
            daemon.sessions().iter().filter(|s| s.get("sni").eq_ignore_ascii_case("a.example.net")).count();
        assert_eq!(names, 3);
    }
}

#[test]
fn openssl_serves_behind_it_and_bulk_passes_whole() {
    let dir = tempfile::tempdir().unwrap();
    let pem = certificate(dir.path(), "server");
    let big: Vec<u8> = common::tcp::pattern(4 << 20);
    std::fs::write(dir.path().join("big"), &big).unwrap();
    let server = free_port(own_ip());
    let words =
        ["s_server", "-quiet", "-WWW", "-accept", &server.to_string(), "-cert", pem.to_str().unwrap()];
    let mut openssl = Command::new("openssl")
        .args(words)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("openssl listens", || TcpStream::connect(server).is_ok());
    for way in WAYS {
        let (daemon, addr) = proxy(dir.path(), &format!("{way} --route big.example.net={server}"));
        let to = format!("::{}:{}", addr.ip(), addr.port());
        let words =
            ["-sk", "--http0.9", "--max-time", "20", "--connect-to", &to, "https://big.example.net/big"];
        let out = Command::new("curl").args(words).output().unwrap();
        assert!(out.stdout == big, "{way}: {} bytes, {:?}", out.stdout.len(), out.status);
        wait_until("the session has ended", || !daemon.sessions().is_empty());
    }
    let _ = openssl.kill();
    let _ = openssl.wait();
}
