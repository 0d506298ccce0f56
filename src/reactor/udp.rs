//! Datagrams in batches: `recvmmsg` and `sendmmsg` where the system has them, one at a time elsewhere.
//!
//! The only place that knows the difference. `--cfg beacond_portable` forces the single-datagram path on Linux, so
//! that the test suite can run both. What the datagrams mean is never known here.

use mio::net::UdpSocket;
use std::io;
use std::net::SocketAddr;

/// The most datagrams one call receives: the budget of one turn for one socket.
pub const BATCH: usize = 64;

/// Bytes read of one datagram; the rest of a longer one is cut off silently, as the reference receiver does.
pub const DATAGRAM: usize = 2048;

/// The scratch a batch needs.
pub const SCRATCH: usize = BATCH * DATAGRAM;

#[cfg(all(target_os = "linux", not(beacond_portable)))]
pub use batched::Receiver;
#[cfg(not(all(target_os = "linux", not(beacond_portable))))]
pub use single::Receiver;

/// Sends each datagram over a connected socket; returns how many went out before the first error, and that error.
pub fn send_all(socket: &UdpSocket, datagrams: &[&[u8]]) -> (usize, Option<io::Error>) {
    #[cfg(all(target_os = "linux", not(beacond_portable)))]
    return batched::send_all(socket, datagrams);
    #[cfg(not(all(target_os = "linux", not(beacond_portable))))]
    return single::send_all(socket, datagrams);
}

#[cfg(all(target_os = "linux", not(beacond_portable)))]
mod batched {
    use super::{BATCH, DATAGRAM, SCRATCH, SocketAddr, UdpSocket, io};
    use nix::sys::socket::{
        MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, recvmmsg, sendmmsg,
    };
    use std::io::{IoSlice, IoSliceMut};
    use std::os::fd::AsRawFd;

    /// Receives batches from one socket. Never shared between sockets: the kernel's name lengths live on in it, and
    /// the family is the first socket's.
    #[derive(Default)]
    pub struct Receiver {
        headers: Option<Headers>,
    }

    /// By the socket's family. An address of either would do, were it not for its size: each datagram's is copied.
    enum Headers {
        V4(MultiHeaders<SockaddrIn>),
        V6(MultiHeaders<SockaddrIn6>),
    }

    impl Receiver {
        /// Receives up to [`BATCH`] datagrams into `scratch` ([`SCRATCH`] bytes) and shows each to `each`.
        ///
        /// Returns how many there were; fewer than [`BATCH`] means the socket was drained.
        ///
        /// # Errors
        /// What the kernel says; `WouldBlock` when nothing was there.
        pub fn receive(
            &mut self,
            socket: &UdpSocket,
            scratch: &mut [u8],
            each: &mut dyn FnMut(&[u8], SocketAddr),
        ) -> io::Result<usize> {
            if self.headers.is_none() {
                self.headers = Some(match socket.local_addr()? {
                    SocketAddr::V4(_) => Headers::V4(MultiHeaders::preallocate(BATCH, None)),
                    SocketAddr::V6(_) => Headers::V6(MultiHeaders::preallocate(BATCH, None)),
                });
            }
            match &mut self.headers {
                Some(Headers::V4(headers)) => receive(headers, socket, scratch, each),
                Some(Headers::V6(headers)) => receive(headers, socket, scratch, each),
                None => Ok(0),
            }
        }
    }

    fn receive<S: SockaddrLike + Copy + Into<SocketAddr>>(
        headers: &mut MultiHeaders<S>,
        socket: &UdpSocket,
        scratch: &mut [u8],
        each: &mut dyn FnMut(&[u8], SocketAddr),
    ) -> io::Result<usize> {
        let mut rooms = scratch[..SCRATCH].chunks_exact_mut(DATAGRAM);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(rooms.next().expect("SCRATCH holds BATCH rooms"))]);
        let fd = socket.as_raw_fd();
        let mut batch = recvmmsg(fd, headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        let mut count = 0;
        loop {
            // Looked at where it lies: it is large, and a `for` would move it.
            let next = batch.next();
            let Some(datagram) = &next else { return Ok(count) };
            count += 1;
            // An empty datagram yields no slice.
            let bytes = datagram.iovs().next().unwrap_or_default();
            if let Some(from) = datagram.address {
                each(bytes, from.into());
            }
        }
    }

    pub(super) fn send_all(socket: &UdpSocket, datagrams: &[&[u8]]) -> (usize, Option<io::Error>) {
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(datagrams.len().min(BATCH), None);
        let mut sent = 0;
        for group in datagrams.chunks(BATCH) {
            let slices: Vec<[IoSlice<'_>; 1]> = group.iter().map(|d| [IoSlice::new(d)]).collect();
            let nowhere = vec![None; group.len()];
            let fd = socket.as_raw_fd();
            match sendmmsg(fd, &mut headers, &slices, nowhere, [], MsgFlags::MSG_DONTWAIT) {
                Ok(results) => {
                    let went = results.count();
                    sent += went;
                    if went < group.len() {
                        // The kernel keeps the reason to itself until the next call.
                        return (sent, Some(io::ErrorKind::WouldBlock.into()));
                    }
                }
                Err(errno) => return (sent, Some(errno.into())),
            }
        }
        (sent, None)
    }
}

