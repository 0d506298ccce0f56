//! The body of a ClientHello (RFC 8446 section 4.1.2). Every length in it is checked against what surrounds it, on the
//! way to the two extensions that count here.

use super::{Alpn, Name, Reason};

const VERSION_AND_RANDOM: usize = 2 + 32;
const MAX_SESSION_ID: usize = 32;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// Reads the whole body: the server name, if there is one, and the protocols.
pub(super) fn read(body: &[u8]) -> Result<(Option<Name>, Alpn), Reason> {
    let mut rest = body;
    take(&mut rest, VERSION_AND_RANDOM).ok_or(Reason::TooShort)?;
    vec8(&mut rest).filter(|id| id.len() <= MAX_SESSION_ID).ok_or(Reason::SessionId)?;
    vec16(&mut rest)
        .filter(|suites| !suites.is_empty() && suites.len().is_multiple_of(2))
        .ok_or(Reason::CipherSuites)?;
    if vec8(&mut rest).ok_or(Reason::CompressionMethods)?.is_empty() {
        return Err(Reason::NoCompression);
    }
    if rest.is_empty() {
        return Ok((None, Alpn::default())); // before TLS 1.2 a hello might end here
    }
    extensions(whole16(rest).ok_or(Reason::ExtensionsLength)?)
}

fn extensions(mut rest: &[u8]) -> Result<(Option<Name>, Alpn), Reason> {
    let (mut name, mut alpn) = (None, Alpn::default());
    let mut seen = Seen::default();
    while !rest.is_empty() {
        let kind = number16(&mut rest).ok_or(Reason::ExtensionHeader)?;
        if rest.len() < 2 {
            return Err(Reason::ExtensionHeader);
        }
        let body = vec16(&mut rest).ok_or(Reason::ExtensionOverruns)?;
        if !seen.insert(kind) {
            return Err(Reason::DuplicateExtension(kind));
        }
        match kind {
            SERVER_NAME => name = server_name(body)?,
            ALPN => alpn = protocols(body)?,
            _ => {}
        }
    }
    Ok((name, alpn))
}

/// The host name of a server_name extension. Names of other types may stand beside it; none is defined, but any new one
/// has to begin with a length of 16 bits.
fn server_name(body: &[u8]) -> Result<Option<Name>, Reason> {
    let mut rest = whole16(body).filter(|list| !list.is_empty()).ok_or(Reason::NameListLength)?;
    let mut found = None;
    while let Some((&kind, after)) = rest.split_first() {
        rest = after;
        let value = vec16(&mut rest).ok_or(Reason::NameOverruns)?;
        if kind == HOST_NAME && found.replace(host_name(value)?).is_some() {
            return Err(Reason::TwoNames);
        }
    }
    Ok(found)
}

fn host_name(value: &[u8]) -> Result<Name, Reason> {
    if value.is_empty() {
        return Err(Reason::EmptyName);
    }
    if value.contains(&0) {
        return Err(Reason::NulInName);
    }
    let text = str::from_utf8(value).ok().filter(|text| text.is_ascii());
    Ok(Name::new(text.ok_or(Reason::NonAsciiName)?))
}

fn protocols(body: &[u8]) -> Result<Alpn, Reason> {
    let list = whole16(body).filter(|list| !list.is_empty()).ok_or(Reason::AlpnListLength)?;
    let mut rest = list;
    while !rest.is_empty() {
        vec8(&mut rest).filter(|name| !name.is_empty()).ok_or(Reason::AlpnEntry)?;
    }
    Ok(Alpn { list: list.into() })
}

/// The types of extension met so far: a bit for each there is, so that no number of them makes it slow.
struct Seen([u64; 1024]);

impl Default for Seen {
    fn default() -> Seen {
        Seen([0; 1024])
    }
}

