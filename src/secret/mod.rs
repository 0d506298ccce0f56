//! Secrets: the file they stand in, what makes it fit to use, and the passphrases that a master key yields.
//!
//! One secret a line; the first signs, all verify, which is how one is replaced by the next. Blank lines and lines that
//! begin with `#` are skipped; of all others every byte counts, as it does for the reference module. Secrets are wiped
//! when dropped and are never shown: not by `Debug`, not in an error. Pure; [`mod@file`] opens the files.

pub mod file;
mod login;

use crate::bytes::to_hex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

pub use login::{BadLogin, Login};

/// Largest file that is read, in bytes.
pub const MAX_FILE: usize = 64 * 1024;
/// Most secrets in one file: every one costs a MAC per datagram that nobody signed.
pub const MAX_SECRETS: usize = 16;
/// Shortest secret, in bytes, that is taken for strong: a captured datagram can be guessed at offline, millions a second.
pub const MIN_LEN: usize = 22;

/// The bytes of one secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A secret of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Secret {
        Secret(Zeroizing::new(bytes.to_vec()))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The passphrase of one member, with this secret as the master key: lower-case hex of HMAC-SHA-256 over
    /// `beacond member 1`, NUL, the balancer's name, NUL, the canonical url. It is used as any other secret.
    #[must_use]
    pub fn member_passphrase(&self, balancer: &str, url: &str) -> Secret {
        let mut mac: Hmac<Sha256> = Hmac::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in ["beacond member 1", "\0", balancer, "\0", url] {
            mac.update(part.as_bytes());
        }
        let mut digest: [u8; 32] = mac.finalize().into_bytes().into();
        let hex = Zeroizing::new(to_hex(&digest).into_bytes());
        digest.zeroize();
        Secret(hex)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The secrets of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Secrets {
    /// At least one, in the order of the file.
    pub list: Vec<Secret>,
    /// What may not be as it was meant.
    pub warnings: Vec<Warning>,
}

/// A line that is used as it stands but looks like a mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Warning {
    /// Counted from 1.
    pub line: usize,
    /// What is odd about it.
    pub oddity: Oddity,
}

/// What is odd about a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Oddity {
    /// The file begins with UTF-8's byte order mark.
    ByteOrderMark,
    /// It ends with a carriage return.
    CarriageReturn,
    /// It begins or ends with a space or tab.
    EdgeBlank,
    /// The whole line is quoted.
    Quotes,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.oddity {
            Oddity::ByteOrderMark => "the byte order mark before it counts as part of the secret",
            Oddity::CarriageReturn => "the carriage return at its end counts as part of the secret",
            Oddity::EdgeBlank => "the blank at its edge counts as part of the secret",
            Oddity::Quotes => {
                "the quotes around it count as part of the secret (httpd strips them, beacond does not)"
            }
        };
        write!(f, "line {}: {what}", self.line)
    }
}

/// Why the text of a secret file cannot be used; its words say what is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadText {
    /// No line holds a secret.
    NoSecret,
    /// More than [`MAX_SECRETS`].
    TooMany,
    /// Larger than [`MAX_FILE`].
    TooLong,
    /// This line holds a NUL byte.
    Nul(usize),
    /// This line's secret is shorter than [`MIN_LEN`], and weak ones were not asked for.
    Weak(usize),
}

impl fmt::Display for BadText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadText::NoSecret => {
                f.write_str("no secret in it: want one a line (beacond keygen secret prints a good one)")
            }
            BadText::TooMany => {
                write!(f, "more than {MAX_SECRETS} secrets: want the one in use and those it replaces")
            }
            BadText::TooLong => write!(f, "larger than {} KiB: want one secret a line", MAX_FILE / 1024),
            BadText::Nul(line) => write!(f, "line {line}: a NUL byte: want text"),
            BadText::Weak(line) => write!(
                f,
                "line {line}: a secret shorter than {MIN_LEN} characters can be guessed from one captured datagram: \
                 want a longer one (beacond keygen secret prints one) or --weak-secret"
            ),
        }
    }
}

/// Reads the text of a secret file; `weak` lets short secrets pass.
///
/// # Errors
/// The first fault.
pub fn parse(text: &[u8], weak: bool) -> Result<Secrets, BadText> {
    if text.len() > MAX_FILE {
        return Err(BadText::TooLong);
    }
    let mut secrets = Secrets { list: Vec::new(), warnings: Vec::new() };
    for (line, bytes) in (1..).zip(text.split(|&b| b == b'\n')) {
        if bytes.starts_with(b"#") || bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if bytes.contains(&0) {
            return Err(BadText::Nul(line));
        }
        if bytes.len() < MIN_LEN && !weak {
            return Err(BadText::Weak(line));
        }
        if secrets.list.len() == MAX_SECRETS {
            return Err(BadText::TooMany);
        }
        secrets.warnings.extend(oddities(bytes, line).map(|oddity| Warning { line, oddity }));
        secrets.list.push(Secret::new(bytes));
    }
    if secrets.list.is_empty() { Err(BadText::NoSecret) } else { Ok(secrets) }
}

/// Who can read a secret file, or put a secret of their own into it, besides those who may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exposed {
    /// Everybody.
    Others,
    /// A group that is not one of the process's.
    Group(u32),
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exposed::Others => f.write_str("readable or writable by everybody: want chmod o= on it"),
            Exposed::Group(gid) => {
                write!(
                    f,
                    "readable or writable by group {gid}, which is not one of this process's: want chmod g= or another group"
                )
            }
        }
    }
}

