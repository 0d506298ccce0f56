//! Taps: who watches sessions of the running program, which ones, and the lines that wait to be read.
//!
//! Whoever carries sessions asks [`Taps::is_empty`] for each, and only while somebody watches says what happens to it.
//! Nothing here grows: taps, sessions, waiting lines and lines a second are bounded, and what is held back is counted
//! and told. Pure; who hands the lines out is the control socket.

use crate::bytes::{HexDump, LogBudget};
use crate::cidr::Cidr;
use crate::clock::{Mono, micros};
use std::fmt::{self, Display, Write};
use std::net::IpAddr;
use std::time::Duration;

/// Taps at a time.
pub const TAPS: usize = 4;
/// The most sessions that one tap follows.
pub const SESSIONS: usize = 1000;
/// The longest time that a tap is open.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// Bytes of lines that wait for a slow reader.
pub const QUEUE: usize = 64 << 10;
/// A longer line is cut.
const LINE: usize = 2048;
/// Lines at once, and more each second: never more than 1,000 in 10 seconds.
const RATE: (u64, u64) = (500, 50);

/// Which sessions a tap follows; all of them without a condition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// The name that the client asks for, or `*.` and what it ends in; see [`sni`].
    pub sni: Option<String>,
    /// Where the client is.
    pub from: Option<Cidr>,
}

/// Reads the name of a filter: a host name, or `*.` and one.
///
/// # Errors
/// What is wanted.
pub fn sni(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let plain = name.bytes().all(|b| b.is_ascii_graphic() && b != b'*');
    let fits = (1..=253).contains(&name.len()) && plain && !name.starts_with('.');
    fits.then(|| text.to_ascii_lowercase())
        .ok_or_else(|| "a name such as www.example.com or *.example.com".to_owned())
}

impl Filter {
    /// Whether a session of a client at `ip` that asks for `name` is meant.
    #[must_use]
    pub fn wants(&self, ip: IpAddr, name: Option<&str>) -> bool {
        self.from.is_none_or(|net| net.covers(ip.to_canonical()))
            && self.sni.as_deref().is_none_or(|wanted| name.is_some_and(|name| is_named(name, wanted)))
    }
}

fn is_named(name: &str, wanted: &str) -> bool {
    let Some(parent) = wanted.strip_prefix('*') else { return name.eq_ignore_ascii_case(wanted) };
    let start = name.len().saturating_sub(parent.len());
    start > 0 && name.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(parent))
}

/// Names a tap. An id is never given out twice in the life of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TapId(u64);

/// All open taps.
#[derive(Debug, Default)]
pub struct Taps {
    open: Vec<Tap>,
    opened: u64,
    now: Mono,
    news: bool,
}

#[derive(Debug)]
struct Tap {
    id: TapId,
    filter: Filter,
    /// Sessions wanted, and how many of them have begun.
    wanted: usize,
    begun: usize,
    since: Mono,
    until: Mono,
    /// The sessions that are followed now, in order.
    following: Vec<u64>,
    queue: String,
    budget: LogBudget,
    /// Lines that found no room, and lines over the rate, since the last one that got through.
    lost: u64,
    left_out: u64,
}

impl Taps {
    /// Notes the time; the loop does at the start of each turn.
    pub fn tick(&mut self, now: Mono) {
        self.now = now;
    }

    /// Opens a tap for the next `wanted` sessions that begin before `until`; `None` if too many are open.
    pub fn open(&mut self, filter: Filter, wanted: usize, until: Mono) -> Option<TapId> {
        if self.open.len() >= TAPS {
            return None;
        }
        self.opened += 1;
        let id = TapId(self.opened);
        self.open.push(Tap {
            id,
            filter,
            wanted: wanted.min(SESSIONS),
            begun: 0,
            since: self.now,
            until,
            following: Vec::new(),
            queue: String::new(),
            budget: LogBudget::new(RATE.0, RATE.1),
            lost: 0,
            left_out: 0,
        });
        Some(id)
    }

