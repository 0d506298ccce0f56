//! The control socket's language: one line in, `ok` or `error TEXT` and perhaps more lines out, then the end.
//!
//! ```text
//! status [sessions] [json] | reload | log LEVEL [for TIME]
//! trace [sni NAME] [from CIDR] [count N] [for TIME]
//! ```
//!
//! Pure: parses and prints.

use crate::cidr::Cidr;
use crate::config::values;
use crate::taps::{self, Filter};
use log::LevelFilter;
use std::fmt;
use std::time::Duration;

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// The report, for people or as JSON.
    Status {
        /// Whether it is the one about sessions.
        sessions: bool,
        /// Whether JSON is wanted.
        json: bool,
    },
    /// Read the configuration again.
    Reload,
    /// Log more or less.
    Log {
        /// The new level.
        level: LevelFilter,
        /// For how long; until the next such request if absent.
        time: Option<Duration>,
    },
    /// Tell what happens to sessions that begin now, as it happens.
    Trace {
        /// Which sessions.
        filter: Filter,
        /// How many of them.
        count: usize,
        /// For how long at most.
        time: Duration,
    },
}

/// How many sessions a trace follows unless told otherwise.
pub const TRACED: usize = 10;
/// How long a trace takes at most, unless told otherwise.
pub const TRACE_TIME: Duration = Duration::from_secs(60);

/// How many sessions to trace.
///
/// # Errors
/// What is wanted.
pub fn trace_count(text: &str) -> Result<usize, String> {
    let count = values::count(text).ok().filter(|n| *n <= taps::SESSIONS);
    count.ok_or_else(|| format!("a whole number from 1 to {}", taps::SESSIONS))
}

/// How long to trace.
///
/// # Errors
/// What is wanted.
pub fn trace_time(text: &str) -> Result<Duration, String> {
    let time = values::duration(text).ok().filter(|t| !t.is_zero() && *t <= taps::LONGEST);
    time.ok_or_else(|| "a time such as 500ms, 30 or 5min, no longer than 1h".to_owned())
}

impl Request {
    /// Reads one line, without its end.
    ///
    /// # Errors
    /// What is wrong with it, for the client.
    pub fn parse(line: &str) -> Result<Request, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["status"] => Ok(Request::Status { sessions: false, json: false }),
            ["status", "json"] => Ok(Request::Status { sessions: false, json: true }),
            ["status", "sessions"] => Ok(Request::Status { sessions: true, json: false }),
            ["status", "sessions", "json"] => Ok(Request::Status { sessions: true, json: true }),
            ["reload"] => Ok(Request::Reload),
            ["log", name] => Ok(Request::Log { level: named(name)?, time: None }),
            ["log", name, "for", time] => {
                let time = values::duration(time).map_err(|wanted| format!("'{time}': wanted {wanted}"))?;
                Ok(Request::Log { level: named(name)?, time: Some(time) })
            }
            ["trace", ref rest @ ..] => trace(rest),
            _ => Err(WANTED.to_owned()),
        }
    }
}

const WANTED: &str = "wanted: status [sessions] [json] | reload | log LEVEL [for TIME] \
                      | trace [sni NAME] [from CIDR] [count N] [for TIME]";

/// Reads what stands behind `trace`: words and their values, each once, in any order.
fn trace(words: &[&str]) -> Result<Request, String> {
    let (mut filter, mut count, mut time) = (Filter::default(), None, None);
    for pair in words.chunks(2) {
        let [word, value] = *pair else { return Err(WANTED.to_owned()) };
        let wanted = |wanted| format!("{word} '{value}': wanted {wanted}");
        let twice = match word {
            "sni" => filter.sni.replace(taps::sni(value).map_err(wanted)?).is_some(),
            "from" => filter.from.replace(Cidr::parse(value).map_err(wanted)?).is_some(),
            "count" => count.replace(trace_count(value).map_err(wanted)?).is_some(),
            "for" => time.replace(trace_time(value).map_err(wanted)?).is_some(),
            _ => return Err(WANTED.to_owned()),
        };
        if twice {
            return Err(format!("{word}: wanted once"));
        }
    }
    Ok(Request::Trace { filter, count: count.unwrap_or(TRACED), time: time.unwrap_or(TRACE_TIME) })
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Status { sessions, json } => {
                let (sessions, json) =
                    (if *sessions { " sessions" } else { "" }, if *json { " json" } else { "" });
                write!(f, "status{sessions}{json}")
            }
            Request::Reload => f.write_str("reload"),
            Request::Log { level, time } => {
                write!(f, "log {}", level.as_str().to_ascii_lowercase())?;
                time.map_or(Ok(()), |t| write!(f, " for {}", values::show_duration(t)))
            }
            Request::Trace { filter, count, time } => {
                f.write_str("trace")?;
                filter.sni.iter().try_for_each(|name| write!(f, " sni {name}"))?;
                filter.from.iter().try_for_each(|net| write!(f, " from {net}"))?;
                write!(f, " count {count} for {}", values::show_duration(*time))
            }
        }
    }
}

fn named(name: &str) -> Result<LevelFilter, String> {
    values::level(name).map_err(|wanted| format!("'{name}': wanted {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_reads_back() {
        for line in [
            "status",
            "status json",
            "status sessions",
            "status sessions json",
            "reload",
            "log debug",
            "log warn for 2min",
            "trace count 10 for 1min",
            "trace sni *.example.com from 192.0.2.0/24 count 1000 for 1h",
        ] {
            assert_eq!(Request::parse(line).unwrap().to_string(), line);
        }
        let json = Request::Status { sessions: false, json: true };
        assert_eq!(Request::parse("  status   json ").unwrap(), json);
    }

    #[test]
    fn a_trace_in_any_order_and_with_defaults() {
        let shown = |line: &str| Request::parse(line).unwrap().to_string();
        assert_eq!(shown("trace"), "trace count 10 for 1min");
        let all = "trace for 90 count 2 from 2001:db8::/32 sni A.b";
        assert_eq!(shown(all), "trace sni a.b from 2001:db8::/32 count 2 for 90s");
        let longest = format!(
            "trace sni *.{} from ffff:ffff:ffff:ffff::/128 count 1000 for 3600000000us",
            "a".repeat(253)
        );
        assert!(longest.len() < 400 && Request::parse(&longest).is_ok());
    }

    #[test]
    fn anything_else_is_explained() {
        for line in [
            "",
            "statu",
            "status xml",
            "status json sessions",
            "log",
            "log loud",
            "log info for",
            "log info for x",
            "reload now",
            "trace all",
            "trace sni",
            "trace sni a*",
            "trace sni a sni b",
            "trace from x",
            "trace count 0",
            "trace count 1001",
            "trace for 0",
            "trace for 61min",
            "trace count 1 for",
        ] {
            assert!(!Request::parse(line).unwrap_err().is_empty(), "{line}");
        }
    }
}
