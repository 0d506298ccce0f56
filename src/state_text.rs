//! The text of the state file: what must survive a restart, one member a line.
//!
//! ```text
//! beacond state 1
//! saved 1780646570123456
//! member default http://10.0.0.1:8080 up 1 1780646570000000 1780646570000310 - 5000 10.0.0.1:40312 4156 web1
//! member default http://10.0.0.2:8080 left 1 1780646561000000 1780646561000290 1780646561000290 - 10.0.0.2:52001 77 -
//! end 2
//! ```
//!
//! The fields of a member: balancer, url, state, weight, replay mark, last seen, dead since, announced interval in
//! ms, source, pid, host. Times are microseconds since the Unix epoch. `-` is nothing; bytes outside printable
//! ASCII, space and `%` are percent-escaped, as is a `-` that stands alone. The last line counts the members, so that
//! a file cut short is noticed.
//!
//! Decoding is total: whatever the bytes, it returns the state or the first line that is wrong. Nothing here reads
//! a file, judges an age or admits a url.

use crate::bytes::Escaped;
use crate::members::State;
use std::borrow::Cow;
use std::fmt::{self, Display, Write};
use std::net::SocketAddr;
use std::str::FromStr;

/// A decoded state file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Saved {
    /// When it was written, microseconds since the Unix epoch, by the clock of that time.
    pub saved_us: i64,
    /// Its members, of all balancers.
    pub rows: Vec<Row<'static>>,
}

/// One member as the file has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row<'a> {
    /// Name of the balancer.
    pub balancer: Cow<'a, str>,
    /// The url, to be admitted anew.
    pub url: Cow<'a, [u8]>,
    /// Up, down or left.
    pub state: State,
    /// Announced weight.
    pub weight: u16,
    /// The replay mark, microseconds since the Unix epoch.
    pub mark: Option<i64>,
    /// When the last valid message came, microseconds since the Unix epoch.
    pub seen_us: i64,
    /// When it was evicted or left, microseconds since the Unix epoch; `None` while it is up.
    pub dead_us: Option<i64>,
    /// Announced interval in milliseconds.
    pub every_ms: Option<u32>,
    /// Where its last announcement came from.
    pub from: SocketAddr,
    /// Announced process id.
    pub pid: u32,
    /// Announced host name, untrusted bytes.
    pub host: Cow<'a, [u8]>,
}

/// What is wrong with a state file, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// The kinds of [`StateError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The first line does not say that this is a state file.
    Foreign,
    /// Written by a newer version of this program.
    Newer,
    /// A line that is neither a member nor the end.
    Unknown,
    /// Too few or too many fields.
    Fields,
    /// A field that cannot be read; which one.
    Field(&'static str),
    /// The last line counts other than there are members.
    Count,
    /// No last line: the file was cut short.
    CutShort,
    /// Something after the last line.
    Trailing,
}

impl Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match self.fault {
            Fault::Foreign => f.write_str("not a state file of beacond"),
            Fault::Newer => f.write_str("written by a newer version of beacond"),
            Fault::Unknown => f.write_str("neither a member nor the end"),
            Fault::Fields => f.write_str("wrong number of fields"),
            Fault::Field(name) => write!(f, "bad {name}"),
            Fault::Count => f.write_str("members are missing or too many"),
            Fault::CutShort => f.write_str("cut short"),
            Fault::Trailing => f.write_str("something after the end"),
        }
    }
}

/// The text for these members.
pub fn encode<'a>(saved_us: i64, rows: impl Iterator<Item = Row<'a>>) -> Vec<u8> {
    let mut out = format!("{HEADER}{VERSION}\nsaved {saved_us}\n");
    let mut count = 0;
    for row in rows {
        // Writing to a string cannot fail.
        let _ = write_row(&mut out, &row);
        count += 1;
    }
    let _ = writeln!(out, "end {count}");
    out.into_bytes()
}

