//! The text of a beacon datagram: where it ends, where its MAC stands, what its fields say, and how we write one.
//!
//! ```text
//! BEACON url=http://10.0.0.1:8080 host=web-1 pid=41564 seq=3 ts=1780646570123456 every=5s weight=1 to=web mac=67f0…
//! BEACON leave=http://10.0.0.1:8080 host=web-1 pid=41564 seq=4 ts=1780646575123456 to=web mac=…
//! ```
//!
//! Everything up to `ts=`, and `mac=`, is the reference module's (`mod_proxy_beacon`); `every=`, `weight=`, `to=` and
//! `leave=` are ours, and it skips them. Tokens are separated by a space and by nothing else, and a field is looked
//! up as the reference looks up `url=`: the first token that begins with its name, whatever stands before it. The one
//! exception is the reference's own: the *last* `ts=` counts.
//!
//! Every function is total on arbitrary bytes. Nothing here checks a MAC, compares a time or judges a url.

use super::Reason;
use super::scan::{find_space, has, is_without_nul, read_digits, read_number, split_last_16};
use crate::clock::micros;
use crate::url::Url;
use std::ffi::CStr;
use std::fmt::{self, Write};
use std::time::Duration;

/// At most this much of a datagram is read; what follows is cut off silently.
pub const MAX_TEXT: usize = 2048;
/// At most this much of a `url=` or `leave=` value counts.
pub const MAX_URL: usize = 511;
/// The largest `weight=`; what a member without one has is [`DEFAULT_WEIGHT`].
pub const MAX_WEIGHT: u16 = 256;
/// The weight of a member whose announcement carries none, or none that can be read.
pub const DEFAULT_WEIGHT: u16 = 1;
/// Length of the MAC: SipHash's 64 bits as lower-case hex.
pub const MAC_LEN: usize = 16;
/// What stands before the MAC; the signed bytes end where this begins.
pub const MAC_MARK: &[u8; 5] = b" mac=";

/// The part of a datagram that counts: at most [`MAX_TEXT`] bytes, up to the first NUL.
#[must_use]
pub fn text(datagram: &[u8]) -> &[u8] {
    let read = datagram.get(..MAX_TEXT).unwrap_or(datagram);
    if is_without_nul(read) {
        return read;
    }
    // The C string type brings the search for a NUL.
    CStr::from_bytes_until_nul(read).map_or(read, CStr::to_bytes)
}

/// Splits `text` at its last ` mac=` into the signed bytes and the MAC.
///
/// # Errors
/// [`Reason::NoMac`] and [`Reason::BadMacLength`]: the MAC must be the very end.
pub fn split_mac(text: &[u8]) -> Result<(&[u8], &[u8; MAC_LEN]), Reason> {
    // Nearly always the mark stands where it should; with no space after it, it is then the last one.
    if let Some((head, mac)) = split_last_16(text)
        && let [body @ .., b' ', b'm', b'a', b'c', b'='] = head
        && !has(mac, b' ')
    {
        return Ok((body, mac));
    }
    let mark = text.windows(MAC_MARK.len()).rposition(|w| w == MAC_MARK).ok_or(Reason::NoMac)?;
    let (body, rest) = text.split_at(mark);
    let mac = rest.get(MAC_MARK.len()..).and_then(|mac| mac.try_into().ok());
    Ok((body, mac.ok_or(Reason::BadMacLength)?))
}

/// The fields of a datagram's text. A field that is absent, or that cannot be read, has the value named here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Body<'a> {
    /// The announced url as it was sent, cut to [`MAX_URL`] bytes. `Some` of nothing is a `url=` without a value.
    pub url: Option<&'a [u8]>,
    /// The url that says goodbye: `leave=`, counted only as the second token of the text.
    pub leave: Option<&'a [u8]>,
    /// The sender's name for its own host; empty if absent.
    pub host: &'a [u8],
    /// The sender's process id, else 0.
    pub pid: u32,
    /// The sender's count of its announcements, else 0.
    pub seq: u64,
    /// The sender's time in microseconds since the Unix epoch: the number after the last `ts=`.
    pub ts: Option<i64>,
    /// How often the sender announces, where it says so.
    pub every: Option<Duration>,
    /// 0 to [`MAX_WEIGHT`], else [`DEFAULT_WEIGHT`].
    pub weight: u16,
    /// The balancer the datagram is meant for, where it says so.
    pub to: Option<&'a [u8]>,
}

