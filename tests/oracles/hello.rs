//! `tls-parser` as a second opinion on ClientHellos: where both accept one, they must read the same out of it.

use beacond::proxy::hello::{self, Progress, Reason};
use tls_parser::{
    SNIType, TlsExtension, TlsMessage, TlsMessageHandshake, TlsRecordType, parse_tls_client_hello_extensions,
    parse_tls_message_handshake, parse_tls_raw_record,
};

/// What the other parser reads: the first host name, the protocols, and how much of the stream.
struct Theirs {
    name: Option<Vec<u8>>,
    alpn: Vec<Vec<u8>>,
    used: usize,
}

/// Compares the two. `true` if both accept; what one alone refuses must be what it is known to be stricter in.
pub fn agree(stream: &[u8]) -> bool {
    let Some(theirs) = theirs(stream) else {
        return false; // it also looks into extensions that we pass by, and a hello that we refuse may be refused twice
    };
    match hello::read(stream, hello::MAX_CAP) {
        Progress::Hello(ours) => {
            assert_eq!(ours.name.as_ref().map(|name| name.sent().as_bytes()), theirs.name.as_deref());
            assert_eq!(ours.alpn.iter().collect::<Vec<_>>(), theirs.alpn);
            assert_eq!(ours.used, theirs.used);
            true
        }
        Progress::NotTls => {
            assert_ne!(stream[1], 3, "it does not look at the version of a record");
            false
        }
        Progress::Bad(reason) => {
            assert!(we_are_stricter(reason), "{reason}");
            false
        }
        Progress::NeedMore { at_least } => unreachable!("{at_least} bytes wanted, and the hello is whole"),
    }
}

/// The same for a hello with this body, in one record; one that does not fit is no case.
pub fn agree_on_body(body: &[u8]) -> bool {
    let length = |bytes: usize| u16::try_from(bytes).ok().filter(|n| *n <= 1 << 14).map(u16::to_be_bytes);
    let (Some(record), Some(message)) = (length(body.len() + 4), length(body.len())) else {
        return false;
    };
    agree(&[&[22, 3, 1], &record[..], &[1, 0], &message, body].concat())
}

/// It stops at the first thing in a list that it cannot read and lets the rest be, takes lists that are empty or given
/// twice, any bytes as a name, 256 bytes more in a record, and has no limit.
fn we_are_stricter(reason: Reason) -> bool {
    match reason {
        Reason::RecordVersion
        | Reason::ZeroRecord
        | Reason::RecordTooLong
        | Reason::OverLimit
        | Reason::TrailingBytes
        | Reason::CipherSuites
        | Reason::NoCompression
        | Reason::ExtensionsLength
        | Reason::DuplicateExtension(_)
        | Reason::NameListLength
        | Reason::NameOverruns
        | Reason::TwoNames
        | Reason::EmptyName
        | Reason::NulInName
        | Reason::NonAsciiName
        | Reason::AlpnListLength
        | Reason::AlpnEntry => true,
        Reason::RecordType(_)
        | Reason::HandshakeType(_)
        | Reason::TooShort
        | Reason::SessionId
        | Reason::CompressionMethods
        | Reason::ExtensionHeader
        | Reason::ExtensionOverruns => false,
    }
}

/// What it makes of the stream's first message; `None` if it refuses it or has not all of it.
fn theirs(stream: &[u8]) -> Option<Theirs> {
    let (mut rest, mut message) = (stream, Vec::new());
    loop {
        let (after, record) = parse_tls_raw_record(rest).ok()?;
        if record.hdr.record_type != TlsRecordType::Handshake {
            return None;
        }
        rest = after;
        message.extend_from_slice(record.data);
        match parse_tls_message_handshake(&message) {
            Ok((_, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)))) => {
                let extensions = hello.ext.unwrap_or_default();
                let (left, extensions) = parse_tls_client_hello_extensions(extensions).ok()?;
                let used = stream.len() - rest.len();
                return left.is_empty().then(|| read(&extensions, used));
            }
            Err(error) if error.is_incomplete() => {}
            _ => return None,
        }
    }
}

fn read(extensions: &[TlsExtension<'_>], used: usize) -> Theirs {
    let (mut name, mut alpn) = (None, Vec::new());
    for extension in extensions {
        match extension {
            TlsExtension::SNI(names) => {
                let host = names.iter().find(|(kind, _)| *kind == SNIType::HostName);
                name = host.map(|(_, name)| name.to_vec());
            }
            TlsExtension::ALPN(names) => alpn = names.iter().map(|name| name.to_vec()).collect(),
            _ => {}
        }
    }
    Theirs { name, alpn, used }
}
