//! `beacond decode KIND`: a hex line in, a verdict line out. For live systems (paste what a capture shows) and for
//! checking vectors. What the bytes of one line mean is judged by their kind alone, as the daemon would judge them.
//!
//! A verdict is one word, then `key=value` fields or a reason.

pub mod beacon;
#[cfg(feature = "proxy")]
pub mod hello;
#[cfg(feature = "proxy")]
pub mod proxy;

use crate::bytes::from_hex;
use crate::config::{Error, Section, Shown};
use std::io::{self, BufRead, Read, Write};

/// Longest input line: twice what the largest datagram, or the longest header and some bytes behind it, is in hex.
pub const MAX_LINE: u64 = 256 * 1024;

/// What judges the bytes of one line.
pub type Judge = Box<dyn FnMut(&[u8]) -> String>;

/// A kind of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name on the command line.
    pub name: &'static str,
    /// The tool's options that it takes.
    pub options: &'static [&'static str],
    /// Its judge, by those options.
    pub judge: fn(&Section) -> Result<Judge, Error>,
}

/// Every kind that this program was built with, in the order of the alphabet.
pub const KINDS: &[Kind] = &[
    beacon::KIND,
    #[cfg(feature = "proxy")]
    hello::KIND,
    #[cfg(feature = "proxy")]
    proxy::KIND,
];

/// The names of all kinds, as messages say them.
#[must_use]
pub fn wanted() -> String {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The judge of the kind called `name`.
///
/// # Errors
/// A kind that does not exist, an option that is not for it, or one that is wrong.
pub fn judge(name: &str, section: &Section) -> Result<Judge, Error> {
    let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
        return Err(Error::text(format!("decode: '{}': wanted {}", Shown(name), wanted())));
    };
    let foreign = |option: &&str| section.given(option) && !kind.options.contains(option);
    match section.role().options.iter().map(|row| row.name).find(foreign) {
        Some(option) => Err(Error::text(format!("{}: not for decode {name}", section.place_of(option)))),
        None => (kind.judge)(section),
    }
}

/// Answers every line of `input` with one of `output`, flushed at once, until the input ends.
///
/// # Errors
/// Of reading or writing, by name.
pub fn run(
    mut input: impl BufRead,
    mut output: impl Write,
    judge: &mut dyn FnMut(&[u8]) -> String,
) -> Result<(), Error> {
    let unread = |e: io::Error| Error::world(format!("standard input: {e}"));
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(unread)? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n") || u64::try_from(line.len()).is_ok_and(|len| len < MAX_LINE);
        let verdict = if whole {
            match str::from_utf8(line.trim_ascii()).ok().and_then(from_hex) {
                Some(bytes) => judge(&bytes),
                None => "error not hex".to_owned(),
            }
        } else {
            input.skip_until(b'\n').map_err(unread)?;
            "error line too long".to_owned()
        };
        let written = writeln!(output, "{verdict}").and_then(|()| output.flush());
        written.map_err(|e| Error::output(&e))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::TOOLS;

    fn answers(input: &[u8]) -> Vec<String> {
        let mut output = Vec::new();
        run(input, &mut output, &mut |bytes| format!("{bytes:?}")).unwrap();
        String::from_utf8(output).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn one_line_for_each() {
        let verdicts = answers("00Ff\n\n 00 \r\nzz\nabc\n\u{e9}\n01".as_bytes());
        let bad = "error not hex";
        assert_eq!(verdicts, ["[0, 255]", "[]", "[0]", bad, bad, bad, "[1]"]);
        assert_eq!(answers(b"\xff\n"), [bad]);
        assert!(answers(b"").is_empty());
    }

    #[test]
    fn a_line_without_end_is_refused_and_skipped() {
        let long = usize::try_from(MAX_LINE).unwrap() + 10;
        let input = [vec![b'0'; long], b"\n\n".to_vec(), vec![b'0'; long]].concat();
        assert_eq!(answers(&input), ["error line too long", "[]", "error line too long"]);
    }

    #[test]
    fn the_table_of_options_names_the_kinds() {
        let tool = TOOLS.iter().find(|tool| tool.role.name == "decode").unwrap();
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(tool.operands, names.join("|"));
        assert!(names.is_sorted());
        for option in KINDS.iter().flat_map(|kind| kind.options) {
            assert!(tool.role.option(option).is_some(), "{option}");
        }
    }
}
