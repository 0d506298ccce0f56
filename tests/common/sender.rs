//! Signed datagrams by hand: what a sender would say, and what it would never say.

use super::SECRET;
use beacond::beacon::auth::Key;
use std::net::{SocketAddr, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

/// Sends datagrams to one receiver.
pub struct Sender {
    socket: UdpSocket,
    secret: String,
}

impl Sender {
    pub fn new(to: SocketAddr) -> Sender {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(to).unwrap();
        Sender { socket, secret: SECRET.to_owned() }
    }

    pub fn with_secret(to: SocketAddr, secret: &str) -> Sender {
        Sender { secret: secret.to_owned(), ..Sender::new(to) }
    }

    /// Signs and sends `text`.
    pub fn send(&self, text: &str) {
        let mut datagram = text.as_bytes().to_vec();
        Key::from_secret(self.secret.as_bytes()).sign(&mut datagram);
        self.raw(&datagram);
    }

    /// Sends bytes as they are. What an absent receiver makes the kernel say about earlier ones does not matter.
    pub fn raw(&self, bytes: &[u8]) {
        let _ = self.socket.send(bytes).or_else(|_| self.socket.send(bytes));
    }

    /// An announcement of `url`, now; `more` is appended, as ` weight=3`.
    pub fn announce(&self, url: &str, more: &str) {
        self.send(&format!("BEACON url={url} host=test pid=7 seq=0 ts={}{more}", now_us()));
    }

    /// A goodbye of `url`, now.
    pub fn leave(&self, url: &str) {
        self.send(&format!("BEACON leave={url} host=test pid=7 seq=1 ts={}", now_us()));
    }
}

/// Microseconds since the Unix epoch.
pub fn now_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}
