//! The types of option values: times, sizes, numbers, addresses, names, commands.
//!
//! Every function takes the value's text; its error is what was wanted, to be put behind "wanted". Times are those of
//! Apache httpd's directives. Nothing here knows where a value was written.

use crate::clock::micros;
use log::LevelFilter;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// The longest path that a Unix socket has on every system.
pub const LONGEST_SOCKET: usize = 103;

/// A host and a port, either of which may be missing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostPort {
    /// A name, or an IP address without brackets.
    pub host: Option<String>,
    /// The port; 0 lets the kernel choose.
    pub port: Option<u16>,
}

impl HostPort {
    /// The host as an address, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.as_deref()?.parse().ok()
    }
}

/// As it is written in an option's value.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.ip()) {
            (Some(host), Some(IpAddr::V6(_))) => write!(f, "[{host}]")?,
            (Some(host), _) => f.write_str(host)?,
            (None, _) => {}
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Any text.
///
/// # Errors
/// None; the type is that of the other values.
pub fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

/// A time: a whole number and `us`, `ms`, `s`, `mi` or `min`, `h` or `d`, in either case; seconds without a unit.
///
/// # Errors
/// What is wanted, also for a time of more than 2^63 microseconds.
pub fn duration(value: &str) -> Result<Duration, String> {
    let wanted = || "a time such as 30, 500ms, 5min or 1h".to_owned();
    let (number, unit) = number_and_unit(value).ok_or_else(wanted)?;
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "us" => 1,
        "ms" => 1_000,
        "" | "s" => 1_000_000,
        "mi" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(wanted()),
    };
    let us = number.checked_mul(scale).filter(|us| i64::try_from(*us).is_ok());
    us.map(Duration::from_micros).ok_or_else(|| format!("{}, less than 292,000 years", wanted()))
}

/// A time of at least `least`.
pub fn duration_from(least: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |value| match duration(value)? {
        time if time < least => Err(format!("a time of at least {}", show_duration(least))),
        time => Ok(time),
    }
}

/// A time in whole seconds, at least one.
///
/// # Errors
/// What is wanted.
pub fn whole_seconds(value: &str) -> Result<Duration, String> {
    let time = duration(value)?;
    let whole = time.subsec_nanos() == 0 && time.as_secs() > 0;
    if whole { Ok(time) } else { Err("a time in whole seconds, at least 1".to_owned()) }
}

/// A size in bytes: a whole number and `k`, `m` or `g` of 1,024, 1,024² and 1,024³.
///
/// # Errors
/// What is wanted.
pub fn size(value: &str) -> Result<usize, String> {
    let wanted = || "a size such as 4096, 64k or 1m".to_owned();
    let (number, unit) = number_and_unit(value).ok_or_else(wanted)?;
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return Err(wanted()),
    };
    let bytes = number.checked_mul(scale).filter(|b| isize::try_from(*b).is_ok());
    bytes
        .and_then(|b| usize::try_from(b).ok())
        .ok_or_else(|| "a size that fits this machine's memory".to_owned())
}

/// A size from `least` to `most` bytes.
pub fn size_within(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> {
    move |value| match size(value)? {
        bytes if (least..=most).contains(&bytes) => Ok(bytes),
        _ if most == usize::MAX => Err(format!("a size of at least {}", show_size(least))),
        _ => Err(format!("a size from {} to {}", show_size(least), show_size(most))),
    }
}

/// How many of something: a whole number of at least 1.
///
/// # Errors
/// What is wanted.
pub fn count(value: &str) -> Result<usize, String> {
    let number = digits(value).and_then(|n| usize::try_from(n).ok());
    number.filter(|n| *n > 0).ok_or_else(|| "a whole number of at least 1".to_owned())
}

/// A whole number from `least` to `most`.
pub fn number(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |value| {
        let number = digits(value).filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| format!("a whole number from {least} to {most}"))
    }
}

/// A port; 0 lets the kernel choose.
///
/// # Errors
/// What is wanted.
pub fn port(value: &str) -> Result<u16, String> {
    let number = digits(value).and_then(|n| u16::try_from(n).ok());
    number.ok_or_else(|| "a port from 0 to 65535".to_owned())
}

