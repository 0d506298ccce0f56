//! The first flight of a TLS client: is it a ClientHello, and which server and protocols does it ask for?
//!
//! ```text
//! record     16 | 03 xx | length | fragment of the handshake        one or several, cut anywhere
//! handshake  01 | length (3) | version random session_id cipher_suites compression_methods extensions
//! extension  0000 server_name (RFC 6066 section 3)      0010 ALPN (RFC 7301 section 3.1)
//! ```
//!
//! Follows RFC 8446 sections 4.1.2, 4.2 and 5.1, and RFC 5246 where that is older. A route is chosen by what is read
//! here, so a hello that two readers could understand differently is refused: lengths that lie, names or extensions
//! given twice, records of another kind in between. What matters to the server alone is left to the server.
//!
//! [`Reader`] walks the records, `message` the hello. Nothing here decrypts, answers, or judges a name beyond whether
//! it is one; reading is a function of the bytes alone and never of how they were cut.

mod fuzz;
mod message;
mod records;

pub use fuzz::fuzz_hello;
pub use records::Reader;

use crate::url;
use std::fmt;

/// The room that one full TLS record takes: enough for every real hello, post-quantum key shares and tickets included.
pub const DEFAULT_CAP: usize = 16 * 1024 + 5;
/// The most room that can be asked for.
pub const MAX_CAP: usize = 64 * 1024;

/// What the bytes received so far are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// A prefix of what may still become a ClientHello.
    NeedMore {
        /// The number of bytes, from the first, with which something new can be known: with fewer the answer is this
        /// same one. Above the number that were given, and never above the cap.
        at_least: usize,
    },
    /// A whole, well-formed ClientHello.
    Hello(Hello),
    /// No TLS handshake begins like this.
    NotTls,
    /// TLS, but no ClientHello to route by.
    Bad(Reason),
}

/// What a ClientHello says to a proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The server it asks for.
    pub name: Option<Name>,
    /// The protocols it offers; empty if it does not say.
    pub alpn: Alpn,
    /// Bytes of the stream that it takes. Those behind it follow it untouched.
    pub used: usize,
}

/// A server name as a client sent it: 1 byte or more, all ASCII, no NUL. Control characters are possible.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    sent: Box<str>,
    route: Option<Box<str>>,
}

impl Name {
    /// A name that was sent, or, to ask what would become of it, might be.
    #[must_use]
    pub fn new(sent: &str) -> Name {
        let route = url::host_name(sent.strip_suffix('.').unwrap_or(sent));
        Name { sent: sent.into(), route: route.map(Into::into) }
    }

    /// As it was sent, however long.
    #[must_use]
    pub fn sent(&self) -> &str {
        &self.sent
    }

    /// The host name to look up, in lower case and without a final dot. `None` for what must never match a route by
    /// its text: an address, a wildcard, anything else that is no host name.
    #[must_use]
    pub fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }
}

/// The protocols that a client offers, the one it likes best first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Alpn {
    /// Each is preceded by a byte that holds its length; checked when this was made.
    list: Box<[u8]>,
}

impl Alpn {
    /// A list of these protocols, as a client might offer it; `None` if one has not 1 to 255 bytes.
    pub fn of<'a>(names: impl Iterator<Item = &'a [u8]>) -> Option<Alpn> {
        let mut list = Vec::new();
        for name in names {
            list.push(u8::try_from(name.len()).ok().filter(|length| *length > 0)?);
            list.extend_from_slice(name);
        }
        Some(Alpn { list: list.into() })
    }

    /// The protocols' names: 1 to 255 bytes each, of any value.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.list[..];
        std::iter::from_fn(move || message::vec8(&mut rest))
    }
}

/// Why a stream that begins as TLS is not to be routed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// A record of this type where the handshake goes on.
    RecordType(u8),
    /// A further record whose version does not begin with 3.
    RecordVersion,
    /// A record without a byte in it.
    ZeroRecord,
    /// A record of more than 2^14 bytes.
    RecordTooLong,
    /// It cannot end within the cap.
    OverLimit,
    /// The handshake begins with a message of this type.
    HandshakeType(u8),
    /// The record in which the hello ends goes on; no message may share it.
    TrailingBytes,
    /// It ends within version or random.
    TooShort,
    /// A session id of more than 32 bytes, or beyond the end.
    SessionId,
    /// A list of cipher suites that is empty, odd, or beyond the end.
    CipherSuites,
    /// A list of compression methods beyond the end.
    CompressionMethods,
    /// An empty list of compression methods.
    NoCompression,
    /// The extensions do not end where the hello ends.
    ExtensionsLength,
    /// Less than a type and a length at the end of the extensions.
    ExtensionHeader,
    /// An extension that runs beyond the end.
    ExtensionOverruns,
    /// An extension of this type comes twice.
    DuplicateExtension(u16),
    /// A list of names that is empty, or does not end where its extension ends.
    NameListLength,
    /// A name that runs beyond the end of the list.
    NameOverruns,
    /// Two host names.
    TwoNames,
    /// A host name without a byte in it.
    EmptyName,
    /// A NUL in a host name.
    NulInName,
    /// A byte above 127 in a host name.
    NonAsciiName,
    /// A list of protocols that is empty, or does not end where its extension ends.
    AlpnListLength,
    /// A protocol without a byte in it, or one that runs beyond the end.
    AlpnEntry,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::RecordType(kind) => return write!(f, "record type {kind} inside hello"),
            Reason::HandshakeType(kind) => return write!(f, "handshake type {kind}"),
            Reason::DuplicateExtension(kind) => return write!(f, "duplicate extension {kind}"),
            Reason::RecordVersion => "record version inside hello",
            Reason::ZeroRecord => "zero-length handshake record",
            Reason::RecordTooLong => "record over 2^14",
            Reason::OverLimit => "hello over limit",
            Reason::TrailingBytes => "bytes after the hello in its record",
            Reason::TooShort => "hello too short",
            Reason::SessionId => "session_id over 32",
            Reason::CipherSuites => "cipher_suites length",
            Reason::CompressionMethods => "compression_methods length",
            Reason::NoCompression => "no compression method",
            Reason::ExtensionsLength => "extensions length",
            Reason::ExtensionHeader => "extension header",
            Reason::ExtensionOverruns => "extension overruns",
            Reason::NameListLength => "server_name_list length",
            Reason::NameOverruns => "server_name entry overruns",
            Reason::TwoNames => "two host_name entries",
            Reason::EmptyName => "empty host_name",
            Reason::NulInName => "NUL in host_name",
            Reason::NonAsciiName => "non-ASCII host_name",
            Reason::AlpnListLength => "alpn list length",
            Reason::AlpnEntry => "alpn entry",
        })
    }
}

/// Reads what has come of a stream, all of it at once. `cap` is the most that a hello may take, record headers included.
///
/// For a stream that comes in pieces use a [`Reader`], which remembers where it stopped.
#[must_use]
pub fn read(stream: &[u8], cap: usize) -> Progress {
    Reader::new(cap).read(stream)
}
