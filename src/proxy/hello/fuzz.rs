//! What must hold for any bytes: the answer depends on them alone, not on how they were cut into reads or records, and
//! a hello is exactly as long as it says.

use super::{Hello, MAX_CAP, Progress, Reader, Reason, read};

/// Reads `data`, less a first byte that says how it is cut, as a stream, and again as the body of a ClientHello.
#[doc(hidden)]
pub fn fuzz_hello(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else {
        return;
    };
    let size = usize::from(cut) + 1;
    check_stream(bytes, size);
    let message = message(bytes);
    let (whole, cut) = (records(&message, 1 << 14), records(&message, size));
    check_stream(&cut, size);
    match (read(&whole, MAX_CAP), read(&cut, MAX_CAP)) {
        (Progress::Hello(one), Progress::Hello(many)) => {
            assert_eq!(many, Hello { used: cut.len(), ..one });
        }
        // More records take more room.
        (_, Progress::Bad(Reason::OverLimit)) => assert!(cut.len() > MAX_CAP),
        (one, many) => assert_eq!(one, many),
    }
}

fn check_stream(stream: &[u8], size: usize) {
    let answer = read(stream, MAX_CAP);
    let mut reader = Reader::new(MAX_CAP);
    let mut promised = 0;
    for end in (0..stream.len()).step_by(size).chain([stream.len()]) {
        match reader.read(stream.get(..end).unwrap_or(stream)) {
            Progress::NeedMore { at_least } => {
                assert!(at_least > end && at_least <= MAX_CAP, "{at_least} at {end}");
                assert!(end >= promised || at_least == promised, "{at_least} at {end}, not {promised}");
                promised = at_least;
            }
            settled => {
                assert!(end >= promised, "settled at {end}, not {promised}");
                assert_eq!(settled, answer, "at {end}");
                break;
            }
        }
    }
    if let Progress::Hello(hello) = &answer {
        check_hello(hello, stream);
    }
}

fn check_hello(hello: &Hello, stream: &[u8]) {
    let used = stream.get(..hello.used).expect("no more is used than there is");
    assert_eq!(read(used, hello.used), Progress::Hello(hello.clone()));
    let short = used.split_last().map(|(_last, rest)| rest).expect("a hello is not empty");
    assert_eq!(read(short, MAX_CAP), Progress::NeedMore { at_least: hello.used });
    assert_eq!(read(stream, hello.used - 1), Progress::Bad(Reason::OverLimit));
    assert!(hello.alpn.iter().all(|name| (1..=255).contains(&name.len())));
    if let Some(name) = &hello.name {
        assert!(!name.sent().is_empty() && name.sent().is_ascii() && !name.sent().contains('\0'));
        assert!(name.route().is_none_or(|route| {
            let same = |sent: &str| route.eq_ignore_ascii_case(sent.strip_suffix('.').unwrap_or(sent));
            route == route.to_ascii_lowercase() && route.len() <= 253 && same(name.sent())
        }));
    }
}

/// A ClientHello with this body, which may be at most 2^24 - 1 bytes long.
pub(super) fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("no input is that long").to_be_bytes();
    [&[1], length.get(1..).unwrap_or_default(), body].concat()
}

/// `message` in records of `size` bytes, at most 2^14.
pub(super) fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let length = u16::try_from(fragment.len()).expect("a record is at most 2^14 bytes").to_be_bytes();
        [&[22, 3, 1], &length[..], fragment].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Bytes that are mostly a body as it should be: some field may lie about its length.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        let lie = || prop_oneof![40 => Just(0u8), 1 => 1..=3u8, 1 => 253..=255u8];
        let prefixed = move |bytes: Vec<u8>, width: usize, lie: u8| {
            let mut length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            length[3] = length[3].wrapping_add(lie);
            [&length[4 - width..], &bytes].concat()
        };
        let name = (prop_oneof![9 => Just(0u8), 1 => any::<u8>()], "[ -~]{0,12}|[a-zA-Z.]{1,20}", lie())
            .prop_map(move |(kind, name, lie)| [vec![kind], prefixed(name.into_bytes(), 2, lie)].concat());
        let sni =
            (vec(name, 0..3), lie()).prop_map(move |(names, lie)| (0u16, prefixed(names.concat(), 2, lie)));
        let protocol = (vec(any::<u8>(), 0..5), lie()).prop_map(move |(name, lie)| prefixed(name, 1, lie));
        let alpn = (vec(protocol, 0..4), lie())
            .prop_map(move |(names, lie)| (16u16, prefixed(names.concat(), 2, lie)));
        let other = (any::<u16>(), vec(any::<u8>(), 0..40));
        let extension = (prop_oneof![sni, alpn, other], lie())
            .prop_map(move |((kind, body), lie)| [&kind.to_be_bytes()[..], &prefixed(body, 2, lie)].concat());
        let lists = (vec(any::<u8>(), 0..34), vec(any::<[u8; 2]>(), 0..20), vec(any::<u8>(), 0..3));
        (lists, vec(extension, 0..6), [lie(), lie(), lie(), lie()]).prop_map(
            move |((id, suites, methods), extensions, [a, b, c, d])| {
                [
                    vec![3; 34],
                    prefixed(id, 1, a),
                    prefixed(suites.concat(), 2, b),
                    prefixed(methods, 1, c),
                    prefixed(extensions.concat(), 2, d),
                ]
                .concat()
            },
        )
    }

    proptest! {
        #[test]
        fn bodies(cut: u8, body in body()) {
            fuzz_hello(&[&[cut], &body[..]].concat());
        }

        #[test]
        fn streams(cut: u8, size in 1..2000usize, body in body(), at: prop::sample::Index, bits in 0..3u8) {
            let mut data = [vec![cut], records(&message(&body), size)].concat();
            let at = at.index(data.len());
            data[at] ^= bits;
            fuzz_hello(&data);
        }

        #[test]
        fn anything(data: Vec<u8>) {
            fuzz_hello(&data);
            fuzz_hello(&[&[0, 22, 3, 1], &data[..]].concat());
        }
    }
}
