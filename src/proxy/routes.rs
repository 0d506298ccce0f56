//! Where a session goes, by what its first bytes asked for.
//!
//! ```text
//! www.example.com=balancer:web          the server name of a TLS hello, exactly
//! *.example.com=10.0.0.9:443            any name of one or more labels under it; the longest such rule wins
//! authority:git.example=reject          the name in a PROXY header; *. as above
//! alpn:h2=connect:proxy.example:3128    a protocol of the hello, the client's favourite first
//! default=balancer:rest                 whatever else comes
//! ```
//!
//! One condition a rule; the order above is the order of strength, so the order of writing means nothing. A look-up
//! takes a binary search for every label of the name, however many rules there are. Names are compared in lower case
//! and without a final dot. Nothing here connects, resolves, or knows whether a balancer exists.

use super::hello::Alpn;
use crate::config::values::{self, HostPort};
use crate::sorted::Sorted;
use crate::url;
use std::fmt;

/// What a rule asks of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Match {
    /// This server name.
    Sni(String),
    /// A server name under this one, which is without the `*.`.
    Wildcard(String),
    /// This name in the PROXY header.
    Authority(String),
    /// A name under this one in the PROXY header.
    AuthorityWildcard(String),
    /// This protocol among those offered.
    Alpn(Vec<u8>),
    /// Nothing.
    Default,
}

impl Match {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<Match, String> {
        if text == "default" {
            return Ok(Match::Default);
        }
        if let Some(protocol) = text.strip_prefix("alpn:") {
            let fits = (1..=255).contains(&protocol.len())
                && !protocol.chars().any(|c| c.is_whitespace() || c.is_control());
            let wanted = || "a protocol of 1 to 255 bytes without blanks behind alpn:".to_owned();
            return fits.then(|| Match::Alpn(protocol.into())).ok_or_else(wanted);
        }
        let (name, in_header) = text.strip_prefix("authority:").map_or((text, false), |name| (name, true));
        let (name, under) = name.strip_prefix("*.").map_or((name, false), |suffix| (suffix, true));
        let known = host_name(name).map(match (in_header, under) {
            (false, false) => Match::Sni,
            (false, true) => Match::Wildcard,
            (true, false) => Match::Authority,
            (true, true) => Match::AuthorityWildcard,
        });
        known.ok_or_else(|| match under || name.contains('*') {
            true => "*. in front of a host name, such as *.example.com".to_owned(),
            false => "a host name, *.NAME, authority:NAME, alpn:NAME or default".to_owned(),
        })
    }

    /// Whether only a TLS hello can answer it.
    #[must_use]
    pub fn needs_hello(&self) -> bool {
        matches!(self, Match::Sni(_) | Match::Wildcard(_) | Match::Alpn(_))
    }

    /// Whether only a PROXY header can answer it.
    #[must_use]
    pub fn needs_header(&self) -> bool {
        matches!(self, Match::Authority(_) | Match::AuthorityWildcard(_))
    }
}

/// As it is written in a route.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Sni(name) => f.write_str(name),
            Match::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Match::Authority(name) => write!(f, "authority:{name}"),
            Match::AuthorityWildcard(suffix) => write!(f, "authority:*.{suffix}"),
            Match::Alpn(protocol) => write!(f, "alpn:{}", String::from_utf8_lossy(protocol)),
            Match::Default => f.write_str("default"),
        }
    }
}

/// Where a rule leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// To a member of this balancer.
    Balancer(String),
    /// To this host; it and the port are always there.
    Host(HostPort),
    /// Through the HTTP proxy at this host, by CONNECT; it and the port are always there.
    Connect(HostPort),
    /// Nowhere: the session is closed.
    Reject,
}

impl Target {
    /// Reads a target.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<Target, String> {
        if text == "reject" {
            return Ok(Target::Reject);
        }
        if let Some(name) = text.strip_prefix("balancer:") {
            return values::balancer_name(name).map(Target::Balancer);
        }
        match text.strip_prefix("connect:") {
            Some(proxy) => whole(proxy).map(Target::Connect),
            None => whole(text).map(Target::Host),
        }
        .ok_or_else(|| "balancer:NAME, HOST:PORT, connect:HOST:PORT or reject as target".to_owned())
    }
}

