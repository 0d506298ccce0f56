//! From the records of a stream to the one handshake message in them (RFC 8446 section 5.1), however both are cut.
//! Each record is looked at once; the message is put together once, when its end has come.

use super::{Hello, Progress, Reason, message};
use std::borrow::Cow;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const MAJOR_VERSION: u8 = 3;
/// Type, version and length of a record.
const RECORD_HEADER: usize = 5;
const MAX_RECORD: usize = 1 << 14;
/// Type and length of a handshake message.
const MESSAGE_HEADER: usize = 4;

/// Reads a stream that grows. It keeps the place where it stopped and none of the bytes, so the work for a whole hello
/// is in proportion to its length, even if it comes byte by byte in records of one byte each.
#[derive(Clone, Debug)]
pub struct Reader {
    cap: usize,
    /// Where the record that is read begins.
    record: usize,
    /// Bytes of the message in the records before it.
    gathered: usize,
    /// The bytes of the message's header that are known, as a big-endian number, and how many they are.
    header: u32,
    header_len: usize,
}

impl Reader {
    /// A reader that has seen nothing. `cap` is the most that a hello may take, record headers included; nothing fits
    /// into less than 6.
    #[must_use]
    pub fn new(cap: usize) -> Reader {
        Reader { cap, record: 0, gathered: 0, header: 0, header_len: 0 }
    }

    /// Reads on. `stream` is everything from the first byte: what an earlier call was given, and what came since.
    ///
    /// An answer other than [`Progress::NeedMore`] is final.
    #[must_use]
    pub fn read(&mut self, stream: &[u8]) -> Progress {
        loop {
            if let Err(progress) = self.step(stream) {
                return progress;
            }
        }
    }

    /// Reads one record. `Ok`: it was whole, and there is another. Otherwise `Err` is where all this leads to.
    fn step(&mut self, stream: &[u8]) -> Result<(), Progress> {
        let length = self.record_length(stream)?;
        let start = self.record + RECORD_HEADER;
        let end = start + length;
        if end > self.cap {
            return Err(Progress::Bad(Reason::OverLimit));
        }
        self.read_header(stream, start, end)?;
        let missing = self
            .message_length()
            .checked_sub(self.gathered + length)
            .ok_or(Progress::Bad(Reason::TrailingBytes))?;
        if missing == 0 {
            return Err(self.finish(stream, end));
        }
        // What is missing needs at least one more record.
        if end + RECORD_HEADER + missing > self.cap {
            return Err(Progress::Bad(Reason::OverLimit));
        }
        if stream.len() <= end {
            return Err(Progress::NeedMore { at_least: end + 1 });
        }
        self.gathered += length;
        self.record = end;
        Ok(())
    }

    /// The length of the record, from its header. The first one decides whether this is TLS at all.
    fn record_length(&self, stream: &[u8]) -> Result<usize, Progress> {
        let header = stream.get(self.record..).unwrap_or_default();
        let need = |bytes: usize| Progress::NeedMore { at_least: self.record + bytes };
        let wrong = |reason| if self.record == 0 { Progress::NotTls } else { Progress::Bad(reason) };
        match header.first() {
            None => return Err(need(1)),
            Some(&HANDSHAKE) => {}
            Some(&kind) => return Err(wrong(Reason::RecordType(kind))),
        }
        match header.get(1) {
            None => return Err(need(2)),
            Some(&MAJOR_VERSION) => {}
            Some(_) => return Err(wrong(Reason::RecordVersion)),
        }
        let Some(&[_, _, _, high, low]) = header.first_chunk::<RECORD_HEADER>() else {
            return Err(need(RECORD_HEADER));
        };
        match usize::from(u16::from_be_bytes([high, low])) {
            0 => Err(Progress::Bad(Reason::ZeroRecord)),
            length if length > MAX_RECORD => Err(Progress::Bad(Reason::RecordTooLong)),
            length => Ok(length),
        }
    }