/// What a datagram says about membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim<'a> {
    /// No usable url: a sign of life of some host, and of no member.
    Nothing,
    /// The member with this raw url is there.
    Here(&'a [u8]),
    /// The member with this raw url is leaving.
    Leaving(&'a [u8]),
    /// Both at once.
    Both,
}

impl<'a> Body<'a> {
    /// Reads the fields of the signed bytes, or, where nobody signs, of the whole text.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Body<'a> {
        let mut body = Body {
            url: None,
            leave: None,
            host: b"",
            pid: 0,
            seq: 0,
            ts: None,
            every: None,
            weight: DEFAULT_WEIGHT,
            to: None,
        };
        let (mut rest, mut nth, mut seen, mut ts) = (text, 0usize, 0u16, None);
        loop {
            let (field, value) = field(rest);
            let end = find_space(value);
            let token = value.get(..end).unwrap_or(value);
            let bit = 1 << field as u16;
            match field {
                Field::Other => {}
                Field::Ts => ts = Some(value),
                Field::Leave if nth != 1 => {}
                _ if seen & bit != 0 => {}
                _ => {
                    seen |= bit;
                    body.take(field, token);
                }
            }
            match value.get(end + 1..) {
                Some(next) => (rest, nth) = (next, nth + 1),
                None => break,
            }
        }
        body.ts = ts.map(read_number);
        body
    }

    /// Takes over the first token of a field.
    #[inline(always)]
    fn take(&mut self, field: Field, token: &'a [u8]) {
        match field {
            Field::Url => self.url = Some(cut(token)),
            Field::Leave => self.leave = Some(cut(token)),
            Field::Host => self.host = token,
            Field::Pid => self.pid = read_digits(token).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            Field::Seq => self.seq = read_digits(token).unwrap_or(0),
            Field::Every => self.every = read_interval(token),
            Field::Weight => self.weight = read_weight(token).unwrap_or(DEFAULT_WEIGHT),
            Field::To => self.to = Some(token),
            Field::Ts | Field::Other => {}
        }
    }

    /// What it says about membership.
    #[must_use]
    pub fn claim(&self) -> Claim<'a> {
        match (self.url, self.leave) {
            (Some(_), Some(_)) => Claim::Both,
            (Some(url), None) if !url.is_empty() => Claim::Here(url),
            (None, Some(url)) if !url.is_empty() => Claim::Leaving(url),
            _ => Claim::Nothing,
        }
    }
}

/// What a sender puts into a datagram; [`Announce::to_text`] writes it, [`super::auth::Key::sign`] signs that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announce<'a> {
    /// The member's url; `None` is the url-less heartbeat.
    pub url: Option<&'a Url>,
    /// This host's name.
    pub host: &'a str,
    /// This process's id.
    pub pid: u32,
    /// Count of announcements, from 0.
    pub seq: u64,
    /// Microseconds since the Unix epoch.
    pub ts: i64,
    /// The announcing interval, where it should be told.
    pub every: Option<Duration>,
    /// At most [`MAX_WEIGHT`], where it should be told.
    pub weight: Option<u16>,
    /// The balancer's name, where one is configured.
    pub to: Option<&'a str>,
}

impl Announce<'_> {
    /// The unsigned text of the announcement.
    #[must_use]
    pub fn to_text(&self) -> Vec<u8> {
        let mut out = self.opening("url");
        if let Some(every) = self.every {
            write(&mut out, format_args!(" every={}", Interval(every)));
        }
        if let Some(weight) = self.weight {
            write(&mut out, format_args!(" weight={weight}"));
        }
        self.closing(out)
    }

    /// The unsigned text of the goodbye: the same with `leave=` for `url=`, and without interval and weight.
    #[must_use]
    pub fn to_goodbye(&self) -> Vec<u8> {
        self.closing(self.opening("leave"))
    }

    fn opening(&self, name: &str) -> String {
        let mut out = String::with_capacity(256);
        out.push_str("BEACON");
        if let Some(url) = self.url {
            write(&mut out, format_args!(" {name}={}", url.text()));
        }
        let (pid, seq, ts) = (self.pid, self.seq, self.ts);
        write(&mut out, format_args!(" host={} pid={pid} seq={seq} ts={ts}", Word(self.host)));
        out
    }

    fn closing(&self, mut out: String) -> Vec<u8> {
        if let Some(to) = self.to {
            write(&mut out, format_args!(" to={}", Word(to)));
        }
        out.into_bytes()
    }
}

/// A text as one token: what would end or hide it becomes `_`.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c.is_ascii_graphic() { c } else { '_' }))
    }
}

