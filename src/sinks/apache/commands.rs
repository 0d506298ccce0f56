//! What is said to balancer-manager: the names of members, and the bodies of changes.
//!
//! Follows `mod_proxy_balancer.c` of httpd 2.4 around what it really does: a body is cut at 1,024 bytes without a word,
//! `+` is no blank, a member that is added begins disabled, and with `xml=1` the answer is the new state. A member is
//! named without its scheme's own port: with it Apache would not see that it has the member already, and make another.
//! Pure text.

use crate::url::Url;
use std::fmt::{self, Write};

/// The longest body that Apache reads to its end.
pub const MAX_BODY: usize = 1_024;

/// The schemes of members that Apache can serve.
pub const SCHEMES: [&str; 3] = ["http", "https", "ajp"];

/// A member's url as Apache writes it.
#[must_use]
pub fn member(url: &Url) -> String {
    let own = matches!((url.scheme(), url.port()), ("http", 80) | ("https", 443) | ("ajp", 8009));
    let text = url.text();
    if own { text.rsplit_once(':').map_or(text, |(start, _)| start).to_owned() } else { text.to_owned() }
}

/// What is to become of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Make it; it begins disabled.
    Add,
    /// Into rotation, with this weight.
    Enable(u16),
    /// Another weight.
    Weight(u16),
    /// Only what belongs to sessions it has.
    Drain,
    /// Out of rotation. Marked as ours by draining as well: an operator would not think of that.
    Disable,
}

/// The body of a change of `member` in `balancer`. `None`: Apache would not read all of it.
#[must_use]
pub fn body(verb: Verb, balancer: &str, nonce: &str, member: &str) -> Option<String> {
    let mut out = String::new();
    let mut pair = |key: &str, value: &str| {
        let amp = if out.is_empty() { "" } else { "&" };
        let _ = write!(out, "{amp}{key}={}", Form(value));
    };
    pair("b", balancer);
    pair("nonce", nonce);
    pair(if verb == Verb::Add { "b_nwrkr" } else { "w" }, member);
    let flags = match verb {
        Verb::Add => "&b_wyes=1".to_owned(),
        Verb::Enable(weight) => format!("&w_lf={weight}.00&w_status_D=0&w_status_N=0"),
        Verb::Weight(weight) => format!("&w_lf={weight}.00"),
        Verb::Drain => "&w_status_N=1".to_owned(),
        Verb::Disable => "&w_status_D=1&w_status_N=1".to_owned(),
    };
    out.push_str(&flags);
    out.push_str("&xml=1");
    (out.len() < MAX_BODY).then_some(out)
}

/// A value of a form: letters, digits and `-._` as they are, all else as `%XX`.
struct Form<'a>(&'a str);

impl fmt::Display for Form<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in self.0.bytes() {
            let plain = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            if plain { f.write_char(b.into())? } else { write!(f, "%{b:02X}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(url: &str) -> String {
        member(&Url::parse(url.as_bytes()).unwrap())
    }

    #[test]
    fn names_as_apache_writes_them() {
        for (url, text) in [
            ("HTTP://10.0.0.6:80", "http://10.0.0.6"),
            ("https://Web1.lan", "https://web1.lan"),
            ("http://web1.lan:443", "http://web1.lan:443"),
            ("ajp://10.0.0.6", "ajp://10.0.0.6"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(name(url), text);
        }
    }

    #[test]
    fn bodies() {
        assert_eq!(
            body(Verb::Add, "cluster", "a-1", "http://10.0.0.5:8080").unwrap(),
            "b=cluster&nonce=a-1&b_nwrkr=http%3A%2F%2F10.0.0.5%3A8080&b_wyes=1&xml=1"
        );
        assert_eq!(
            body(Verb::Enable(7), "a b&c", "x+%", "http://[::1]").unwrap(),
            "b=a%20b%26c&nonce=x%2B%25&w=http%3A%2F%2F%5B%3A%3A1%5D&w_lf=7.00&w_status_D=0&w_status_N=0&xml=1"
        );
        let of = |verb| body(verb, "b", "n", "m").unwrap();
        assert_eq!(of(Verb::Weight(100)), "b=b&nonce=n&w=m&w_lf=100.00&xml=1");
        assert_eq!(of(Verb::Drain), "b=b&nonce=n&w=m&w_status_N=1&xml=1");
        assert_eq!(of(Verb::Disable), "b=b&nonce=n&w=m&w_status_D=1&w_status_N=1&xml=1");
    }

    #[test]
    fn nothing_that_apache_would_cut() {
        let longest = format!("http://{}b:65535", "a.".repeat(126));
        assert!(Url::parse(longest.as_bytes()).is_ok(), "the longest host there is");
        let sent = body(Verb::Disable, "cluster", &"f".repeat(36), &longest).unwrap();
        assert!(sent.len() < 512);
        assert_eq!(body(Verb::Add, &"/".repeat(255), &"f".repeat(36), &longest), None);
    }
}
