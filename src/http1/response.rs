//! One HTTP/1.1 response out of bytes that arrive in pieces (RFC 9112 sections 4, 5, 6 and 7).
//!
//! How the pieces are cut never matters: the same bytes give the same response or the same error. Bytes are decided
//! on in order, a line is searched once, and the head is parsed once, when it is whole.

use super::Headers;
use super::chunked::Chunked;
use std::fmt;

/// A whole response.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Response {
    /// Status code, 101 or 200 to 999; interim responses (1xx) are skipped.
    pub status: u16,
    /// The header section.
    pub headers: Headers,
    /// The trailer section of a chunked body. Caddy sends its `Etag` there.
    pub trailers: Headers,
    /// The body, without transfer coding.
    pub body: Vec<u8>,
    /// Whether the server lets the connection be used again. Bytes beyond the response say otherwise: nobody asked
    /// for them, so close. Never true where the connection has become a tunnel.
    pub keep_alive: bool,
}

/// What was asked, as far as the end of its response depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// GET, POST and the like: a body may follow.
    Body,
    /// HEAD: the response says how long a body would be, and has none.
    Head,
    /// CONNECT: with a 2xx the connection becomes a tunnel right behind the head, whatever lengths that tells (RFC 9110
    /// section 9.3.6); any other response is as to a GET.
    Connect,
}

/// Reads one response. Make a new one for each request.
#[derive(Debug)]
pub struct Reader {
    asked: Asked,
    body_limit: usize,
    state: State,
    section: Section,
    response: Response,
}

/// What [`Reader::feed`] came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// All bytes were taken; the response goes on.
    More,
    /// The response is whole; `used` bytes of the piece belong to it.
    Done {
        /// The response.
        response: Response,
        /// How many of the bytes given were its.
        used: usize,
    },
}

/// Why a response cannot be used. Whatever it is, the connection must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Not a response of HTTP/1.0 or 1.1, or a malformed header line.
    BadHead,
    /// The header section, or the trailer section, is longer than [`MAX_HEAD`].
    HeadTooLong,
    /// More than [`MAX_HEADERS`] fields.
    TooManyHeaders,
    /// Length and transfer coding given together, lengths that differ, a length that is no number.
    BadLength,
    /// A transfer coding other than plain `chunked`.
    UnknownCoding,
    /// A malformed chunk.
    BadChunk,
    /// The body is longer than the caller allows.
    BodyTooLong,
    /// The connection ended before the first byte: on a connection used before, the server may just have closed it.
    NoResponse,
    /// The connection ended inside the response.
    CutShort,
    /// Bytes after the end or after an error: the caller's mistake.
    Spent,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::BadHead => "not an HTTP/1.1 response",
            Error::HeadTooLong => "response head too long",
            Error::TooManyHeaders => "too many response headers",
            Error::BadLength => "bad or conflicting response length",
            Error::UnknownCoding => "unknown transfer coding",
            Error::BadChunk => "bad chunk in response",
            Error::BodyTooLong => "response body too long",
            Error::NoResponse => "closed without a response",
            Error::CutShort => "closed inside the response",
            Error::Spent => "response already complete",
        })
    }
}

/// Longest head in bytes, interim responses before it included; the same bound holds for the trailers.
pub const MAX_HEAD: usize = 16 * 1024;
/// Most fields in a head or in the trailers.
pub const MAX_HEADERS: usize = 64;

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Length(usize),
    Chunked(Chunked),
    Trailers,
    UntilClose,
    Whole,
    Spent,
}

impl Reader {
    /// A reader for the answer to one request: `body_limit` bytes of body at most.
    #[must_use]
    pub fn new(asked: Asked, body_limit: usize) -> Reader {
        Reader {
            asked,
            body_limit,
            state: State::Head,
            section: Section::new(),
            response: Response::default(),
        }
    }