/// An interval in the largest unit that shows it exactly.
struct Interval(Duration);

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match micros(self.0) {
            us if us.is_multiple_of(1_000_000) => write!(f, "{}s", us / 1_000_000),
            us if us.is_multiple_of(1_000) => write!(f, "{}ms", us / 1_000),
            us => write!(f, "{us}us"),
        }
    }
}

fn write(out: &mut String, args: fmt::Arguments<'_>) {
    out.write_fmt(args).expect("writing to a String cannot fail");
}

/// The fields of a text.
#[derive(Clone, Copy)]
enum Field {
    Other,
    Url,
    Leave,
    Host,
    Pid,
    Seq,
    Ts,
    Every,
    Weight,
    To,
}

/// Which field's token `rest` begins with, and what follows the field's name. Names are told apart by their first four
/// bytes as one word: a byte at a time costs more than all else that is done for a token.
#[inline(always)]
fn field(rest: &[u8]) -> (Field, &[u8]) {
    const URL: u32 = u32::from_le_bytes(*b"url=");
    const LEAVE: u32 = u32::from_le_bytes(*b"leav");
    const HOST: u32 = u32::from_le_bytes(*b"host");
    const PID: u32 = u32::from_le_bytes(*b"pid=");
    const SEQ: u32 = u32::from_le_bytes(*b"seq=");
    const EVERY: u32 = u32::from_le_bytes(*b"ever");
    const WEIGHT: u32 = u32::from_le_bytes(*b"weig");
    if let Some((head, tail)) = rest.split_first_chunk() {
        match (u32::from_le_bytes(*head), tail) {
            (URL, value) => return (Field::Url, value),
            (LEAVE, [b'e', b'=', value @ ..]) => return (Field::Leave, value),
            (HOST, [b'=', value @ ..]) => return (Field::Host, value),
            (PID, value) => return (Field::Pid, value),
            (SEQ, value) => return (Field::Seq, value),
            (EVERY, [b'y', b'=', value @ ..]) => return (Field::Every, value),
            (WEIGHT, [b'h', b't', b'=', value @ ..]) => return (Field::Weight, value),
            _ => {}
        }
    }
    match rest {
        [b't', b's', b'=', value @ ..] => (Field::Ts, value),
        [b't', b'o', b'=', value @ ..] => (Field::To, value),
        _ => (Field::Other, rest),
    }
}

fn cut(url: &[u8]) -> &[u8] {
    url.get(..MAX_URL).unwrap_or(url)
}

fn read_weight(bytes: &[u8]) -> Option<u16> {
    u16::try_from(read_digits(bytes)?).ok().filter(|weight| *weight <= MAX_WEIGHT)
}

