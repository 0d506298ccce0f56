//! The bank of sockets: what must survive a reload, and must be open before one is committed.
//!
//! A service names the sockets it wants ([`SocketSpec`]); the reactor opens those that are not there yet, all or
//! none, before it starts anything. `start` then takes them out, `stop` puts them back, so a restarted service finds
//! the very socket its predecessor had. Also here: every other way this program opens a socket.

use mio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket as Raw, TcpKeepalive, Type};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A socket by kind and address: what the bank knows it by.
#[derive(Clone, Debug)]
pub enum SocketSpec {
    /// A bound datagram socket.
    Udp(SocketAddr),
    /// A listening TCP socket; what it accepts sends without delay (TCP_NODELAY) and is kept alive.
    Tcp {
        /// Where it listens.
        addr: SocketAddr,
        /// How many connections the kernel keeps until they are accepted.
        backlog: u16,
    },
    /// A listening stream socket in the file system, for its owner only (mode 0600).
    Unix(PathBuf),
}

/// The same address is the same socket, whatever its backlog: that can change while it listens.
impl PartialEq for SocketSpec {
    fn eq(&self, other: &SocketSpec) -> bool {
        match (self, other) {
            (SocketSpec::Udp(one), SocketSpec::Udp(two)) => one == two,
            (SocketSpec::Tcp { addr: one, .. }, SocketSpec::Tcp { addr: two, .. }) => one == two,
            (SocketSpec::Unix(one), SocketSpec::Unix(two)) => one == two,
            _ => false,
        }
    }
}

impl Eq for SocketSpec {}

impl SocketSpec {
    /// Whether the kernel opens no other socket of this address while `self` is open.
    fn excludes(&self, other: &SocketSpec) -> bool {
        let (one, two) = match (self, other) {
            (SocketSpec::Udp(one), SocketSpec::Udp(two)) => (one, two),
            (SocketSpec::Tcp { addr: one, .. }, SocketSpec::Tcp { addr: two, .. }) => (one, two),
            _ => return false,
        };
        let every = one.ip().is_unspecified() || two.ip().is_unspecified();
        one.port() == two.port() && one.is_ipv4() == two.is_ipv4() && (every || one == two)
    }
}

impl fmt::Display for SocketSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketSpec::Udp(addr) => write!(f, "udp {addr}"),
            SocketSpec::Tcp { addr, .. } => write!(f, "tcp {addr}"),
            SocketSpec::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// An open socket of the bank.
#[derive(Debug)]
pub enum Socket {
    /// See [`SocketSpec::Udp`].
    Udp(UdpSocket),
    /// See [`SocketSpec::Tcp`].
    Tcp(TcpListener),
    /// See [`SocketSpec::Unix`].
    Unix(UnixListener),
}

/// All bound sockets: those lying here, and those lent to services.
#[derive(Debug, Default)]
pub(super) struct Bank {
    idle: Vec<(SocketSpec, Socket)>,
    lent: Vec<SocketSpec>,
}

impl Bank {
    /// Opens whatever of `wanted` is neither here nor lent. On any error, which tells of one of them, nothing has changed.
    pub(super) fn open_missing<'a>(
        &mut self,
        wanted: &'a [SocketSpec],
    ) -> Result<(), (&'a SocketSpec, String)> {
        let mut known: Vec<&SocketSpec> = self.idle.iter().map(|(spec, _)| spec).chain(&self.lent).collect();
        let mut fresh = Vec::new();
        for spec in wanted {
            if let Some(at) = known.iter().position(|k| *k == spec) {
                // Each open socket serves one wish: two sections that ask for port 0 get two ports.
                known.swap_remove(at);
            } else {
                match open(spec) {
                    Ok(socket) => fresh.push((spec.clone(), socket)),
                    Err(e) => {
                        let mut ours = self.idle.iter().chain(&fresh).map(|(spec, _)| spec).chain(&self.lent);
                        let rival = ours.find(|ours| ours.excludes(spec));
                        let why = explain(spec, &e, rival.map(|rival| (rival, wanted.contains(rival))));
                        return Err((spec, why));
                    }
                }
            }
        }
        self.idle.append(&mut fresh);
        Ok(())
    }

    pub(super) fn take(&mut self, spec: &SocketSpec) -> io::Result<Socket> {
        // The last one given back: a restarted service gets its predecessor's, even if others ask for port 0 too.
        let at = self.idle.iter().rposition(|(s, _)| s == spec).ok_or(io::ErrorKind::NotFound)?;
        let (spec, socket) = self.idle.swap_remove(at);
        self.lent.push(spec);
        Ok(socket)
    }

    pub(super) fn give_back(&mut self, spec: &SocketSpec, socket: Socket) {
        if let Some(at) = self.lent.iter().position(|s| s == spec) {
            self.lent.swap_remove(at);
        }
        self.idle.push((spec.clone(), socket));
    }

    /// Closes what nobody took after a reload, and removes the names of unix sockets.
    pub(super) fn close_idle(&mut self) {
        for (spec, socket) in self.idle.drain(..) {
            drop(socket);
            if let SocketSpec::Unix(path) = spec {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Starts a TCP connection; writable once it stands (check `take_error` then).
///
/// # Errors
/// What the kernel says at once.
pub fn connect_tcp(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(to)
}

/// Makes a connection one for streams of others: it sends without delay, and a peer that vanished is noticed.
///
/// # Errors
/// What the kernel says.
pub fn carry(stream: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    keep_alive(&socket)
}

/// Lets the next close of a connection be a reset, so that its peer cannot take it for a clean end.
pub fn reset_on_close(stream: &TcpStream) {
    // It fails only where the connection is gone already.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Lets another number of connections wait at a socket that listens.
pub fn listen_again(listener: &TcpListener, backlog: u16) {
    // It fails only for what is no listening socket.
    let _ = socket2::SockRef::from(listener).listen(backlog.into());
}

/// Whether an error says that this process or host has run out of something, not that a peer is unwell.
#[must_use]
pub fn is_want_of_ours(error: &io::Error) -> bool {
    use nix::errno::Errno::{EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC};
    let wants = [EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC];
    error.raw_os_error().is_some_and(|code| wants.iter().any(|want| *want as i32 == code))
}

/// How many descriptors the process may have: as many as it may ask for, and it asks here.
#[must_use]
pub fn descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 256 };
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    if raised { hard } else { soft }
}

/// How long a connection rests before the kernel asks its peer whether it is still there.
const ALIVE_AFTER: Duration = Duration::from_secs(60);

fn keep_alive(socket: &Raw) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ALIVE_AFTER))
}

