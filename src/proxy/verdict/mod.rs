//! Somebody else's say in a session: what is asked, what is answered, and for how long an answer holds.
//!
//! ```text
//! {"id":"0000002a","client":"192.0.2.7:5123","peer":"10.0.0.1:3321","local":"10.0.0.2:443","sni":"www.example.com",
//!  "alpn":["h2","http/1.1"],"authority":null,"tls":true}\n                 one line, one connection for each session
//!
//! allow\n    allow balancer:web\n    deny not a customer\n                 one line back, or the end of the stream
//! ```
//!
//! Every name in a question is a client's own text. Nothing is cut from it: a shortened name could match a rule that
//! the whole one does not. An answer is understood or it is an [`Error`]; whether a session may go on without an answer
//! is not decided here. Nothing here connects, waits or logs.
//!
//! [`Question`] and [`Reader`] are the two lines, [`Cache`] what is remembered of them.

mod cache;
mod fuzz;

pub use cache::{Cache, MAX_CACHED};
pub use fuzz::fuzz_verdict;

use crate::bytes::{Escaped, JsonStr, Printable};
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

/// The longest question, its line end included.
pub const MAX_QUESTION: usize = 8 * 1024;
/// The longest answer, its line end included.
pub const MAX_ANSWER: usize = 1024;
/// The longest reason for a denial, as it is shown.
pub const MAX_REASON: usize = 200;

/// What is known of a session when it is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question<'a> {
    /// The session's number in the log.
    pub id: u64,
    /// The client, as a PROXY header tells it or as it connected.
    pub client: SocketAddr,
    /// Who connected, where that is not the client.
    pub peer: Option<SocketAddr>,
    /// Where it connected to.
    pub local: Option<SocketAddr>,
    /// The name in the ClientHello.
    pub sni: Option<&'a str>,
    /// The protocols in the ClientHello, of any bytes.
    pub alpn: &'a [&'a [u8]],
    /// The name in the PROXY header.
    pub authority: Option<&'a str>,
    /// Whether the session began with a ClientHello.
    pub tls: bool,
}

/// The question does not fit into [`MAX_QUESTION`]: no client that means well has such names. The session must end, even
/// where it might go on without an answer, or a client could see to it that nobody is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unaskable;

/// What was answered. `T` is a route's target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict<T> {
    /// The session goes on: to this target, or by the routes.
    Allow(Option<T>),
    /// It ends, with a reason to be logged: printable, at most [`MAX_REASON`] bytes, maybe empty.
    Deny(String),
}

/// Why there is no verdict.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Error {
    /// More than [`MAX_ANSWER`] bytes without a line end.
    TooLong,
    /// The stream ended before its first byte.
    NoAnswer,
    /// Neither `allow` nor `deny`.
    NotUnderstood,
    /// `allow` with something that is no target.
    BadTarget,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::TooLong => "answer too long",
            Error::NoAnswer => "no answer",
            Error::NotUnderstood => "answer not understood",
            Error::BadTarget => "bad target in answer",
        })
    }
}

impl fmt::Display for Unaskable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("question too long")
    }
}