/// Reads a state file.
///
/// # Errors
/// The first line that is wrong. Nothing of such a file is to be used.
pub fn decode(text: &[u8]) -> Result<Saved, StateError> {
    let mut lines = (1..).zip(text.split(|b| *b == b'\n'));
    let (line, header) = lines.next().unwrap_or((1, b""));
    check_header(header).map_err(|fault| StateError { line, fault })?;
    let (line, saved) = lines.next().ok_or(StateError { line, fault: Fault::CutShort })?;
    let saved_us = saved.strip_prefix(b"saved ").ok_or(Fault::Field("saved"));
    let saved_us = saved_us.and_then(|v| number(v, "saved")).map_err(|fault| StateError { line, fault })?;
    let mut rows = Vec::new();
    let mut last = line;
    for (line, text) in lines.by_ref() {
        let at = |fault| StateError { line, fault };
        last = line;
        if let Some(fields) = text.strip_prefix(b"member ") {
            rows.push(read_row(fields).map_err(at)?);
        } else if let Some(count) = text.strip_prefix(b"end ") {
            let count: usize = number(count, "count").map_err(at)?;
            let ended = lines.next().is_some_and(|(_, rest)| rest.is_empty());
            return match (count == rows.len(), ended, lines.next()) {
                (false, ..) => Err(at(Fault::Count)),
                (_, false, _) => Err(at(Fault::CutShort)),
                (.., Some((line, _))) => Err(StateError { line, fault: Fault::Trailing }),
                (.., None) => Ok(Saved { saved_us, rows }),
            };
        } else if !text.is_empty() {
            return Err(at(Fault::Unknown));
        }
    }
    Err(StateError { line: last, fault: Fault::CutShort })
}

/// Fuzzing: any bytes decode or are refused; what decodes is the same again after encoding.
#[doc(hidden)]
pub fn fuzz_state(data: &[u8]) {
    match decode(data) {
        Ok(saved) => {
            let again = decode(&encode(saved.saved_us, saved.rows.iter().cloned()));
            assert_eq!(again.as_ref(), Ok(&saved));
        }
        Err(error) => assert!((1..=data.len() + 1).contains(&error.line), "{error}"),
    }
}

fn check_header(line: &[u8]) -> Result<(), Fault> {
    let version = line.strip_prefix(HEADER.as_bytes()).ok_or(Fault::Foreign)?;
    let version: u32 = number(version, "version").map_err(|_| Fault::Foreign)?;
    match version {
        VERSION => Ok(()),
        0 => Err(Fault::Foreign),
        _ => Err(Fault::Newer),
    }
}

fn write_row(out: &mut String, row: &Row<'_>) -> fmt::Result {
    let (balancer, url, state) = (Field(row.balancer.as_bytes()), Field(&row.url), row.state.name());
    write!(out, "member {balancer} {url} {state} {} ", row.weight)?;
    write!(out, "{} {} {} ", Maybe(row.mark), row.seen_us, Maybe(row.dead_us))?;
    writeln!(out, "{} {} {} {}", Maybe(row.every_ms), row.from, row.pid, Field(&row.host))
}

fn read_row(text: &[u8]) -> Result<Row<'static>, Fault> {
    let mut fields = text.split(|b| *b == b' ');
    let mut field = || fields.next().ok_or(Fault::Fields);
    let row = Row {
        balancer: String::from_utf8(unescape(field()?, "balancer")?)
            .map_err(|_| Fault::Field("balancer"))?
            .into(),
        url: unescape(field()?, "url")?.into(),
        state: state(field()?)?,
        weight: number(field()?, "weight")?,
        mark: maybe(field()?, "mark")?,
        seen_us: number(field()?, "last seen")?,
        dead_us: maybe(field()?, "dead since")?,
        every_ms: maybe(field()?, "interval")?,
        from: number(field()?, "source")?,
        pid: number(field()?, "pid")?,
        host: unescape(field()?, "host")?.into(),
    };
    if fields.next().is_some() { Err(Fault::Fields) } else { Ok(row) }
}

fn state(text: &[u8]) -> Result<State, Fault> {
    let states = [State::Up, State::Down, State::Left];
    states.into_iter().find(|state| state.name().as_bytes() == text).ok_or(Fault::Field("state"))
}

/// Anything that is read from plain text.
fn number<T: FromStr>(text: &[u8], what: &'static str) -> Result<T, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::Field(what))?;
    text.parse().map_err(|_| Fault::Field(what))
}

fn maybe<T: FromStr>(text: &[u8], what: &'static str) -> Result<Option<T>, Fault> {
    if text == b"-" { Ok(None) } else { number(text, what).map(Some) }
}

fn unescape(text: &[u8], what: &'static str) -> Result<Vec<u8>, Fault> {
    if text == b"-" {
        return Ok(Vec::new());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                let value = digit().zip(digit()).map(|(high, low)| high << 4 | low);
                value.and_then(|v| u8::try_from(v).ok()).ok_or(Fault::Field(what))?
            }
            byte if byte.is_ascii_graphic() => byte,
            _ => return Err(Fault::Field(what)),
        });
    }
    if out.is_empty() { Err(Fault::Field(what)) } else { Ok(out) }
}

