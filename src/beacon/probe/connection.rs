//! One connection of a health check: made and closed. Never waits.

use crate::reactor::{Cx, Key, Registration};
use mio::Interest;
use mio::net::TcpStream;
use std::io;
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

    pub(super) fn close(mut self, cx: &mut Cx<'_>) {
        cx.deregister(&mut self.stream, self.registration);
    }
}
