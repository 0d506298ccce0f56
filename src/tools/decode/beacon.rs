//! `beacond decode beacon`: one datagram alone, as a receiver would judge it before its table and its admission.

use super::{Judge, Kind};
use crate::beacon::auth::{self, Key};
use crate::bytes::Escaped;
use crate::config::{Error, Section, values};
use crate::reactor::unix_us;
use crate::secret::{Secrets, file};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// Its row in the table of kinds.
pub const KIND: Kind = Kind { name: "beacon", options: &["secret-file", "now", "max-skew"], judge };

fn judge(section: &Section) -> Result<Judge, Error> {
    let secrets = section.text("secret-file").map(|path| file::load(Path::new(path), true)).transpose()?;
    let fixed =
        section.get("now", |text| text.parse::<i64>().map_err(|_| "microseconds since 1970".to_owned()))?;
    let decoder = Decoder::new(secrets.as_ref(), section.need("max-skew", values::whole_seconds)?);
    Ok(Box::new(move |datagram| decoder.verdict(datagram, fixed.unwrap_or_else(unix_us))))
}

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

    /// The verdict on one datagram, at `now_us` microseconds since the Unix epoch: `accept ts=…` with `url=…` or
    /// `leave=…` where there is one usable (both, where a datagram contradicts itself), or `drop REASON`.
    #[must_use]
    pub fn verdict(&self, datagram: &[u8], now_us: i64) -> String {
        let verified = match auth::verify(datagram, &self.keys, now_us, self.max_skew) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret;

    #[test]
    fn verdicts_without_a_secret() {
        let decoder = Decoder::new(None, Duration::from_secs(30));
        for (datagram, expected) in [
            (&b"BEACON url=http://h/%\n ts=5"[..], "accept ts=0 url=http://h/%25%0A"),
            (b"", "drop empty"),
            (b"\0", "accept ts=0"),
            (b"BEACON leave=http://h ts=5", "accept ts=0 leave=http://h"),
        ] {
            assert_eq!(decoder.verdict(datagram, 10), expected);
        }
    }

    #[test]
    fn secrets_skew_and_clock_count() {
        let secrets = secret::parse(b"old\nnew", true).unwrap();
        let decoder = Decoder::new(Some(&secrets), Duration::from_secs(1));
        let mut datagram = b"BEACON host=h ts=5".to_vec();
        Key::from_secret(b"new").sign(&mut datagram);
        assert_eq!(decoder.verdict(&datagram, 1_000_005), "accept ts=5");
        assert_eq!(decoder.verdict(&datagram, 1_000_006), "drop stale timestamp");
    }
}
