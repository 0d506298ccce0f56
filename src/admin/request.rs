//! The control socket's language: one line in, `ok` or `error TEXT` and perhaps more lines out, then the end.
//!
//! ```text
//! status | status json | reload | log LEVEL [for TIME]
//! ```
//!
//! Pure: parses and prints.

use crate::config::values;
use log::LevelFilter;
use std::fmt;
use std::time::Duration;

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// The report, for people or as JSON.
    Status {
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
}

impl Request {
    /// Reads one line, without its end.
    ///
    /// # Errors
    /// What is wrong with it, for the client.
    pub fn parse(line: &str) -> Result<Request, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["status"] => Ok(Request::Status { json: false }),
            ["status", "json"] => Ok(Request::Status { json: true }),
            ["reload"] => Ok(Request::Reload),
            ["log", name] => Ok(Request::Log { level: named(name)?, time: None }),
            ["log", name, "for", time] => {
                let time = values::duration(time).map_err(|wanted| format!("'{time}': wanted {wanted}"))?;
                Ok(Request::Log { level: named(name)?, time: Some(time) })
            }
            _ => Err("wanted: status | status json | reload | log LEVEL [for TIME]".to_owned()),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Status { json: false } => f.write_str("status"),
            Request::Status { json: true } => f.write_str("status json"),
            Request::Reload => f.write_str("reload"),
            Request::Log { level, time } => {
                write!(f, "log {}", level.as_str().to_ascii_lowercase())?;
                time.map_or(Ok(()), |t| write!(f, " for {}", values::show_duration(t)))
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
        for line in ["status", "status json", "reload", "log debug", "log warn for 2min"] {
            assert_eq!(Request::parse(line).unwrap().to_string(), line);
        }
        assert_eq!(Request::parse("  status   json ").unwrap(), Request::Status { json: true });
    }

    #[test]
    fn anything_else_is_explained() {
        for line in
            ["", "statu", "status xml", "log", "log loud", "log info for", "log info for x", "reload now"]
        {
            assert!(!Request::parse(line).unwrap_err().is_empty(), "{line}");
        }
    }
}
