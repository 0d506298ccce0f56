//! Bytes as text and back: hex, dumps, percent-escapes, JSON strings. And the gate that keeps a log line from becoming
//! a flood. Pure; no sockets, no clock.

use crate::clock::Mono;
use std::fmt::{self, Write};
use std::time::Duration;

/// Whether both are the same bytes. For short texts on a path that every datagram takes: optimized for size, `==` is
/// three calls before it looks at a byte.
#[inline(always)]
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (mut a, mut b) = (a, b);
    while let (Some((x, more_a)), Some((y, more_b))) = (a.split_first_chunk(), b.split_first_chunk()) {
        if u64::from_ne_bytes(*x) != u64::from_ne_bytes(*y) {
            return false;
        }
        (a, b) = (more_a, more_b);
    }
    while let ([x, more_a @ ..], [y, more_b @ ..]) = (a, b) {
        if x != y {
            return false;
        }
        (a, b) = (more_a, more_b);
    }
    true
}

/// Decodes hex text of either case; `None` if it is not pairs of hex digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some(hex_value(pair[0])? << 4 | hex_value(pair[1])?)).collect()
}

/// Lower-case hex of `bytes`.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        let _ = write!(out, "{b:02x}");
    }
    out
}

/// Shows untrusted bytes on one line: printable ASCII as it is, all else, space and `%` as `%XX`.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &b in self.0 {
            if b.is_ascii_graphic() && b != b'%' { f.write_char(b.into())? } else { write!(f, "%{b:02X}")? }
        }
        Ok(())
    }
}

/// Shows untrusted bytes for reading in a log: like [`Escaped`], but spaces stay.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &b in self.0 {
            if (b.is_ascii_graphic() || b == b' ') && b != b'%' {
                f.write_char(b.into())?;
            } else {
                write!(f, "%{b:02X}")?;
            }
        }
        Ok(())
    }
}

/// Shows `0` as a JSON string, quotes included (RFC 8259 section 7).
#[derive(Clone, Copy, Debug)]
pub struct JsonStr<'a>(pub &'a str);

impl fmt::Display for JsonStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                // Beyond what JSON asks for: DEL and the C1 controls, which some terminals obey, and the two characters
                // at which some readers end a line.
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    write!(f, "\\u{:04x}", u32::from(c))?;
                }
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Shows bytes for reading as hex and ASCII, in rows of 16 without a line end behind the last; a last row says how many
/// bytes beyond [`HexDump::MOST`] are left out.
///
/// ```text
/// 0000  16 03 01 02 00 01 00 01 fc 03 03 6b 00 a3 5c 0d  |...........k..\.|
/// 0010  61 62                                            |ab|
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HexDump<'a>(pub &'a [u8]);

impl HexDump<'_> {
    /// The most bytes that are shown.
    pub const MOST: usize = 1024;
    const ROW: usize = 16;
}

impl fmt::Display for HexDump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, more) = self.0.split_at(self.0.len().min(HexDump::MOST));
        for (nth, row) in shown.chunks(HexDump::ROW).enumerate() {
            let line_end = if nth == 0 { "" } else { "\n" };
            write!(f, "{line_end}{:04x} ", nth * HexDump::ROW)?;
            for b in row {
                write!(f, " {b:02x}")?;
            }
            write!(f, "{:1$}  |", "", 3 * (HexDump::ROW - row.len()))?;
            for &b in row {
                f.write_char(if b.is_ascii_graphic() || b == b' ' { b.into() } else { '.' })?;
            }
            f.write_char('|')?;
        }
        if more.is_empty() { Ok(()) } else { write!(f, "\n… {} more", more.len()) }
    }
}

/// Lets one log line through per interval and counts what it held back.
#[derive(Debug)]
pub struct LogGate {
    every: Duration,
    open_at: Mono,
    held: u64,
}

impl LogGate {
    /// A gate that opens at most once in `every`.
    #[must_use]
    pub fn new(every: Duration) -> LogGate {
        LogGate { every, open_at: Mono::ZERO, held: 0 }
    }

    /// Notes one event. `Some(n)`: log now, for `n` events since the last line, this one included.
    pub fn pass(&mut self, now: Mono) -> Option<u64> {
        self.held += 1;
        if now < self.open_at {
            return None;
        }
        self.open_at = now.after(self.every);
        Some(std::mem::take(&mut self.held))
    }

    /// When it opens for the events that it holds back; `None` if it holds none.
    #[must_use]
    pub fn opens(&self) -> Option<Mono> {
        (self.held > 0).then_some(self.open_at)
    }

    /// The events held back, if there are any, to be told although no further one came.
    pub fn release(&mut self, now: Mono) -> Option<u64> {
        self.opens()?;
        self.open_at = now.after(self.every);
        Some(std::mem::take(&mut self.held))
    }
}