/// Connects to a listening unix socket.
///
/// # Errors
/// What the kernel says: no such file, refused, or a full backlog.
pub fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

/// Whether a process accepts connections on the unix socket `path`.
#[must_use]
pub fn answers_at(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// A datagram socket of any port that speaks to `to` alone; the kernel has chosen its source address, and tells it
/// of ICMP errors.
///
/// # Errors
/// What the kernel says: no route to `to`, or no descriptor left.
pub fn connect_udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

/// Asks for a receive buffer of `bytes`; returns what the kernel granted, in the same unit.
///
/// # Errors
/// What the kernel says when asked for the size.
pub fn set_receive_buffer(socket: &UdpSocket, bytes: usize) -> io::Result<usize> {
    // With CAP_NET_ADMIN the limit of the system does not bind us; without, we take what it grants.
    #[cfg(target_os = "linux")]
    let forced = nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &bytes).is_ok();
    #[cfg(not(target_os = "linux"))]
    let forced = false;
    let socket = socket2::SockRef::from(socket);
    if !forced {
        let _ = socket.set_recv_buffer_size(bytes);
    }
    let size = socket.recv_buffer_size()?;
    // Linux counts its own bookkeeping in and doubles what was asked for.
    Ok(if cfg!(target_os = "linux") { size / 2 } else { size })
}

fn open(spec: &SocketSpec) -> io::Result<Socket> {
    match spec {
        SocketSpec::Udp(addr) => {
            let raw = Raw::new(Domain::for_address(*addr), Type::DGRAM, Some(Protocol::UDP))?;
            if addr.is_ipv6() {
                // `[::]` and `0.0.0.0` are two sockets: no v4-mapped sources to explain in logs.
                raw.set_only_v6(true)?;
            }
            raw.set_nonblocking(true)?;
            raw.bind(&(*addr).into())?;
            Ok(Socket::Udp(UdpSocket::from_std(raw.into())))
        }
        SocketSpec::Tcp { addr, backlog } => open_tcp(*addr, *backlog).map(Socket::Tcp),
        SocketSpec::Unix(path) => open_unix(path).map(Socket::Unix),
    }
}

fn open_tcp(addr: SocketAddr, backlog: u16) -> io::Result<TcpListener> {
    let raw = Raw::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        raw.set_only_v6(true)?;
    }
    // Else connections that ended a minute ago would keep a restarted program from its port.
    raw.set_reuse_address(true)?;
    // Accepted connections inherit these, so that none costs a call of its own.
    raw.set_tcp_nodelay(true)?;
    keep_alive(&raw)?;
    raw.set_nonblocking(true)?;
    raw.bind(&addr.into())?;
    raw.listen(backlog.into())?;
    Ok(TcpListener::from_std(raw.into()))
}

