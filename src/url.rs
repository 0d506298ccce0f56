//! A member's address: `scheme://host:port`, and nothing more of a url (RFC 3986) than that.
//!
//! One form for everybody who compares, stores, logs or configures members: lower case, IP addresses in canonical text
//! (RFC 5952), the port always explicit, no path. Reading is strict; whether an address may be used at all is not
//! decided here. Pure: names are never resolved.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest url, in bytes, that is read. The canonical text is far shorter than this, for hosts are.
pub const MAX_LEN: usize = 511;
/// Longest host name, in bytes (RFC 1035; a longer one has crashed a balancer).
pub const MAX_NAME: usize = 253;

/// What stands in a url only where there is more than scheme, host and port.
pub const EXTRA: [char; 5] = ['/', '?', '#', '@', '\\'];

const MAX_LABEL: usize = 63;
const MAX_SCHEME: usize = 16;

/// A url in canonical form; ordered by its text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme_len: usize,
    ip: Option<IpAddr>,
    port: u16,
}

/// The host of a [`Url`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Host<'a> {
    /// An IP address.
    Ip(IpAddr),
    /// A name, in lower case.
    Name(&'a str),
}

/// Why bytes are not a url as members have them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BadUrl {
    /// Longer than [`MAX_LEN`].
    TooLong,
    /// A space, a control byte, or a byte outside ASCII.
    Byte,
    /// Not `scheme://…`, or no scheme by the letters of RFC 3986.
    Scheme,
    /// More than an address: a user, path, query or fragment.
    Extra,
    /// Neither an IP address nor a host name.
    Host,
    /// No port where the scheme has none of its own, or not a number from 1 to 65535.
    Port,
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadUrl::TooLong => "longer than 511 bytes",
            BadUrl::Byte => "has a space, control or non-ASCII byte",
            BadUrl::Scheme => "does not begin with a scheme, as http://",
            BadUrl::Extra => "has more than scheme, host and port",
            BadUrl::Host => "has neither an IP address nor a host name",
            BadUrl::Port => "needs a port from 1 to 65535",
        })
    }
}

impl Url {
    /// Reads `scheme://host[:port]`, a final `/` allowed, and brings it into canonical form.
    ///
    /// Schemes with a port of their own: `http` and `ws` 80, `https` and `wss` 443, `ajp` 8009 (as in httpd).
    ///
    /// # Errors
    /// The first fault met.
    pub fn parse(raw: &[u8]) -> Result<Url, BadUrl> {
        if raw.len() > MAX_LEN {
            return Err(BadUrl::TooLong);
        }
        if !raw.iter().all(u8::is_ascii_graphic) {
            return Err(BadUrl::Byte);
        }
        let raw = str::from_utf8(raw).map_err(|_| BadUrl::Byte)?;
        let (scheme, rest) = raw.split_once("://").ok_or(BadUrl::Scheme)?;
        let scheme = read_scheme(scheme).ok_or(BadUrl::Scheme)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(EXTRA) {
            return Err(BadUrl::Extra);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(digits) => read_port(digits).ok_or(BadUrl::Port)?,
            None => default_port(&scheme).ok_or(BadUrl::Port)?,
        };
        Ok(match read_host(host).ok_or(BadUrl::Host)? {
            Ok(ip) => Url::from_ip(&scheme, ip, port),
            Err(name) => Url::build(&scheme, &name, None, port),
        })
    }

    /// The url of an address. `scheme` is one that [`Url::parse`] accepted, `port` is not 0.
    #[must_use]
    pub fn from_ip(scheme: &str, ip: IpAddr, port: u16) -> Url {
        match ip {
            IpAddr::V4(v4) => Url::build(scheme, &v4, Some(ip), port),
            IpAddr::V6(v6) => Url::build(scheme, &format_args!("[{v6}]"), Some(ip), port),
        }
    }

    /// The canonical text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The scheme, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.text.get(..self.scheme_len).unwrap_or_default()
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> Host<'_> {
        match self.ip {
            Some(ip) => Host::Ip(ip),
            None => Host::Name(self.authority().rsplit_once(':').map_or("", |(name, _)| name)),
        }
    }

    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.text.get(self.scheme_len + "://".len()..).unwrap_or_default()
    }

    fn build(scheme: &str, host: &dyn fmt::Display, ip: Option<IpAddr>, port: u16) -> Url {
        Url { text: format!("{scheme}://{host}:{port}"), scheme_len: scheme.len(), ip, port }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A scheme in lower case, if it is one by RFC 3986 section 3.1 and of sane length.
#[must_use]
pub fn read_scheme(text: &str) -> Option<String> {
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let good = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.len() <= MAX_SCHEME
        && text.bytes().all(letters);
    good.then(|| text.to_ascii_lowercase())
}

/// A port from 1 to 65535 in decimal, without sign or leading zero.
#[must_use]
pub fn read_port(digits: &str) -> Option<u16> {
    let plain = digits.starts_with(|c: char| matches!(c, '1'..='9'));
    if plain { digits.parse().ok() } else { None }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ajp" => Some(8009),
        _ => None,
    }
}

/// Splits an authority into the host, brackets included, and the text of the port where there is a colon for it.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), BadUrl> {
    if !authority.starts_with('[') {
        return Ok(authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))));
    }
    let close = authority.find(']').ok_or(BadUrl::Host)?;
    let (host, rest) = authority.split_at(close + 1);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(BadUrl::Host),
    }
}

