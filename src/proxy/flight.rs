//! A session's first flight: the bytes up to the point where it is known who the client is and where it wants to go.
//!
//! ```text
//! [ PROXY header ] [ ClientHello ] what else came with them
//! ```
//!
//! Bytes come in any pieces, and are looked at again only once enough of them have come to tell more. What has been
//! read is kept: it is the beginning of the stream that the server gets. Nothing here decides what follows from it.

use super::hello::{self, Hello};
use super::ppv2::{self, Header};
use std::fmt;

/// The first bytes of a session, as they come.
#[derive(Debug)]
pub struct Flight {
    bytes: Vec<u8>,
    /// The length at which there is more to learn.
    wanted: usize,
    /// The length of the PROXY header, once it is whole.
    header: usize,
    stage: Stage,
    hello_cap: usize,
    hello: Option<Hello>,
}

#[derive(Debug)]
enum Stage {
    /// In the PROXY header; whether a hello is to follow it.
    Header {
        then_hello: bool,
    },
    Hello(hello::Reader),
    Whole,
}

/// What the bytes so far amount to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More must come.
    More,
    /// All that was to be learnt is known.
    Whole,
    /// They are not what they must be, and never will be.
    Bad(Fault),
}

/// What is wrong with a first flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The PROXY header.
    Header(ppv2::Reason),
    /// The ClientHello.
    Hello(hello::Reason),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Header(reason) => reason.fmt(f),
            Fault::Hello(reason) => reason.fmt(f),
        }
    }
}

impl Flight {
    /// A flight that begins with a PROXY header if `header`, and then has a ClientHello of at most `hello` bytes, if
    /// one is to be looked for.
    #[must_use]
    pub fn new(header: bool, hello: Option<usize>) -> Flight {
        let stage = match hello {
            _ if header => Stage::Header { then_hello: hello.is_some() },
            Some(cap) => Stage::Hello(hello::Reader::new(cap)),
            None => Stage::Whole,
        };
        Flight { bytes: Vec::new(), wanted: 1, header: 0, stage, hello_cap: hello.unwrap_or(0), hello: None }
    }

    /// Whether nothing has to be read before the session can go on.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.stage, Stage::Whole)
    }

    /// Whether nothing has come of it, and nothing had to: a client may wait for the server to speak first.
    #[must_use]
    pub fn may_be_silent(&self) -> bool {
        self.stream().is_empty() && !matches!(self.stage, Stage::Header { .. })
    }

    /// How many bytes may be read now: more would be kept for nothing.
    #[must_use]
    pub fn room(&self) -> usize {
        let most = match self.stage {
            Stage::Header { .. } => ppv2::MAX_HEADER.min(self.wanted.max(FIRST)),
            Stage::Hello(_) => self.header + self.hello_cap,
            Stage::Whole => 0,
        };
        most.saturating_sub(self.bytes.len())
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        self.bytes.extend_from_slice(bytes);
        while self.bytes.len() >= self.wanted {
            match self.look() {
                Some(progress) => return progress,
                None if self.is_whole() => return Progress::Whole,
                None => {}
            }
        }
        Progress::More
    }

    /// The PROXY header, once it is whole.
    #[must_use]
    pub fn header(&self) -> Option<Header<'_>> {
        let header = self.bytes.get(..self.header).filter(|header| !header.is_empty())?;
        if let ppv2::Progress::Header(header) = ppv2::read(header) { Some(header) } else { None }
    }

    /// The ClientHello, if there was one.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Every byte that came, the header included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What came behind the header: the beginning of the client's stream.
    #[must_use]
    pub fn stream(&self) -> &[u8] {
        self.bytes.get(self.header..).unwrap_or_default()
    }

    /// Looks at what has come; `None`: a part of it is whole, look on.
    fn look(&mut self) -> Option<Progress> {
        match &mut self.stage {
            Stage::Header { then_hello } => match ppv2::read(&self.bytes) {
                ppv2::Progress::NeedMore { at_least } => self.wanted = at_least,
                ppv2::Progress::Reject(reason) => return Some(Progress::Bad(Fault::Header(reason))),
                ppv2::Progress::Header(header) => {
                    self.header = header.used;
                    self.wanted = header.used + 1;
                    self.stage = match then_hello {
                        true => Stage::Hello(hello::Reader::new(self.hello_cap)),
                        false => Stage::Whole,
                    };
                }
            },
            Stage::Hello(reader) => match reader.read(self.bytes.get(self.header..).unwrap_or_default()) {
                hello::Progress::NeedMore { at_least } => self.wanted = self.header + at_least,
                hello::Progress::Bad(reason) => return Some(Progress::Bad(Fault::Hello(reason))),
                hello::Progress::NotTls => self.stage = Stage::Whole,
                hello::Progress::Hello(hello) => {
                    self.hello = Some(hello);
                    self.stage = Stage::Whole;
                }
            },
            Stage::Whole => {}
        }
        None
    }
}