/// As it is written in a route.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Balancer(name) => write!(f, "balancer:{name}"),
            Target::Host(at) => at.fmt(f),
            Target::Connect(at) => write!(f, "connect:{at}"),
            Target::Reject => f.write_str("reject"),
        }
    }
}

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// What it asks.
    pub matches: Match,
    /// Where it leads.
    pub target: Target,
    /// Where it was written, as `beacond.conf:12`.
    pub place: String,
}

/// As it is written: `MATCH=TARGET`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.matches, self.target)
    }
}

/// Reads `MATCH=TARGET`, cut at the first `=`.
///
/// # Errors
/// What is wanted.
pub fn parse(text: &str) -> Result<(Match, Target), String> {
    let (matches, target) = text
        .split_once('=')
        .ok_or_else(|| "MATCH=TARGET, such as www.example.com=balancer:web".to_owned())?;
    Ok((Match::parse(matches)?, Target::parse(target)?))
}

/// Two rules that ask the same: neither is stronger. Their numbers, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Duplicate {
    /// The earlier.
    pub first: usize,
    /// The later.
    pub again: usize,
}

/// What a session asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The server name of its hello, as [`super::hello::Name::route`] gives it.
    pub sni: Option<&'a str>,
    /// The authority of its PROXY header, as it came: in any case, with or without a port.
    pub authority: Option<&'a str>,
    /// The protocols of its hello.
    pub alpn: &'a Alpn,
}

/// Why a rule was chosen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// Its server name is the one asked for.
    Sni,
    /// It has the longest wildcard over the server name.
    Wildcard,
    /// Its name is that of the PROXY header.
    Authority,
    /// It has the longest wildcard over the name of the PROXY header.
    AuthorityWildcard,
    /// Its protocol is the first of the client's that any rule names.
    Alpn,
    /// No other rule fits.
    Default,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Sni => "the server name is this one",
            Why::Wildcard => "the longest wildcard over the server name",
            Why::Authority => "the authority of the PROXY header is this one",
            Why::AuthorityWildcard => "the longest wildcard over the authority of the PROXY header",
            Why::Alpn => "the first of the client's protocols that a route names",
            Why::Default => "no other route matches",
        })
    }
}

/// All rules of a proxy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
    sni: Names,
    authority: Names,
    alpn: Sorted<Vec<u8>, usize>,
    default: Option<usize>,
}

impl Routes {
    /// Takes the rules, in any order.
    ///
    /// # Errors
    /// Two that ask the same.
    pub fn new(routes: Vec<Route>) -> Result<Routes, Duplicate> {
        // Brought together first: to insert them one by one would move what is behind each time.
        let of = |key: fn(&Match) -> Option<&String>| -> Sorted<String, usize> {
            let matches = routes.iter().map(|r| &r.matches).enumerate();
            matches.filter_map(|(n, m)| Some((key(m)?.clone(), n))).collect()
        };
        let sni = Names {
            exact: of(|m| if let Match::Sni(name) = m { Some(name) } else { None }),
            under: of(|m| if let Match::Wildcard(name) = m { Some(name) } else { None }),
        };
        let authority = Names {
            exact: of(|m| if let Match::Authority(name) = m { Some(name) } else { None }),
            under: of(|m| if let Match::AuthorityWildcard(name) = m { Some(name) } else { None }),
        };
        let protocol = |(n, r): (usize, &Route)| match &r.matches {
            Match::Alpn(protocol) => Some((protocol.clone(), n)),
            _ => None,
        };
        let alpn = routes.iter().enumerate().filter_map(protocol).collect();
        let default = routes.iter().rposition(|r| r.matches == Match::Default);
        let all = Routes { sni, authority, alpn, default, routes };
        // Of two equal keys the later one stays: a rule that does not find itself has a double behind it.
        let double = |(n, r): (usize, &Route)| {
            all.find(&r.matches).filter(|found| *found != n).map(|again| (n, again))
        };
        match all.routes.iter().enumerate().find_map(double) {
            Some((first, again)) => Err(Duplicate { first, again }),
            None => Ok(all),
        }
    }

