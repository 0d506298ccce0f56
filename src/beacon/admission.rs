//! Which announced urls may become members, and what a sender announces where it does not know its own address.
//!
//! A secret proves who speaks, not that what is said is wise: whoever holds it could name the balancer's own loopback
//! address, or a cloud's metadata service. So a receiver admits a url only in plain form ([`crate::url`]), of a scheme
//! and to an address that its operator may have meant. Names are never resolved, nothing is remembered here.

use crate::cidr::Cidr;
use crate::url::{self, BadUrl, Host, Url};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// The policy of one receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    schemes: Vec<String>,
    allow_names: bool,
    allow: Vec<Allow>,
}

impl Admission {
    /// Admits `schemes` (lower case, as [`read_schemes`] gives them), addresses by `allow`, and host names if
    /// `allow_names`.
    ///
    /// Without any `allow` rule every address passes that is not special: loopback, unspecified, link-local,
    /// multicast, broadcast or IPv4-mapped. With rules only what lies in one of them passes, special or not. Names
    /// are not in any range; it is `allow_names` that lets them pass, beside rules as without.
    #[must_use]
    pub fn new(schemes: Vec<String>, allow_names: bool, allow: Vec<Allow>) -> Admission {
        Admission { schemes, allow_names, allow }
    }

    /// Reads an announced url and admits it.
    ///
    /// # Errors
    /// Why it is no url, or may not become a member.
    pub fn admit(&self, raw: &[u8]) -> Result<Url, Refusal> {
        let url = Url::parse(raw).map_err(Refusal::Form)?;
        self.check(&url)?;
        Ok(url)
    }

    /// Whether a url may become a member; a sender asks the same about its own.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, url: &Url) -> Result<(), Refusal> {
        if !self.schemes.iter().any(|scheme| scheme == url.scheme()) {
            return Err(Refusal::Scheme);
        }
        match url.host() {
            Host::Ip(ip) if self.admits(ip, url.port()) => Ok(()),
            Host::Ip(_) => Err(Refusal::Address),
            Host::Name(_) if !self.allow_names => Err(Refusal::Name),
            Host::Name(name)
                if is_localhost(name) && !self.admits(Ipv4Addr::LOCALHOST.into(), url.port()) =>
            {
                Err(Refusal::Address)
            }
            Host::Name(_) => Ok(()),
        }
    }

    fn admits(&self, ip: IpAddr, port: u16) -> bool {
        if self.allow.is_empty() {
            !is_special(ip)
        } else {
            self.allow.iter().any(|rule| rule.covers(ip, port))
        }
    }
}

impl Default for Admission {
    /// The options' defaults: `http` and `https`, no names, no special addresses.
    fn default() -> Admission {
        Admission::new(vec!["http".to_owned(), "https".to_owned()], false, Vec::new())
    }
}

/// Why a url may not become a member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// Not of the form that members' urls have.
    Form(BadUrl),
    /// Not one of `--schemes`.
    Scheme,
    /// A host name without `--allow-names`.
    Name,
    /// A special address, or one that no `--allow` covers.
    Address,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Form(bad) => bad.fmt(f),
            Refusal::Scheme => f.write_str("has a scheme that --schemes does not name"),
            Refusal::Name => f.write_str("has a host name, which needs --allow-names"),
            Refusal::Address => f.write_str("has an address that --allow does not admit"),
        }
    }
}

/// One `--allow` rule: a range of addresses and a range of ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allow {
    range: Cidr,
    ports: RangeInclusive<u16>,
}

