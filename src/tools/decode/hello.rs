//! `beacond decode hello`: the TLS ClientHello at the beginning of a connection's bytes, as the proxy would see it.

use super::Kind;
use crate::bytes::Escaped;
use crate::proxy::hello::{self, Progress};
use std::fmt::Write as _;

/// Its row in the table of kinds.
pub const KIND: Kind =
    Kind { name: "hello", options: &[], judge: |_| Ok(Box::new(|bytes: &[u8]| verdict(bytes))) };

/// The verdict on the first bytes of a connection: `sni name=… route=… used=N` with `alpn=a,b` where the client offers
/// protocols, `no-sni used=N`, `need-more`, `not-tls`, or `bad-hello REASON`. `route` is what the name is looked up as,
/// `-` where it must not match any route; `used` is the hello's length. The cap is the largest that a proxy can be given.
#[must_use]
pub fn verdict(stream: &[u8]) -> String {
    let hello = match hello::read(stream, hello::MAX_CAP) {
        Progress::Hello(hello) => hello,
        Progress::NeedMore { .. } => return "need-more".to_owned(),
        Progress::NotTls => return "not-tls".to_owned(),
        Progress::Bad(reason) => return format!("bad-hello {reason}"),
    };
    let Some(name) = hello.name else {
        return format!("no-sni used={}", hello.used);
    };
    let (sent, route) = (Escaped(name.sent().as_bytes()), Escaped(name.route().unwrap_or("-").as_bytes()));
    let mut out = format!("sni name={sent} route={route} used={}", hello.used);
    for (nth, protocol) in hello.alpn.iter().enumerate() {
        // A comma within a protocol's name must not look like the one between two.
        let protocol = Escaped(protocol).to_string().replace(',', "%2C");
        let mark = if nth == 0 { " alpn=" } else { "," };
        write!(out, "{mark}{protocol}").expect("writing to a String cannot fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello with these extensions.
    fn stream(extensions: &[u8]) -> Vec<u8> {
        let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
        let start = [&[3; 34][..], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
        let body = [&start[..], &length(extensions.len()), extensions].concat();
        [&[22, 3, 1], &length(body.len() + 4)[..], &[1, 0], &length(body.len()), &body].concat()
    }

    #[test]
    fn each_verdict() {
        let sni = |name: &str| {
            let n = u8::try_from(name.len()).unwrap();
            [&[0, 0, 0, n + 5, 0, n + 3, 0, 0, n], name.as_bytes()].concat()
        };
        let alpn = b"\0\x10\0\x0b\0\x09\x02h2\x01,\x03a b";
        for (stream, expected) in [
            (stream(&sni("A.net.")), "sni name=A.net. route=a.net used=67"),
            (stream(&sni("%1\n")), "sni name=%251%0A route=- used=64"),
            (stream(&[&sni("a")[..], alpn].concat()), "sni name=a route=a used=77 alpn=h2,%2C,a%20b"),
            (stream(alpn), "no-sni used=67"),
            (stream(b"")[..20].to_vec(), "need-more"),
            (vec![], "need-more"),
            (b"GE".to_vec(), "not-tls"),
            (vec![22, 3, 1, 0, 1, 2], "bad-hello handshake type 2"),
            (stream(b"\0"), "bad-hello extension header"),
        ] {
            assert_eq!(verdict(&stream), expected, "{stream:02x?}");
        }
    }
}