    /// The strongest rule that fits: its number, itself, and why. `None` where there is none, not even a default.
    #[must_use]
    pub fn choose(&self, asked: &Asked<'_>) -> Option<(usize, &Route, Why)> {
        let named = |names: &Names, name: Option<&str>, exact, under| {
            let (number, is_exact) = names.find(name?)?;
            Some((number, if is_exact { exact } else { under }))
        };
        let (number, why) = named(&self.sni, asked.sni, Why::Sni, Why::Wildcard)
            .or_else(|| {
                let authority = asked.authority.filter(|_| !self.authority.is_empty()).and_then(name_of);
                named(&self.authority, authority.as_deref(), Why::Authority, Why::AuthorityWildcard)
            })
            .or_else(|| Some((*asked.alpn.iter().find_map(|p| self.alpn.get(p))?, Why::Alpn)))
            .or_else(|| Some((self.default?, Why::Default)))?;
        Some((number, self.routes.get(number)?, why))
    }

    /// Whether a rule asks for what only a TLS hello says.
    #[must_use]
    pub fn needs_hello(&self) -> bool {
        self.routes.iter().any(|r| r.matches.needs_hello())
    }

    /// All rules, as they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Route> {
        self.routes.iter()
    }

    /// The balancers that rules lead to, each once, in the order in which they are first named.
    #[must_use]
    pub fn balancers(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for route in &self.routes {
            if let Target::Balancer(name) = &route.target
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        names
    }

    /// The number of the rule that asks exactly this.
    fn find(&self, matches: &Match) -> Option<usize> {
        match matches {
            Match::Sni(name) => self.sni.exact.get(name),
            Match::Wildcard(suffix) => self.sni.under.get(suffix),
            Match::Authority(name) => self.authority.exact.get(name),
            Match::AuthorityWildcard(suffix) => self.authority.under.get(suffix),
            Match::Alpn(protocol) => self.alpn.get(protocol),
            Match::Default => self.default.as_ref(),
        }
        .copied()
    }
}

/// Rules by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Names {
    exact: Sorted<String, usize>,
    under: Sorted<String, usize>,
}

impl Names {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.under.is_empty()
    }

    /// The rule for a canonical name, and whether it is the exact one.
    fn find(&self, name: &str) -> Option<(usize, bool)> {
        if let Some(number) = self.exact.get(name) {
            return Some((*number, true));
        }
        let suffixes = name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..));
        let longest = suffixes.filter(|_| !self.under.is_empty()).find_map(|suffix| self.under.get(suffix));
        longest.map(|number| (*number, false))
    }
}

/// The name in an authority, `NAME[:PORT]`, as rules have it. `None` for an address and whatever else is no host name.
#[must_use]
pub fn name_of(authority: &str) -> Option<String> {
    let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
    port.bytes().all(|b| b.is_ascii_digit()).then(|| host_name(name)).flatten()
}

/// A host name as rules have it: in lower case, without a final dot.
fn host_name(text: &str) -> Option<String> {
    url::host_name(text.strip_suffix('.').unwrap_or(text))
}