    /// The final status code, as soon as the head is whole: enough for who only wants to know how it went.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        (self.response.status != 0).then_some(self.response.status)
    }

    /// Takes the next bytes of the connection.
    ///
    /// # Errors
    /// The response cannot be used; see [`Error`].
    pub fn feed(&mut self, input: &[u8]) -> Result<Progress, Error> {
        let mut rest = input;
        loop {
            // An error on the way leaves the reader spent.
            self.state = match std::mem::replace(&mut self.state, State::Spent) {
                State::Spent => return Err(Error::Spent),
                State::Whole => {
                    let response = std::mem::take(&mut self.response);
                    return Ok(Progress::Done { response, used: input.len() - rest.len() });
                }
                state if rest.is_empty() => {
                    self.state = state;
                    return Ok(Progress::More);
                }
                State::Head => self.feed_head(&mut rest)?,
                State::Length(left) => {
                    let (data, beyond) = rest.split_at(left.min(rest.len()));
                    self.response.body.extend_from_slice(data);
                    rest = beyond;
                    if left > data.len() { State::Length(left - data.len()) } else { State::Whole }
                }
                State::Chunked(mut chunked) => {
                    let (used, last) = chunked.feed(rest, &mut self.response.body, self.body_limit)?;
                    rest = rest.get(used..).unwrap_or_default();
                    if last {
                        self.section = Section::new();
                        State::Trailers
                    } else {
                        State::Chunked(chunked)
                    }
                }
                State::Trailers => self.feed_trailers(&mut rest)?,
                State::UntilClose => {
                    if rest.len() > self.body_limit.saturating_sub(self.response.body.len()) {
                        return Err(Error::BodyTooLong);
                    }
                    self.response.body.extend_from_slice(std::mem::take(&mut rest));
                    State::UntilClose
                }
            };
        }
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// Unless the response is one that the end of the connection completes.
    pub fn end(self) -> Result<Response, Error> {
        match self.state {
            State::UntilClose => Ok(self.response),
            State::Head if self.section.bytes.is_empty() => Err(Error::NoResponse),
            State::Spent => Err(Error::Spent),
            _ => Err(Error::CutShort),
        }
    }

    fn feed_head(&mut self, rest: &mut &[u8]) -> Result<State, Error> {
        // Another protocol (an SSH banner, say) is refused at its first byte, not after 16 KiB or a timeout.
        let expected = PREFIX.get(self.section.bytes.len()..).unwrap_or_default();
        if expected.iter().zip(*rest).any(|(want, have)| want != have) {
            return Err(Error::BadHead);
        }
        if !self.section.feed(rest)? {
            return Ok(State::Head);
        }
        let bytes = self.section.take();
        let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut slots);
        match head.parse(&bytes) {
            Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Error::TooManyHeaders),
            _ => return Err(Error::BadHead),
        }
        let status = head.code.filter(|&code| code >= 100).ok_or(Error::BadHead)?;
        if status < 200 && status != SWITCHING_PROTOCOLS {
            return Ok(State::Head);
        }
        self.response.status = status;
        for field in head.headers {
            self.response.headers.push(field.name, field.value);
        }
        self.body_state(head.version == Some(1))
    }

    /// How long the body is: RFC 9112 section 6.3.
    fn body_state(&mut self, http_1_1: bool) -> Result<State, Error> {
        let response = &mut self.response;
        if self.asked == Asked::Connect && (200..300).contains(&response.status) {
            // Lengths in it are to be ignored, even those that would be refused elsewhere.
            response.keep_alive = false;
            return Ok(State::Whole);
        }
        let headers = &response.headers;
        let coded = headers.get("transfer-encoding").is_some();
        let length = content_length(headers)?;
        response.keep_alive = response.status != SWITCHING_PROTOCOLS
            && !headers.lists("connection", "close")
            && (http_1_1 || headers.lists("connection", "keep-alive"));
        if self.asked == Asked::Head || matches!(response.status, SWITCHING_PROTOCOLS | 204 | 304) {
            return Ok(State::Whole);
        }
        if coded {
            // With a length too, or from a server of 1.0, somebody on the way may have framed it differently.
            if length.is_some() || !http_1_1 {
                return Err(Error::BadLength);
            }
            let mut codings = headers.list("transfer-encoding");
            let chunked = codings.next().is_some_and(|c| c.eq_ignore_ascii_case(b"chunked"));
            return if chunked && codings.next().is_none() {
                Ok(State::Chunked(Chunked::new()))
            } else {
                Err(Error::UnknownCoding)
            };
        }
        match length {
            Some(0) => Ok(State::Whole),
            Some(length) => match usize::try_from(length) {
                Ok(left) if left <= self.body_limit => Ok(State::Length(left)),
                _ => Err(Error::BodyTooLong),
            },
            None => {
                response.keep_alive = false;
                Ok(State::UntilClose)
            }
        }
    }

    fn feed_trailers(&mut self, rest: &mut &[u8]) -> Result<State, Error> {
        if !self.section.feed(rest)? {
            return Ok(State::Trailers);
        }
        let bytes = self.section.take();
        let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
        match httparse::parse_headers(&bytes, &mut slots) {
            Ok(httparse::Status::Complete((n, fields))) if n == bytes.len() => {
                for field in fields {
                    self.response.trailers.push(field.name, field.value);
                }
                Ok(State::Whole)
            }
            Err(httparse::Error::TooManyHeaders) => Err(Error::TooManyHeaders),
            _ => Err(Error::BadHead),
        }
    }
}