fn open_unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(meta) = fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is not a socket is in the way",
            ));
        }
        if answers_at(path) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        // Stale: its process is gone.
        fs::remove_file(path)?;
    }
    let address = socket2::SockAddr::unix(path)?;
    let raw = Raw::new(Domain::UNIX, Type::STREAM, None)?;
    raw.set_nonblocking(true)?;
    let mode = || fs::Permissions::from_mode(0o600);
    // On Linux narrow from the start: a mode set by name could be that of something put in its place. Elsewhere at least
    // before anybody can connect.
    #[cfg(target_os = "linux")]
    File::from(OwnedFd::from(raw.try_clone()?)).set_permissions(mode())?;
    raw.bind(&address)?;
    #[cfg(not(target_os = "linux"))]
    fs::set_permissions(path, mode())?;
    raw.listen(16)?;
    Ok(UnixListener::from_std(raw.into()))
}

/// What is wrong, and what to do; `rival` is a socket of ours in the way, and whether it is to stay.
fn explain(spec: &SocketSpec, error: &io::Error, rival: Option<(&SocketSpec, bool)>) -> String {
    let hint = match (spec, error.kind()) {
        (SocketSpec::Unix(_), io::ErrorKind::NotFound) => "; its folder does not exist",
        (SocketSpec::Unix(_), _) => "",
        (_, io::ErrorKind::AddrInUse) => "; another process has this port",
        (_, io::ErrorKind::AddrNotAvailable) => "; this host has no such address",
        (_, io::ErrorKind::PermissionDenied) => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "",
    };
    let said = format!("cannot open {spec}: {}", plain(error));
    match rival.filter(|_| error.kind() == io::ErrorKind::AddrInUse) {
        Some((rival, true)) => format!("{said}; our own {rival} has this port"),
        Some((rival, false)) => format!("{said}; our own {rival} has this port: restart for this change"),
        None => said + hint,
    }
}

/// An error's text without the number that the standard library appends.
#[must_use]
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(text: &str) -> SocketSpec {
        SocketSpec::Udp(text.parse().unwrap())
    }

    #[test]
    fn all_or_nothing() {
        let mut bank = Bank::default();
        let error = bank.open_missing(&[udp("127.0.0.1:0"), udp("192.0.2.1:5")]).unwrap_err().1;
        assert!(error.contains("192.0.2.1:5") && error.contains("no such address"), "{error}");
        assert!(bank.idle.is_empty());
    }

    #[test]
    fn a_taken_socket_is_not_opened_again_and_two_wishes_are_two_sockets() {
        let mut bank = Bank::default();
        let wish = udp("127.0.0.1:0");
        bank.open_missing(&[wish.clone(), wish.clone()]).unwrap();
        assert_eq!(bank.idle.len(), 2);
        let taken = bank.take(&wish).unwrap();
        bank.open_missing(&[wish.clone(), wish.clone()]).unwrap();
        assert_eq!(bank.idle.len(), 1);
        bank.give_back(&wish, taken);
        assert_eq!((bank.idle.len(), bank.lent.len()), (2, 0));
        bank.close_idle();
        assert!(bank.take(&wish).is_err());
    }

    #[test]
    fn a_port_of_our_own_is_no_other_process() {
        let mut bank = Bank::default();
        let Ok(Socket::Udp(free)) = open(&udp("127.0.0.1:0")) else { panic!("no port is free") };
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (all, one) = (udp(&format!("0.0.0.0:{port}")), udp(&format!("127.0.0.1:{port}")));
        let refused = |bank: &mut Bank, wanted: &[SocketSpec], why: &str| {
            let error = bank.open_missing(wanted).unwrap_err().1;
            assert!(error.ends_with(why), "{error}");
        };
        refused(&mut bank, &[one.clone(), all.clone()], &format!("our own {one} has this port"));
        bank.open_missing(std::slice::from_ref(&all)).unwrap();
        let moved = format!("our own {all} has this port: restart for this change");
        refused(&mut bank, std::slice::from_ref(&one), &moved);
        let _lent = bank.take(&all).unwrap();
        refused(&mut bank, std::slice::from_ref(&one), &moved);
        refused(&mut bank, &[all.clone(), one.clone()], &format!("our own {all} has this port"));
        refused(&mut Bank::default(), &[one], "another process has this port");
    }

    #[test]
    fn unix_sockets_replace_the_stale_and_respect_the_live() {
        let dir = tempfile::tempdir().unwrap();
        let spec = SocketSpec::Unix(dir.path().join("s"));
        let mut bank = Bank::default();
        bank.open_missing(std::slice::from_ref(&spec)).unwrap();
        let mode = fs::metadata(dir.path().join("s")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = Bank::default().open_missing(std::slice::from_ref(&spec)).unwrap_err().1;
        assert!(error.contains("another process answers"), "{error}");
        // A socket whose process died leaves its name behind.
        drop(bank.take(&spec).unwrap());
        Bank::default().open_missing(std::slice::from_ref(&spec)).unwrap();
        fs::remove_file(dir.path().join("s")).unwrap();
        fs::write(dir.path().join("s"), "precious").unwrap();
        let error = Bank::default().open_missing(&[spec]).unwrap_err().1;
        assert!(error.contains("not a socket"), "{error}");
    }
}
