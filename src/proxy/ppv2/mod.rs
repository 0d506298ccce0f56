//! The PROXY protocol, versions 1 and 2: one header in front of a connection's bytes says who the client is.
//!
//! Follows HAProxy's `doc/proxy-protocol.txt`, of 2020 and later:
//!
//! ```text
//! PROXY TCP4 192.0.2.1 198.51.100.2 65535 443\r\n                                 version 1, at most 107 bytes
//!
//! 0d0a0d0a 000d0a51 5549540a | 21 | 11 | 001e | addresses, ports | 02 000e 6170… | …   version 2
//!          signature           ver  fam   length of the rest       TLV: type, length, value
//!                              cmd  proto
//! ```
//!
//! [`read`] takes the bytes that have arrived so far and keeps nothing between calls, so a header may come in any
//! pieces. It is strict where the big proxies are not: each address is in its own notation, each TLV within its header,
//! each checksum right. [`write_v1`] and [`write_v2`] make the header for the next hop.
//!
//! - `v1`, `v2`: the two notations. `tlv`: the fields behind version 2's addresses. `crc32c`: their checksum.
//!
//! Nothing here decides whether a sender may be believed, or how long to wait for it.

mod crc32c;
mod fuzz;
mod tlv;
mod v1;
mod v2;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

pub use fuzz::fuzz_ppv2;
pub use tlv::{Fault, Ssl, SslField, Tlvs};
pub use v1::write_v1;
pub use v2::{Outgoing, TooLong, write_v2};

/// The longest header that [`read`] accepts: version 2's fixed part, and all that its length can name.
pub const MAX_HEADER: usize = 16 + 0xffff;

/// Longest unique id, by the specification.
pub const MAX_UNIQUE_ID: usize = 128;

/// What the bytes that have arrived so far amount to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress<'a> {
    /// The beginning of a header. None can be complete before `at_least` bytes are there, counted from the first one;
    /// to read again earlier can only show that it is a bad one.
    NeedMore {
        /// The length of the bytes at which to read again; more than there are now.
        at_least: usize,
    },
    /// A whole header.
    Header(Header<'a>),
    /// No header, and more bytes will not make it one.
    Reject(Reason),
}

/// A header that has been read and found right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// 1 or 2.
    pub version: u8,
    /// Whose connection it is.
    pub origin: Origin,
    /// The header's length: the connection's own bytes begin here.
    pub used: usize,
    /// The fields behind the addresses; none in version 1, and none where the origin says that they are to be discarded.
    pub tlvs: Tlvs<'a>,
}

/// Whose connection a header stands in front of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A client's, over TCP. The addresses are as sent: an IPv4 address may be written as an IPv6 one.
    Proxied {
        /// The client.
        src: SocketAddr,
        /// Where it connected to.
        dst: SocketAddr,
    },
    /// The sending proxy's own, as for a health check: its real endpoints count, and it carries no fields.
    Local,
    /// A client's, over something that has no addresses of use here: the real endpoints count.
    Unspec,
}

impl Header<'_> {
    /// The client's address, where the header tells it.
    #[must_use]
    pub fn src(&self) -> Option<SocketAddr> {
        if let Origin::Proxied { src, .. } = self.origin { Some(src) } else { None }
    }

    /// The address that the client connected to, where the header tells it.
    #[must_use]
    pub fn dst(&self) -> Option<SocketAddr> {
        if let Origin::Proxied { dst, .. } = self.origin { Some(dst) } else { None }
    }
}

/// Why bytes are no header. Its text is for logs and for `beacond decode proxy`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// They begin with neither version's signature.
    Signature,
    /// Version 1: the line does not end within its 107 bytes.
    NoLineEnd,
    /// Version 1: a carriage return or a line feed without the other.
    BareLineEnd,
    /// Version 1: neither `TCP4`, `TCP6` nor `UNKNOWN`.
    Word,
    /// Version 1: this many fields instead of six.
    Fields(usize),
    /// Version 1: an address that is not one of the family named.
    Address,
    /// Version 1: no number from 0 to 65535, or one with leading zeros.
    Port,
    /// The binary signature with this version.
    Version(u8),
    /// Version 2: neither LOCAL nor PROXY.
    Command(u8),
    /// Version 2: an address family that is not assigned.
    Family(u8),
    /// Version 2: a transport that is not assigned.
    Protocol(u8),
    /// Version 2: too short for the addresses of its family.
    Length {
        /// The length that the header tells.
        told: usize,
        /// What the addresses take.
        block: usize,
    },
    /// Version 2: the fields behind the addresses do not add up.
    Tlv(Fault),
    /// Version 2: the fields within the `ssl` field do not add up.
    InSsl(Fault),
    /// Version 2: an `ssl` field without room for what it must hold.
    SslShort,
    /// Version 2: a checksum field of this length instead of four.
    CrcLength(usize),
    /// Version 2: more than one checksum.
    CrcTwice,
    /// Version 2: the checksum is not that of the header.
    CrcMismatch,
    /// Version 2: a unique id longer than [`MAX_UNIQUE_ID`].
    UniqueId,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Signature => f.write_str("no PROXY signature"),
            Reason::NoLineEnd => write!(f, "no CRLF in {} bytes", v1::MAX_LINE),
            Reason::BareLineEnd => f.write_str("bare CR or LF"),
            Reason::Word => f.write_str("protocol word"),
            Reason::Fields(count) => write!(f, "{count} fields"),
            Reason::Address => f.write_str("address"),
            Reason::Port => f.write_str("port"),
            Reason::Version(version) => write!(f, "version {version}"),
            Reason::Command(command) => write!(f, "command {command}"),
            Reason::Family(family) => write!(f, "family {family}"),
            Reason::Protocol(protocol) => write!(f, "protocol {protocol}"),
            Reason::Length { told, block } => {
                write!(f, "length {told} shorter than the address block {block}")
            }
            Reason::Tlv(fault) => write!(f, "{fault}"),
            Reason::InSsl(fault) => write!(f, "in ssl: {fault}"),
            Reason::SslShort => f.write_str("ssl TLV shorter than 5"),
            Reason::CrcLength(length) => write!(f, "crc32c TLV length {length}"),
            Reason::CrcTwice => f.write_str("two crc32c TLVs"),
            Reason::CrcMismatch => f.write_str("crc32c mismatch"),
            Reason::UniqueId => write!(f, "unique id over {MAX_UNIQUE_ID}"),
        }
    }
}

/// Reads the header at the beginning of `bytes`, where there must be one: nothing is guessed from its absence.
#[must_use]
pub fn read(bytes: &[u8]) -> Progress<'_> {
    let progress = match bytes.first() {
        None => Ok(Progress::NeedMore { at_least: v1::SHORTEST }),
        Some(b'P') => v1::read(bytes),
        Some(_) => v2::read(bytes),
    };
    progress.unwrap_or_else(Progress::Reject)
}

/// Whether `bytes` are the beginning of `signature`, or begin with it.
fn agree(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

/// Both ends of a connection in one family, as a header must name them.
enum Ends {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Ends {
    /// IPv4 where both are IPv4, however written; else both as IPv6.
    fn of(src: SocketAddr, dst: SocketAddr) -> Ends {
        use std::net::IpAddr::{V4, V6};
        let wide = |ip| match ip {
            V4(ip) => ip.to_ipv6_mapped(),
            V6(ip) => ip,
        };
        match (src.ip().to_canonical(), dst.ip().to_canonical()) {
            (V4(src), V4(dst)) => Ends::V4(src, dst),
            (src, dst) => Ends::V6(wide(src), wide(dst)),
        }
    }
}
