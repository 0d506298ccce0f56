//! Version 2 of the PROXY protocol: a binary header of 16 bytes, addresses, and typed fields.
//!
//! ```text
//! 0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a   signature
//! 21                                    version 2, command 1: PROXY (0: LOCAL)
//! 11                                    family 1: IPv4 (2: IPv6, 3: unix, 0: none); transport 1: stream (2: datagram)
//! 00 1e                                 length of what follows
//! c0 00 02 0a  c6 33 64 14  9c 40  01 bb    192.0.2.10, 198.51.100.20, ports 40000 and 443
//! 02 00 0e 61 70 70 …                   fields, see `tlv`
//! ```

use super::crc32c::crc32c;
use super::tlv::{ALPN, AUTHORITY, CRC32C, NETNS, SSL, Ssl, UNIQUE_ID};
use super::{Ends, Header, MAX_UNIQUE_ID, Origin, Progress, Reason, Tlvs, agree};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;

/// Reads the header at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Progress<'_>, Reason> {
    if !agree(bytes, SIGNATURE) {
        return Err(Reason::Signature);
    }
    let Some((&[.., command, family, high, low], rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Progress::NeedMore { at_least: FIXED });
    };
    let addresses = Addresses::parse(command, family)?;
    let told = usize::from(u16::from_be_bytes([high, low]));
    let short = Reason::Length { told, block: addresses.size() };
    if told < addresses.size() {
        return Err(short);
    }
    let used = FIXED + told;
    let (Some(header), Some(rest)) = (bytes.get(..used), rest.get(..told)) else {
        return Ok(Progress::NeedMore { at_least: used });
    };
    let (block, fields) = rest.split_at_checked(addresses.size()).ok_or(short)?;
    let origin = match addresses {
        Addresses::Ignored(origin) => {
            return Ok(Progress::Header(Header { version: 2, origin, used, tlvs: Tlvs::default() }));
        }
        Addresses::Skipped(_) => Origin::Unspec,
        Addresses::V4 => ends::<4>(block).ok_or(short)?,
        Addresses::V6 => ends::<16>(block).ok_or(short)?,
    };
    Ok(Progress::Header(Header { version: 2, origin, used, tlvs: judged(header, fields)? }))
}

/// What a header says in front of its fields.
#[derive(Clone, Copy)]
enum Addresses {
    /// The whole block is to be discarded, whatever it holds.
    Ignored(Origin),
    /// TCP over IPv4.
    V4,
    /// TCP over IPv6.
    V6,
    /// This many bytes that are of no use to a TCP proxy: datagrams, unix sockets.
    Skipped(usize),
}

impl Addresses {
    const V4_SIZE: usize = 12;
    const V6_SIZE: usize = 36;
    const UNIX_SIZE: usize = 216;

    fn parse(command: u8, family: u8) -> Result<Addresses, Reason> {
        const STREAM: u8 = 1;
        match (command >> 4, command & 0xf) {
            (2, 0) => return Ok(Addresses::Ignored(Origin::Local)),
            (2, 1) => {}
            (2, other) => return Err(Reason::Command(other)),
            (version, _) => return Err(Reason::Version(version)),
        }
        match (family >> 4, family & 0xf) {
            (4.., _) => Err(Reason::Family(family >> 4)),
            (_, 3..) => Err(Reason::Protocol(family & 0xf)),
            (1, STREAM) => Ok(Addresses::V4),
            (2, STREAM) => Ok(Addresses::V6),
            (1, _) => Ok(Addresses::Skipped(Addresses::V4_SIZE)),
            (2, _) => Ok(Addresses::Skipped(Addresses::V6_SIZE)),
            (3, _) => Ok(Addresses::Skipped(Addresses::UNIX_SIZE)),
            (0, _) => Ok(Addresses::Ignored(Origin::Unspec)),
        }
    }

    fn size(self) -> usize {
        match self {
            Addresses::Ignored(_) => 0,
            Addresses::V4 => Addresses::V4_SIZE,
            Addresses::V6 => Addresses::V6_SIZE,
            Addresses::Skipped(size) => size,
        }
    }
}

/// Two addresses of `N` bytes, two ports.
fn ends<const N: usize>(block: &[u8]) -> Option<Origin>
where
    IpAddr: From<[u8; N]>,
{
    let (src, rest) = block.split_first_chunk::<N>()?;
    let (dst, rest) = rest.split_first_chunk::<N>()?;
    let &[a, b, c, d] = rest.first_chunk()?;
    let end = |ip: &[u8; N], port| SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(port));
    Some(Origin::Proxied { src: end(src, [a, b]), dst: end(dst, [c, d]) })
}