/// Bytes as one field, which is never empty and never contains a space.
struct Field<'a>(&'a [u8]);

impl Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b"" => f.write_char('-'),
            b"-" => f.write_str("%2D"),
            // Nearly every field is plain; character by character, the text of a large table takes twice as long.
            bytes => match std::str::from_utf8(bytes) {
                Ok(text) if bytes.iter().all(|b| b.is_ascii_graphic() && *b != b'%') => f.write_str(text),
                _ => Escaped(bytes).fmt(f),
            },
        }
    }
}

struct Maybe<T>(Option<T>);

impl<T: Display> Display for Maybe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_char('-'),
        }
    }
}

const HEADER: &str = "beacond state ";
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row() -> impl Strategy<Value = Row<'static>> {
        let names = (".{0,12}", any::<Vec<u8>>(), any::<Vec<u8>>(), prop::sample::select(&STATES[..]));
        let numbers = (any::<u16>(), any::<Option<i64>>(), any::<i64>(), any::<Option<i64>>());
        let source = (any::<Option<u32>>(), any::<std::net::IpAddr>(), any::<u16>(), any::<u32>());
        (names, numbers, source).prop_map(
            |((balancer, url, host, state), (weight, mark, seen_us, dead_us), s)| Row {
                balancer: balancer.into(),
                url: url.into(),
                state,
                weight,
                mark,
                seen_us,
                dead_us,
                every_ms: s.0,
                from: SocketAddr::new(s.1, s.2),
                pid: s.3,
                host: host.into(),
            },
        )
    }

    const STATES: [State; 3] = [State::Up, State::Down, State::Left];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_is_encoded_decodes(saved_us: i64, rows in prop::collection::vec(row(), 0..5)) {
            let text = encode(saved_us, rows.iter().cloned());
            prop_assert!(text.iter().all(|b| b.is_ascii_graphic() || b" \n".contains(b)));
            prop_assert_eq!(decode(&text), Ok(Saved { saved_us, rows }));
        }

        /// One byte changed, one lost, or the end cut off: refused or still consistent, and never a panic.
        #[test]
        fn damage_is_survived(rows in prop::collection::vec(row(), 0..3), at: prop::sample::Index, byte: u8) {
            let text = encode(7, rows.into_iter());
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed[at] = byte;
            fuzz_state(&changed);
            let mut lost = text.clone();
            lost.remove(at);
            fuzz_state(&lost);
            prop_assert!(decode(&text[..at]).is_err());
        }

        #[test]
        fn any_bytes(data: Vec<u8>) {
            fuzz_state(&data);
        }
    }

    const GOOD: &str = "beacond state 1\nsaved 5\nmember b http://h:1 up 1 9 8 - - 10.0.0.1:4 7 -\nend 1\n";

    #[test]
    fn refusals_name_the_line() {
        assert!(decode(GOOD.as_bytes()).is_ok());
        for (from, to, wanted) in [
            ("beacond state 1", "", "line 1: not a state file of beacond"),
            ("state 1", "state 0", "line 1: not a state file of beacond"),
            ("state 1", "state x", "line 1: not a state file of beacond"),
            ("state 1", "state 2", "line 1: written by a newer version of beacond"),
            ("saved 5", "saved", "line 2: bad saved"),
            ("member", "Member", "line 3: neither a member nor the end"),
            (" up ", " high ", "line 3: bad state"),
            (" up 1 ", " up 65536 ", "line 3: bad weight"),
            ("http://h:1", "http://%zz", "line 3: bad url"),
            ("http://h:1", "http://%2", "line 3: bad url"),
            ("member b ", "member %ff ", "line 3: bad balancer"),
            ("member b ", "member  ", "line 3: bad balancer"),
            (" 7 -", " 7", "line 3: wrong number of fields"),
            (" 7 -", " 7 - -", "line 3: wrong number of fields"),
            ("10.0.0.1:4", "10.0.0.1", "line 3: bad source"),
            ("end 1", "end 2", "line 4: members are missing or too many"),
            ("end 1\n", "end 1", "line 4: cut short"),
            ("end 1\n", "", "line 4: cut short"),
            ("end 1\n", "end 1\nx", "line 4: cut short"),
            ("end 1\n", "end 1\n\n", "line 6: something after the end"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = decode(text.as_bytes()).expect_err(&text);
            assert_eq!(error.to_string(), wanted, "{text}");
        }
    }
}
