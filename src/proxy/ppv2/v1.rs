//! Version 1 of the PROXY protocol: one line of text.
//!
//! ```text
//! PROXY TCP4 192.0.2.1 198.51.100.2 65535 443\r\n
//! PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n
//! PROXY UNKNOWN\r\n                                    anything may stand before the end of the line, to be ignored
//! ```

use super::{Ends, Header, Origin, Progress, Reason, Tlvs, agree};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest line, its end included.
pub(super) const MAX_LINE: usize = 107;
/// The shortest line: `PROXY UNKNOWN`. No header of version 2 is shorter.
pub(super) const SHORTEST: usize = 15;

const SIGNATURE: &[u8] = b"PROXY ";

/// Reads the line at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Progress<'_>, Reason> {
    if !agree(bytes, SIGNATURE) {
        return Err(Reason::Signature);
    }
    let seen = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let end = seen.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(seen.len());
    let (line, rest) = seen.split_at(end);
    match rest {
        [b'\r', b'\n', ..] => {
            let origin = origin(line)?;
            Ok(Progress::Header(Header { version: 1, origin, used: end + 2, tlvs: Tlvs::default() }))
        }
        [] | [b'\r'] if seen.len() == MAX_LINE => Err(Reason::NoLineEnd),
        [] | [b'\r'] => {
            let at_least = (end + 2).clamp(SHORTEST, MAX_LINE);
            Ok(Progress::NeedMore { at_least })
        }
        _ => Err(Reason::BareLineEnd),
    }
}

/// Appends the line for a connection from `src` to `dst`. Where one of them is IPv6, both are written so.
pub fn write_v1(src: SocketAddr, dst: SocketAddr, out: &mut Vec<u8>) {
    let ports = format!("{} {}", src.port(), dst.port());
    let line = match Ends::of(src, dst) {
        Ends::V4(src, dst) => format!("PROXY TCP4 {src} {dst} {ports}\r\n"),
        Ends::V6(src, dst) => format!("PROXY TCP6 {src} {dst} {ports}\r\n"),
    };
    out.extend_from_slice(line.as_bytes());
}

/// What a line says, its end taken off.
fn origin(line: &[u8]) -> Result<Origin, Reason> {
    match line.split(|&b| b == b' ').collect::<Vec<_>>()[..] {
        [_, b"UNKNOWN", ..] => Ok(Origin::Unspec),
        [_, b"TCP4", src, dst, from, to] => ends::<Ipv4Addr>([src, dst], [from, to]),
        [_, b"TCP6", src, dst, from, to] => ends::<Ipv6Addr>([src, dst], [from, to]),
        [_, b"TCP4" | b"TCP6", ref more @ ..] => Err(Reason::Fields(2 + more.len())),
        _ => Err(Reason::Word),
    }
}

fn ends<T: FromStr + Into<IpAddr>>(addresses: [&[u8]; 2], ports: [&[u8]; 2]) -> Result<Origin, Reason> {
    let [src, dst] = addresses.map(|text| parsed::<T>(text).map(Into::into).ok_or(Reason::Address));
    let (src, dst) = (src?, dst?);
    let [from, to] = ports.map(|text| port(text).ok_or(Reason::Port));
    Ok(Origin::Proxied { src: SocketAddr::new(src, from?), dst: SocketAddr::new(dst, to?) })
}

/// A port as the specification writes it: no sign, no leading zero.
fn port(text: &[u8]) -> Option<u16> {
    let plain = text == b"0" || !text.starts_with(b"0") && text.iter().all(u8::is_ascii_digit);
    parsed(text).filter(|_| plain)
}

fn parsed<T: FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text).ok()?.parse().ok()
}