/// Gathers lines up to and including an empty one.
#[derive(Debug)]
struct Section {
    bytes: Vec<u8>,
    line_start: usize,
    room: usize,
}

impl Section {
    fn new() -> Section {
        Section { bytes: Vec::new(), line_start: 0, room: MAX_HEAD }
    }

    /// Moves bytes over from the front of `rest`; true when the empty line has been moved.
    fn feed(&mut self, rest: &mut &[u8]) -> Result<bool, Error> {
        while !rest.is_empty() {
            let newline = rest.iter().position(|&b| b == b'\n');
            let (line, beyond) = rest.split_at(newline.map_or(rest.len(), |at| at + 1));
            self.room = self.room.checked_sub(line.len()).ok_or(Error::HeadTooLong)?;
            self.bytes.extend_from_slice(line);
            *rest = beyond;
            if newline.is_some() {
                let empty = matches!(self.bytes.get(self.line_start..), Some(b"\n" | b"\r\n"));
                self.line_start = self.bytes.len();
                if empty {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The section. The room it took stays taken: interim responses and the final one share it.
    fn take(&mut self) -> Vec<u8> {
        self.line_start = 0;
        std::mem::take(&mut self.bytes)
    }
}

/// The one length that all `Content-Length` fields agree on.
fn content_length(headers: &Headers) -> Result<Option<u64>, Error> {
    if headers.get("content-length").is_none() {
        return Ok(None);
    }
    let mut lengths = headers.list("content-length").map(|text| {
        let digits = std::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|t| t.parse::<u64>().ok()).ok_or(Error::BadLength)
    });
    let first = lengths.next().ok_or(Error::BadLength)??;
    match lengths.all(|next| next == Ok(first)) {
        true => Ok(Some(first)),
        false => Err(Error::BadLength),
    }
}

const PREFIX: &[u8] = b"HTTP/1.";
pub(super) const SWITCHING_PROTOCOLS: u16 = 101;

#[cfg(test)]
mod tests {
    use super::super::fuzz::{fuzz_http1, read_in_pieces};
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<(Response, usize), Error> {
        for flags in 0..8 {
            fuzz_http1(&[&[flags, 3], text.as_bytes()].concat());
        }
        read_in_pieces(Reader::new(Asked::Body, 100), std::iter::once(text.as_bytes()))
    }

    fn body(text: &str) -> Result<(String, bool), Error> {
        read(text).map(|(r, _)| (String::from_utf8(r.body).unwrap(), r.keep_alive))
    }

    #[test]
    fn the_length_decides() {
        let ok = |text: &str, keep| Ok((text.to_owned(), keep));
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabZZ"), ok("ab", true));
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabZZ").unwrap().1, 40);
        assert_eq!(body("HTTP/1.1 200\r\ncontent-length: 2,2\r\nContent-Length:2\r\n\r\nab"), ok("ab", true));
        assert_eq!(body("HTTP/1.0 200 OK\nContent-Length: 0\n\n"), ok("", false));
        assert_eq!(
            body("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n"),
            ok("", true)
        );
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 0\r\n\r\n"),
            ok("", false)
        );
        assert_eq!(body("HTTP/1.1 500 No\r\n\r\nuntil the end"), ok("until the end", false));
        for bodiless in ["204 No Content", "304 Not Modified"] {
            assert_eq!(body(&format!("HTTP/1.1 {bodiless}\r\nContent-Length: 9\r\n\r\n")), ok("", true));
        }
        assert_eq!(body("HTTP/1.1 101 Up\r\nUpgrade: x\r\n\r\nraw"), ok("", false));
    }

    #[test]
    fn a_head_is_answered_without_a_body() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n";
        let mut reader = Reader::new(Asked::Head, 0);
        assert_eq!(reader.status(), None);
        let Ok(Progress::Done { response, used }) = reader.feed(text) else { unreachable!() };
        assert!(response.keep_alive && response.body.is_empty() && used == text.len());
        assert_eq!(reader.feed(b""), Err(Error::Spent));
    }

    #[test]
    fn a_tunnel_begins_behind_the_head() {
        let read = |text: &str| {
            fuzz_http1(&[&[4, 3], text.as_bytes()].concat());
            read_in_pieces(Reader::new(Asked::Connect, 10), std::iter::once(text.as_bytes()))
        };
        for fields in [
            "",
            "Content-Length: 5\r\n",
            "Content-Length: 99\r\n",
            "Content-Length: 1, 2\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip\r\nContent-Length: x\r\n",
        ] {
            let head = format!("HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 Connection established\r\n{fields}\r\n");
            let (response, used) = read(&format!("{head}hello")).unwrap();
            assert_eq!((response.status, used, response.body.len()), (200, head.len(), 0), "{fields}");
            assert!(!response.keep_alive);
        }
        let refused = "HTTP/1.1 407 No\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(
            read(refused).map(|(r, used)| (r.status, r.body, used)),
            Ok((407, b"hello".to_vec(), refused.len()))
        );
        assert_eq!(read("HTTP/1.1 502 No\r\nContent-Length: 1, 2\r\n\r\n"), Err(Error::BadLength));
        assert_eq!(read("HTTP/1.1 200 OK\r\n"), Err(Error::CutShort));
    }

