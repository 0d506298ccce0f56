//! PROXY headers of real senders and made ones, read in every way they may arrive, through the library and through
//! `beacond decode proxy`; written again byte for byte; and held against another implementation.
#![cfg(feature = "proxy")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's way to fail")]

#[path = "oracles/ppv2.rs"]
mod oracle;

use beacond::bytes::{Escaped, from_hex, to_hex};
use beacond::proxy::ppv2::{self, Header, Origin, Outgoing, Progress, Reason, Ssl, SslField};
use beacond::proxy::ppv2::{read, write_v1, write_v2};
use beacond::tools::decode::proxy::verdict;
use proptest::prelude::*;
use serde_json::Value;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread;

struct Vector {
    id: String,
    bytes: Vec<u8>,
    entry: Value,
}

fn vectors() -> Vec<Vector> {
    let path = format!("{}/tests/vectors/proxy_v2.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let vector = |entry: &Value| Vector {
        id: entry["id"].as_str().unwrap().to_owned(),
        bytes: from_hex(entry["hex"].as_str().unwrap()).unwrap(),
        entry: entry.clone(),
    };
    let vectors: Vec<Vector> = file["vectors"].as_array().unwrap().iter().map(vector).collect();
    assert_eq!(vectors.len(), 77);
    vectors
}

impl Vector {
    fn text(&self, name: &str) -> Option<&str> {
        self.entry[name].as_str()
    }

    fn number(&self, name: &str) -> usize {
        usize::try_from(self.entry[name].as_u64().unwrap()).unwrap()
    }

    fn end(&self, ip: &str, port: &str) -> SocketAddr {
        let port = u16::try_from(self.number(port)).unwrap();
        SocketAddr::new(self.text(ip).unwrap().parse().unwrap(), port)
    }

    /// The line of `beacond decode proxy`.
    fn verdict(&self) -> String {
        match self.text("verdict").unwrap() {
            "proxy" => {
                let (src, dst) = (self.end("src", "sport"), self.end("dst", "dport"));
                let authority =
                    self.text("authority").map(|name| format!(" authority={}", Escaped(name.as_bytes())));
                let (version, used) = (self.number("version"), self.number("header_len"));
                format!(
                    "proxy version={version} src={src} dst={dst} used={used}{}",
                    authority.unwrap_or_default()
                )
            }
            "reject" => format!("reject {}", self.text("reason").unwrap()),
            "need-more" => "need-more".to_owned(),
            other => format!("{other} used={}", self.number("header_len")),
        }
    }

    /// The header, if it is one.
    fn header(&self) -> Option<Header<'_>> {
        match read(&self.bytes) {
            Progress::Header(header) => Some(header),
            _ => None,
        }
    }
}

#[test]
fn verdicts() {
    for vector in vectors() {
        assert_eq!(verdict(&vector.bytes), vector.verdict(), "{}", vector.id);
    }
}