impl Allow {
    /// Reads `CIDR[:PORT[-PORT]]`. A lone address is a range of one. IPv6 may stand in brackets, and must where ports
    /// follow a lone address: `10.0.0.0/8`, `10.1.2.3:80`, `fd00::/8`, `[fd00::/8]:8080-8090`, `[fd00::5]:80`.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<Allow, String> {
        Allow::read(text)
            .ok_or_else(|| "CIDR[:PORT[-PORT]], such as 10.0.0.0/8:8080-8090 or [fd00::/8]:80".to_owned())
    }

    /// Whether the address and the port both lie inside. An IPv4-mapped address is one of IPv6 here: it is special, and
    /// would make a second member of one backend.
    #[must_use]
    pub fn covers(&self, ip: IpAddr, port: u16) -> bool {
        self.ports.contains(&port) && self.range.contains(ip)
    }

    fn read(text: &str) -> Option<Allow> {
        let (range, ports) = Allow::split(text)?;
        Some(Allow { range: Cidr::parse(range).ok()?, ports: read_ports(ports)? })
    }

    /// Splits a rule into its range and the text of its ports, empty where there are none.
    fn split(text: &str) -> Option<(&str, &str)> {
        if let Some(rest) = text.strip_prefix('[') {
            let (range, after) = rest.split_once(']')?;
            let range_is_v6 = range.contains(':');
            let ports =
                if after.is_empty() { after } else { after.strip_prefix(':').filter(|p| !p.is_empty())? };
            return range_is_v6.then_some((range, ports));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Some((text, ""));
        }
        // After the prefix length, as after an IPv4 address, the first colon is the one before the ports.
        let colons_from = text.find('/').unwrap_or(0);
        match text.get(colons_from..)?.find(':') {
            Some(at) => {
                let (range, ports) = text.split_at(colons_from + at);
                ports.strip_prefix(':').filter(|p| !p.is_empty()).map(|ports| (range, ports))
            }
            None => Some((text, "")),
        }
    }
}

/// What `announce --advertise` says: a url, or one without a host, as `http://:8080`, to be filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Advertise {
    /// This url, towards every receiver.
    Fixed(Url),
    /// The source address used towards each receiver, with this scheme and port.
    Source {
        /// In lower case.
        scheme: String,
        /// Never 0.
        port: u16,
    },
}

impl Advertise {
    /// Reads `scheme://host[:port]` or `scheme://:port`, a final `/` allowed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Advertise, BadUrl> {
        let Some((scheme, port)) = text.split_once("://:") else {
            return Url::parse(text.as_bytes()).map(Advertise::Fixed);
        };
        let scheme = url::read_scheme(scheme).ok_or(BadUrl::Scheme)?;
        let port = port.strip_suffix('/').unwrap_or(port);
        if port.contains(url::EXTRA) {
            return Err(BadUrl::Extra);
        }
        let port = url::read_port(port).ok_or(BadUrl::Port)?;
        Ok(Advertise::Source { scheme, port })
    }

    /// The url to announce to a receiver that our datagrams reach from `source`.
    #[must_use]
    pub fn url(&self, source: IpAddr) -> Url {
        match self {
            Advertise::Fixed(url) => url.clone(),
            Advertise::Source { scheme, port } => Url::from_ip(scheme, source.to_canonical(), *port),
        }
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Advertise::Fixed(url) => f.write_str(url.text()),
            Advertise::Source { scheme, port } => write!(f, "{scheme}://:{port}"),
        }
    }
}

/// Reads `--schemes`: names separated by blanks.
///
/// # Errors
/// What is wanted.
pub fn read_schemes(text: &str) -> Result<Vec<String>, String> {
    let schemes: Option<Vec<String>> = text.split_ascii_whitespace().map(url::read_scheme).collect();
    schemes.filter(|list| !list.is_empty()).ok_or_else(|| "url schemes, such as: http https".to_owned())
}

/// `PORT` or `PORT-PORT`; nothing is every port.
fn read_ports(text: &str) -> Option<RangeInclusive<u16>> {
    if text.is_empty() {
        return Some(1..=u16::MAX);
    }
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let ports = url::read_port(low)?..=url::read_port(high)?;
    (!ports.is_empty()).then_some(ports)
}

/// Addresses that mean the receiver itself, its link, or nobody in particular.
fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // All of 0.0.0.0/8 is "this network" (RFC 1122), not its first address alone.
            ip.octets().first() == Some(&0)
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || ip.to_ipv4_mapped().is_some()
        }
    }
}

