//! What must hold for any bytes: how an answer is cut never matters, and whatever the names, a question is one line.

use super::cache::MAX_KEY;
use super::{Cache, Error, MAX_ANSWER, MAX_QUESTION, MAX_REASON, Question, Reader, Verdict};
use crate::clock::Mono;
use std::net::SocketAddr;
use std::time::Duration;

/// Reads `data`, less a first byte that says how it is cut, as an answer, and makes it the names of a
/// question.
#[doc(hidden)]
pub fn fuzz_verdict(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let answer = answer_in_pieces(bytes.chunks(bytes.len().max(1)));
    assert_eq!(answer, answer_in_pieces(bytes.chunks(1)));
    assert_eq!(answer, answer_in_pieces(bytes.chunks(usize::from(cut) + 2)));
    match &answer {
        Ok(Verdict::Deny(reason)) => {
            assert!(bytes.starts_with(b"deny") && reason.len() <= MAX_REASON);
            assert!(reason.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
        }
        Ok(Verdict::Allow(_)) | Err(Error::BadTarget) => assert!(bytes.starts_with(b"allow")),
        Err(Error::NoAnswer) => assert!(bytes.is_empty()),
        Err(Error::TooLong) => assert!(bytes.len() >= MAX_ANSWER),
        Err(Error::NotUnderstood) => {}
    }

    let names: Vec<&[u8]> = bytes.split(|&b| b == cut).collect();
    let text = String::from_utf8_lossy(names.first().copied().unwrap_or_default());
    let end = SocketAddr::from(([192, 0, 2, cut], u16::from(cut)));
    let question = Question {
        id: u64::from(cut),
        client: end,
        peer: (cut & 1 == 1).then_some(end),
        local: (cut & 2 == 2).then_some(end),
        sni: (cut & 4 == 4).then_some(&text),
        alpn: names.get(1..).unwrap_or_default(),
        authority: (cut & 8 == 8).then_some(&text),
        tls: cut & 16 == 16,
    };
    check_question(&question, answer.ok());
}

fn check_question(question: &Question<'_>, verdict: Option<Verdict<String>>) {
    let mut out = b"kept".to_vec();
    let written = question.write(&mut out);
    let line = out.strip_prefix(b"kept").expect("what was there stays");
    if written.is_err() {
        assert!(line.is_empty());
    } else {
        let text = line.strip_suffix(b"\n").expect("it is a line");
        assert!(line.len() <= MAX_QUESTION && text.starts_with(b"{\"id\":\"") && text.ends_with(b"}"));
        let text = str::from_utf8(text).expect("JSON is UTF-8");
        assert!(!text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')));
    }
    let Some(verdict) = verdict else { return };
    let mut cache = Cache::new(Duration::from_secs(1));
    cache.put(question, verdict.clone(), Mono(0));
    let next = Question { id: 7, client: SocketAddr::new(question.client.ip(), 9), ..*question };
    let kept = question.line(None).len() <= MAX_KEY;
    assert_eq!(cache.get(&next, Mono(999_999)), kept.then_some(&verdict));
    assert_eq!(cache.get(&Question { tls: !question.tls, ..next }, Mono(1)), None);
    assert_eq!(cache.get(question, Mono(1_000_000)), None);
}

/// What an answer in these pieces, then the stream's end, comes to; a target is any printable text but `-`.
pub(super) fn answer_in_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Verdict<String>, Error> {
    let target = |text: &str| {
        if text != "-" && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(text.to_owned())
        } else {
            Err(String::new())
        }
    };
    let mut reader = Reader::default();
    for piece in pieces {
        if let Some(answer) = reader.feed(piece, target) {
            return answer;
        }
    }
    reader.end(target)
}
