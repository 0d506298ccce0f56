//! The chunked transfer coding (RFC 9112 section 7.1), one byte or many at a time. Trailers are the reader's.
//!
//! ```text
//! 4;ext=1 CR LF   a b c d CR LF   0 CR LF   (trailer fields) CR LF
//! ```

use super::Error;

/// Where in the coding the next byte belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunked {
    at: At,
    /// Bytes seen of the current size line.
    line: usize,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left: usize },
    DataCr,
    DataLf,
}

impl Chunked {
    /// Before the first chunk.
    pub(super) fn new() -> Chunked {
        Chunked { at: FIRST, line: 0 }
    }

    /// Appends data from `input` to `body`, which may hold `limit` bytes. Returns how much of `input` was used and
    /// whether the last chunk's line has been read: from there on the trailer section follows.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(usize, bool), Error> {
        let mut rest = input;
        while let Some((&byte, after)) = rest.split_first() {
            if let At::Data { left } = self.at {
                let (data, beyond) = rest.split_at(left.min(rest.len()));
                body.extend_from_slice(data);
                rest = beyond;
                self.at = if left > data.len() { At::Data { left: left - data.len() } } else { At::DataCr };
                continue;
            }
            rest = after;
            self.line += 1;
            self.at = match (self.at, byte) {
                (At::SizeLf { value: 0 }, b'\n') => return Ok((input.len() - rest.len(), true)),
                (At::SizeLf { value }, b'\n') => {
                    let room = limit.saturating_sub(body.len());
                    let left = usize::try_from(value).ok().filter(|&size| size <= room);
                    At::Data { left: left.ok_or(Error::BodyTooLong)? }
                }
                (At::DataCr, b'\r') => At::DataLf,
                (At::DataLf, b'\n') => {
                    self.line = 0;
                    FIRST
                }
                (at, byte) => at.size_line(byte).filter(|_| self.line <= MAX_LINE).ok_or(Error::BadChunk)?,
            };
        }
        Ok((input.len(), false))
    }
}

impl At {
    /// What follows `byte` of a size line up to its CR; `None`: not a size line.
    fn size_line(self, byte: u8) -> Option<At> {
        match (self, byte) {
            (At::Size { digits: 1.., value } | At::Extension { value }, b'\r') => Some(At::SizeLf { value }),
            (At::Size { digits: 1.., value }, b';' | b' ' | b'\t') => Some(At::Extension { value }),
            (At::Extension { .. }, b'\t' | b' '..=b'~' | 0x80..) => Some(self),
            (At::Size { value, digits: digits @ 0..16 }, byte) => {
                let digit = char::from(byte).to_digit(16)?;
                Some(At::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            _ => None,
        }
    }
}

const FIRST: At = At::Size { value: 0, digits: 0 };

/// Longest size line with its extensions, which are skipped.
const MAX_LINE: usize = 1024;