/// Lets log lines through up to a burst, then at a steady rate, and counts what it held back: for lines that somebody
/// with a valid key can cause as often as he likes.
#[derive(Debug)]
pub struct LogBudget {
    burst: u64,
    per_second: u64,
    /// Used up, in lines, as of `at`.
    used: u64,
    at: Mono,
    held: u64,
}

impl LogBudget {
    /// A budget of `burst` lines at once, and `per_second` more each second.
    #[must_use]
    pub fn new(burst: u64, per_second: u64) -> LogBudget {
        LogBudget { burst, per_second, used: 0, at: Mono::ZERO, held: 0 }
    }

    /// Asks for one line. `Some(n)`: log it; `n` were held back before it.
    pub fn pass(&mut self, now: Mono) -> Option<u64> {
        let refill = now.since(self.at).as_secs().saturating_mul(self.per_second);
        if refill > 0 {
            self.used = self.used.saturating_sub(refill);
            self.at = now;
        }
        if self.used >= self.burst {
            self.held += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.held))
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok())
}

/// Whether there are so many values in a JSON text that, read, they would take a hundred times its size.
#[must_use]
pub fn is_bulky_json(text: &[u8]) -> bool {
    let count = |these: &[u8]| text.iter().filter(|b| these.contains(b)).count();
    count(b"{[") > MOST_JSON || count(b",") > 8 * MOST_JSON
}

/// No list that we read has more entries.
const MOST_JSON: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip_and_refusals() {
        assert_eq!(from_hex("00fFa0"), Some(vec![0, 255, 160]));
        assert_eq!(to_hex(&[0, 255, 160]), "00ffa0");
        assert_eq!(from_hex(""), Some(vec![]));
        for bad in ["0", "0g", "é1", "+1"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(Escaped(b"a b%\n\xff").to_string(), "a%20b%25%0A%FF");
        assert_eq!(Printable(b"a b%\n").to_string(), "a b%25%0A");
        assert_eq!(JsonStr("a\"\\\n\u{e9}").to_string(), "\"a\\\"\\\\\\u000a\u{e9}\"");
        assert_eq!(JsonStr("\u{7f}\u{9b}2J").to_string(), r#""\u007f\u009b2J""#);
        assert_eq!(JsonStr("\u{2028}\u{2029}\u{202a}").to_string(), "\"\\u2028\\u2029\u{202a}\"");
    }

    #[test]
    fn a_dump_has_rows_of_sixteen() {
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03k\x00\xa3\\\rab |\x7f";
        assert_eq!(
            HexDump(hello).to_string(),
            "0000  16 03 01 02 00 01 00 01 fc 03 03 6b 00 a3 5c 0d  |...........k..\\.|\n\
             0010  61 62 20 7c 7f                                   |ab |.|"
        );
        assert_eq!(HexDump(b"").to_string(), "");
        assert_eq!(HexDump(&[0x41; 16]).to_string().lines().count(), 1);
    }

    #[test]
    fn a_dump_is_bounded() {
        let full = HexDump(&[0xff; HexDump::MOST]).to_string();
        assert_eq!(full.lines().count(), 64);
        assert!(full.lines().last().unwrap().starts_with("03f0  ff"), "{full}");
        let more = HexDump(&[0xff; HexDump::MOST + 7]).to_string();
        assert_eq!(more, format!("{full}\n… 7 more"));
        for n in 0..40 {
            let bytes: Vec<u8> = (200..).take(n).collect();
            let read = |row: &str| from_hex(&row[5..53].replace(' ', "")).unwrap();
            assert_eq!(HexDump(&bytes).to_string().lines().flat_map(read).collect::<Vec<_>>(), bytes);
        }
    }

    #[test]
    fn a_budget_allows_a_burst_and_then_a_rate() {
        let mut budget = LogBudget::new(3, 2);
        let second = |n: u64| Mono(n * 1_000_000);
        let passed =
            |budget: &mut LogBudget, at: Mono| (0..10).filter_map(|_| budget.pass(at)).collect::<Vec<_>>();
        assert_eq!(passed(&mut budget, second(5)), [0, 0, 0]);
        assert_eq!(passed(&mut budget, second(6)), [7, 0]);
        assert_eq!(passed(&mut budget, second(60)), [8, 0, 0]);
    }

    #[test]
    fn gate_opens_once_an_interval_and_counts() {
        let mut gate = LogGate::new(Duration::from_secs(1));
        assert_eq!(gate.pass(Mono(0)), Some(1));
        assert_eq!((gate.opens(), gate.release(Mono(0))), (None, None), "nothing is held back");
        assert_eq!(gate.pass(Mono(999_999)), None);
        assert_eq!(gate.pass(Mono(1_000_000)), Some(2));
        assert_eq!((gate.pass(Mono(1_500_000)), gate.pass(Mono(1_600_000))), (None, None));
        assert_eq!(gate.opens(), Some(Mono(2_000_000)));
        assert_eq!(gate.release(Mono(2_000_000)), Some(2));
        assert_eq!(gate.pass(Mono(2_999_999)), None, "a released line counts as one");
    }
}