impl Question<'_> {
    /// Appends the question as a line to `out`; on an error `out` is as it was.
    ///
    /// # Errors
    /// It would be too long.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), Unaskable> {
        let line = self.line(Some(self.id));
        if line.len() >= MAX_QUESTION {
            return Err(Unaskable);
        }
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        Ok(())
    }

    /// The question as JSON; without `id` what remains of it for the next session of the same client: neither the
    /// number nor the ports that the kernel picks.
    fn line(&self, id: Option<u64>) -> String {
        let mut out = "{".to_owned();
        if let Some(id) = id {
            put(&mut out, format_args!("\"id\":\"{id:08x}\","));
        }
        let end = |end: SocketAddr| {
            let ip = end.ip().to_canonical();
            if id.is_some() { SocketAddr::new(ip, end.port()).to_string() } else { ip.to_string() }
        };
        let local = |local: SocketAddr| SocketAddr::new(local.ip().to_canonical(), local.port()).to_string();
        let text = |out: &mut String, name: &str, value: Option<&str>| match value {
            Some(value) => put(out, format_args!("\"{name}\":{},", JsonStr(value))),
            None => put(out, format_args!("\"{name}\":null,")),
        };
        text(&mut out, "client", Some(&end(self.client)));
        text(&mut out, "peer", self.peer.map(end).as_deref());
        text(&mut out, "local", self.local.map(local).as_deref());
        text(&mut out, "sni", self.sni);
        out.push_str("\"alpn\":[");
        for (nth, protocol) in self.alpn.iter().enumerate() {
            let protocol = str::from_utf8(protocol)
                .map_or_else(|_| Cow::Owned(Escaped(protocol).to_string()), Cow::Borrowed);
            let comma = if nth == 0 { "" } else { "," };
            put(&mut out, format_args!("{comma}{}", JsonStr(&protocol)));
        }
        out.push_str("],");
        text(&mut out, "authority", self.authority);
        put(&mut out, format_args!("\"tls\":{}}}", self.tls));
        out
    }
}

/// Reads one answer. Make a new one for each question.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
}