    /// Takes what the record from `start` to `end` holds of the message's header.
    fn read_header(&mut self, stream: &[u8], start: usize, end: usize) -> Result<(), Progress> {
        while self.header_len < MESSAGE_HEADER {
            let at = start + self.header_len - self.gathered;
            if at == end {
                break;
            }
            let byte = *stream.get(at).ok_or(Progress::NeedMore { at_least: at + 1 })?;
            if self.header_len == 0 && byte != CLIENT_HELLO {
                return Err(Progress::Bad(Reason::HandshakeType(byte)));
            }
            self.header = self.header << 8 | u32::from(byte);
            self.header_len += 1;
        }
        Ok(())
    }

    /// The message's length with its header; the least it can be, while not all of that is known.
    fn message_length(&self) -> usize {
        let [_kind, body @ ..] = self.header.to_be_bytes();
        let body = if self.header_len < MESSAGE_HEADER { [0; 3] } else { body };
        body.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)) + MESSAGE_HEADER
    }

    /// Reads the message, which ends with its record at `end`.
    fn finish(&self, stream: &[u8], end: usize) -> Progress {
        let Some(stream) = stream.get(..end) else {
            return Progress::NeedMore { at_least: end };
        };
        match message::read(self.message(stream).get(MESSAGE_HEADER..).unwrap_or_default()) {
            Ok((name, alpn)) => Progress::Hello(Hello { name, alpn, used: end }),
            Err(reason) => Progress::Bad(reason),
        }
    }

    /// What the records of `stream` hold, all of them read before. Most hellos come in one and are not copied.
    fn message<'a>(&self, stream: &'a [u8]) -> Cow<'a, [u8]> {
        if self.record == 0 {
            return Cow::Borrowed(stream.get(RECORD_HEADER..).unwrap_or_default());
        }
        let mut message = Vec::with_capacity(self.message_length());
        let mut rest = stream;
        while let Some((&[_, _, _, high, low], after)) = rest.split_first_chunk::<RECORD_HEADER>() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            let (fragment, next) = after.split_at_checked(length).unwrap_or((after, &[]));
            message.extend_from_slice(fragment);
            rest = next;
        }
        Cow::Owned(message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fuzz::{message, records};
    use super::super::{DEFAULT_CAP, MAX_CAP, read};
    use super::*;
    use proptest::prelude::*;

    /// A body without extensions but with room for any number of cipher suites.
    fn body(suites: usize) -> Vec<u8> {
        let length = u16::try_from(suites * 2).unwrap().to_be_bytes();
        [&[3; 34][..], &[0], &length, &vec![7; suites * 2], &[1, 0]].concat()
    }

    fn plain() -> Vec<u8> {
        records(&message(&body(1)), 1 << 14)
    }

    fn need(at_least: usize) -> Progress {
        Progress::NeedMore { at_least }
    }

    /// Feeds the stream byte by byte; the answer, and how many records were looked at on the way, repeats included.
    fn drip(stream: &[u8], cap: usize) -> (Progress, usize) {
        let mut reader = Reader::new(cap);
        let mut looks = 0;
        for end in 0..=stream.len() {
            let stopped = loop {
                looks += 1;
                if let Err(progress) = reader.step(&stream[..end]) {
                    break progress;
                }
            };
            if !matches!(stopped, Progress::NeedMore { .. }) {
                return (stopped, looks);
            }
        }
        (reader.read(stream), looks)
    }

    #[test]
    fn dripping_bytes_costs_one_look_each() {
        for size in [1, 2, 3, 7, 100, 1 << 14] {
            let suites = (MAX_CAP * size / (size + RECORD_HEADER) - 100) / 2;
            let stream = records(&message(&body(suites.min(32_000))), size);
            assert!(stream.len() > 60_000 && stream.len() <= MAX_CAP, "{size}: {}", stream.len());
            let (answer, looks) = drip(&stream, MAX_CAP);
            assert!(matches!(answer, Progress::Hello(_)), "{size}: {answer:?}");
            let records = stream.len().div_ceil(size + RECORD_HEADER);
            assert!(looks <= stream.len() + 1 + records, "{size}: {looks} for {}", stream.len());
        }
    }

    #[test]
    fn heeding_the_promise_costs_few_looks() {
        let stream = records(&message(&body(8000)), 1 << 14);
        let mut reader = Reader::new(MAX_CAP);
        let (mut end, mut looks) = (0, 0);
        while let Progress::NeedMore { at_least } = reader.read(&stream[..end]) {
            assert!(at_least > end && at_least <= stream.len());
            (end, looks) = (at_least, looks + 1);
        }
        assert_eq!(end, stream.len());
        assert_eq!(looks, 8); // type, version, length; four bytes of the message's header; the end
    }

    #[test]
    fn each_byte_is_judged_when_it_comes() {
        let stream = plain();
        for (end, at_least) in
            [(0, 1), (1, 2), (2, 5), (4, 5), (5, 6), (8, 9), (9, stream.len()), (20, stream.len())]
        {
            assert_eq!(read(&stream[..end], DEFAULT_CAP), need(at_least), "{end}");
        }
        assert_eq!(read(b"G", DEFAULT_CAP), Progress::NotTls);
        assert_eq!(read(b"\x16\x02", DEFAULT_CAP), Progress::NotTls);
        for (bytes, reason) in [
            (&b"\x16\x03\x01\0\0"[..], Reason::ZeroRecord),
            (b"\x16\x03\x01\x40\x01", Reason::RecordTooLong),
            (b"\x16\x03\x01\0\x04\x02", Reason::HandshakeType(2)),
            (b"\x16\x03\x01\0\x04\x01\xff\xff\xff", Reason::OverLimit),
            (b"\x16\x03\x01\0\x05\x01\0\0\0", Reason::TrailingBytes),
            (b"\x16\x03\x01\0\x01\x01\x15", Reason::RecordType(21)),
            (b"\x16\x03\x01\0\x01\x01\x16\x02", Reason::RecordVersion),
            (b"\x16\x03\x01\0\x01\x01\x16\x03\x01\0\0", Reason::ZeroRecord),
        ] {
            assert_eq!(read(bytes, DEFAULT_CAP), Progress::Bad(reason), "{bytes:02x?}");
            let short = &bytes[..bytes.len() - 1];
            assert_eq!(read(short, DEFAULT_CAP), need(bytes.len()), "{short:02x?}");
        }
    }

    #[test]
    fn the_cap_is_exact() {
        let one = plain();
        let three = records(&message(&body(1)), 20);
        for stream in [&one, &three] {
            assert!(matches!(read(stream, stream.len()), Progress::Hello(_)));
            for cap in 0..stream.len() {
                let (answer, _) = drip(stream, cap);
                assert_eq!(answer, Progress::Bad(Reason::OverLimit), "{cap}");
            }
        }
        // Refused by the header alone, not when the bytes have come.
        assert_eq!(read(&one[..5], 20), Progress::Bad(Reason::OverLimit));
        assert_eq!(read(&three[..9], three.len() - 11), Progress::Bad(Reason::OverLimit));
    }

    #[test]
    fn what_follows_belongs_to_the_stream() {
        let Progress::Hello(hello) = read(&plain(), DEFAULT_CAP) else { panic!("a good hello") };
        assert_eq!((hello.used, hello.name, hello.alpn.iter().count()), (plain().len(), None, 0));
        for after in [&b"\x14\x03\x03\0\x01\x01"[..], b"\0", &plain()] {
            let stream = [&plain()[..], after].concat();
            assert!(
                matches!(read(&stream, DEFAULT_CAP), Progress::Hello(hello) if hello.used == plain().len())
            );
        }
        let message = [message(&body(1)), vec![0]].concat();
        assert_eq!(read(&records(&message, 1 << 14), DEFAULT_CAP), Progress::Bad(Reason::TrailingBytes));
        assert_eq!(read(&records(&message, 46), DEFAULT_CAP), Progress::Bad(Reason::TrailingBytes));
    }

    proptest! {
        /// Also for a caller that breaks the contract and hands in other bytes than before: any answer, no panic.
        #[test]
        fn other_bytes_than_before_do_no_harm(first: Vec<u8>, then: Vec<u8>, size in 1..50usize) {
            let mut reader = Reader::new(DEFAULT_CAP);
            let good = records(&message(&body(30)), size);
            let _ = reader.read(&good[..first.len().min(good.len())]);
            let _ = reader.read(&first);
            let _ = reader.read(&[&[22, 3, 1, 0, 9, 1], &then[..]].concat());
            let _ = reader.read(&[]);
        }
    }
}
