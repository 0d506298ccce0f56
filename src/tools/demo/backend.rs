//! The outside world of the demo: small HTTP backends that can die and return, and a client that asks for one answer.
//! Blocking sockets with time limits, never in the loop's thread.
#![expect(
    clippy::disallowed_types,
    reason = "these are the other sides of the daemon's sockets, in their own threads"
)]

use crate::http1::{Asked, Progress, Reader};
use crate::reactor::bank::plain;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long one read, write or connect may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest request head and the longest answer.
const LONGEST: usize = 4096;

/// A backend that answers every request with its name.
#[derive(Debug)]
pub struct Backend {
    name: &'static str,
    addr: SocketAddr,
    alive: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Backend {
    /// Starts one at `addr`, or at a free port of it.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(name: &'static str, addr: SocketAddr) -> io::Result<Backend> {
        let listener = TcpListener::bind(addr)?;
        let mut backend = Backend { name, addr: listener.local_addr()?, alive: None };
        backend.serve(listener)?;
        Ok(backend)
    }

    /// Its name: what it answers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens, or did.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it is announced as.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Closes its listener: from the return on, connections are refused.
    pub fn die(&mut self) {
        let Some((stop, thread)) = self.alive.take() else { return };
        stop.store(true, Ordering::SeqCst);
        // Wakes the accept call; the listener closes with its thread.
        let _ = TcpStream::connect_timeout(&self.addr, PATIENCE);
        let _ = thread.join();
    }

    /// Listens at the same address again.
    ///
    /// # Errors
    /// What the system says.
    pub fn revive(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.addr)?;
        self.serve(listener)
    }

    fn serve(&mut self, listener: TcpListener) -> io::Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name) = (Arc::clone(&stop), self.name);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // One after the other: a client sends its request at once, a check closes at once.
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let _ = answer(stream, name);
            }
        })?;
        self.alive = Some((stop, thread));
        Ok(())
    }
}

/// Whether a connection to `addr` is refused.
#[must_use]
pub fn refuses(addr: SocketAddr) -> bool {
    TcpStream::connect_timeout(&addr, PATIENCE).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// GETs `/` at `addr` over a connection of its own: the body of a 200.
///
/// # Errors
/// Why there is none, in a few words.
pub fn get(addr: SocketAddr) -> Result<String, String> {
    exchange(addr).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => plain(&e),
    })
}

fn exchange(addr: SocketAddr) -> io::Result<String> {
    let mut stream = connect(addr)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut reader = Reader::new(Asked::Body, LONGEST);
    let mut chunk = [0; LONGEST];
    let response = loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            break reader.end().map_err(|e| io::Error::other(e.to_string()))?;
        }
        match reader.feed(&chunk[..count]).map_err(|e| io::Error::other(e.to_string()))? {
            Progress::More => {}
            Progress::Done { response, .. } => break response,
        }
    };
    match response.status {
        200 => Ok(String::from_utf8_lossy(&response.body).into_owned()),
        status => Err(io::Error::other(format!("status {status}"))),
    }
}

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    limit(&stream)?;
    Ok(stream)
}

fn limit(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Reads one request head and answers it with `name`.
fn answer(mut stream: TcpStream, name: &str) -> io::Result<()> {
    limit(&stream)?;
    let (mut head, mut chunk) = (Vec::new(), [0; LONGEST]);
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut chunk)?;
        if count == 0 || head.len() + count > LONGEST {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..count]);
    }
    let length = name.len();
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
    stream.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_backend_answers_dies_and_returns() {
        let mut backend = Backend::start("web1", (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        assert_eq!(get(backend.addr()), Ok("web1".to_owned()));
        // What a check does.
        drop(connect(backend.addr()).unwrap());
        assert_eq!(get(backend.addr()), Ok("web1".to_owned()));
        assert!(!refuses(backend.addr()));
        backend.die();
        assert!(refuses(backend.addr()));
        assert!(get(backend.addr()).unwrap_err().to_lowercase().contains("refused"));
        backend.revive().unwrap();
        assert_eq!(get(backend.addr()), Ok("web1".to_owned()));
        backend.die();
    }
}
