//! First flights of real TLS clients, and of liars: through the library whole, as prefixes and in pieces, through the
//! lines of `beacond decode hello`, and beside a second parser.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "oracles/hello.rs"]
mod oracle;

use beacond::bytes::{Escaped, from_hex};
use beacond::proxy::hello::{DEFAULT_CAP, MAX_CAP, Progress, Reader, Reason, read};
use beacond::tools::decode::hello::verdict;
use proptest::prelude::*;
use serde_json::Value;
use std::sync::LazyLock;

struct Vector {
    entry: Value,
    stream: Vec<u8>,
}

impl Vector {
    fn text(&self, name: &str) -> Option<&str> {
        self.entry[name].as_str()
    }

    fn id(&self) -> &str {
        self.text("id").unwrap()
    }

    fn complete_at(&self) -> usize {
        self.entry["complete_at"].as_u64().unwrap().try_into().unwrap()
    }

    fn alpn(&self) -> Vec<Vec<u8>> {
        let bytes = |name: &str| name.strip_prefix("hex:").map_or(name.into(), |hex| from_hex(hex).unwrap());
        let names = self.entry["alpn"].as_array();
        names.map_or(vec![], |names| names.iter().map(|name| bytes(name.as_str().unwrap())).collect())
    }

    /// The line that `decode` owes for the whole of it.
    fn line(&self) -> String {
        match self.text("verdict").unwrap() {
            "sni" => {
                let escaped = |text: &str| Escaped(text.as_bytes()).to_string();
                let (name, used) = (escaped(self.text("sni").unwrap()), self.complete_at());
                let route = self.text("route").map_or("-".to_owned(), escaped);
                let alpn: Vec<_> = self.alpn().iter().map(|name| Escaped(name).to_string()).collect();
                let alpn = if alpn.is_empty() { String::new() } else { format!(" alpn={}", alpn.join(",")) };
                format!("sni name={name} route={route} used={used}{alpn}")
            }
            "no-sni" => format!("no-sni used={}", self.complete_at()),
            "bad-hello" => format!("bad-hello {}", self.text("reason").unwrap()),
            other => other.to_owned(),
        }
    }
}

fn vectors() -> &'static [Vector] {
    static VECTORS: LazyLock<Vec<Vector>> = LazyLock::new(load);
    &VECTORS
}

fn load() -> Vec<Vector> {
    let path = format!("{}/tests/vectors/client_hello.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let vectors: Vec<_> = file["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| Vector {
            stream: from_hex(entry["hex"].as_str().unwrap()).unwrap(),
            entry: entry.clone(),
        })
        .collect();
    assert_eq!(vectors.len(), 115);
    vectors
}

fn waits(progress: &Progress) -> bool {
    matches!(progress, Progress::NeedMore { .. })
}

#[test]
fn every_line_of_decode() {
    for vector in vectors() {
        assert_eq!(verdict(&vector.stream), vector.line(), "{}", vector.id());
    }
}

#[test]
fn names_and_protocols() {
    for vector in vectors() {
        let Progress::Hello(hello) = read(&vector.stream, MAX_CAP) else {
            assert!(!matches!(vector.text("verdict"), Some("sni" | "no-sni")), "{}", vector.id());
            continue;
        };
        assert_eq!(hello.name.as_ref().map(|name| name.sent()), vector.text("sni"), "{}", vector.id());
        assert_eq!(
            hello.name.as_ref().and_then(|name| name.route()),
            vector.text("route"),
            "{}",
            vector.id()
        );
        assert_eq!(hello.alpn.iter().collect::<Vec<_>>(), vector.alpn(), "{}", vector.id());
        assert_eq!(hello.used, vector.complete_at(), "{}", vector.id());
    }
}

