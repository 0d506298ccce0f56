//! What tests of the real binary share: a daemon whose log can be waited for, small HTTP and raw backends, a real
//! HAProxy, a real nginx.
//!
//! Everything waits for a line or a state; nothing sleeps for a fixed time. Addresses are of the test's own in
//! 127/8, so that tests run side by side.
#![allow(dead_code, reason = "each test file uses its own part of this one")]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests are the other side of the sockets"
)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

pub mod apache;
pub mod backend;
pub mod beat;
pub mod caddy;
pub mod daemon;
pub mod dns;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod haproxy;
pub mod haproxy_tcp;
pub mod load;
pub mod nginx;
pub mod nginx_http;
pub mod proxy;
pub mod sender;
pub mod standin;
pub mod tcp;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A secret that no rule complains about.
pub const SECRET: &str = "correct-horse-battery-staple-1";

/// Waits until `state` is true, or fails saying what was waited for.
#[track_caller]
pub fn wait_until(what: &str, mut state: impl FnMut() -> bool) {
    wait_for(what, || state().then_some(()));
}

/// Waits until `state` yields something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = state() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address in 127/8 that this process has not handed out before.
pub fn own_ip() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let mix = (std::process::id().wrapping_mul(0x9e37) ^ 0x0055_aa00).wrapping_add(n);
        let [_, a, b, c] = mix.to_be_bytes();
        // Never 127.0.0.x, and never .0 or .255 at the end: bent to their neighbours they would be handed out twice.
        if (1..=254).contains(&c) {
            return Ipv4Addr::new(127, a | 0x40, b, c);
        }
    }
}

/// A free TCP port on `ip`.
pub fn free_port(ip: Ipv4Addr) -> SocketAddr {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// An HTTP response, or that there was none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Status and body.
    Http(u16, String),
    /// Connection refused, reset or closed without an answer.
    None,
}

/// GETs `path` over a connection of its own.
pub fn get(server: SocketAddr, path: &str) -> Answer {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        Ok(all)
    };
    let Ok(bytes) = exchange() else { return Answer::None };
    let text = String::from_utf8_lossy(&bytes);
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
    match (status, body) {
        (Some(status), Some(body)) => Answer::Http(status, body),
        _ => Answer::None,
    }
}

/// The status of a GET of `/`; 0 for none.
pub fn status_of(server: SocketAddr) -> u16 {
    match get(server, "/") {
        Answer::Http(status, _) => status,
        Answer::None => 0,
    }
}