/// Names that mean the loopback address whatever a resolver says (RFC 6761).
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Fuzz target: what is admitted is canonical, clean and admitted again, and is what the policy says.
#[doc(hidden)]
pub fn fuzz_admission(data: &[u8]) {
    let split = data.iter().position(|&b| b == b'\n').unwrap_or(0);
    let (rule, raw) = data.split_at(split);
    let raw = raw.strip_prefix(b"\n").unwrap_or(raw);
    let rule = str::from_utf8(rule).ok().and_then(|text| Allow::parse(text).ok());
    let open = Admission::new(vec!["http".to_owned(), "h2c".to_owned()], true, Vec::new());
    let ruled = Admission::new(vec!["http".to_owned()], false, rule.clone().into_iter().collect());
    for policy in [&open, &ruled, &Admission::default()] {
        let Ok(url) = policy.admit(raw) else { continue };
        assert!(url.text().len() <= url::MAX_LEN);
        assert!(url.text().bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()));
        assert_eq!(policy.admit(url.text().as_bytes()), Ok(url.clone()));
        match (url.host(), &rule) {
            (Host::Ip(ip), Some(rule)) if policy == &ruled => assert!(rule.covers(ip, url.port())),
            (Host::Ip(ip), _) => assert!(!is_special(ip)),
            (Host::Name(_), _) => assert!(policy == &open),
        }
    }
    if let Ok(Advertise::Source { scheme, port }) = Advertise::parse(&String::from_utf8_lossy(raw)) {
        let url = Url::from_ip(&scheme, Ipv4Addr::LOCALHOST.into(), port);
        assert_eq!(Url::parse(url.text().as_bytes()), Ok(url));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(names: bool, allow: &[&str]) -> Admission {
        let rules = allow.iter().map(|text| Allow::parse(text).unwrap()).collect();
        Admission::new(read_schemes("http https").unwrap(), names, rules)
    }

    #[test]
    fn special_addresses_need_a_rule() {
        let plain = policy(false, &[]);
        for (host, rule) in [
            ("127.0.0.1", "127.0.0.0/8"),
            ("0.0.0.0", "0.0.0.0/0"),
            ("0.1.2.3", "0.1.2.3"),
            ("169.254.169.254", "169.254.0.0/16:80"),
            ("224.0.0.1", "224.0.0.0/4"),
            ("255.255.255.255", "255.255.255.255/32"),
            ("[::]", "::"),
            ("[::1]", "[::1]:80"),
            ("[fe80::1]", "fe80::/10"),
            ("[ff02::1]", "ff00::/8:80"),
            ("[::ffff:10.0.0.1]", "[::ffff:0:0/96]:80-81"),
        ] {
            let raw = format!("http://{host}:80");
            assert_eq!(plain.admit(raw.as_bytes()), Err(Refusal::Address), "{raw}");
            assert!(policy(false, &[rule]).admit(raw.as_bytes()).is_ok(), "{raw} by {rule}");
        }
        for raw in ["http://10.0.0.1", "http://192.0.2.1:1", "https://[2001:db8::5]:8443", "http://240.0.0.1"]
        {
            assert!(plain.admit(raw.as_bytes()).is_ok(), "{raw}");
        }
    }

    #[test]
    fn with_rules_only_what_they_cover_passes() {
        let ruled = policy(false, &["10.1.0.0/16:8080-8090", "[fd00::/8]:80"]);
        for raw in ["http://10.1.2.3:8080", "http://10.1.255.255:8090", "http://[fdff::1]"] {
            assert!(ruled.admit(raw.as_bytes()).is_ok(), "{raw}");
        }
        for raw in ["http://10.2.0.1:8080", "http://10.1.2.3:8091", "http://[fe00::1]", "http://[fd00::1]:81"]
        {
            assert_eq!(ruled.admit(raw.as_bytes()), Err(Refusal::Address), "{raw}");
        }
    }

    #[test]
    fn names_schemes_and_forms() {
        let (plain, names) = (policy(false, &[]), policy(true, &["10.0.0.0/8"]));
        assert_eq!(plain.admit(b"http://web.example"), Err(Refusal::Name));
        assert_eq!(names.admit(b"http://WEB.example").unwrap().text(), "http://web.example:80");
        assert_eq!(names.admit(b"http://localhost"), Err(Refusal::Address));
        assert_eq!(names.admit(b"http://a.LOCALHOST"), Err(Refusal::Address));
        assert!(policy(true, &["127.0.0.1"]).admit(b"http://localhost:1").is_ok());
        assert_eq!(names.admit(b"ajp://web.example"), Err(Refusal::Scheme));
        assert_eq!(plain.admit(b"http://10.0.0.1/x"), Err(Refusal::Form(BadUrl::Extra)));
    }

    #[test]
    fn rules_are_read_whole_or_not() {
        for text in [
            "",
            "10",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8:",
            "10.0.0.0/8:0",
            "10.0.0.1:80-79",
            "10.0.0.1:80-",
            "10.0.0.1:-80",
            "10.0.0.1:80:80",
            "[10.0.0.1]:80",
            "[fd00::/8",
            "[fd00::/8]80",
            "[fd00::/8]:",
            "fd00::/129",
            "host",
            "10.0.0.0/8 ",
            "*",
        ] {
            assert!(Allow::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Allow::parse("fd00::/8:80"), Allow::parse("[fd00::/8]:80-80"));
        assert_eq!(Allow::parse("10.0.0.1"), Allow::parse("10.0.0.1/32:1-65535"));
        assert!(Allow::parse("0.0.0.0/0").unwrap().covers("1.2.3.4".parse().unwrap(), 1));
        assert!(!Allow::parse("0.0.0.0/0").unwrap().covers("::1".parse().unwrap(), 1));
        assert!(Allow::parse("10.0.0.9/8").unwrap().covers("10.1.2.3".parse().unwrap(), 1));
    }

    #[test]
    fn schemes() {
        assert_eq!(read_schemes(" HTTP  ajp ").unwrap(), ["http", "ajp"]);
        for text in ["", "  ", "http,https", "http://"] {
            assert!(read_schemes(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_advertised_url_may_leave_its_host_open() {
        let open = Advertise::parse("http://:8080/").unwrap();
        assert_eq!(open.url("10.0.0.5".parse().unwrap()).text(), "http://10.0.0.5:8080");
        assert_eq!(open.url("2001:db8::5".parse().unwrap()).text(), "http://[2001:db8::5]:8080");
        assert_eq!(open.url("::ffff:10.0.0.5".parse().unwrap()).text(), "http://10.0.0.5:8080");
        let fixed = Advertise::parse("https://Web.example").unwrap();
        assert_eq!(fixed.url("10.0.0.5".parse().unwrap()).text(), "https://web.example:443");
        for (text, why) in [
            ("http://", BadUrl::Host),
            ("http://:", BadUrl::Port),
            ("http://:8080/x", BadUrl::Extra),
            ("://:80", BadUrl::Scheme),
            ("web", BadUrl::Scheme),
        ] {
            assert_eq!(Advertise::parse(text), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_admitted_is_canonical_and_admitted_again(
            rule in "(10|127)\\.0\\.0\\.0/[0-9]{1,2}|fd00::/8|",
            raw in "(http|HTTP|ajp)://([a-zA-Z0-9.-]{1,20}|(10|127|0|169\\.254)(\\.[0-9]{1,3}){2,3}|\\[[0-9a-f:.]{2,20}\\])(:[0-9]{1,5})?/?",
        ) {
            fuzz_admission(format!("{rule}\n{raw}").as_bytes());
        }

        #[test]
        fn a_rule_covers_what_its_prefix_says(net: u32, ip: u32, prefix in 0u8..=32) {
            let rule = Allow::parse(&format!("{}/{prefix}", Ipv4Addr::from_bits(net))).unwrap();
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            prop_assert_eq!(rule.covers(Ipv4Addr::from_bits(ip).into(), 80), net & mask == ip & mask);
        }
    }
}