/// `HOST:PORT` with both, and a port that can be connected to.
fn whole(text: &str) -> Option<HostPort> {
    values::addr(text).ok().filter(|at| at.host.is_some() && at.port.is_some_and(|port| port != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn routes(lines: &[&str]) -> Result<Routes, Duplicate> {
        let route = |(n, line): (usize, &&str)| {
            let (matches, target) = parse(line).unwrap();
            Route { matches, target, place: format!("conf:{}", n + 1) }
        };
        Routes::new(lines.iter().enumerate().map(route).collect())
    }

    fn alpn(names: &[&str]) -> Alpn {
        Alpn::of(names.iter().map(|n| n.as_bytes())).unwrap()
    }

    #[test]
    fn routes_are_read_and_written() {
        for (text, shown) in [
            ("WWW.Example.COM.=balancer:web", "www.example.com=balancer:web"),
            ("*.Example.com=balancer:balancer://web", "*.example.com=balancer:web"),
            ("authority:Git.example=reject", "authority:git.example=reject"),
            ("authority:*.example=[2001:db8:0::1]:443", "authority:*.example=[2001:db8::1]:443"),
            ("alpn:acme-tls/1=127.0.0.1:8080", "alpn:acme-tls/1=127.0.0.1:8080"),
            ("default=connect:proxy.example:3128", "default=connect:proxy.example:3128"),
            ("default=balancer:a=b", "default=balancer:a=b"),
            ("localhost=connect:1", "-"),
        ] {
            let read = parse(text).map(|(matches, target)| format!("{matches}={target}"));
            assert_eq!(read.as_deref().unwrap_or("-"), shown, "{text}");
        }
    }

    #[test]
    fn mistakes_say_what_is_wanted() {
        let (name, star) = ("a host name, *.NAME, ", "*. in front of a host name");
        let protocol = "a protocol of 1 to 255 bytes";
        for (text, wanted) in [
            ("balancer:web", "MATCH=TARGET"),
            ("=reject", name),
            ("10.0.0.1=reject", name),
            ("a..b=reject", name),
            ("a:443=reject", name),
            ("authority:=reject", name),
            ("authority:a:443=reject", name),
            ("*=reject", star),
            ("*.=reject", star),
            ("*.*.a=reject", star),
            ("a.*.b=reject", star),
            ("*a.b=reject", star),
            ("alpn:=reject", protocol),
            ("alpn:h2 =reject", protocol),
            ("a=balancer:", "a balancer's name"),
            ("a=", "balancer:NAME, HOST:PORT,"),
            ("a=web", "balancer:NAME, HOST:PORT,"),
            ("a=web:0", "balancer:NAME, HOST:PORT,"),
            ("a=:80", "balancer:NAME, HOST:PORT,"),
            ("a=::1:80", "balancer:NAME, HOST:PORT,"),
            ("a=connect:web", "balancer:NAME, HOST:PORT,"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.starts_with(wanted), "{text}: {said}");
        }
        assert!(parse(&format!("alpn:{}=reject", "x".repeat(256))).is_err());
        assert!(parse(&format!("alpn:{}=reject", "x".repeat(255))).is_ok());
    }

    #[test]
    fn the_strongest_rule_wins_wherever_it_stands() {
        let rules = routes(&[
            "default=reject",
            "alpn:h2=a:1",
            "alpn:http/1.1=b:1",
            "authority:*.example.com=c:1",
            "authority:www.example.com=d:1",
            "*.com=e:1",
            "*.example.com=f:1",
            "www.example.com=g:1",
        ])
        .unwrap();
        let choice = |sni, authority, protocols: &[&str]| {
            let alpn = alpn(protocols);
            rules.choose(&Asked { sni, authority, alpn: &alpn }).map(|(n, _, why)| (n, why))
        };
        for (sni, authority, protocols, chosen) in [
            (Some("www.example.com"), Some("www.example.com"), &["h2"][..], (7, Why::Sni)),
            (Some("a.www.example.com"), None, &[], (6, Why::Wildcard)),
            (Some("a.example.com"), None, &[], (6, Why::Wildcard)),
            (Some("example.com"), None, &[], (5, Why::Wildcard)),
            (Some("com"), None, &[], (0, Why::Default)),
            (Some("xexample.org"), Some("WWW.example.com.:443"), &["h2"], (4, Why::Authority)),
            (None, Some("a.b.example.com:"), &[], (3, Why::AuthorityWildcard)),
            (None, Some("example.com"), &["x", "http/1.1", "h2"], (2, Why::Alpn)),
            (None, Some("[::1]:443"), &[], (0, Why::Default)),
            (None, Some("www.example.com:x"), &[], (0, Why::Default)),
            (None, Some("www.example.com:1:2"), &[], (0, Why::Default)),
        ] {
            assert_eq!(choice(sni, authority, protocols), Some(chosen), "{sni:?} {authority:?}");
        }
        assert!(rules.needs_hello() && rules.balancers().is_empty() && rules.iter().len() == 8);
    }

    #[test]
    fn no_default_is_no_answer_and_a_double_is_found() {
        let rules = routes(&["a=balancer:x", "authority:b=balancer:y", "b=balancer:x"]).unwrap();
        let none = Alpn::default();
        assert_eq!(rules.choose(&Asked { sni: Some("c"), authority: None, alpn: &none }), None);
        assert_eq!(rules.balancers(), ["x", "y"]);
        assert!(!routes(&["authority:b=reject", "default=reject"]).unwrap().needs_hello());
        for (lines, first, again) in [
            (&["a=reject", "b=reject", "A.=a:1"][..], 0, 2),
            (&["*.a=reject", "a=reject", "*.a=reject"], 0, 2),
            (&["alpn:a=reject", "alpn:a=reject"], 0, 1),
            (&["default=reject", "default=a:1"], 0, 1),
            (&["authority:a=reject", "authority:*.a=reject", "authority:*.a=reject"], 1, 2),
        ] {
            assert_eq!(routes(lines), Err(Duplicate { first, again }), "{lines:?}");
        }
    }

    /// Names of few labels, so that they often meet.
    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec("[ab]", 1..5).prop_map(|labels| labels.join("."))
    }

    fn condition() -> impl Strategy<Value = Match> {
        prop_oneof![
            4 => name().prop_map(Match::Sni),
            4 => name().prop_map(Match::Wildcard),
            2 => name().prop_map(Match::Authority),
            2 => name().prop_map(Match::AuthorityWildcard),
            2 => "[xyz]".prop_map(|p| Match::Alpn(p.into())),
            1 => Just(Match::Default),
        ]
    }

    /// How strong `rule` is for the session, by the words of the manual alone; `None` if it does not fit.
    fn strength(
        rule: &Match,
        sni: Option<&str>,
        authority: Option<&str>,
        alpn: &[String],
    ) -> Option<(u8, usize)> {
        let under =
            |name: Option<&str>, suffix: &str| name.is_some_and(|n| n.ends_with(&format!(".{suffix}")));
        match rule {
            Match::Sni(name) => (sni == Some(name)).then_some((6, 0)),
            Match::Wildcard(suffix) => under(sni, suffix).then_some((5, suffix.len())),
            Match::Authority(name) => (authority == Some(name)).then_some((4, 0)),
            Match::AuthorityWildcard(suffix) => under(authority, suffix).then_some((3, suffix.len())),
            Match::Alpn(protocol) => {
                alpn.iter().position(|p| p.as_bytes() == protocol).map(|place| (2, usize::MAX - place))
            }
            Match::Default => Some((1, 0)),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_scan_of_all_rules(
            rules in prop::collection::vec(condition(), 0..30),
            sni in prop::option::of(name()), authority in prop::option::of(name()),
            protocols in prop::collection::vec("[wxyz]", 0..4),
        ) {
            let made = |(n, matches): (usize, &Match)| {
                Route { matches: matches.clone(), target: Target::Reject, place: n.to_string() }
            };
            let built = Routes::new(rules.iter().enumerate().map(made).collect());
            let first_double = (0..rules.len()).find(|n| rules[n + 1..].contains(&rules[*n]));
            let Ok(built) = built else {
                prop_assert_eq!(built.unwrap_err().first, first_double.unwrap());
                return Ok(());
            };
            prop_assert_eq!(first_double, None);
            let offered = Alpn::of(protocols.iter().map(|p| p.as_bytes())).unwrap();
            let sent = authority.as_ref().map(|name| format!("{}.:443", name.to_uppercase()));
            let asked = Asked { sni: sni.as_deref(), authority: sent.as_deref(), alpn: &offered };
            let strength = |rule| strength(rule, sni.as_deref(), authority.as_deref(), &protocols);
            let best = rules.iter().enumerate().filter_map(|(n, r)| Some((strength(r)?, n))).max();
            prop_assert_eq!(built.choose(&asked).map(|(n, _, _)| n), best.map(|(_, n)| n));
        }

        #[test]
        fn what_is_written_is_read_back(text in "(default|alpn:[!-~]{1,4}|(authority:)?(\\*\\.)?[a-zA-Z0-9.-]{1,12})\
                                         =(reject|balancer:[!-~]{0,5}|(connect:)?([a-z.0-9]{0,9}|\\[[0-9a-f:]{2,9}\\]):[0-9]{1,5})") {
            if let Ok((matches, target)) = parse(&text) {
                prop_assert_eq!(parse(&format!("{matches}={target}")), Ok((matches, target)));
            }
        }

        #[test]
        fn bytes_never_panic(text in "\\PC{0,30}", authority in "\\PC{0,30}") {
            let _ = parse(&text);
            let _ = name_of(&authority);
        }
    }
}
