//! A request as bytes (RFC 9112 sections 3 and 6). Sends nothing.

use std::fmt;

/// One request. The writer adds `Host`, `Connection: close` where asked, and `Content-Length`.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, ... in capitals as the server expects it.
    pub method: &'a str,
    /// Path and query, already percent-encoded: `/v3/kv/put`.
    pub target: &'a str,
    /// Value of `Host`: `name`, `name:port`, `[v6]:port`.
    pub host: &'a str,
    /// Further fields. None of those the writer adds itself, nor `Transfer-Encoding`.
    pub headers: &'a [(&'a str, &'a str)],
    /// `None`: no body and no length, as in a GET.
    pub body: Option<&'a [u8]>,
    /// Whether to ask the server to close after this one.
    pub close: bool,
}

/// Which part of a [`Request`] cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadRequest {
    /// The method is not a token.
    Method,
    /// The target is empty or has a blank, a control byte, a byte beyond ASCII, or a fragment.
    Target,
    /// The host is empty or has a byte that no host has.
    Host,
    /// A field's name is not a token, or is one that the writer adds itself.
    HeaderName,
    /// A field's value has a control byte other than tab: CR and LF would start another field.
    HeaderValue,
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadRequest::Method => "bad method",
            BadRequest::Target => "bad target",
            BadRequest::Host => "bad host",
            BadRequest::HeaderName => "bad header name",
            BadRequest::HeaderValue => "bad header value",
        })
    }
}

impl Request<'_> {
    /// Appends the request to `out`; on an error `out` is as it was.
    ///
    /// # Errors
    /// The first part that must not be sent.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BadRequest> {
        self.check()?;
        let mut line = |parts: &[&str]| {
            for part in parts {
                out.extend_from_slice(part.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        };
        line(&[self.method, " ", self.target, " HTTP/1.1"]);
        line(&["Host: ", self.host]);
        for (name, value) in self.headers {
            line(&[name, ": ", value]);
        }
        if self.close {
            line(&["Connection: close"]);
        }
        if let Some(body) = self.body {
            line(&["Content-Length: ", &body.len().to_string()]);
        }
        line(&[]);
        out.extend_from_slice(self.body.unwrap_or_default());
        Ok(())
    }

    fn check(&self) -> Result<(), BadRequest> {
        if !is_token(self.method) {
            return Err(BadRequest::Method);
        }
        if self.target.is_empty() || !self.target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(BadRequest::Target);
        }
        let host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(&b);
        if self.host.is_empty() || !self.host.bytes().all(host_byte) {
            return Err(BadRequest::Host);
        }
        self.headers.iter().try_for_each(|(name, value)| check_header(name, value))
    }
}

/// Whether a field may be among a request's further ones.
///
/// # Errors
/// The part that may not be sent.
pub fn check_header(name: &str, value: &str) -> Result<(), BadRequest> {
    if !is_token(name) || WRITTEN.iter().any(|w| w.eq_ignore_ascii_case(name)) {
        return Err(BadRequest::HeaderName);
    }
    if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        return Err(BadRequest::HeaderValue);
    }
    Ok(())
}

/// Fields that this writer alone decides: two of them would let client and server disagree where a message ends.
const WRITTEN: [&str; 4] = ["Host", "Connection", "Content-Length", "Transfer-Encoding"];

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: Request<'_> =
        Request { method: "GET", target: "/", host: "a:80", headers: &[], body: None, close: false };

    fn bytes(request: Request<'_>) -> Result<String, BadRequest> {
        let mut out = b"kept".to_vec();
        let result = request.write(&mut out);
        assert!(out.starts_with(b"kept") && (result.is_ok() || out == b"kept"));
        result.map(|()| String::from_utf8(out[4..].to_vec()).unwrap())
    }

    #[test]
    fn writes_what_the_documents_say() {
        assert_eq!(bytes(GET).unwrap(), "GET / HTTP/1.1\r\nHost: a:80\r\n\r\n");
        let post = Request {
            method: "POST",
            target: "/m?xml=1",
            headers: &[("Referer", "http://a/m")],
            body: Some(b"b=c"),
            close: true,
            ..GET
        };
        assert_eq!(
            bytes(post).unwrap(),
            "POST /m?xml=1 HTTP/1.1\r\nHost: a:80\r\nReferer: http://a/m\r\nConnection: close\r\nContent-Length: 3\r\n\r\nb=c"
        );
        assert!(bytes(Request { body: Some(b""), ..post }).unwrap().contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn refuses_what_would_break_the_framing() {
        for method in ["", "G ET", "GET\r\nX: y"] {
            assert_eq!(bytes(Request { method, ..GET }), Err(BadRequest::Method));
        }
        for target in ["", "/a b", "/a\r\nX: y", "/\u{e9}", "/#f"] {
            assert_eq!(bytes(Request { target, ..GET }), Err(BadRequest::Target));
        }
        for host in ["", "a\r\nX: y", "a b", "user@a", "a/b"] {
            assert_eq!(bytes(Request { host, ..GET }), Err(BadRequest::Host));
        }
        for name in ["", "X Y", "X:", "host", "content-length", "Transfer-Encoding", "connection", "X\r\nY"] {
            assert_eq!(bytes(Request { headers: &[(name, "v")], ..GET }), Err(BadRequest::HeaderName));
        }
        for value in ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "\u{7f}"] {
            assert_eq!(bytes(Request { headers: &[("X", value)], ..GET }), Err(BadRequest::HeaderValue));
        }
    }

    proptest! {
        /// Whatever is accepted is read back as exactly that one request by another parser.
        #[test]
        fn an_accepted_request_reads_back(method in "[A-Z\r ]{1,5}", target in "/[!-~\r\n ]{0,12}",
                                          name in "X[a-z:\r\n -]{0,4}", value in "[ -~\r\n\t]{0,12}") {
            let request = Request { method: &method, target: &target, headers: &[(&name, &value)], ..GET };
            if let Ok(text) = bytes(request) {
                let mut slots = [httparse::EMPTY_HEADER; 4];
                let mut read = httparse::Request::new(&mut slots);
                prop_assert_eq!(read.parse(text.as_bytes()), Ok(httparse::Status::Complete(text.len())));
                prop_assert_eq!(read.method, Some(method.as_str()));
                prop_assert_eq!(read.path, Some(target.as_str()));
                prop_assert_eq!(read.headers.len(), 2);
                prop_assert_eq!(read.headers[1].name, name.as_str());
                prop_assert_eq!(read.headers[1].value, value.trim_matches([' ', '\t']).as_bytes());
            }
        }
    }
}
