//! What must hold for any bytes of a server: how they are cut never matters, and an accepted response is bounded and
//! means the same when it is written plainly.

use super::response::SWITCHING_PROTOCOLS;
use super::{Asked, Error, MAX_HEAD, MAX_HEADERS, Progress, Reader, Response};

/// What reading `stream` in the given pieces, then its end, comes to: the response and how many bytes were its.
pub(super) fn read_in_pieces<'a>(
    mut reader: Reader,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<(Response, usize), Error> {
    let mut taken = 0;
    for piece in pieces {
        match reader.feed(piece)? {
            Progress::More => taken += piece.len(),
            Progress::Done { response, used } => {
                assert!(used <= piece.len());
                return Ok((response, taken + used));
            }
        }
    }
    reader.end().map(|response| (response, taken))
}

/// Reads `data` (two bytes of settings, then a stream) whole, byte by byte and in uneven pieces: all must agree. An
/// accepted response is then written out with a plain length and must read back the same.
#[doc(hidden)]
pub fn fuzz_http1(data: &[u8]) {
    let Some((&[flags, seed], stream)) = data.split_first_chunk() else { return };
    let asked = match flags & 5 {
        0 => Asked::Body,
        1 => Asked::Head,
        _ => Asked::Connect,
    };
    let limit = if flags & 2 == 0 { 1 << 20 } else { 16 };
    let reader = || Reader::new(asked, limit);
    let whole = read_in_pieces(reader(), std::iter::once(stream));
    assert_eq!(whole, read_in_pieces(reader(), stream.chunks(1)));
    assert_eq!(whole, read_in_pieces(reader(), stream.chunks(usize::from(seed) + 2)));
    let Ok((response, used)) = whole else { return };
    assert!(used <= stream.len() && response.body.len() <= limit);
    assert!(response.headers.len() <= MAX_HEADERS && response.trailers.len() <= MAX_HEADERS);
    if used < stream.len() {
        assert_eq!(read_in_pieces(reader(), std::iter::once(&stream[..used])), Ok((response.clone(), used)));
    }
    if asked == Asked::Connect {
        check_tunnel(&response, stream, used);
    }
    let (text, plain) = plainly(&response);
    if text.len() - plain.body.len() <= MAX_HEAD && plain.headers.len() <= MAX_HEADERS {
        let again = read_in_pieces(Reader::new(Asked::Body, limit), std::iter::once(&text[..]));
        assert_eq!(again, Ok((plain, text.len())));
    }
}

/// A 2xx to a CONNECT ends with its head: what is behind is the tunnel's. Other answers are read as those to a GET.
fn check_tunnel(response: &Response, stream: &[u8], used: usize) {
    if (200..300).contains(&response.status) {
        let head = &stream[..used];
        assert!(response.body.is_empty() && response.trailers.is_empty() && !response.keep_alive);
        assert!(head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n"));
    } else {
        let as_to_get = read_in_pieces(Reader::new(Asked::Body, 1 << 20), std::iter::once(stream));
        assert_eq!(as_to_get, Ok((response.clone(), used)));
    }
}

/// `response` as bytes with a `Content-Length`, and what those must read back as.
fn plainly(response: &Response) -> (Vec<u8>, Response) {
    let bodiless = matches!(response.status, SWITCHING_PROTOCOLS | 204 | 304);
    let mut plain = Response { status: response.status, body: response.body.clone(), ..Response::default() };
    let mut text = format!("HTTP/1.1 {:03} OK\r\n", response.status).into_bytes();
    let length = response.body.len().to_string();
    let framing = ["content-length", "transfer-encoding", "connection"];
    let kept = response.headers.iter().filter(|(n, _)| !framing.iter().any(|f| f.eq_ignore_ascii_case(n)));
    for (name, value) in kept.chain([("Content-Length", length.as_bytes())]) {
        plain.headers.push(name, value);
        text.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&response.body);
    plain.keep_alive = response.status != SWITCHING_PROTOCOLS;
    assert!(!bodiless || response.body.is_empty());
    (text, plain)
}
