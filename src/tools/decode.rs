//! `beacond decode beacon`: a hex line in, a verdict line out. For live systems (paste what tcpdump shows) and for
//! checking vectors. It judges one datagram alone, as a receiver would before its table and its admission.

use crate::beacon::auth::{self, Key};
use crate::bytes::{Escaped, from_hex};
use crate::secret::Secrets;
use std::fmt::Write as _;
use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

/// Longest input line: twice what the largest UDP datagram is in hex.
pub const MAX_LINE: u64 = 256 * 1024;

/// What datagrams are judged by.
#[derive(Debug)]
pub struct Decoder {
    keys: Vec<Key>,
    max_skew: Duration,
}

impl Decoder {
    /// Judges by these secrets; `None` is unauthenticated mode.
    #[must_use]
    pub fn new(secrets: Option<&Secrets>, max_skew: Duration) -> Decoder {
        let list = secrets.map_or(&[][..], |secrets| &secrets.list);
        Decoder { keys: list.iter().map(|secret| Key::from_secret(secret.bytes())).collect(), max_skew }
    }

    /// The verdict on one line of hex, at `now_us` microseconds since the Unix epoch: `accept ts=…` with `url=…` or
    /// `leave=…` where there is one usable (both, where a datagram contradicts itself), `drop REASON`, or
    /// `error not hex`.
    #[must_use]
    pub fn verdict(&self, line: &str, now_us: i64) -> String {
        let Some(datagram) = from_hex(line.trim_ascii()) else {
            return "error not hex".to_owned();
        };
        let verified = match auth::verify(&datagram, &self.keys, now_us, self.max_skew) {
            Ok(verified) => verified,
            Err(reason) => return format!("drop {}", reason.text()),
        };
        let mut out = format!("accept ts={}", verified.ts);
        for (name, value) in [("url", verified.body.url), ("leave", verified.body.leave)] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                write!(out, " {name}={}", Escaped(value)).expect("writing to a String cannot fail");
            }
        }
        out
    }
}

/// Answers every line of `input` with one of `output`, flushed at once, until the input ends. `now_us` is asked for each.
///
/// # Errors
/// Of reading or writing.
pub fn run(
    mut input: impl BufRead,
    mut output: impl Write,
    decoder: &Decoder,
    mut now_us: impl FnMut() -> i64,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n") || u64::try_from(line.len()).is_ok_and(|len| len < MAX_LINE);
        let verdict = match str::from_utf8(&line) {
            _ if !whole => {
                input.skip_until(b'\n')?;
                "error line too long".to_owned()
            }
            Ok(text) => decoder.verdict(text, now_us()),
            Err(_) => "error not hex".to_owned(),
        };
        writeln!(output, "{verdict}")?;
        output.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::to_hex;
    use crate::secret;

    fn answers(input: &[u8], decoder: &Decoder) -> Vec<String> {
        let mut output = Vec::new();
        run(input, &mut output, decoder, || 10).unwrap();
        String::from_utf8(output).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn one_line_for_each() {
        let decoder = Decoder::new(None, Duration::from_secs(30));
        let url = to_hex(b"BEACON url=http://h/%\n ts=5");
        let leave = to_hex(b"BEACON leave=http://h ts=5");
        let input = format!("{url}\n\n 00 \r\nzz\nabc\n\u{e9}\n{leave}");
        let verdicts = answers(input.as_bytes(), &decoder);
        assert_eq!(
            verdicts,
            [
                "accept ts=0 url=http://h/%25%0A",
                "drop empty",
                "accept ts=0",
                "error not hex",
                "error not hex",
                "error not hex",
                "accept ts=0 leave=http://h",
            ]
        );
        assert_eq!(answers(b"\xff\n", &decoder), ["error not hex"]);
        assert!(answers(b"", &decoder).is_empty());
    }

    #[test]
    fn a_line_without_end_is_refused_and_skipped() {
        let decoder = Decoder::new(None, Duration::from_secs(30));
        let long = usize::try_from(MAX_LINE).unwrap() + 10;
        let input = [vec![b'0'; long], b"\n\n".to_vec(), vec![b'0'; long]].concat();
        assert_eq!(answers(&input, &decoder), ["error line too long", "drop empty", "error line too long"]);
    }

    #[test]
    fn secrets_skew_and_clock_count() {
        let secrets = secret::parse(b"old\nnew", true).unwrap();
        let decoder = Decoder::new(Some(&secrets), Duration::from_secs(1));
        let mut datagram = b"BEACON host=h ts=5".to_vec();
        Key::from_secret(b"new").sign(&mut datagram);
        let line = to_hex(&datagram);
        assert_eq!(decoder.verdict(&line, 1_000_005), "accept ts=5");
        assert_eq!(decoder.verdict(&line, 1_000_006), "drop stale timestamp");
    }
}