#[test]
fn every_prefix() {
    for vector in vectors() {
        let (whole, mut reader) = (read(&vector.stream, MAX_CAP), Reader::new(MAX_CAP));
        let mut promised = 0;
        for end in 0..=vector.stream.len() {
            let prefix = &vector.stream[..end];
            let answer = reader.read(prefix);
            // One that starts afresh each time says the same; of the longer ones some places will do.
            if end < 600 || end % 97 == 0 {
                assert_eq!(read(prefix, MAX_CAP), answer, "{} at {end}", vector.id());
            }
            match (&answer, &whole) {
                (Progress::NeedMore { at_least }, _) => {
                    assert!(*at_least > end && (end >= promised || *at_least == promised), "{}", vector.id());
                    promised = *at_least;
                }
                (_, Progress::Hello(hello)) => {
                    assert_eq!((end, &answer), (hello.used, &whole), "{}", vector.id());
                    break;
                }
                _ => {
                    assert_eq!(answer, whole, "{} at {end}", vector.id());
                    assert!(end >= promised, "{}", vector.id());
                    break;
                }
            }
        }
    }
}

#[test]
fn every_split_in_two() {
    for vector in vectors() {
        let whole = read(&vector.stream, MAX_CAP);
        let step = 1 + vector.stream.len() / 2000;
        for at in (0..=vector.stream.len()).step_by(step) {
            let mut reader = Reader::new(MAX_CAP);
            let first = reader.read(&vector.stream[..at]);
            let last = if waits(&first) { reader.read(&vector.stream) } else { first };
            assert_eq!(last, whole, "{} at {at}", vector.id());
        }
    }
}

#[test]
fn a_cap_refuses_what_is_longer() {
    for vector in vectors() {
        let answer = read(&vector.stream, DEFAULT_CAP);
        if vector.id() == "hello_40k_3rec" {
            assert_eq!(answer, Progress::Bad(Reason::OverLimit));
            assert_eq!(read(&vector.stream[..9], DEFAULT_CAP), answer, "its length alone tells");
        } else {
            assert_eq!(answer, read(&vector.stream, MAX_CAP), "{}", vector.id());
        }
        // Whatever it is, nobody has to hold more than the cap for it.
        for cap in [5, 6, 64, 200, 1000] {
            let held = &vector.stream[..cap.min(vector.stream.len())];
            match read(held, cap) {
                Progress::NeedMore { at_least } => assert!(at_least <= cap, "{} {cap}", vector.id()),
                Progress::Hello(hello) => assert!(hello.used <= cap, "{} {cap}", vector.id()),
                Progress::NotTls | Progress::Bad(_) => {}
            }
        }
    }
}

#[test]
fn a_second_parser_reads_the_same() {
    let (mut both, mut good) = (0, 0);
    for vector in vectors() {
        let agreed = oracle::agree(&vector.stream);
        both += usize::from(agreed);
        good += usize::from(matches!(read(&vector.stream, MAX_CAP), Progress::Hello(_)));
        assert!(!agreed || matches!(vector.text("verdict"), Some("sni" | "no-sni")), "{}", vector.id());
    }
    assert_eq!((both, good), (68, 68), "every good one, and no other");
}

proptest! {
    #[test]
    fn any_pieces(which: prop::sample::Index, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let stream = &which.get(vectors()).stream;
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).chain([stream.len()]).collect();
        ends.sort_unstable();
        let mut reader = Reader::new(MAX_CAP);
        let answers = ends.iter().map(|end| reader.read(&stream[..*end]));
        let settled = answers.fold(None, |settled, answer| settled.filter(|s| !waits(s)).or(Some(answer)));
        prop_assert_eq!(settled, Some(read(stream, MAX_CAP)));
    }

    #[test]
    fn bent_hellos_do_not_divide_the_parsers(
        which: prop::sample::Index,
        at: prop::sample::Index,
        bits: u8,
        more in prop::collection::vec(any::<u8>(), 0..4),
        less in 0..3usize,
    ) {
        let mut stream = which.get(vectors()).stream.clone();
        let at = at.index(stream.len().min(600));
        stream[at] ^= bits;
        oracle::agree(&stream);
        stream.splice(at..stream.len().min(at + less), more);
        oracle::agree(&stream);
        oracle::agree_on_body(stream.get(9..).unwrap_or_default());
    }
}