    #[test]
    fn the_status_is_known_with_the_head() {
        let mut reader = Reader::new(Asked::Body, 10);
        assert_eq!(
            reader.feed(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200"),
            Ok(Progress::More)
        );
        assert_eq!(reader.status(), None);
        assert_eq!(reader.feed(b" OK\r\nContent-Length: 3\r\n\r\n"), Ok(Progress::More));
        assert_eq!(reader.status(), Some(200));
        assert_eq!(reader.end(), Err(Error::CutShort));
    }

    #[test]
    fn chunks_extensions_and_trailers() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: Etag\r\n\r\n";
        let text = format!("{head}4;a=\"b c\"\r\nabcd\r\n0A \r\n0123456789\r\n0\r\nEtag: \"x\"\r\n\r\n!");
        let (response, used) = read(&text).unwrap();
        assert_eq!(response.body, b"abcd0123456789");
        assert_eq!(response.trailers.get("etag"), Some(&b"\"x\""[..]));
        assert!(response.keep_alive && response.headers.len() == 2 && used == text.len() - 1);
        assert_eq!(body(&format!("{head}000\r\n\r\n")), Ok((String::new(), true)));
        for bad in [
            "g\r\n",
            "\r\n",
            ";\r\n",
            "1\n",
            "1\rx",
            "1\r\nab",
            "1\r\na\n",
            "-1\r\n",
            "1;\n",
            "1 \0",
            "00000000000000001\r\n",
        ] {
            assert_eq!(body(&format!("{head}{bad}")), Err(Error::BadChunk), "{bad:?}");
        }
        assert_eq!(body(&format!("{head}1;{}\r\na", "x".repeat(1100))), Err(Error::BadChunk));
        assert_eq!(body(&format!("{head}65\r\n")), Err(Error::BodyTooLong));
        assert_eq!(body(&format!("{head}ffffffffffffffff\r\n")), Err(Error::BodyTooLong));
        assert_eq!(body(&format!("{head}60\r\n{}\r\n5\r\n", "x".repeat(96))), Err(Error::BodyTooLong));
        assert_eq!(body(&format!("{head}0\r\nbad line\r\n\r\n")), Err(Error::BadHead));
        assert_eq!(body(&format!("{head}0\r\nEtag: x")), Err(Error::CutShort));
        assert_eq!(
            body(&format!("{head}0\r\n{}", "a: b\r\n".repeat(65) + "\r\n")),
            Err(Error::TooManyHeaders)
        );
    }