/// An IP address, or else a host name in lower case.
fn read_host(host: &str) -> Option<Result<IpAddr, String>> {
    if let Some(inner) = host.strip_prefix('[') {
        let v6: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(Ok(v6.into()));
    }
    if let Ok(v4) = host.parse::<Ipv4Addr>() {
        return Some(Ok(v4.into()));
    }
    host_name(host).map(Err)
}

/// `text` as a host name, in lower case. `None` if it is none (a final dot is not taken), or could be taken for an IPv4
/// address.
#[must_use]
pub fn host_name(text: &str) -> Option<String> {
    (text.len() <= MAX_NAME && text.split('.').all(is_label) && !ends_in_number(text))
        .then(|| text.to_ascii_lowercase())
}

/// Letters, digits, `-` inside and `_` anywhere: no standard host name has the last, container networks do.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether a resolver might take the name for an IPv4 address in one of its old spellings: `127.1`, `0x7f000001`.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(raw: &str) -> Result<String, BadUrl> {
        Url::parse(raw.as_bytes()).map(|url| url.text().to_owned())
    }

    #[test]
    fn canonical_forms() {
        for (raw, text) in [
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("HTTP://10.0.0.1:8080/", "http://10.0.0.1:8080"),
            ("http://10.0.0.1", "http://10.0.0.1:80"),
            ("https://10.0.0.1/", "https://10.0.0.1:443"),
            ("ajp://Back_end.Internal", "ajp://back_end.internal:8009"),
            ("wss://[2001:DB8:0:0::5]", "wss://[2001:db8::5]:443"),
            ("http://[::FFFF:7f00:1]:1", "http://[::ffff:127.0.0.1]:1"),
            ("h2c://a:65535", "h2c://a:65535"),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(text), "{raw}");
        }
    }

    #[test]
    fn refusals() {
        use BadUrl::{Byte, Extra, Host, Port, Scheme, TooLong};
        for (raw, why) in [
            ("", Scheme),
            ("hello", Scheme),
            ("://h", Scheme),
            ("1http://h", Scheme),
            ("ht tp://h", Byte),
            ("http://h\u{e9}", Byte),
            ("http://h:80\t", Byte),
            ("http://h/x", Extra),
            ("http://h//", Extra),
            ("http://h?x", Extra),
            ("http://h#x", Extra),
            ("http://u@h", Extra),
            ("http://h\\x", Extra),
            ("http://", Host),
            ("http://:80", Host),
            ("http:///", Host),
            ("http://[::1", Host),
            ("http://[::1]x", Host),
            ("http://[fe80::1%25eth0]", Host),
            ("http://[10.0.0.1]", Host),
            ("http://::1", Port),
            ("http://010.0.0.1", Host),
            ("http://127.1", Host),
            ("http://0x7f000001", Host),
            ("http://a.0X1", Host),
            ("http://1.2.3.4.", Host),
            ("http://a..b", Host),
            ("http://-a", Host),
            ("http://a%20b", Host),
            ("http://h:", Port),
            ("http://h:0", Port),
            ("http://h:+80", Port),
            ("http://h:080", Port),
            ("http://h:65536", Port),
            ("http://h:80:80", Port),
            ("gopher://h", Port),
        ] {
            assert_eq!(canonical(raw), Err(why), "{raw}");
        }
        assert_eq!(canonical(&format!("http://{}", "a".repeat(600))), Err(TooLong));
        assert_eq!(canonical(&format!("http://{}.b", "a.".repeat(126))), Err(Host));
        assert!(canonical(&format!("http://{}b", "a.".repeat(126))).is_ok());
    }

    #[test]
    fn parts() {
        let url = Url::parse(b"https://Web.Example:8443").unwrap();
        assert_eq!((url.scheme(), url.host(), url.port()), ("https", Host::Name("web.example"), 8443));
        assert_eq!(url.authority(), "web.example:8443");
        let url = Url::parse(b"http://[2001:db8::5]").unwrap();
        assert_eq!((url.host(), url.port()), (Host::Ip("2001:db8::5".parse().unwrap()), 80));
        assert_eq!(url.authority(), "[2001:db8::5]:80");
    }

    proptest! {
        #[test]
        fn canonical_text_is_a_fixed_point_and_clean(raw in "[a-zA-Z]{1,5}://([a-z0-9.:\\[\\]_-]{0,20}|([0-9]{1,3}\\.){3}[0-9]{1,3}|\\[[0-9a-f:.]{2,20}\\])(:[0-9]{0,6})?/?") {
            if let Ok(url) = Url::parse(raw.as_bytes()) {
                prop_assert!(url.text().bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()));
                prop_assert_eq!(Url::parse(url.text().as_bytes()), Ok(url));
            }
        }

        #[test]
        fn every_address_round_trips(bits: u128, v4: Option<u32>, port in 1u16..) {
            let ip = v4.map_or(IpAddr::V6(Ipv6Addr::from_bits(bits)), |bits| Ipv4Addr::from_bits(bits).into());
            let url = Url::from_ip("http", ip, port);
            prop_assert_eq!(url.host(), Host::Ip(ip));
            prop_assert_eq!(Url::parse(url.text().as_bytes()), Ok(url));
        }
    }
}