    /// Whether nobody watches: the one question asked for every session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether anybody wants to know of this session, whose client is at `ip` and asks for `sni`. If so, it is
    /// followed until [`Taps::end`]. An id names one session of the whole process.
    pub fn follow(&mut self, session: u64, ip: IpAddr, sni: Option<&str>) -> bool {
        let mut followed = false;
        for tap in &mut self.open {
            match tap.following.binary_search(&session) {
                Ok(_) => followed = true,
                Err(at) if tap.begun < tap.wanted && self.now < tap.until && tap.filter.wants(ip, sni) => {
                    tap.following.insert(at, session);
                    tap.begun += 1;
                    followed = true;
                }
                Err(_) => {}
            }
        }
        followed
    }

    /// Tells those who follow this session of something that happened to it: one line.
    pub fn line(&mut self, session: u64, text: &dyn Display) {
        let mut line = Line(String::new());
        for tap in self.open.iter_mut().filter(|tap| tap.following.binary_search(&session).is_ok()) {
            if line.0.is_empty() && write!(line, "{{{session:08x}}} {text}").is_err() {
                line.0.push('…');
            }
            self.news |= tap.tell(&line.0, self.now);
        }
    }

    /// Shows them bytes of this session in hex and ASCII, the first of many; `what` says which.
    pub fn dump(&mut self, session: u64, what: &dyn Display, bytes: &[u8]) {
        self.line(session, &format_args!("{what}, {} bytes", bytes.len()));
        for row in HexDump(bytes).to_string().lines() {
            self.line(session, &row);
        }
    }

    /// The session is over; its last line has been told.
    pub fn end(&mut self, session: u64) {
        for tap in &mut self.open {
            if let Ok(at) = tap.following.binary_search(&session) {
                tap.following.remove(at);
                self.news |= tap.is_over(self.now);
            }
        }
    }

    /// Whether there is anything to hand out that was not there at the last call.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The lines that wait; none for a tap that is closed.
    pub fn take(&mut self, id: TapId) -> String {
        self.open.iter_mut().find(|tap| tap.id == id).map(Tap::take).unwrap_or_default()
    }

    /// Whether its sessions have ended, or its time.
    #[must_use]
    pub fn is_over(&self, id: TapId) -> bool {
        self.open.iter().find(|tap| tap.id == id).is_none_or(|tap| tap.is_over(self.now))
    }

    /// Closes a tap, and says how it went behind the lines that waited.
    pub fn close(&mut self, id: TapId) -> String {
        let Some(at) = self.open.iter().position(|tap| tap.id == id) else { return String::new() };
        let mut tap = self.open.swap_remove(at);
        let mut rest = tap.take();
        rest += &tap.omissions();
        let (begun, wanted, running) = (tap.begun, tap.wanted, tap.following.len());
        let _ = write!(rest, "… {begun} of {wanted} sessions");
        if running > 0 {
            let _ = write!(rest, ", {running} of them still running");
        }
        rest.push('\n');
        rest
    }
}

impl Tap {
    fn is_over(&self, now: Mono) -> bool {
        now >= self.until || self.begun >= self.wanted && self.following.is_empty()
    }

    /// Queues a line; `true` if there is something to read that was not there before.
    fn tell(&mut self, text: &str, now: Mono) -> bool {
        if self.budget.pass(now).is_none() {
            self.left_out += 1;
            return self.left_out == 1 && self.put("… too many lines: no more than 1000 in 10 s are shown\n");
        }
        let ms = micros(now.since(self.since)) / 1000;
        let line = format!("{}{}.{:03} {text}\n", self.omissions(), ms / 1000, ms % 1000);
        let fits = self.put(&line);
        if fits {
            (self.lost, self.left_out) = (0, 0);
        } else {
            self.lost += 1;
        }
        fits
    }

    fn put(&mut self, text: &str) -> bool {
        let fits = self.queue.len() + text.len() <= QUEUE;
        if fits {
            self.queue.push_str(text);
        }
        fits
    }

    fn take(&mut self) -> String {
        let lines = std::mem::take(&mut self.queue);
        lines + &omitted(std::mem::take(&mut self.lost), "lost")
    }

    /// What was held back behind the last line that got through, in lines of its own.
    fn omissions(&self) -> String {
        omitted(self.lost, "lost") + &omitted(self.left_out, "left out")
    }
}

fn omitted(count: u64, why: &str) -> String {
    if count == 0 { String::new() } else { format!("… {count} lines {why}\n") }
}