/// An address, `[scheme://][host][:port]` with a host or a port or both. The scheme is ignored, an IPv6 address stands
/// in brackets, and digits alone are refused: they may be meant as either part.
///
/// # Errors
/// What is wanted.
pub fn addr(value: &str) -> Result<HostPort, String> {
    let wanted = || "an address such as 10.0.0.1:5555, [2001:db8::1]:5555 or lb.example:5555".to_owned();
    let rest = match value.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        Some(_) => return Err(wanted()),
        None => value,
    };
    if let Some(rest) = rest.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or_else(wanted)?;
        let ip: Ipv6Addr = host.parse().map_err(|_| wanted())?;
        let port = match tail {
            "" => None,
            _ => Some(port(tail.strip_prefix(':').ok_or_else(wanted)?)?),
        };
        return Ok(HostPort { host: Some(ip.to_string()), port });
    }
    if rest.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("the IPv6 address in brackets: [{rest}]"));
    }
    if let Ok(number) = port(rest) {
        return Err(format!("a colon before a port: :{number}"));
    }
    let (host, port) = match rest.split_once(':') {
        Some((host, number)) => (host, Some(port(number)?)),
        None => (rest, None),
    };
    match host {
        "" if port.is_some() => Ok(HostPort { host: None, port }),
        _ if is_host(host) => Ok(HostPort { host: Some(host.to_owned()), port }),
        _ => Err(wanted()),
    }
}

/// The name of a balancer, without a leading `balancer://`: printable, without blanks, at most 255 bytes.
///
/// # Errors
/// What is wanted.
pub fn balancer_name(value: &str) -> Result<String, String> {
    let name = value.strip_prefix("balancer://").unwrap_or(value);
    let fits = (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        Ok(name.to_owned())
    } else {
        Err("a balancer's name: 1 to 255 printable ASCII characters, no blanks".to_owned())
    }
}

/// The path of a Unix socket, no longer than every system allows.
///
/// # Errors
/// What is wanted.
pub fn socket_path(value: &str) -> Result<PathBuf, String> {
    let fits = value.len() <= LONGEST_SOCKET;
    fits.then(|| PathBuf::from(value)).ok_or_else(|| format!("a path of at most {LONGEST_SOCKET} bytes"))
}

/// A country's two letters, in capitals.
///
/// # Errors
/// What is wanted.
pub fn country(value: &str) -> Result<String, String> {
    let fits = value.len() == 2 && value.bytes().all(|b| b.is_ascii_alphabetic());
    fits.then(|| value.to_ascii_uppercase())
        .ok_or_else(|| "the two letters of a country, such as DE".to_owned())
}

/// A command: words separated by blanks; `"..."` keeps blanks, and may be empty. No escapes, no shell.
///
/// # Errors
/// What is wanted: a first word that is not empty, and a closing quote.
pub fn command(value: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in value.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' | '\t' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match words.first() {
        _ if quoted => Err("a closing quote".to_owned()),
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err("a command".to_owned()),
    }
}

/// A command's program without its folder: what its sink is known by.
#[must_use]
pub fn program(command: &[String]) -> &str {
    let program = command.first().map_or("", String::as_str);
    program.rsplit('/').find(|part| !part.is_empty()).unwrap_or(program)
}

/// A log level.
///
/// # Errors
/// What is wanted.
pub fn level(value: &str) -> Result<LevelFilter, String> {
    Ok(match value {
        "error" => LevelFilter::Error,
        "warn" => LevelFilter::Warn,
        "info" => LevelFilter::Info,
        "debug" => LevelFilter::Debug,
        "trace" => LevelFilter::Trace,
        _ => return Err("error, warn, info, debug or trace".to_owned()),
    })
}

/// `time` as a value of the file: the largest unit that says it exactly.
#[must_use]
pub fn show_duration(time: Duration) -> String {
    let us = micros(time);
    let units =
        [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"), (1_000, "ms")];
    match units.iter().find(|(scale, _)| us > 0 && us.is_multiple_of(*scale)) {
        Some((scale, unit)) => format!("{}{unit}", us / scale),
        None if us == 0 => "0".to_owned(),
        None => format!("{us}us"),
    }
}

/// `bytes` as a value of the file: the largest unit that says it exactly.
fn show_size(bytes: usize) -> String {
    let unit = [(1 << 20, "m"), (1 << 10, "k")].into_iter().find(|(scale, _)| bytes.is_multiple_of(*scale));
    unit.map_or_else(|| bytes.to_string(), |(scale, unit)| format!("{}{unit}", bytes / scale))
}

/// A number of digits alone: no sign, no blank.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn number_and_unit(value: &str) -> Option<(u64, &str)> {
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    Some((digits(number)?, unit))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Whether `text` is an IPv4 address, or letters, digits, `-`, `_` and dots as names are made of. What ends in a label
/// of digits is an address or a mistake (RFC 1123 section 2.1).
fn is_host(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.rsplit('.').next().is_some_and(|last| digits(last).is_some()) {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    name.len() <= 253 && name.split('.').all(label)
}
