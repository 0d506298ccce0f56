//! `beacond decode hello`: what the proxy would see in the first bytes of a connection.

use crate::bytes::{Escaped, from_hex};
use crate::proxy::hello::{self, Progress};
use std::fmt::Write as _;

/// The verdict on one line of hex: `sni name=… route=… used=N` with `alpn=a,b` where the client offers protocols and
/// `route=-` where the name must not match any route, `no-sni used=N`, `need-more`, `not-tls`, `bad-hello REASON`, or
/// `error not hex`. The cap is the largest that a proxy can be given.
#[must_use]
pub fn verdict(line: &str) -> String {
    let Some(stream) = from_hex(line.trim_ascii()) else {
        return "error not hex".to_owned();
    };
    let hello = match hello::read(&stream, hello::MAX_CAP) {
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
    use crate::bytes::to_hex;

    /// A hello with these extensions.
    fn line(extensions: &[u8]) -> String {
        let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
        let start = [&[3; 34][..], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
        let body = [&start[..], &length(extensions.len()), extensions].concat();
        let record = [&[22, 3, 1], &length(body.len() + 4)[..], &[1, 0], &length(body.len()), &body].concat();
        to_hex(&record)
    }

    #[test]
    fn each_verdict() {
        let sni = |name: &str| {
            let n = u8::try_from(name.len()).unwrap();
            [&[0, 0, 0, n + 5, 0, n + 3, 0, 0, n], name.as_bytes()].concat()
        };
        let alpn = b"\0\x10\0\x0b\0\x09\x02h2\x01,\x03a b";
        for (line, expected) in [
            (line(&sni("A.net.")), "sni name=A.net. route=a.net used=67"),
            (line(&sni("%1\n")), "sni name=%251%0A route=- used=64"),
            (line(&[&sni("a")[..], alpn].concat()), "sni name=a route=a used=77 alpn=h2,%2C,a%20b"),
            (line(alpn), "no-sni used=67"),
            (line(b"")[..40].to_owned(), "need-more"),
            (String::new(), "need-more"),
            ("4745".to_owned(), "not-tls"),
            ("160301000102".to_owned(), "bad-hello handshake type 2"),
            (line(b"\0"), "bad-hello extension header"),
            (" 16G\n".to_owned(), "error not hex"),
        ] {
            assert_eq!(verdict(&line), expected, "{line}");
        }
    }
}