/// One line of limited length, whatever is written.
struct Line(String);

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() + 4 > LINE {
                return Err(fmt::Error);
            }
            // What a terminal might obey.
            self.0.push(if c.is_control() { '?' } else { c });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn filter(name: &str, net: &str) -> Filter {
        Filter {
            sni: (!name.is_empty()).then(|| sni(name).unwrap()),
            from: (!net.is_empty()).then(|| Cidr::parse(net).unwrap()),
        }
    }

    /// Taps at second 0 with one that follows `count` sessions.
    fn one(count: usize) -> (Taps, TapId) {
        let mut taps = Taps::default();
        let id = taps.open(Filter::default(), count, Mono(60 * SECOND)).unwrap();
        (taps, id)
    }

    #[test]
    fn names_of_filters() {
        assert_eq!(sni("WWW.Example.com").unwrap(), "www.example.com");
        assert_eq!(sni("*.example.com").unwrap(), "*.example.com");
        let long = "a".repeat(254);
        for bad in ["", "*", "*.", "a b", "a*.b", "*.*.b", ".b", "*..b", "é.b", "a\n", &long] {
            assert!(sni(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_filter_wants_what_meets_all_of_it() {
        let rows = [
            ("", "", "192.0.2.1", None, true),
            ("www.example.com", "", "192.0.2.1", Some("WWW.example.COM"), true),
            ("www.example.com", "", "192.0.2.1", Some("ww.example.com"), false),
            ("www.example.com", "", "192.0.2.1", None, false),
            ("*.example.com", "", "192.0.2.1", Some("a.b.Example.com"), true),
            ("*.example.com", "", "192.0.2.1", Some("example.com"), false),
            ("*.example.com", "", "192.0.2.1", Some(".example.com"), false),
            ("*.example.com", "", "192.0.2.1", Some("badexample.com"), false),
            ("*.example.com", "", "192.0.2.1", Some("\u{e9}xample.com"), false),
            ("", "192.0.2.0/24", "192.0.2.1", None, true),
            ("", "192.0.2.0/24", "::ffff:192.0.2.1", None, true),
            ("", "192.0.2.0/24", "192.0.3.1", None, false),
            ("a.b", "2001:db8::/32", "2001:db8::1", Some("a.b"), true),
            ("a.b", "2001:db8::/32", "2001:db9::1", Some("a.b"), false),
            ("a.b", "2001:db8::/32", "2001:db8::1", Some("b.b"), false),
        ];
        for (name, net, from, asked, wanted) in rows {
            assert_eq!(filter(name, net).wants(ip(from), asked), wanted, "{name} {net} {from} {asked:?}");
        }
    }

    #[test]
    fn a_session_is_followed_from_its_name_to_its_end() {
        let mut taps = Taps::default();
        assert!(taps.is_empty());
        taps.tick(Mono(SECOND));
        let id = taps.open(filter("a.b", ""), 2, Mono(61 * SECOND)).unwrap();
        assert!(!taps.is_empty() && !taps.take_news());
        assert!(!taps.follow(1, ip("192.0.2.1"), Some("b.b")));
        assert!(taps.follow(2, ip("192.0.2.1"), Some("a.b")));
        assert!(taps.follow(2, ip("192.0.2.1"), Some("a.b")), "asked twice, counted once");
        taps.line(1, &"not followed");
        assert!(!taps.take_news());
        taps.tick(Mono(2_250_000));
        taps.line(2, &"one\nline\x1b[2J");
        assert!(taps.take_news() && !taps.take_news());
        assert_eq!(taps.take(id), "1.250 {00000002} one?line?[2J\n");
        assert_eq!(taps.take(id), "");
        taps.end(2);
        taps.line(2, &"after the end");
        assert!(!taps.take_news() && !taps.is_over(id), "one more is wanted");
        assert!(taps.follow(1, ip("192.0.2.1"), Some("a.b")));
        assert!(!taps.follow(3, ip("192.0.2.1"), Some("a.b")), "that were three");
        taps.line(1, &"last");
        taps.end(1);
        assert!(taps.take_news() && taps.is_over(id));
        assert_eq!(taps.close(id), "1.250 {00000001} last\n… 2 of 2 sessions\n");
        assert!(taps.is_empty() && taps.is_over(id));
        assert_eq!((taps.take(id), taps.close(id)), (String::new(), String::new()));
    }

    #[test]
    fn several_taps_and_no_more_than_four() {
        let mut taps = Taps::default();
        let until = Mono(SECOND);
        let ids: Vec<TapId> = ["10.0.0.0/8", "10.1.0.0/16", "", ""]
            .map(|net| taps.open(filter("", net), 1, until).unwrap())
            .into();
        assert_eq!(taps.open(Filter::default(), 1, until), None);
        assert!(taps.follow(7, ip("10.2.0.1"), None));
        taps.line(7, &"x");
        let seen: Vec<bool> = ids.iter().map(|id| !taps.take(*id).is_empty()).collect();
        assert_eq!(seen, [true, false, true, true]);
        taps.close(ids[0]);
        let again = taps.open(Filter::default(), 1, until).unwrap();
        assert!(!ids.contains(&again));
        taps.tick(until);
        assert!(!taps.follow(8, ip("10.1.0.1"), None), "the time is up");
        assert!(taps.is_over(again) && taps.is_over(ids[2]));
        assert_eq!(taps.close(ids[2]), "… 1 of 1 sessions, 1 of them still running\n");
        assert_eq!(taps.close(again), "… 0 of 1 sessions\n");
    }

    #[test]
    fn what_a_slow_reader_misses_is_counted() {
        let (mut taps, id) = one(1);
        taps.follow(1, ip("::1"), None);
        let long = "x".repeat(5000);
        for _ in 0..100 {
            taps.line(1, &long);
        }
        let told = taps.take(id);
        assert!(told.len() <= QUEUE + 40, "{}", told.len());
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].ends_with("x…") && lines[0].len() <= LINE + 10, "{}", lines[0].len());
        assert_eq!(*lines.last().unwrap(), format!("… {} lines lost", 100 - (lines.len() - 1)));
        // Seen although nobody took it meanwhile: as soon as there is room.
        for _ in 0..40 {
            taps.line(1, &long);
        }
        taps.open[0].queue.truncate(0);
        taps.line(1, &"short");
        let told = taps.take(id);
        assert!(told.starts_with("… ") && told.lines().nth(1) == Some("0.000 {00000001} short"), "{told}");
        assert_eq!(told.lines().count(), 2);
    }

    #[test]
    fn no_more_than_a_thousand_lines_in_ten_seconds() {
        let (mut taps, id) = one(1);
        taps.follow(1, ip("::1"), None);
        let mut shown = Vec::new();
        for ms in (0..20_000u64).step_by(5) {
            taps.tick(Mono(100 * SECOND + ms * 1000));
            taps.line(1, &ms);
            shown.extend(taps.take(id).lines().filter(|l| l.contains('{')).map(|_| ms));
        }
        for (n, first) in shown.iter().enumerate() {
            let within = shown[n..].iter().take_while(|ms| **ms < first + 10_000).count();
            assert!(within <= 1000, "{within} lines from {first} ms");
        }
        assert!(shown.len() > 1000, "it goes on at a lower rate");
        taps.tick(Mono(200 * SECOND));
        for n in 0..600 {
            taps.line(1, &n);
        }
        let told = taps.take(id);
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].starts_with("… ") && lines[0].ends_with(" lines left out"), "{}", lines[0]);
        assert_eq!(lines.len(), 502);
        assert_eq!(lines[501], "… too many lines: no more than 1000 in 10 s are shown");
        assert_eq!(taps.close(id), "… 100 lines left out\n… 1 of 1 sessions, 1 of them still running\n");
    }

    #[test]
    fn first_bytes_in_rows() {
        let (mut taps, id) = one(1);
        taps.follow(0x2a, ip("::1"), None);
        taps.dump(0x2a, &"first flight", b"GET / HTTP/1.1\r\n\r\n");
        let told = taps.take(id);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "0.000 {0000002a} first flight, 18 bytes");
        assert!(lines[1].contains("47 45 54 20") && lines[1].contains("GET / HTTP/1.1"), "{}", lines[1]);
        taps.dump(0x2a, &"more", &[0; 5000]);
        let told = taps.take(id);
        assert_eq!(told.lines().count(), 1 + HexDump::MOST / 16 + 1);
        assert!(told.ends_with("{0000002a} … 3976 more\n"), "{told}");
    }
}