/// The fields at the end of `header`, if they are what the specification demands of each.
fn judged<'a>(header: &'a [u8], fields: &'a [u8]) -> Result<Tlvs<'a>, Reason> {
    let mut summed = false;
    Tlvs::parse(fields, |kind, value, after| match kind {
        CRC32C if summed => Err(Reason::CrcTwice),
        CRC32C => {
            summed = true;
            let told: [u8; 4] = value.try_into().map_err(|_| Reason::CrcLength(value.len()))?;
            // The sum is that of a header with zeros in its place.
            let (before, _) = header.split_at(header.len() - after.len() - told.len());
            let sum = crc32c(&[before, &[0; 4], after]);
            if sum == u32::from_be_bytes(told) { Ok(()) } else { Err(Reason::CrcMismatch) }
        }
        UNIQUE_ID if value.len() > MAX_UNIQUE_ID => Err(Reason::UniqueId),
        SSL => Ssl::parse(value).map(drop),
        _ => Ok(()),
    })
}

/// The fields that a header is to carry for the next hop. Those left out, or empty, are not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outgoing<'a> {
    /// The host name that the client asked for.
    pub authority: Option<&'a str>,
    /// The application protocol that was agreed on.
    pub alpn: Option<&'a [u8]>,
    /// A name for the connection, at most [`MAX_UNIQUE_ID`] bytes.
    pub unique_id: Option<&'a [u8]>,
    /// The value of an `ssl` field as it was received: [`Ssl::raw`].
    pub ssl: Option<&'a [u8]>,
    /// The network namespace of the socket.
    pub netns: Option<&'a str>,
    /// Whether to add a checksum.
    pub crc32c: bool,
}

impl<'a> From<Tlvs<'a>> for Outgoing<'a> {
    /// What is about the client, and so as true at the next hop as it was at this one.
    fn from(tlvs: Tlvs<'a>) -> Outgoing<'a> {
        Outgoing {
            authority: tlvs.authority(),
            alpn: tlvs.alpn(),
            unique_id: tlvs.unique_id(),
            ssl: tlvs.ssl().map(|ssl| ssl.raw),
            netns: None,
            crc32c: false,
        }
    }
}

/// The fields do not fit into a header: 65,535 bytes with the addresses, or a unique id over its own bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too long for a PROXY header")
    }
}

/// Appends the header for a TCP connection from `src` to `dst`. Where one of them is IPv6, both are written so.
///
/// # Errors
/// [`TooLong`]; nothing has been appended then.
pub fn write_v2(
    src: SocketAddr,
    dst: SocketAddr,
    fields: &Outgoing<'_>,
    out: &mut Vec<u8>,
) -> Result<(), TooLong> {
    if fields.unique_id.is_some_and(|id| id.len() > MAX_UNIQUE_ID) {
        return Err(TooLong);
    }
    let mut rest = Vec::with_capacity(64);
    let family = match Ends::of(src, dst) {
        Ends::V4(src, dst) => {
            rest.extend([src.octets(), dst.octets()].as_flattened());
            0x11
        }
        Ends::V6(src, dst) => {
            rest.extend([src.octets(), dst.octets()].as_flattened());
            0x21
        }
    };
    rest.extend([src.port().to_be_bytes(), dst.port().to_be_bytes()].as_flattened());
    // The checksum goes first, so that its place is known when the rest is.
    let summed = rest.len();
    for (kind, value) in [
        (CRC32C, fields.crc32c.then_some(&[0; 4][..])),
        (ALPN, fields.alpn),
        (AUTHORITY, fields.authority.map(str::as_bytes)),
        (UNIQUE_ID, fields.unique_id),
        (SSL, fields.ssl),
        (NETNS, fields.netns.map(str::as_bytes)),
    ] {
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        let length = u16::try_from(value.len()).map_err(|_| TooLong)?;
        rest.push(kind);
        rest.extend(length.to_be_bytes());
        rest.extend(value);
    }
    let length = u16::try_from(rest.len()).map_err(|_| TooLong)?.to_be_bytes();
    let start: [&[u8]; 3] = [SIGNATURE, &[0x21, family], &length];
    if fields.crc32c {
        let sum = crc32c(&[&start.concat(), &rest]).to_be_bytes();
        let place = rest.get_mut(summed + 3..).and_then(|rest| rest.first_chunk_mut());
        *place.expect("the checksum's field stands behind the addresses") = sum;
    }
    out.extend(start.concat());
    out.extend(rest);
    Ok(())
}