/// Whether a file of this `mode` and group is closed enough, for a process that is in `groups`.
///
/// # Errors
/// Who else can read or write it.
pub fn closed(mode: u32, gid: u32, groups: &[u32]) -> Result<(), Exposed> {
    if mode & 0o006 != 0 {
        Err(Exposed::Others)
    } else if mode & 0o060 != 0 && !groups.contains(&gid) {
        Err(Exposed::Group(gid))
    } else {
        Ok(())
    }
}

fn oddities(line: &[u8], number: usize) -> impl Iterator<Item = Oddity> {
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    let whole = line.strip_suffix(b"\r").unwrap_or(line);
    let quoted = matches!(whole, [b'"', .., b'"'] | [b'\'', .., b'\'']);
    [
        (number == 1 && line.starts_with(b"\xef\xbb\xbf"), Oddity::ByteOrderMark),
        (line.ends_with(b"\r"), Oddity::CarriageReturn),
        (blank(line.first()) || blank(line.last()), Oddity::EdgeBlank),
        (quoted, Oddity::Quotes),
    ]
    .into_iter()
    .filter_map(|(found, oddity)| found.then_some(oddity))
}

/// Fuzz target: what is parsed is exactly the lines that count, and parses again to the same.
#[doc(hidden)]
pub fn fuzz_secret(data: &[u8]) {
    let strict = parse(data, false);
    match parse(data, true) {
        Ok(secrets) => {
            assert!((1..=MAX_SECRETS).contains(&secrets.list.len()));
            let text = secrets.list.iter().map(Secret::bytes).collect::<Vec<_>>().join(&b'\n');
            assert_eq!(parse(&text, true).map(|again| again.list), Ok(secrets.list.clone()));
            let strong = secrets.list.iter().all(|secret| secret.bytes().len() >= MIN_LEN);
            assert_eq!(strict.is_ok(), strong);
            for warning in &secrets.warnings {
                assert!(!warning.to_string().contains('\n'));
            }
        }
        Err(bad) => assert!(strict.is_err() && !matches!(bad, BadText::Weak(_))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "0123456789012345678901";

    fn lines(text: &[u8]) -> Vec<Vec<u8>> {
        parse(text, true).unwrap().list.iter().map(|secret| secret.bytes().to_vec()).collect()
    }

    #[test]
    fn every_byte_of_a_secret_line_counts() {
        assert_eq!(lines(b"# one\n\n  \t\r\nold\n  new # x \n"), [&b"old"[..], b"  new # x "]);
        assert_eq!(lines(b" # not a comment"), [b" # not a comment"]);
        assert_eq!(lines(b"caf\xe9\r\n\"q\""), [&b"caf\xe9\r"[..], b"\"q\""]);
    }

    #[test]
    fn odd_lines_are_warned_about() {
        let secrets = parse(b"\xef\xbb\xbfa\nb\r\n c\n\"d\"\n'e'\n\"f'\n\"\n\"g\"\r\n", true).unwrap();
        let found: Vec<_> = secrets.warnings.iter().map(|w| (w.line, w.oddity)).collect();
        use Oddity::{ByteOrderMark, CarriageReturn, EdgeBlank, Quotes};
        assert_eq!(
            found,
            [
                (1, ByteOrderMark),
                (2, CarriageReturn),
                (3, EdgeBlank),
                (4, Quotes),
                (5, Quotes),
                (8, CarriageReturn),
                (8, Quotes)
            ]
        );
        assert_eq!(
            secrets.warnings[2].to_string(),
            "line 3: the blank at its edge counts as part of the secret"
        );
    }

    #[test]
    fn faults() {
        assert_eq!(parse(b"# nothing\n\n", true), Err(BadText::NoSecret));
        assert_eq!(parse(b"", true), Err(BadText::NoSecret));
        assert_eq!(parse(b"x\n#\na\0b", true), Err(BadText::Nul(3)));
        assert_eq!(parse(format!("{GOOD}\nshort").as_bytes(), false), Err(BadText::Weak(2)));
        assert!(parse(GOOD.as_bytes(), false).is_ok());
        assert_eq!(parse(&GOOD.as_bytes()[1..], false), Err(BadText::Weak(1)));
        assert_eq!(parse("a\n".repeat(MAX_SECRETS + 1).as_bytes(), true), Err(BadText::TooMany));
        assert_eq!(parse(&vec![b'a'; MAX_FILE + 1], true), Err(BadText::TooLong));
    }

    #[test]
    fn permissions() {
        assert_eq!(closed(0o100_600, 7, &[]), Ok(()));
        assert_eq!(closed(0o100_640, 7, &[3, 7]), Ok(()));
        assert_eq!(closed(0o100_640, 7, &[3]), Err(Exposed::Group(7)));
        assert_eq!(closed(0o100_644, 7, &[7]), Err(Exposed::Others));
        assert_eq!(closed(0o100_604, 7, &[7]), Err(Exposed::Others));
        assert_eq!(closed(0o100_602, 7, &[7]), Err(Exposed::Others));
        assert_eq!(closed(0o100_620, 7, &[3]), Err(Exposed::Group(7)));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let secrets = parse(GOOD.as_bytes(), false).unwrap();
        assert!(!format!("{secrets:?}").contains("0123"));
        assert!(!parse(b"hush", false).unwrap_err().to_string().contains("hush"));
    }

    #[test]
    fn a_passphrase_is_hmac_sha_256_in_hex() {
        let master = Secret::new(b"key");
        let passphrase = master.member_passphrase("web", "http://10.0.0.5:8080");
        // printf 'beacond member 1\0web\0http://10.0.0.5:8080' | openssl dgst -sha256 -hmac key
        let expected = "c391f8b9f5f4d1ae2c2506ae12f17b4ac81b6ac3f17949b354c1905f7549413a";
        assert_eq!(passphrase.bytes(), expected.as_bytes());
        assert_ne!(master.member_passphrase("web2", "http://10.0.0.5:8080"), passphrase);
    }
}