/// What is read at first: a header of version 1 at its longest, or one of version 2 with all that is common.
const FIRST: usize = 2048;

/// Fuzz target: what is found never depends on how the bytes were cut, and what was read is kept.
#[doc(hidden)]
pub fn fuzz_flight(data: &[u8]) {
    let [kind, cut, data @ ..] = data else { return };
    let make = || Flight::new(kind & 1 != 0, (kind & 2 != 0).then_some(512 + usize::from(*kind)));
    let (mut whole, mut pieces) = (make(), make());
    let run = |flight: &mut Flight, size: usize| {
        let (mut rest, mut progress) = (data, Progress::More);
        while progress == Progress::More && !rest.is_empty() && flight.room() > 0 {
            let (piece, after) = rest.split_at(size.min(flight.room()).min(rest.len()));
            progress = flight.feed(piece);
            rest = after;
        }
        progress
    };
    let progress = run(&mut whole, usize::MAX);
    match (progress, run(&mut pieces, usize::from(*cut % 7) + 1)) {
        // A header that has not come to where it is looked at again may be known to be bad, and its faults be several.
        (Progress::Bad(Fault::Header(_)), Progress::More) => {
            return assert!(pieces.bytes.len() < pieces.wanted);
        }
        (Progress::Bad(Fault::Header(_)), Progress::Bad(Fault::Header(_))) => return,
        (one, other) => assert_eq!(one, other),
    }
    assert_eq!(
        (whole.hello(), whole.header().map(|header| header.origin), whole.header),
        (pieces.hello(), pieces.header().map(|header| header.origin), pieces.header)
    );
    assert!(data.starts_with(whole.bytes()));
    assert!(
        progress != Progress::More || whole.room() > 0 || whole.is_whole(),
        "it waits for what cannot come"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 65535 443\r\n";

    #[test]
    fn a_header_then_something_else() {
        let mut flight = Flight::new(true, Some(1024));
        for byte in V1 {
            assert_eq!(flight.feed(&[*byte]), Progress::More);
        }
        assert_eq!(flight.header().and_then(|h| h.src()), Some("192.0.2.1:65535".parse().unwrap()));
        assert_eq!(flight.feed(b"GET / HTTP/1.1\r\n"), Progress::Whole);
        assert_eq!((flight.hello(), flight.stream()), (None, &b"GET / HTTP/1.1\r\n"[..]));
        assert_eq!(flight.room(), 0);
    }

    #[test]
    fn a_header_alone_keeps_what_came_with_it() {
        let mut flight = Flight::new(true, None);
        assert!(!flight.is_whole());
        assert_eq!(flight.feed(&[V1, b"abc"].concat()), Progress::Whole);
        assert_eq!(flight.stream(), b"abc");
        assert!(Flight::new(false, None).is_whole());
    }

    #[test]
    fn faults_say_which_part_it_is() {
        let mut flight = Flight::new(true, Some(1024));
        assert_eq!(flight.feed(b"GET"), Progress::Bad(Fault::Header(ppv2::Reason::Signature)));
        let mut flight = Flight::new(false, Some(1024));
        let over = [0x16, 3, 1, 0x3f, 0xff, 1];
        assert_eq!(flight.feed(&over), Progress::Bad(Fault::Hello(hello::Reason::OverLimit)));
    }
}
