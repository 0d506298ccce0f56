//! `beacond decode proxy`: the PROXY protocol header at the beginning of a connection's bytes.

use super::Kind;
use crate::bytes::Escaped;
use crate::proxy::ppv2::{Header, Origin, Progress, read};

/// Its row in the table of kinds.
pub const KIND: Kind =
    Kind { name: "proxy", options: &[], judge: |_| Ok(Box::new(|bytes: &[u8]| verdict(bytes))) };

/// The verdict on the first bytes of a connection: `proxy version=… src=… dst=… used=N` with `authority=…` where there
/// is one, `local used=N`, `unspec used=N`, `need-more`, or `reject REASON`. `used` is the header's length.
#[must_use]
pub fn verdict(bytes: &[u8]) -> String {
    match read(bytes) {
        Progress::NeedMore { .. } => "need-more".to_owned(),
        Progress::Reject(reason) => format!("reject {reason}"),
        Progress::Header(Header { version, origin, used, tlvs }) => match origin {
            Origin::Local => format!("local used={used}"),
            Origin::Unspec => format!("unspec used={used}"),
            Origin::Proxied { src, dst } => {
                let start = format!("proxy version={version} src={src} dst={dst} used={used}");
                match tlvs.authority() {
                    Some(name) => format!("{start} authority={}", Escaped(name.as_bytes())),
                    None => start,
                }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        for (bytes, expected) in [
            (
                &b"PROXY TCP6 2001:DB8::1 ::ffff:1.2.3.4 1 2\r\nHELO"[..],
                "proxy version=1 src=[2001:db8::1]:1 dst=[::ffff:1.2.3.4]:2 used=43",
            ),
            (b"PROXY UNKNOWN\r\n", "unspec used=15"),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "local used=16"),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xbb\x02\0\x03a %",
                "proxy version=2 src=1.2.3.4:80 dst=5.6.7.8:443 used=34 authority=a%20%25",
            ),
            (b"", "need-more"),
            (b"\x16\x03\x01", "reject no PROXY signature"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "reject 5 fields"),
        ] {
            assert_eq!(verdict(bytes), expected);
        }
    }
}
