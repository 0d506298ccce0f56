//! The fuzz target of both notations: reading is the same for every way the bytes may arrive, and what we write we read.

use super::{Header, Origin, Outgoing, Progress, read, write_v1, write_v2};
use std::net::{IpAddr, SocketAddr};

/// Fuzz target: whatever the bytes are, the verdict on them stands however they arrive; what they say survives being
/// written for a next hop; and a header made of them is read as it was meant.
#[doc(hidden)]
pub fn fuzz_ppv2(data: &[u8]) {
    match read(data) {
        Progress::NeedMore { at_least } => assert!(at_least > data.len()),
        Progress::Reject(_) => assert!(matches!(read(&[data, b" 1\r\n"].concat()), Progress::Reject(_))),
        Progress::Header(header) => {
            let (exact, _) = data.split_at(header.used);
            assert_eq!(read(exact), Progress::Header(header));
            for cut in (0..header.used).step_by(1 + header.used / 64) {
                let Progress::NeedMore { at_least } = read(exact.split_at(cut).0) else {
                    unreachable!("cut at {cut}, it was judged")
                };
                assert!((cut + 1..=header.used).contains(&at_least));
            }
            again(&header, data.len().is_multiple_of(2));
        }
    }
    if let Some(header) = made_of(data) {
        assert!(matches!(read(&header), Progress::Header(read) if read.used == header.len()));
    }
}

/// A header's own bytes, written again.
fn again(header: &Header<'_>, crc32c: bool) {
    assert!(header.version == 2 || header.tlvs == super::Tlvs::default());
    let Origin::Proxied { src, dst } = header.origin else { return };
    let sent = Outgoing { crc32c, ..Outgoing::from(header.tlvs) };
    let mut out = b"before".to_vec();
    if write_v2(src, dst, &sent, &mut out).is_ok() {
        let Some(Progress::Header(second)) = out.strip_prefix(b"before").map(read) else {
            unreachable!("what we write is a header")
        };
        assert_eq!(Outgoing { crc32c, ..Outgoing::from(second.tlvs) }, sent);
        assert_eq!(second.origin.plain(), header.origin.plain());
    } else {
        assert_eq!(out, b"before");
    }
    out.clear();
    write_v1(src, dst, &mut out);
    let Progress::Header(line) = read(&out) else { unreachable!("what we write is a line") };
    assert_eq!((line.used, line.origin.plain()), (out.len(), header.origin.plain()));
}

/// A header whose addresses and fields are cut from `data`.
fn made_of(data: &[u8]) -> Option<Vec<u8>> {
    let (&[families, one, two, three], rest) = data.split_first_chunk()?;
    let (src, rest) = end(families & 1 == 0, rest)?;
    let (dst, rest) = end(families & 2 == 0, rest)?;
    let piece = |share: u8, of: usize| rest.get(usize::from(share) % (of + 1)..).unwrap_or_default();
    let sent = Outgoing {
        authority: str::from_utf8(piece(one, rest.len())).ok(),
        alpn: Some(piece(two, rest.len())),
        unique_id: Some(piece(three, rest.len())),
        ssl: None,
        netns: str::from_utf8(piece(two, rest.len())).ok(),
        crc32c: families & 4 == 0,
    };
    let mut out = Vec::new();
    write_v2(src, dst, &sent, &mut out).ok()?;
    let Progress::Header(header) = read(&out) else { unreachable!("what we write is a header") };
    let plain = |value: Option<&[u8]>| value.filter(|v| !v.is_empty()).map(<[u8]>::to_vec);
    assert_eq!(header.origin.plain(), Origin::Proxied { src, dst }.plain());
    assert_eq!(header.tlvs.authority(), sent.authority.filter(|name| !name.is_empty()));
    assert_eq!(header.tlvs.alpn(), plain(sent.alpn).as_deref());
    assert_eq!(header.tlvs.unique_id(), plain(sent.unique_id).as_deref());
    assert_eq!(header.tlvs.netns(), sent.netns.filter(|name| !name.is_empty()));
    Some(out)
}

fn end(wide: bool, data: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (&[a, b], rest) = data.split_first_chunk()?;
    let (ip, rest) = if wide {
        rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?
    } else {
        rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?
    };
    Some((SocketAddr::new(ip, u16::from_be_bytes([a, b])), rest))
}

impl Origin {
    /// With addresses in their shortest form: what stays the same from hop to hop.
    fn plain(self) -> Origin {
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        match self {
            Origin::Proxied { src, dst } => Origin::Proxied { src: plain(src), dst: plain(dst) },
            other => other,
        }
    }
}
