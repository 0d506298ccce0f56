//! The `http:` urls that options name. Not the urls of members: those go through admission.

use std::fmt;
use std::net::Ipv6Addr;

/// An `http://host[:port][/path][?query]` taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpUrl {
    /// Name or address to connect to, an IPv6 address without its brackets.
    pub host: String,
    /// Port to connect to, 80 where the url has none.
    pub port: u16,
    /// What goes into `Host`: the url's own host and port.
    pub authority: String,
    /// What goes into the request line: path and query.
    pub target: String,
}

impl HttpUrl {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// What was expected instead, in words that end an error line.
    pub fn parse(text: &str) -> Result<HttpUrl, &'static str> {
        let rest = match text.split_at_checked(SCHEME.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
            _ => return Err("a url that starts with http://; TLS is not spoken here"),
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !tail.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err("a url without blanks, fragment or bytes beyond ASCII");
        }
        if authority.contains('@') {
            return Err("a url without user and password");
        }
        let (host, port) = split_port(authority).ok_or("a url such as http://host:8080/path")?;
        let port = match port {
            None | Some("") => 80,
            Some(digits) => parse_port(digits).ok_or("a port from 1 to 65535")?,
        };
        let target = if tail.starts_with('/') { tail.to_owned() } else { format!("/{tail}") };
        Ok(HttpUrl { host: host.to_owned(), port, authority: authority.to_owned(), target })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.target)
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` as (host without brackets, text after the colon); `None` if neither.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return match after {
            "" => Some((host, None)),
            _ => Some((host, Some(after.strip_prefix(':')?))),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let name_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (!host.is_empty() && host.len() <= 253 && host.bytes().all(name_byte)).then_some((host, port))
}

fn parse_port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|&port| plain && port > 0)
}

const SCHEME: &str = "http://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_apart() {
        for (text, host, port, authority, target) in [
            ("http://a", "a", 80, "a", "/"),
            ("HTTP://10.0.0.1:8080/up?x=1", "10.0.0.1", 8080, "10.0.0.1:8080", "/up?x=1"),
            ("http://a_b.c-d:?x", "a_b.c-d", 80, "a_b.c-d:", "/?x"),
            ("http://[::1]", "::1", 80, "[::1]", "/"),
            ("http://[fe80::1]:81/", "fe80::1", 81, "[fe80::1]:81", "/"),
        ] {
            let url = HttpUrl::parse(text).unwrap();
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
            assert_eq!((url.authority.as_str(), url.target.as_str()), (authority, target), "{text}");
        }
        assert_eq!(HttpUrl::parse("HTTP://a:81?q").unwrap().to_string(), "http://a:81/?q");
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "a",
            "https://a",
            "http:/a",
            "http://",
            "http://:80",
            "http:///x",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a:x",
            "http://u@a",
            "http://a b",
            "http://a/\r\nX: y",
            "http://a/#f",
            "http://a#f",
            "http://[::1",
            "http://[a]",
            "http://[::1]x",
            "http://a/\u{e9}",
            "http://\u{e9}",
            "http://::1/",
        ] {
            assert!(HttpUrl::parse(text).is_err(), "{text}");
        }
        assert_eq!(HttpUrl::parse("http://u:p@1.2.3.4:80"), Err("a url without user and password"));
    }
}
