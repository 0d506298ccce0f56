//! One connection of a health check: made, asked, read as far as the answer's status, closed. Never waits.

use crate::http1::{HttpUrl, Progress, Reader, Request};
use crate::reactor::bank::plain;
use crate::reactor::{Cx, Key, Registration};
use mio::Interest;
use mio::net::TcpStream;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

/// A connection that the loop watches. [`Connection::close`] it.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    registration: Registration,
}

impl Connection {
    /// Begins to connect.
    pub(super) fn open(address: SocketAddr, key: Key, cx: &mut Cx<'_>) -> io::Result<Connection> {
        let mut stream = TcpStream::connect(address)?;
        let registration = cx.register(&mut stream, key, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection { stream, registration })
    }

    /// Whether there is a connection, or none to be had; `None`: not known yet.
    pub(super) fn established(&self) -> Option<io::Result<()>> {
        match (self.stream.take_error(), self.stream.peer_addr()) {
            (Ok(Some(e)) | Err(e), _) => Some(Err(e)),
            (Ok(None), Ok(_)) => Some(Ok(())),
            (Ok(None), Err(e)) if e.kind() == io::ErrorKind::NotConnected => None,
            (Ok(None), Err(e)) => Some(Err(e)),
        }
    }

    /// Writes what the connection takes; what is left stays in `unsent`.
    pub(super) fn send(&mut self, unsent: &mut Vec<u8>) -> io::Result<()> {
        while !unsent.is_empty() {
            match self.stream.write(unsent) {
                Ok(n) => drop(unsent.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads what there is, at most to the end of the head, which is bounded: the status, or nothing yet.
    pub(super) fn receive(&mut self, reader: &mut Reader, scratch: &mut [u8]) -> Result<Option<u16>, String> {
        loop {
            let fed = match self.stream.read(scratch) {
                Ok(0) => return Err("connection closed without an answer".to_owned()),
                Ok(n) => reader.feed(scratch.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(plain(&e)),
            };
            match (reader.status(), fed) {
                // What is wrong with the body, if only that it is longer than nothing, is not the check's affair.
                (Some(status), _) => return Ok(Some(status)),
                (None, Ok(Progress::Done { response, .. })) => return Ok(Some(response.status)),
                (None, Ok(Progress::More)) => {}
                (None, Err(e)) => return Err(e.to_string()),
            }
        }
    }

    pub(super) fn close(mut self, cx: &mut Cx<'_>) {
        cx.deregister(&mut self.stream, self.registration);
    }
}

/// The request of a check.
pub(super) fn question(url: &HttpUrl) -> Vec<u8> {
    let mut out = Vec::new();
    let headers = [("User-Agent", "beacond"), ("Accept", "*/*")];
    let request = Request {
        method: "GET",
        target: &url.target,
        host: &url.authority,
        headers: &headers,
        body: None,
        close: true,
    };
    request.write(&mut out).expect("the parts of a url that was read make a request");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_url_that_reads_makes_a_request() {
        for text in
            ["http://a", "http://[::1]:81/x?y=%20&z", "http://a_b.c-d:/?\"<>", "http://10.0.0.1/~`^{|}"]
        {
            let url = HttpUrl::parse(text).unwrap();
            let sent = String::from_utf8(question(&url)).unwrap();
            assert!(sent.starts_with(&format!("GET {} HTTP/1.1\r\nHost: {}\r\n", url.target, url.authority)));
            assert!(sent.contains("Connection: close\r\n") && sent.ends_with("\r\n\r\n"));
        }
    }
}
