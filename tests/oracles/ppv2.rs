//! Another reader of PROXY headers, `proxy-header`, beside ours: for the tests and for the fuzz target.
//!
//! It is laxer, so where the two differ the reason must be one of those for which we mean to be strict.

use beacond::proxy::ppv2::{self, Origin, Progress, Reason};
use proxy_header::{ParseConfig, Protocol, ProxyHeader};

/// Holds our reading of `bytes` against the other one.
///
/// # Panics
/// Where they differ and should not.
pub fn agree(bytes: &[u8]) {
    let other = ProxyHeader::parse(bytes, ParseConfig::default());
    match ppv2::read(bytes) {
        Progress::NeedMore { .. } => assert!(other.is_err(), "it sees a header that we do not: {other:?}"),
        Progress::Reject(reason) => assert!(other.is_err() || is_ours(reason), "{reason}: {other:?}"),
        Progress::Header(header) => {
            // It judges the family of a LOCAL header too, and knows no family without a transport.
            let known = bytes
                .get(13)
                .is_some_and(|family| matches!(family, 0 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32));
            let Ok((same, used)) = other else {
                assert!(
                    header.version == 2 && (header.origin == Origin::Local || !known),
                    "{other:?} for {header:?}"
                );
                return;
            };
            assert_eq!(used, header.used);
            let tcp = same.proxied_address().filter(|ends| ends.protocol == Protocol::Stream);
            assert_eq!(tcp.map(|ends| ends.source), header.src());
            assert_eq!(tcp.map(|ends| ends.destination), header.dst());
            if tcp.is_some() {
                fields(&same, header.tlvs);
            }
        }
    }
}

/// Reasons it does not have: of the checks within fields, and of version 1's exact form.
fn is_ours(reason: Reason) -> bool {
    match reason {
        Reason::Tlv(_) | Reason::InSsl(_) | Reason::SslShort | Reason::UniqueId => true,
        Reason::CrcLength(_) | Reason::CrcTwice | Reason::CrcMismatch => true,
        Reason::Signature | Reason::NoLineEnd | Reason::BareLineEnd | Reason::Word | Reason::Port => true,
        Reason::Fields(_) | Reason::Address => false,
        Reason::Version(_) | Reason::Command(_) | Reason::Family(_) | Reason::Protocol(_) => false,
        Reason::Length { .. } => false,
    }
}

/// It takes the first of several fields, and gives up all of them at one that is not UTF-8; so only what is there once
/// and is text is compared.
fn fields(other: &ProxyHeader<'_>, ours: ppv2::Tlvs<'_>) {
    let once = |kind: u8| ours.iter().filter(|field| field.0 == kind).count() == 1;
    if other.tlvs().any(|tlv| tlv.is_err()) {
        return;
    }
    assert_eq!(other.tlvs().count(), ours.iter().count());
    let some = |value: Option<&[u8]>| value.filter(|value| !value.is_empty()).map(<[u8]>::to_vec);
    if once(0x01) {
        assert_eq!(some(other.alpn()), some(ours.alpn()));
    }
    if once(0x02) {
        assert_eq!(some(other.authority().map(str::as_bytes)), some(ours.authority().map(str::as_bytes)));
    }
    if once(0x05) {
        assert_eq!(some(other.unique_id()), some(ours.unique_id()));
    }
    if once(0x30) {
        assert_eq!(some(other.netns().map(str::as_bytes)), some(ours.netns().map(str::as_bytes)));
    }
    if once(0x20) {
        let (Some(other), Some(ours)) = (other.ssl(), ours.ssl()) else { panic!("an ssl field is lost") };
        assert_eq!((other.verify(), other.client_ssl()), (ours.verify, ours.client & 1 == 1));
        let certificate = other.client_cert_conn() || other.client_cert_sess();
        assert_eq!(certificate && other.verify() == 0, ours.is_verified());
    }
}