impl Seen {
    /// Notes `kind`; `false` if it was there.
    fn insert(&mut self, kind: u16) -> bool {
        let bit = 1 << (kind % 64);
        let word =
            self.0.get_mut(usize::from(kind / 64)).expect("65536 bits are enough for any 16-bit number");
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// Takes `count` bytes off the front of `rest`; `None`, and nothing taken, if they are not there.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

/// Takes a number of 16 bits.
fn number16(rest: &mut &[u8]) -> Option<u16> {
    take(rest, 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// Takes a length of 8 bits and as many bytes.
pub(super) fn vec8<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&length, after) = rest.split_first()?;
    *rest = after;
    take(rest, usize::from(length))
}

/// Takes a length of 16 bits and as many bytes.
fn vec16<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number16(rest)?;
    take(rest, usize::from(length))
}

/// What follows a length of 16 bits, if it is all there and nothing follows it.
fn whole16(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    (rest.len() == usize::from(u16::from_be_bytes(*length))).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vec(bytes: &[u8], width: usize) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[4 - width..], bytes].concat()
    }

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vec(body, 2)].concat()
    }

    fn names(entries: &[(u8, &[u8])]) -> Vec<u8> {
        let list: Vec<u8> =
            entries.iter().flat_map(|(kind, name)| [&[*kind][..], &vec(name, 2)].concat()).collect();
        extension(SERVER_NAME, &vec(&list, 2))
    }

    fn alpn(names: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> = names.iter().flat_map(|name| vec(name, 1)).collect();
        extension(ALPN, &vec(&list, 2))
    }

    fn start() -> Vec<u8> {
        [&[3; 34][..], &vec(&[9; 32], 1), &vec(&[0x13, 1], 2), &vec(&[0], 1)].concat()
    }

    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        [start(), vec(&extensions.concat(), 2)].concat()
    }

    fn name_of(body: &[u8]) -> Result<Option<(String, Option<String>)>, Reason> {
        let own = |name: Name| (name.sent().to_owned(), name.route().map(str::to_owned));
        read(body).map(|(name, _)| name.map(own))
    }

    #[test]
    fn names_and_what_they_are_looked_up_as() {
        let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        for (sent, route) in [
            ("app.example.net", Some("app.example.net")),
            ("App.Example.NET", Some("app.example.net")),
            ("app.example.net.", Some("app.example.net")),
            ("localhost", Some("localhost")),
            ("my_app.example.net", Some("my_app.example.net")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            (&long, Some(&long)),
            (&format!("{long}."), Some(&long)),
            (&format!("c{long}"), None),
            ("app.example.net..", None),
            (".", None),
            ("..", None),
            (".example.net", None),
            ("a..net", None),
            ("-", None),
            ("-a.net", None),
            ("*.example.net", None),
            ("a b.net", None),
            ("a.net\r\nX: y", None),
            ("a.net:443", None),
            ("192.0.2.7", None),
            ("192.0.2.7.", None),
            ("192.0.2", None),
            ("0x7f.1", None),
            ("2001:db8::7", None),
            ("[2001:db8::7]", None),
            ("../../etc/passwd", None),
        ] {
            let read = name_of(&hello(&[names(&[(0, sent.as_bytes())])]));
            assert_eq!(read, Ok(Some((sent.to_owned(), route.map(str::to_owned)))));
        }
    }

    #[test]
    fn both_extensions_among_others_in_any_order() {
        let (name, protocols) = (names(&[(0, b"a.net")]), alpn(&[b"h2", b"\x0a\x0a", &[b'x'; 255]]));
        let other = extension(0x1a1a, b"");
        for extensions in [
            [name.clone(), protocols.clone(), other.clone()],
            [protocols.clone(), other.clone(), name.clone()],
            [other, name, protocols],
        ] {
            let (name, alpn) = read(&hello(&extensions)).unwrap();
            assert_eq!(name.unwrap().route(), Some("a.net"));
            assert_eq!(alpn.iter().collect::<Vec<_>>(), [b"h2", &b"\x0a\x0a"[..], &[b'x'; 255]]);
        }
        assert_eq!(name_of(&hello(&[])), Ok(None));
        assert_eq!(name_of(&start()), Ok(None));
        assert_eq!(name_of(&hello(&[names(&[(7, b"\xff")])])), Ok(None));
        assert_eq!(
            name_of(&hello(&[names(&[(7, b""), (0, b"b")])])),
            Ok(Some(("b".into(), Some("b".into()))))
        );
    }

    #[test]
    fn what_lies_is_refused() {
        let sni = |body: &[u8]| extension(SERVER_NAME, body);
        for (extensions, reason) in [
            (vec![sni(b"")], Reason::NameListLength),
            (vec![sni(b"\0")], Reason::NameListLength),
            (vec![sni(b"\0\0")], Reason::NameListLength),
            (vec![sni(b"\0\x03\0\0\x01a")], Reason::NameListLength),
            (vec![sni(b"\0\x04\0\0\x01aa")], Reason::NameListLength),
            (vec![sni(b"\0\x05\0\0\x01a")], Reason::NameListLength),
            (vec![sni(b"\0\x05\0\0\x03aa")], Reason::NameOverruns),
            (vec![sni(b"\0\x05\0\0\x01aa")], Reason::NameOverruns),
            (vec![sni(b"\0\x01\0")], Reason::NameOverruns),
            (vec![names(&[(0, b"a"), (0, b"a")])], Reason::TwoNames),
            (vec![names(&[(0, b"a"), (1, b"x"), (0, b"b")])], Reason::TwoNames),
            (vec![names(&[(0, b"")])], Reason::EmptyName),
            (vec![names(&[(0, b"a\0b")])], Reason::NulInName),
            (vec![names(&[(0, "\u{fc}.net".as_bytes())])], Reason::NonAsciiName),
            (vec![names(&[(0, b"\xff")])], Reason::NonAsciiName),
            (vec![extension(ALPN, b"")], Reason::AlpnListLength),
            (vec![extension(ALPN, b"\0\0")], Reason::AlpnListLength),
            (vec![extension(ALPN, b"\0\x02\x01")], Reason::AlpnListLength),
            (vec![extension(ALPN, b"\0\x02\x01aa")], Reason::AlpnListLength),
            (vec![extension(ALPN, b"\0\x02\x02a")], Reason::AlpnEntry),
            (vec![alpn(&[b"h2", b""])], Reason::AlpnEntry),
            (vec![names(&[(0, b"a")]), names(&[(0, b"a")])], Reason::DuplicateExtension(0)),
            (vec![alpn(&[b"a"]), names(&[(0, b"a")]), alpn(&[b"a"])], Reason::DuplicateExtension(16)),
            (vec![extension(65535, b""), extension(65535, b"")], Reason::DuplicateExtension(65535)),
            (vec![vec![0, 0, 0]], Reason::ExtensionHeader),
            (vec![extension(5, b""), vec![0]], Reason::ExtensionHeader),
            (vec![vec![0, 0, 0, 1]], Reason::ExtensionOverruns),
        ] {
            assert_eq!(read(&hello(&extensions)).unwrap_err(), reason, "{extensions:02x?}");
        }
    }

    #[test]
    fn the_lists_before_the_extensions() {
        let made = |id: &[u8], suites: &[u8], methods: &[u8]| {
            read(&[&[3; 34][..], &vec(id, 1), &vec(suites, 2), &vec(methods, 1)].concat()).unwrap_err()
        };
        assert_eq!(made(&[0; 33], &[0; 2], &[0]), Reason::SessionId);
        assert_eq!(made(&[], &[], &[0]), Reason::CipherSuites);
        assert_eq!(made(&[], &[0; 3], &[0]), Reason::CipherSuites);
        assert_eq!(made(&[], &[0; 2], &[]), Reason::NoCompression);
        let whole = start();
        for (end, reason) in [
            (0, Reason::TooShort),
            (33, Reason::TooShort),
            (34, Reason::SessionId),
            (66, Reason::SessionId),
            (67, Reason::CipherSuites),
            (70, Reason::CipherSuites),
            (71, Reason::CompressionMethods),
            (72, Reason::CompressionMethods),
        ] {
            assert_eq!(read(&whole[..end]).unwrap_err(), reason, "{end}");
        }
        for rest in [&b"\0"[..], b"\0\x01", b"\0\0\0"] {
            assert_eq!(read(&[&whole[..], rest].concat()).unwrap_err(), Reason::ExtensionsLength);
        }
    }

    #[test]
    fn every_type_of_extension_once() {
        let mut seen = Seen::default();
        assert!((0..=u16::MAX).all(|kind| seen.insert(kind)));
        assert!((0..=u16::MAX).all(|kind| !seen.insert(kind)));
    }
}
