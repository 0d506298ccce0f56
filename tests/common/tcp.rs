//! Both ends of a proxied connection: clients that tell an end from a reset, backends that behave in every way.

use super::{PATIENCE, free_port, own_ip};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How a connection ended, as seen from one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The other side finished in order.
    Fin,
    /// It was reset.
    Reset,
    /// Neither, for as long as anybody cares to wait.
    Open,
}

/// One side of a connection, client or server.
pub struct Peer {
    pub stream: TcpStream,
    /// Its own address.
    pub addr: SocketAddr,
}

impl Peer {
    #[track_caller]
    pub fn connect(to: SocketAddr) -> Peer {
        Peer::new(TcpStream::connect(to).unwrap())
    }

    pub fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let addr = stream.local_addr().unwrap();
        Peer { stream, addr }
    }

    /// Sends all of it. A connection that is gone is what its reader will tell.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// No more will be sent.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends it with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The next `count` bytes.
    #[track_caller]
    pub fn exact(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        if let Err(error) = self.stream.read_exact(&mut bytes) {
            panic!("{count} bytes were to come: {error}");
        }
        bytes
    }

    /// Sends `bytes` and waits until an echo returns them.
    #[track_caller]
    pub fn echoed(&mut self, bytes: &[u8]) {
        assert!(self.send(bytes), "the connection takes bytes");
        assert_eq!(self.exact(bytes.len()), bytes);
    }

    /// Everything that still comes, and how it ends.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        let (mut all, mut part) = (Vec::new(), [0; 16384]);
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return (all, End::Fin),
                Ok(count) => all.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return (all, End::Open);
                }
                Err(_) => return (all, End::Reset),
            }
        }
    }

    /// How it ends, without another byte.
    #[track_caller]
    pub fn end(&mut self) -> End {
        let (bytes, end) = self.rest();
        assert!(
            bytes.is_empty(),
            "{} bytes came before the end: {:?}",
            bytes.len(),
            &bytes[..bytes.len().min(80)]
        );
        end
    }

    /// Whether it is open and silent right now.
    pub fn quiet(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        seen.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// A backend with a thread per connection; it stops to accept with the value.
pub struct Upstream {
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Upstream {
    /// One that does this with every connection, on an address of its own.
    pub fn start(act: impl Fn(Peer) + Send + Sync + 'static) -> Upstream {
        Upstream::start_at(SocketAddr::from((own_ip(), 0)), act)
    }

    pub fn start_at(addr: SocketAddr, act: impl Fn(Peer) + Send + Sync + 'static) -> Upstream {
        let listener = listener(addr, 4096);
        let addr = listener.local_addr().unwrap();
        let (stop, act) = (Arc::new(AtomicBool::new(false)), Arc::new(act));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let act = Arc::clone(&act);
                let small = std::thread::Builder::new().stack_size(128 << 10);
                small.spawn(move || act(Peer::new(stream))).unwrap();
            }
        });
        Upstream { addr, stop }
    }

    /// Sends back what comes, and ends when its client does.
    pub fn echo() -> Upstream {
        Upstream::start(echo)
    }

    /// Sends its own address and a line feed first; then an echo.
    pub fn greeting() -> Upstream {
        Upstream::start(|mut peer| {
            let line = format!("{}\n", peer.addr);
            if peer.send(line.as_bytes()) {
                echo(peer);
            }
        })
    }

    /// Hands over every connection; the test plays the server.
    pub fn by_hand() -> (Upstream, Receiver<Peer>) {
        let (sender, receiver) = channel();
        (Upstream::start(move |peer| drop(sender.send(peer))), receiver)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept call; the listener closes with its thread.
        let _ = TcpStream::connect(self.addr);
    }
}

fn echo(mut peer: Peer) {
    let mut part = [0; 16384];
    // A test may leave a session idle for longer than anybody waits for bytes.
    peer.stream.set_read_timeout(None).unwrap();
    while let Ok(count @ 1..) = peer.stream.read(&mut part) {
        if !peer.send(&part[..count]) {
            return;
        }
    }
}

/// The connection that reaches a backend played by hand.
#[track_caller]
pub fn arrival(from: &Receiver<Peer>) -> Peer {
    from.recv_timeout(PATIENCE).expect("a connection reaches the backend")
}

/// The first line of a [`Upstream::greeting`]: who answered.
#[track_caller]
pub fn greeted(peer: &mut Peer) -> SocketAddr {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.extend(peer.exact(1));
    }
    String::from_utf8_lossy(&line).trim().parse().expect("an address")
}

/// An address where nobody listens.
pub fn closed_port() -> SocketAddr {
    free_port(own_ip())
}

/// An address where connecting never ends: the kernel's queue of it is full, and nobody accepts.
pub struct Deaf {
    pub addr: SocketAddr,
    listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Deaf {
    pub fn start() -> Deaf {
        let listener = listener(SocketAddr::from((own_ip(), 0)), 0);
        let addr = listener.local_addr().unwrap();
        let short = Duration::from_millis(100);
        let queue = std::iter::from_fn(|| TcpStream::connect_timeout(&addr, short).ok()).collect();
        Deaf { addr, listener, _queue: queue }
    }

    /// Takes who has waited: whoever tries once more is connected.
    pub fn hear(&self) {
        self.listener.set_nonblocking(true).unwrap();
        while let Ok((stream, _)) = self.listener.accept() {
            drop(stream);
        }
    }
}

fn listener(addr: SocketAddr, backlog: i32) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&addr.into()).unwrap();
    socket.listen(backlog).unwrap();
    socket.into()
}

/// A small receive buffer, so that little waits in the kernel for a reader that does not read.
pub fn narrow(socket: &impl AsFd) {
    SockRef::from(socket).set_recv_buffer_size(64 << 10).unwrap();
}

/// Bytes whose order and number cannot go wrong unseen.
pub fn pattern(count: usize) -> Vec<u8> {
    (0..count.div_ceil(8))
        .flat_map(|n| (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
        .take(count)
        .collect()
}

/// Lets this process, and what it starts, open as many descriptors as the machine allows.
pub fn many_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// The lines of a stream, one at each call.
pub fn lines(from: impl Read + 'static) -> impl FnMut() -> String {
    let mut lines = BufReader::new(from).lines();
    move || lines.next().expect("another line").unwrap()
}