#[cfg(any(test, not(all(target_os = "linux", not(beacond_portable)))))]
mod single {
    use super::{BATCH, DATAGRAM, SocketAddr, UdpSocket, io};

    /// Receives from one socket, a datagram a call.
    #[derive(Default)]
    pub struct Receiver {
        _as_made_by_default: (),
    }

    impl Receiver {
        /// Receives up to [`BATCH`] datagrams through `scratch` and shows each to `each`.
        ///
        /// Returns how many there were; fewer than [`BATCH`] means the socket was drained.
        ///
        /// # Errors
        /// What the kernel says, unless a datagram came first; `WouldBlock` when nothing was there.
        pub fn receive(
            &mut self,
            socket: &UdpSocket,
            scratch: &mut [u8],
            each: &mut dyn FnMut(&[u8], SocketAddr),
        ) -> io::Result<usize> {
            for count in 0..BATCH {
                match socket.recv_from(&mut scratch[..DATAGRAM]) {
                    Ok((len, from)) => each(&scratch[..len], from),
                    Err(e) if count == 0 => return Err(e),
                    Err(_) => return Ok(count),
                }
            }
            Ok(BATCH)
        }
    }

    pub(super) fn send_all(socket: &UdpSocket, datagrams: &[&[u8]]) -> (usize, Option<io::Error>) {
        for (sent, datagram) in datagrams.iter().enumerate() {
            if let Err(e) = socket.send(datagram) {
                return (sent, Some(e));
            }
        }
        (datagrams.len(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Interest, Poll, Token};

    type Send = fn(&UdpSocket, &[&[u8]]) -> (usize, Option<io::Error>);
    type Receive<'a> =
        dyn FnMut(&UdpSocket, &mut [u8], &mut dyn FnMut(&[u8], SocketAddr)) -> io::Result<usize> + 'a;

    fn exchange(send: Send, receive: &mut Receive<'_>) {
        let mut receiver = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let long = vec![b'x'; DATAGRAM + 100];
        let mut datagrams: Vec<&[u8]> = vec![b"one", b"", &long];
        datagrams.resize(BATCH + 3, b"more");
        assert!(matches!(send(&sender, &datagrams), (n, None) if n == datagrams.len()));

        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut receiver, Token(0), Interest::READABLE).unwrap();
        poll.poll(&mut Events::with_capacity(1), None).unwrap();
        let mut scratch = vec![0; SCRATCH];
        let mut got: Vec<(Vec<u8>, SocketAddr)> = Vec::new();
        let mut keep = |bytes: &[u8], from: SocketAddr| got.push((bytes.to_vec(), from));
        assert_eq!(receive(&receiver, &mut scratch, &mut keep).unwrap(), BATCH);
        assert_eq!(receive(&receiver, &mut scratch, &mut keep).unwrap(), 3);
        let end = receive(&receiver, &mut scratch, &mut keep).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);

        let texts: Vec<&[u8]> = got.iter().map(|(bytes, _)| bytes.as_slice()).collect();
        datagrams[2] = &long[..DATAGRAM];
        assert_eq!(texts, datagrams);
        assert!(got.iter().all(|(_, from)| *from == sender.local_addr().unwrap()));
    }

    #[test]
    fn the_chosen_path_keeps_order_senders_and_lengths() {
        let mut receiver = Receiver::default();
        exchange(send_all, &mut |socket, scratch, each| receiver.receive(socket, scratch, each));
    }

    #[test]
    fn the_portable_path_does_the_same() {
        let mut receiver = single::Receiver::default();
        exchange(single::send_all, &mut |socket, scratch, each| receiver.receive(socket, scratch, each));
    }
}
