//! Bytes from socket to socket through a pipe, without a copy into this process: `splice(2)`, on Linux.
//!
//! A pipe takes part only while bytes move in bulk. It is lent by a pool, and comes back empty; one that still holds
//! bytes is closed, for its next tenant must not get them. Everywhere else, and under `--cfg beacond_portable`, the
//! pool lends nothing and all is copied. What is moved, and when, is not decided here.

#[cfg(not(all(target_os = "linux", not(beacond_portable))))]
pub use copied::{Pipe, Pipes};
#[cfg(all(target_os = "linux", not(beacond_portable)))]
pub use spliced::{Pipe, Pipes};

/// What a pipe is asked to hold: a larger one saves little more, a smaller one costs a third more (measured).
pub const ROOM: usize = 256 << 10;

#[cfg(all(target_os = "linux", not(beacond_portable)))]
mod spliced {
    use super::ROOM;
    use mio::net::TcpStream;
    use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
    use nix::unistd::pipe2;
    use std::io;
    use std::os::fd::OwnedFd;

    /// Empty pipes to lend.
    #[derive(Debug)]
    pub struct Pipes {
        idle: Vec<Pipe>,
        /// Lent or idle.
        open: usize,
        most: usize,
    }

    /// A pipe, and what lies in it.
    #[derive(Debug)]
    pub struct Pipe {
        reader: OwnedFd,
        writer: OwnedFd,
        room: usize,
        held: usize,
    }

    impl Pipes {
        /// A pool of at most `most` pipes, opened as they are needed.
        #[must_use]
        pub fn new(most: usize) -> Pipes {
            Pipes { idle: Vec::new(), open: 0, most }
        }

        /// Sets another bound; what is lent stays lent.
        pub fn bound(&mut self, most: usize) {
            self.most = most;
        }

        /// Lends a pipe; `None` where all are lent, or the system has none left: copy then.
        pub fn lend(&mut self) -> Option<Pipe> {
            if self.open > self.most || self.idle.is_empty() && self.open == self.most {
                return None;
            }
            if let Some(pipe) = self.idle.pop() {
                return Some(pipe);
            }
            let pipe = Pipe::open().ok()?;
            self.open += 1;
            Some(pipe)
        }

        /// Takes a pipe back.
        pub fn give_back(&mut self, pipe: Pipe) {
            if pipe.held == 0 && self.idle.len() < IDLE && self.open <= self.most {
                self.idle.push(pipe);
            } else {
                self.open -= 1;
            }
        }
    }

    /// The most pipes that wait for the next bulk transfer.
    const IDLE: usize = 16;

    impl Pipe {
        fn open() -> io::Result<Pipe> {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
            // A user whose pipes hold too much already is refused a large one; any size will do.
            let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(i32::try_from(ROOM).unwrap_or(i32::MAX)));
            let room = fcntl(&writer, FcntlArg::F_GETPIPE_SZ)?;
            Ok(Pipe { reader, writer, room: usize::try_from(room).unwrap_or(ROOM), held: 0 })
        }

        /// How much it can hold.
        #[must_use]
        pub fn room(&self) -> usize {
            self.room
        }

        /// How much it holds.
        #[must_use]
        pub fn held(&self) -> usize {
            self.held
        }

        /// Moves bytes from a socket into the pipe, which must be empty: so nothing but an empty socket blocks, and
        /// 0 means the end of the stream.
        ///
        /// # Errors
        /// What the kernel says.
        pub fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
            let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
            let count = splice(from, None, &self.writer, None, self.room, flags)?;
            self.held += count;
            Ok(count)
        }

        /// Moves what it holds into a socket, as far as that takes it.
        ///
        /// # Errors
        /// What the kernel says.
        pub fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
            let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
            let count = splice(&self.reader, None, to, None, self.held, flags)?;
            self.held = self.held.saturating_sub(count);
            Ok(count)
        }
    }
}

#[cfg(not(all(target_os = "linux", not(beacond_portable))))]
mod copied {
    use mio::net::TcpStream;
    use std::io;

    /// A pool that lends nothing.
    #[derive(Debug)]
    pub struct Pipes;

    /// Never exists.
    #[derive(Debug)]
    pub enum Pipe {}

    impl Pipes {
        /// A pool that lends nothing.
        #[must_use]
        pub fn new(_: usize) -> Pipes {
            Pipes
        }

        /// Lends no more for it.
        pub fn bound(&mut self, _: usize) {}

        /// Never lends.
        pub fn lend(&mut self) -> Option<Pipe> {
            None
        }

        /// Never called.
        pub fn give_back(&mut self, pipe: Pipe) {
            match pipe {}
        }
    }

    impl Pipe {
        /// Never called.
        #[must_use]
        pub fn room(&self) -> usize {
            match *self {}
        }

        /// Never called.
        #[must_use]
        pub fn held(&self) -> usize {
            match *self {}
        }

        /// Never called.
        ///
        /// # Errors
        /// None.
        pub fn fill(&mut self, _: &TcpStream) -> io::Result<usize> {
            match *self {}
        }

        /// Never called.
        ///
        /// # Errors
        /// None.
        pub fn drain(&mut self, _: &TcpStream) -> io::Result<usize> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(all(target_os = "linux", not(beacond_portable))))]
    #[test]
    fn without_pipes_nothing_is_lent() {
        assert!(Pipes::new(5).lend().is_none());
    }

    #[cfg(all(target_os = "linux", not(beacond_portable)))]
    #[test]
    #[expect(clippy::disallowed_types, reason = "two ends of a connection to move bytes between")]
    fn a_pool_lends_up_to_its_bound_and_keeps_no_bytes() {
        use std::io::Write;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (reader, _) = listener.accept().unwrap();
        let reader = mio::net::TcpStream::from_std(reader);
        writer.write_all(b"abc").unwrap();

        let mut pipes = Pipes::new(2);
        let (first, mut second) = (pipes.lend().unwrap(), pipes.lend().unwrap());
        assert!(pipes.lend().is_none() && first.room() >= 4096);
        pipes.give_back(first);
        assert_eq!((second.fill(&reader).unwrap(), second.held()), (3, 3));
        pipes.give_back(second);
        let lent = [pipes.lend(), pipes.lend()];
        assert!(lent.iter().all(|pipe| pipe.as_ref().is_some_and(|pipe| pipe.held() == 0)));
        pipes.bound(1);
        lent.into_iter().flatten().for_each(|pipe| pipes.give_back(pipe));
        assert!(pipes.lend().is_some() && pipes.lend().is_none());
    }
}