#[test]
fn verdicts_of_the_program() {
    let vectors = vectors();
    let mut child = Command::new(env!("CARGO_BIN_EXE_beacond"))
        .args(["decode", "proxy"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = vectors.iter().map(|vector| format!("{}\n", to_hex(&vector.bytes))).collect();
    // Beside the reading below, so that neither pipe can fill up for good.
    let writer = thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let verdicts: Vec<&str> = str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert_eq!(verdicts, vectors.iter().map(Vector::verdict).collect::<Vec<_>>());
}

#[test]
fn the_program_refuses_options_of_another_kind() {
    for (words, said) in [
        (&["decode", "proxy", "--now", "1"][..], "beacond: argument 3 (--now): not for decode proxy\n"),
        (&["decode", "smoke"], "beacond: decode: 'smoke': wanted beacon, hello or proxy\n"),
        (&["decode"], "beacond: decode: wanted beacon, hello or proxy\n"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_beacond")).args(words).output().unwrap();
        assert_eq!(str::from_utf8(&output.stderr).unwrap(), said);
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn every_prefix_waits() {
    for vector in vectors() {
        let whole = read(&vector.bytes);
        for cut in 0..vector.bytes.len() {
            let progress = read(&vector.bytes[..cut]);
            let id = &vector.id;
            match (progress, whole) {
                (Progress::NeedMore { at_least }, Progress::Header(header)) => {
                    assert!(cut < at_least && at_least <= header.used, "{id} cut at {cut}");
                }
                (Progress::NeedMore { at_least }, _) => assert!(cut < at_least, "{id} cut at {cut}"),
                // No verdict but waiting is ever taken back.
                (said, _) => assert_eq!(said, whole, "{id} cut at {cut}"),
            }
        }
    }
}

/// As a session does: read again only when as much is there as was asked for.
#[test]
fn every_split_yields_the_same() {
    for vector in vectors().iter().filter(|vector| vector.bytes.len() < 1000) {
        for step in 1..=vector.bytes.len() {
            arrives(vector, (step..).step_by(step));
        }
        for first in 1..vector.bytes.len() {
            arrives(vector, [first].into_iter().chain([vector.bytes.len()]));
        }
    }
}

fn arrives(vector: &Vector, lengths: impl Iterator<Item = usize>) {
    let (mut wanted, mut reads) = (0, 0);
    let mut progress = read(&[]);
    for length in lengths {
        let length = length.min(vector.bytes.len());
        if length >= wanted {
            reads += 1;
            progress = read(&vector.bytes[..length]);
        }
        match progress {
            Progress::NeedMore { at_least } if length < vector.bytes.len() => wanted = at_least,
            _ => break,
        }
    }
    match read(&vector.bytes) {
        Progress::NeedMore { .. } => assert!(matches!(progress, Progress::NeedMore { .. }), "{}", vector.id),
        whole => assert_eq!(progress, whole, "{}", vector.id),
    }
    let version = if vector.bytes.first() == Some(&b'P') { 1 } else { 2 };
    assert!(version == 1 || reads <= 3, "{}: read {reads} times", vector.id);
}

#[test]
fn fields() {
    let mut seen = 0;
    for vector in vectors() {
        let Some(header) = vector.header() else { continue };
        let id = &vector.id;
        if header.origin == Origin::Local {
            assert_eq!(header.tlvs.iter().count(), 0, "{id}");
            continue;
        }
        if header.used == ppv2::MAX_HEADER {
            assert_eq!(header.tlvs.iter().map(|field| field.0).collect::<Vec<_>>(), [4], "{id}");
            continue; // its padding is not written out in the file
        }
        let none = Vec::new();
        let expected: Vec<(u64, &str)> = (vector.entry["tlvs"].as_array().unwrap_or(&none).iter())
            .map(|field| (field[0].as_u64().unwrap(), field[1].as_str().unwrap()))
            .collect();
        let found: Vec<_> =
            header.tlvs.iter().map(|(kind, value)| (u64::from(kind), to_hex(value))).collect();
        assert!(found.iter().map(|(kind, value)| (*kind, value.as_str())).eq(expected), "{id}: {found:?}");
        assert_eq!(header.tlvs.authority(), vector.text("authority"), "{id}");
        assert_eq!(header.tlvs.alpn(), vector.text("alpn").map(str::as_bytes), "{id}");
        assert_eq!(header.tlvs.netns(), vector.text("netns"), "{id}");
        assert_eq!(header.tlvs.unique_id().map(to_hex).as_deref(), vector.text("unique_id"), "{id}");
        assert_eq!(header.tlvs.ssl().is_some(), vector.entry["ssl"].is_object(), "{id}");
        if let Some(ssl) = header.tlvs.ssl() {
            assert_ssl(ssl, &vector.entry["ssl"], id);
        }
        seen += found.len();
    }
    assert!(seen >= 25, "only {seen} fields");
}

fn assert_ssl(ssl: Ssl<'_>, expected: &Value, id: &str) {
    assert_eq!(u64::from(ssl.client), expected["client"].as_u64().unwrap(), "{id}");
    assert_eq!(u64::from(ssl.verify), expected["verify"].as_u64().unwrap(), "{id}");
    for (name, field) in [
        ("version", SslField::Version),
        ("cn", SslField::CommonName),
        ("cipher", SslField::Cipher),
        ("sig_alg", SslField::SignatureAlgorithm),
        ("key_alg", SslField::KeyAlgorithm),
        ("group", SslField::Group),
        ("sig_scheme", SslField::SignatureScheme),
    ] {
        assert_eq!(ssl.text(field), expected[name].as_str(), "{id} {name}");
    }
    assert_eq!(ssl.is_verified(), ssl.client & 6 != 0 && ssl.verify == 0, "{id}");
}

/// What HAProxy, nginx and curl sent, written again from what was read of it.
#[test]
fn real_headers_are_written_the_same() {
    let mut checked = 0;
    for vector in vectors() {
        let real = ["HAProxy", "nginx", "curl"]
            .iter()
            .any(|sender| vector.text("source").unwrap().starts_with(sender));
        let Some(header) = vector.header().filter(|_| real) else { continue };
        let (Some(src), Some(dst)) = (header.src(), header.dst()) else { continue };
        let mut out = Vec::new();
        if header.version == 1 {
            write_v1(src, dst, &mut out);
        } else {
            let crc32c = header.tlvs.value(3).is_some();
            let sent = Outgoing { crc32c, netns: header.tlvs.netns(), ..Outgoing::from(header.tlvs) };
            write_v2(src, dst, &sent, &mut out).unwrap();
        }
        assert_eq!(to_hex(&out), to_hex(&vector.bytes[..header.used]), "{}", vector.id);
        checked += 1;
    }
    assert!(checked >= 14, "only {checked} written");
}

#[test]
fn the_other_implementation_agrees() {
    for vector in vectors() {
        oracle::agree(&vector.bytes);
        let bytes = &vector.bytes[..vector.bytes.len().min(300)];
        for at in 0..bytes.len() {
            oracle::agree(&bytes[..at]);
            for bit in 0..8 {
                let mut bent = bytes.to_vec();
                bent[at] ^= 1 << bit;
                oracle::agree(&bent);
                ppv2::fuzz_ppv2(&bent);
            }
        }
    }
}

/// Any bit of a header that carries a checksum may flip in any place: it is never taken for another header.
#[test]
fn a_checksum_notices_every_flipped_bit() {
    for vector in vectors().iter().filter(|vector| vector.text("crc32c") == Some("ok")) {
        let used = vector.number("header_len");
        for at in 0..used * 8 {
            let mut bent = vector.bytes[..used].to_vec();
            bent[at / 8] ^= 1 << (at % 8);
            // Without its type a checksum is none, and a LOCAL header's is discarded with the rest.
            match read(&bent) {
                Progress::Header(header) if header.origin == Origin::Local => {}
                Progress::Header(header) => assert_eq!(header.tlvs.value(3), None, "{} bit {at}", vector.id),
                Progress::NeedMore { .. } | Progress::Reject(_) => {}
            }
        }
    }
}

#[test]
fn reasons_that_no_vector_has() {
    let v2 = |command, family, block: &[u8]| {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, block].concat()
    };
    let fields = |fields: &[u8]| v2(0x21, 0x11, &[&[0; 12], fields].concat());
    for (bytes, reason) in [
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n".to_vec(), Reason::Port),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n".to_vec(), Reason::Port),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n".to_vec(), Reason::Port),
        (b"PROXY TCP6 ::1%lo ::1 1 1\r\n".to_vec(), Reason::Address),
        (b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), Reason::Address),
        (b"PROXY TCP4\r\n".to_vec(), Reason::Fields(2)),
        (b"PROXY UNKNOWNX\r\n".to_vec(), Reason::Word),
        (b"PROXY \r\n".to_vec(), Reason::Word),
        (b"PROXY UNKNOWN\rX".to_vec(), Reason::BareLineEnd),
        (b"PROXX".to_vec(), Reason::Signature),
        ([b"PROXY UNKNOWN ", &[b'x'; 92][..], b"\r\n"].concat(), Reason::NoLineEnd),
        (fields(&[5, 0]), Reason::Tlv(ppv2::Fault::Cut)),
        (fields(&[0x20, 0, 6, 1, 0, 0, 0, 0, 9]), Reason::InSsl(ppv2::Fault::Cut)),
        (fields(&[0x20, 0, 0]), Reason::SslShort),
        (fields(&[3, 0, 0]), Reason::CrcLength(0)),
        (fields(&[3, 0, 5, 0, 0, 0, 0, 0]), Reason::CrcLength(5)),
        // Datagrams and unix sockets have fields as well.
        (v2(0x21, 0x12, &[0; 13]), Reason::Tlv(ppv2::Fault::Cut)),
        (v2(0x21, 0x31, &[0; 218]), Reason::Tlv(ppv2::Fault::Cut)),
    ] {
        assert_eq!(read(&bytes), Progress::Reject(reason), "{}", Escaped(&bytes));
    }
    let mut twice = Vec::new();
    let end = SocketAddr::from(([127, 0, 0, 1], 80));
    write_v2(end, end, &Outgoing { crc32c: true, ..Outgoing::default() }, &mut twice).unwrap();
    // Right as long as there is only one; a second cannot be right as well.
    twice.extend([3, 0, 4, 0, 0, 0, 0]);
    twice[15] += 7;
    assert!(matches!(read(&twice), Progress::Reject(Reason::CrcMismatch)));
    for (bytes, used) in [
        (v2(0x20, 0xff, &[1, 2, 3]), 19),
        (v2(0x21, 0x00, b"\x02\x00\x01"), 19),
        (v2(0x21, 0x10, &[0; 12]), 28),
        (v2(0x21, 0x02, &[]), 16),
    ] {
        let Progress::Header(header) = read(&bytes) else { panic!("{}", to_hex(&bytes)) };
        assert_eq!((header.used, header.src(), header.tlvs.iter().count()), (used, None, 0));
    }
}

#[test]
fn the_last_of_several_fields_counts() {
    let fields = b"\x02\0\x01a\x02\0\x01b\x01\0\x02h2\x01\0\0";
    let header = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x1c", &[0; 12][..], fields].concat();
    let Progress::Header(header) = read(&header) else { panic!("not read") };
    assert_eq!((header.tlvs.authority(), header.tlvs.alpn()), (Some("b"), None));
}

#[test]
fn what_is_too_long_is_not_written() {
    let end = SocketAddr::from(([127, 0, 0, 1], 80));
    let (long, most) = ("n".repeat(0x1_0000), "n".repeat(0xffff - 12 - 3));
    let mut out = b"x".to_vec();
    for fields in [
        Outgoing { authority: Some(&long), ..Outgoing::default() },
        Outgoing { authority: Some(&most), netns: Some("n"), ..Outgoing::default() },
        Outgoing { unique_id: Some(&[0; ppv2::MAX_UNIQUE_ID + 1]), ..Outgoing::default() },
    ] {
        assert_eq!(write_v2(end, end, &fields, &mut out), Err(ppv2::TooLong));
        assert_eq!(out, b"x");
    }
    out.clear();
    write_v2(end, end, &Outgoing { authority: Some(&most), ..Outgoing::default() }, &mut out).unwrap();
    assert_eq!(out.len(), ppv2::MAX_HEADER);
    assert!(matches!(read(&out), Progress::Header(header) if header.tlvs.authority() == Some(most.as_str())));
}

#[test]
fn two_families_become_one() {
    let v4 = SocketAddr::from(([192, 0, 2, 1], 1));
    let mapped: SocketAddr = "[::ffff:198.51.100.2]:2".parse().unwrap();
    let v6: SocketAddr = "[2001:db8::1]:3".parse().unwrap();
    for (src, dst, line) in [
        (v4, mapped, "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n"),
        (v4, v6, "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 3\r\n"),
        (v6, mapped, "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.2 3 2\r\n"),
    ] {
        let mut out = Vec::new();
        write_v1(src, dst, &mut out);
        assert_eq!(str::from_utf8(&out).unwrap(), line);
        let Progress::Header(first) = read(&out) else { panic!("{line}") };
        let mut out = Vec::new();
        write_v2(src, dst, &Outgoing::default(), &mut out).unwrap();
        let Progress::Header(second) = read(&out) else { panic!("{line}") };
        assert_eq!(first.origin, second.origin);
    }
}

fn an_end() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

proptest! {
    /// What we write both readers read, and what the other writes we read.
    #[test]
    fn writers_and_readers_understand_each_other(
        src in an_end(), dst in an_end(), authority in ".{0,40}", alpn in prop::collection::vec(any::<u8>(), 0..9),
        id in prop::collection::vec(any::<u8>(), 0..=128), crc32c in any::<bool>(), payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let sent = Outgoing {
            authority: Some(&authority), alpn: Some(&alpn), unique_id: Some(&id), crc32c, ..Outgoing::default()
        };
        let mut out = Vec::new();
        write_v2(src, dst, &sent, &mut out).unwrap();
        let used = out.len();
        out.extend(&payload);
        oracle::agree(&out);
        let Progress::Header(header) = read(&out) else { panic!("not read") };
        prop_assert_eq!(header.used, used);
        prop_assert_eq!(header.tlvs.authority().unwrap_or_default(), authority.as_str());
        prop_assert_eq!(header.tlvs.alpn().unwrap_or_default(), &alpn[..]);
        prop_assert_eq!(header.tlvs.unique_id().unwrap_or_default(), &id[..]);

        let mut line = Vec::new();
        write_v1(src, dst, &mut line);
        line.extend(&payload);
        oracle::agree(&line);

        if src.is_ipv4() == dst.is_ipv4() {
            let ends = proxy_header::ProxiedAddress::stream(src, dst);
            let name = proxy_header::Tlv::Authority(authority.as_str().into());
            let theirs = proxy_header::ProxyHeader::with_tlvs(Some(ends), [name]);
            let mut out = Vec::new();
            theirs.encode_v2(&mut out).unwrap();
            let Progress::Header(header) = read(&out) else { panic!("not read") };
            prop_assert_eq!((header.src(), header.dst()), (Some(src), Some(dst)));
            prop_assert_eq!(header.tlvs.authority().unwrap_or_default(), authority.as_str());
        }
    }

    /// Fields in any order and number, some of them nonsense, behind a header that is right.
    #[test]
    fn any_fields(kinds in prop::collection::vec((prop::sample::select(vec![1u8, 2, 3, 4, 5, 0x20, 0x21, 0x30, 0xe0]), 0u8..9), 0..6), junk in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut fields = Vec::new();
        for (kind, length) in kinds {
            fields.extend([kind, 0, length]);
            fields.extend(junk.iter().cycle().take(usize::from(length)));
        }
        fields.extend(junk.iter().take(2));
        let length = u16::try_from(12 + fields.len()).unwrap().to_be_bytes();
        let header = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &[9; 12], &fields].concat();
        oracle::agree(&header);
        ppv2::fuzz_ppv2(&header);
        oracle::agree(&junk);
        ppv2::fuzz_ppv2(&junk);
    }
}