impl Reader {
    /// Takes the next bytes of the stream; `None` while there is no whole line. What is behind the line is ignored; give
    /// it no more after a result. `target` reads a route's target.
    pub fn feed<T>(
        &mut self,
        bytes: &[u8],
        target: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Result<Verdict<T>, Error>> {
        let end = bytes.iter().position(|&b| b == b'\n');
        let more = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
        let room = MAX_ANSWER.saturating_sub(self.line.len());
        self.line.extend_from_slice(more.get(..room).unwrap_or(more));
        if self.line.len() >= MAX_ANSWER {
            // Of a denial only the beginning is of use anyway; it must not turn into a failure.
            return Some(match words(&self.line) {
                (b"deny", text) => Ok(Verdict::Deny(reason(text))),
                _ => Err(Error::TooLong),
            });
        }
        end.map(|_| judge(&self.line, target))
    }

    /// The stream has ended: what there is of a line is all of it.
    ///
    /// # Errors
    /// Why it is no verdict.
    pub fn end<T>(self, target: impl Fn(&str) -> Result<T, String>) -> Result<Verdict<T>, Error> {
        if self.line.is_empty() { Err(Error::NoAnswer) } else { judge(&self.line, target) }
    }
}

/// What a line without its line feed says.
fn judge<T>(line: &[u8], target: impl Fn(&str) -> Result<T, String>) -> Result<Verdict<T>, Error> {
    match words(line.strip_suffix(b"\r").unwrap_or(line)) {
        (b"allow", b"") => Ok(Verdict::Allow(None)),
        (b"allow", rest) => {
            let found = str::from_utf8(rest).ok().and_then(|text| target(text).ok());
            found.map(|target| Verdict::Allow(Some(target))).ok_or(Error::BadTarget)
        }
        (b"deny", rest) => Ok(Verdict::Deny(reason(rest))),
        _ => Err(Error::NotUnderstood),
    }
}

/// The first word of a line, and what is behind it without the blanks around.
fn words(line: &[u8]) -> (&[u8], &[u8]) {
    let (word, rest) = line.split_at(line.iter().position(|b| b" \t".contains(b)).unwrap_or(line.len()));
    (word, rest.trim_ascii())
}

/// As much of `text` as fits when it is made printable.
fn reason(text: &[u8]) -> String {
    let mut out = String::new();
    for byte in text.chunks(1) {
        let shown = Printable(byte).to_string();
        if out.len() + shown.len() > MAX_REASON {
            break;
        }
        out.push_str(&shown);
    }
    out
}

fn put(out: &mut String, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::fuzz::answer_in_pieces;
    use super::*;
    use proptest::prelude::*;

    pub(super) fn question<'a>(client: &str, sni: Option<&'a str>, alpn: &'a [&'a [u8]]) -> Question<'a> {
        let (client, tls) = (client.parse().unwrap(), sni.is_some());
        Question { id: 0x2a, client, peer: None, local: None, sni, alpn, authority: None, tls }
    }

    fn line(question: &Question<'_>) -> String {
        let mut out = Vec::new();
        question.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn answer(text: &[u8]) -> Result<Verdict<String>, Error> {
        for cut in [0, 5, 255] {
            fuzz_verdict(&[&[cut], text].concat());
        }
        answer_in_pieces(std::iter::once(text))
    }

    #[test]
    fn a_question_with_everything_and_with_nothing() {
        let full = Question {
            peer: Some("[::ffff:10.0.0.1]:3321".parse().unwrap()),
            local: Some("[2001:db8::1]:443".parse().unwrap()),
            authority: Some("b.example"),
            ..question("192.0.2.7:5123", Some("www.example.com"), &[b"h2", b"http/1.1"])
        };
        assert_eq!(
            line(&full),
            "{\"id\":\"0000002a\",\"client\":\"192.0.2.7:5123\",\"peer\":\"10.0.0.1:3321\",\
             \"local\":\"[2001:db8::1]:443\",\"sni\":\"www.example.com\",\"alpn\":[\"h2\",\"http/1.1\"],\
             \"authority\":\"b.example\",\"tls\":true}\n"
        );
        assert_eq!(
            line(&question("[::ffff:192.0.2.7]:1", None, &[])),
            "{\"id\":\"0000002a\",\"client\":\"192.0.2.7:1\",\"peer\":null,\"local\":null,\"sni\":null,\"alpn\":[],\
             \"authority\":null,\"tls\":false}\n"
        );
    }

    #[test]
    fn names_cannot_leave_their_strings() {
        let bad = "a\",\"tls\":false}\r\n{\"x\u{2028}\u{85}\\";
        let alpn: [&[u8]; 3] = [b"\xff\n\"%", b"h2\",\"", "\u{e9}".as_bytes()];
        let text = line(&Question { authority: Some(bad), ..question("10.0.0.1:1", Some(bad), &alpn) });
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&read["sni"], &read["authority"], &read["tls"]),
            (&bad.into(), &bad.into(), &true.into())
        );
        assert_eq!(read["alpn"], serde_json::json!(["%FF%0A\"%25", "h2\",\"", "\u{e9}"]));
        assert!(text.trim_end_matches('\n').chars().all(|c| !c.is_control()));
    }

    #[test]
    fn a_question_is_bounded_and_never_shortened() {
        let fits = |n: usize| {
            let mut out = b"x".to_vec();
            let result = question("10.0.0.1:1", Some(&"a".repeat(n)), &[]).write(&mut out);
            assert!(if result.is_ok() { out.len() <= MAX_QUESTION + 1 } else { out == b"x" });
            result
        };
        let rest = line(&question("10.0.0.1:1", Some(""), &[])).len();
        assert_eq!(fits(MAX_QUESTION - rest), Ok(()));
        assert_eq!(fits(MAX_QUESTION - rest + 1), Err(Unaskable));
        assert_eq!(question("10.0.0.1:1", None, &[&b"\0"[..]; 2000]).write(&mut Vec::new()), Err(Unaskable));
    }

    #[test]
    fn answers() {
        let allow = |target: &str| Ok(Verdict::Allow(Some(target.to_owned())));
        let deny = |reason: &str| Ok(Verdict::Deny(reason.to_owned()));
        for (text, expected) in [
            ("allow\n", Ok(Verdict::Allow(None))),
            ("allow", Ok(Verdict::Allow(None))),
            ("allow \t\r\n", Ok(Verdict::Allow(None))),
            ("allow\ndeny\n", Ok(Verdict::Allow(None))),
            ("allow balancer:web\r\n", allow("balancer:web")),
            ("allow  balancer:web  ", allow("balancer:web")),
            ("deny\n", deny("")),
            ("deny not  a customer\r\n", deny("not  a customer")),
            ("deny \u{e9}\t%\x1b[2J\n", deny("%C3%A9%09%25%1B[2J")),
            ("deny no\rallow", deny("no%0Dallow")),
            ("allow -\n", Err(Error::BadTarget)),
            ("allow a b\n", Err(Error::BadTarget)),
            ("allow a\r\r\n", allow("a")),
            ("", Err(Error::NoAnswer)),
            ("\n", Err(Error::NotUnderstood)),
            ("\r\n", Err(Error::NotUnderstood)),
            ("allo", Err(Error::NotUnderstood)),
            ("allowed\n", Err(Error::NotUnderstood)),
            ("Allow\n", Err(Error::NotUnderstood)),
            (" allow\n", Err(Error::NotUnderstood)),
            ("denyx y\n", Err(Error::NotUnderstood)),
            ("{\"allow\":true}\n", Err(Error::NotUnderstood)),
        ] {
            assert_eq!(answer(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(answer(b"allow \xff\n"), Err(Error::BadTarget));
        assert_eq!(answer(b"deny \xff\n"), deny("%FF"));
    }

    #[test]
    fn answers_are_bounded() {
        let padded = |n: usize| [&b"allow "[..], &vec![b'x'; n - 7], b"\n"].concat();
        assert!(matches!(answer(&padded(MAX_ANSWER)), Ok(Verdict::Allow(Some(_)))));
        assert_eq!(answer(&padded(MAX_ANSWER + 1)), Err(Error::TooLong));
        assert_eq!(answer(&vec![b'a'; 1 << 20]), Err(Error::TooLong));
        let deny = |text: &str| match answer(format!("deny {text}").as_bytes()) {
            Ok(Verdict::Deny(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(deny(&"x".repeat(5000)), "x".repeat(MAX_REASON), "a denial stays one however long it is");
        assert_eq!(
            answer(format!("deny\t{}", "x".repeat(5000)).as_bytes()),
            Ok(Verdict::Deny("x".repeat(MAX_REASON)))
        );
        assert_eq!(answer(format!("denyx {}", "x".repeat(5000)).as_bytes()), Err(Error::TooLong));
        assert_eq!(deny(&"\0".repeat(99)), "%00".repeat(66), "no escape is cut");
        let mut reader = Reader::default();
        assert_eq!(reader.feed(&[b'x'; 1000], |_| Ok::<(), _>(())), None);
        assert!(reader.feed(&[b'x'; 100_000], |_| Ok::<(), _>(())).is_some());
        assert!(reader.line.capacity() <= 2 * MAX_ANSWER, "no more is kept than can be used");
    }

    proptest! {
        #[test]
        fn any_bytes(data: Vec<u8>) {
            fuzz_verdict(&data);
        }

        #[test]
        fn any_answer(cut: u8, word in "allow|deny|allo|", rest in "[ \t\r\n]{0,2}[ -~\r\n\u{e9}]{0,12}", n in 0..3usize) {
            fuzz_verdict(&[&[cut], word.as_bytes(), rest.repeat([1, 1, 200][n]).as_bytes()].concat());
        }

        /// Another parser reads back what was put in.
        #[test]
        fn a_question_reads_back(sni: String, authority: String, alpn in prop::collection::vec(any::<String>(), 0..4)) {
            let protocols: Vec<&[u8]> = alpn.iter().map(|name| name.as_bytes()).collect();
            let asked = Question { authority: Some(&authority), ..question("10.0.0.1:1", Some(&sni), &protocols) };
            let read: serde_json::Value = serde_json::from_str(&line(&asked)).unwrap();
            prop_assert_eq!(&read["sni"], &sni);
            prop_assert_eq!(&read["authority"], &authority);
            prop_assert_eq!(&read["alpn"], &serde_json::json!(alpn));
        }
    }
}