    #[test]
    fn conflicts_are_refused() {
        for (fields, error) in [
            ("Content-Length: 1\r\nContent-Length: 2", Error::BadLength),
            ("Content-Length: 1, 2", Error::BadLength),
            ("Content-Length:", Error::BadLength),
            ("Content-Length: +1", Error::BadLength),
            ("Content-Length: 0x1", Error::BadLength),
            ("Content-Length: 99999999999999999999", Error::BadLength),
            ("Content-Length: 101", Error::BodyTooLong),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked", Error::BadLength),
            ("Transfer-Encoding: gzip, chunked", Error::UnknownCoding),
            ("Transfer-Encoding: chunked, chunked", Error::UnknownCoding),
            ("Transfer-Encoding: identity", Error::UnknownCoding),
            ("Transfer-Encoding:", Error::UnknownCoding),
            ("X: a\r\n folded", Error::BadHead),
            ("X : a", Error::BadHead),
            ("X: a\rb", Error::BadHead),
            ("X: a\0b", Error::BadHead),
        ] {
            assert_eq!(body(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nx")), Err(error), "{fields}");
        }
        assert_eq!(
            body("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Err(Error::BadLength)
        );
        assert_eq!(body(&format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101))), Err(Error::BodyTooLong));
    }

    #[test]
    fn what_is_not_a_response() {
        assert_eq!(body(""), Err(Error::NoResponse));
        assert_eq!(body("HTT"), Err(Error::CutShort));
        for other in
            ["SSH-2.0-x", "\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/2 200\r\n\r\n", "http/1.1 200 OK\r\n\r\n"]
        {
            assert_eq!(body(other), Err(Error::BadHead), "{other}");
        }
        for line in
            ["HTTP/1.2 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 099 OK", "HTTP/1.1  200 OK", "HTTP/1.1 2x0 OK"]
        {
            assert_eq!(body(&format!("{line}\r\n\r\n")), Err(Error::BadHead), "{line}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(3000));
        assert_eq!(body(&endless), Err(Error::HeadTooLong));
        assert_eq!(body(&"HTTP/1.1 100 Go on\r\n\r\n".repeat(1000)), Err(Error::HeadTooLong));
        assert_eq!(
            body(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(65))),
            Err(Error::TooManyHeaders)
        );
    }

    /// Pieces of responses, right and wrong, put together at random: more telling than random bytes.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 404 No\r\n",
            "HTTP/1.1 100 Go\r\n\r\n",
            "HTTP/1.1 304 Same\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: close\r\n",
            "X: y\r\n",
            "\r\n",
            "\n",
            "5\r\nhello\r\n",
            "3;ext\r\nabc\r\n",
            "0\r\n",
            "Etag: z\r\n",
            "hello",
            "\0",
        ]);
        let head = prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 103 Hint\r\n\r\nHTTP/1.1 500 X\r\n",
            "",
        ]);
        (head, prop::collection::vec(part, 0..10))
            .prop_map(|(h, parts)| [h, &parts.concat()].concat().into_bytes())
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(stream in stream(), flags in 0..8u8, cuts in prop::collection::vec(0..200usize, 0..8)) {
            fuzz_http1(&[&[flags, 5], &stream[..]].concat());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).chain([0, stream.len()]).collect();
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|w| &stream[w[0]..w[1]]);
            let whole = read_in_pieces(Reader::new(Asked::Body, 100), std::iter::once(&stream[..]));
            prop_assert_eq!(read_in_pieces(Reader::new(Asked::Body, 100), pieces), whole);
        }

        #[test]
        fn random_bytes_do_no_harm(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_http1(&data);
        }
    }

    #[test]
    fn bytewise_feeding_is_not_quadratic() {
        // 4 MiB byte by byte: seconds if anything were looked at again and again.
        let mut reader = Reader::new(Asked::Body, 8 << 20);
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400000\r\n";
        assert_eq!(reader.feed(head), Ok(Progress::More));
        for _ in 0..4 << 20 {
            assert_eq!(reader.feed(b"x"), Ok(Progress::More));
        }
        let Ok(Progress::Done { response, .. }) = reader.feed(b"\r\n0\r\n\r\n") else { unreachable!() };
        assert_eq!(response.body.len(), 4 << 20);
    }
}