/// A number and a unit as in httpd's directives, seconds without one; zero is no interval.
fn read_interval(bytes: &[u8]) -> Option<Duration> {
    let mut unit = bytes;
    while let [b'0'..=b'9', rest @ ..] = unit {
        unit = rest;
    }
    let number = read_digits(bytes.get(..bytes.len() - unit.len())?)?;
    let unit_us: u64 = match unit {
        b"us" => 1,
        b"ms" => 1_000,
        b"s" | b"" => 1_000_000,
        b"mi" | b"min" => 60_000_000,
        b"h" => 3_600_000_000,
        b"d" => 86_400_000_000,
        _ => return None,
    };
    let us = number.checked_mul(unit_us)?;
    // Nearly everybody says seconds, which spares a division.
    let interval = if unit_us == 1_000_000 { Duration::from_secs(number) } else { Duration::from_micros(us) };
    (us > 0).then_some(interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Body<'_> {
        Body::parse(text.as_bytes())
    }

    #[test]
    fn the_last_ts_token_counts_and_only_a_space_begins_one() {
        for (text, ts) in [
            ("ts=1 ts=2 x", Some(2)),
            ("ts=1", Some(1)),
            ("a ts= \n7 x", Some(7)),
            ("a ts=", Some(0)),
            ("a\tts=1", None),
            ("hosts=1", None),
            ("", None),
            (" ", None),
        ] {
            assert_eq!(parse(text).ts, ts, "{text:?}");
        }
    }

    #[test]
    fn the_first_token_of_a_field_counts() {
        let body = parse("BEACON url=a url=b host=h host=i pid=4 seq=5 every=500ms weight=0 to=web to=x");
        assert_eq!((body.url, body.host, body.pid, body.seq), (Some(&b"a"[..]), &b"h"[..], 4, 5));
        assert_eq!(
            (body.every, body.weight, body.to),
            (Some(Duration::from_millis(500)), 0, Some(&b"web"[..]))
        );
        assert_eq!(parse("BEACON url= url=b").claim(), Claim::Nothing);
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        let body = parse("BEACON pid=x seq=-1 every=5weeks weight=257");
        assert_eq!((body.pid, body.seq, body.every, body.weight), (0, 0, None, 1));
        let body = parse("BEACON pid=4294967296 seq=99999999999999999999 every=0s weight=");
        assert_eq!((body.pid, body.seq, body.every, body.weight), (0, 0, None, 1));
        assert_eq!(parse("BEACON weight=256").weight, 256);
        for (text, seconds) in [("7", 7), ("7s", 7), ("2mi", 120), ("2min", 120), ("1h", 3600), ("1d", 86400)]
        {
            assert_eq!(read_interval(text.as_bytes()), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(read_interval(b"99999999999999999999d"), None);
        assert_eq!(read_interval(b"9999999999999d"), None);
    }

    #[test]
    fn a_goodbye_is_the_second_token() {
        assert_eq!(parse("BEACON leave=u ts=1").claim(), Claim::Leaving(b"u"));
        assert_eq!(parse("leave=u ts=1").claim(), Claim::Nothing);
        assert_eq!(parse("BEACON host=h leave=u").claim(), Claim::Nothing);
        assert_eq!(parse("BEACON  leave=u").claim(), Claim::Nothing);
        assert_eq!(parse("BEACON leave= ts=1").claim(), Claim::Nothing);
        assert_eq!(parse("BEACON leave=u url=u").claim(), Claim::Both);
        assert_eq!(parse("BEACON leave=u url=").claim(), Claim::Both);
    }

    #[test]
    fn the_mac_is_the_very_end() {
        assert_eq!(split_mac(b"a mac=0123456789abcdef"), Ok((&b"a"[..], b"0123456789abcdef")));
        assert_eq!(split_mac(b"a mac=0 mac=0123456789abcdef"), Ok((&b"a mac=0"[..], b"0123456789abcdef")));
        assert_eq!(split_mac(b"a mac=01234 mac=012345"), Err(Reason::BadMacLength));
        assert_eq!(split_mac(b"mac=0123456789abcdef"), Err(Reason::NoMac));
        assert_eq!(split_mac(b""), Err(Reason::NoMac));
    }

    #[test]
    fn text_ends_at_a_nul_or_at_the_limit() {
        assert_eq!(text(b"ab\0cd\0"), b"ab");
        assert_eq!(text(b"\0"), b"");
        assert_eq!(text(b"ab"), b"ab");
        assert_eq!(text(&[b'x'; 3000]).len(), MAX_TEXT);
    }

    #[test]
    fn the_text_is_the_references_with_our_fields_before_the_mac() {
        let url = Url::parse(b"http://10.0.0.1:8080").unwrap();
        let mut said = Announce {
            url: Some(&url),
            host: "web 1",
            pid: 7,
            seq: 3,
            ts: 5,
            every: Some(Duration::from_millis(1500)),
            weight: Some(2),
            to: Some("web"),
        };
        let text =
            b"BEACON url=http://10.0.0.1:8080 host=web_1 pid=7 seq=3 ts=5 every=1500ms weight=2 to=web";
        assert_eq!(said.to_text(), text);
        assert_eq!(
            said.to_goodbye(),
            b"BEACON leave=http://10.0.0.1:8080 host=web_1 pid=7 seq=3 ts=5 to=web"
        );
        said = Announce { url: None, every: None, weight: None, to: None, ..said };
        assert_eq!(said.to_text(), b"BEACON host=web_1 pid=7 seq=3 ts=5");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            host in "[!-~]{0,40}", pid: u32, seq: u64, ts: i64, us in 1u64.., weight in 0u16..=256, to in "[!-~]{1,20}",
        ) {
            let url = Url::parse(b"https://[2001:db8::5]").unwrap();
            let every = Duration::from_micros(us);
            let said = Announce {
                url: Some(&url), host: &host, pid, seq, ts, every: Some(every), weight: Some(weight), to: Some(&to),
            };
            let text = said.to_text();
            let body = Body::parse(&text);
            prop_assert_eq!(Body::parse(&text).ts, Some(ts));
            prop_assert_eq!(body.claim(), Claim::Here(url.text().as_bytes()));
            prop_assert_eq!((body.host, body.pid, body.seq), (host.as_bytes(), pid, seq));
            prop_assert_eq!((body.every, body.weight, body.to), (Some(every), weight, Some(to.as_bytes())));
            let text = said.to_goodbye();
            prop_assert_eq!(Body::parse(&text).claim(), Claim::Leaving(url.text().as_bytes()));
            prop_assert_eq!(Body::parse(&text).ts, Some(ts));
        }
    }
}
