//! Where a member stands in etcd: its keys and values in each layout, its lease, and the mark that keeps replays out.
//!
//! ```text
//! plain    /beacond/default/web/http://10.0.0.5:8080             {"url":"http://10.0.0.5:8080","weight":1,"host":"web1","pid":7}
//! traefik  traefik/http/services/web/loadbalancer/servers/N/url  http://10.0.0.5:8080
//! skydns   /skydns/lan/example/web/HEX                           {"host":"10.0.0.5","port":8080,"priority":10,"weight":1,"ttl":5}
//! mark     /beacond/default/ts/web/http://10.0.0.5:8080          0001766900000000 (microseconds, 16 digits or more)
//! ```
//!
//! Everything is computed, nothing is remembered: whoever hears a member comes to the same keys, values and lease
//! number, so any number may write at once. Pure.

use crate::bytes::JsonStr;
use crate::url::{Host, Url};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// A way of laying members out, each for its own readers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// For beacond itself (`etcd-watch`), and for scripts.
    Plain,
    /// For Traefik's etcd provider.
    Traefik,
    /// For CoreDNS and SkyDNS.
    SkyDns,
}

/// Where the members of one balancer are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// What all our keys begin with, without a `/` at its end.
    pub prefix: String,
    /// Which fleet of receivers.
    pub cluster: String,
    /// Which balancer.
    pub balancer: String,
    /// In which layouts; plain first, if at all.
    pub layouts: Vec<Layout>,
    /// Traefik's name of the service.
    pub service: String,
    /// The DNS name that leads to all members.
    pub zone: String,
}

/// What is published of a member.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Card {
    /// Its weight.
    pub weight: u16,
    /// The host name it gave, untrusted.
    pub host: Vec<u8>,
    /// The process that announces it.
    pub pid: u32,
    /// The interval it announced, in milliseconds, 0 if none.
    pub every_ms: u32,
}

impl Site {
    /// What the keys of all members begin with, for each layout.
    pub fn ranges(&self) -> impl Iterator<Item = String> + '_ {
        self.layouts.iter().map(|layout| self.range(*layout))
    }

    /// What the keys of all members begin with.
    #[must_use]
    pub fn range(&self, layout: Layout) -> String {
        match layout {
            Layout::Plain => format!("{}/{}/{}/", self.prefix, self.cluster, self.balancer),
            Layout::Traefik => format!("traefik/http/services/{}/loadbalancer/servers/", self.service),
            Layout::SkyDns => {
                let labels = self.zone.split('.').rev();
                labels.fold("/skydns/".to_owned(), |path, label| path + label + "/")
            }
        }
    }

    /// A member's keys, each with the value it is to have; `None` where there is to be no such key.
    #[must_use]
    pub fn entries(&self, url: &Url, card: &Card) -> Vec<(String, Option<String>)> {
        let one = |layout: &Layout| {
            let range = self.range(*layout);
            let lease = self.lease(url);
            // A weight of 0 is to get nothing new, and these have no word for it.
            let serves = card.weight > 0;
            match layout {
                Layout::Plain => (format!("{range}{url}"), Some(plain(url, card))),
                Layout::Traefik => (format!("{range}{lease}/url"), serves.then(|| url.text().to_owned())),
                Layout::SkyDns => (format!("{range}{lease:016x}"), serves.then(|| skydns(url, card))),
            }
        };
        self.layouts.iter().map(one).collect()
    }

    /// What the keys of all marks of this balancer begin with.
    #[must_use]
    pub fn marks(&self) -> String {
        format!("{}/{}/{MARKS}/{}/", self.prefix, self.cluster, self.balancer)
    }

    /// The key of a url's mark.
    #[must_use]
    pub fn mark(&self, url: &Url) -> String {
        format!("{}{url}", self.marks())
    }

    /// The number of the lease that holds a member's keys, from 1.
    #[must_use]
    pub fn lease(&self, url: &Url) -> i64 {
        self.number(&["member", url.text()])
    }

    /// The number of the lease that holds the marks written in this period of time, from 1.
    #[must_use]
    pub fn marks_lease(&self, period: i64) -> i64 {
        self.number(&["marks", &period.to_string()])
    }

    /// 63 bits of a hash, never 0, which would let etcd choose.
    fn number(&self, of: &[&str]) -> i64 {
        let mut hash = Sha256::new();
        for part in ["beacond lease 1", &self.prefix, &self.cluster, &self.balancer].iter().chain(of) {
            hash.update(part.as_bytes());
            hash.update(b"\0");
        }
        let digest: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        i64::from_be_bytes([a & 0x7f, b, c, d, e, f, g, h]).max(1)
    }
}

/// A mark as it is written: its digits sort as it does.
#[must_use]
pub fn mark_text(mark: i64) -> String {
    format!("{:016}", mark.max(0))
}

/// A mark as it is read.
#[must_use]
pub fn read_mark(text: &[u8]) -> Option<i64> {
    let digits =
        str::from_utf8(text).ok().filter(|t| t.len() >= 16 && t.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok()
}

/// The url in a key that begins with `range`; none if it is in another form than ours.
#[must_use]
pub fn read_url(key: &str, range: &str) -> Option<Url> {
    let text = key.strip_prefix(range)?;
    Url::parse(text.as_bytes()).ok().filter(|url| url.text() == text)
}

/// The card of a member from its value in the plain layout; none if it is of somebody else's making.
#[must_use]
pub fn read_card(url: &Url, value: &[u8]) -> Option<Card> {
    let value = Some(value).filter(|value| value.len() <= LONGEST_CARD)?;
    let value: serde_json::Value = serde_json::from_slice(value).ok()?;
    let number = |name: &str| value.get(name).map_or(Some(0), serde_json::Value::as_u64);
    let host = value.get("host").map_or(Some(""), serde_json::Value::as_str)?;
    let card = Card {
        weight: u16::try_from(value.get("weight")?.as_u64()?).ok().filter(|weight| *weight <= 256)?,
        host: host.as_bytes().to_vec(),
        pid: u32::try_from(number("pid")?).ok()?,
        every_ms: u32::try_from(number("every_ms")?).ok()?,
    };
    (value.get("url")?.as_str()? == url.text()).then_some(card)
}

fn plain(url: &Url, card: &Card) -> String {
    let mut text = format!(
        "{{\"url\":{},\"weight\":{},\"host\":{},\"pid\":{}",
        JsonStr(url.text()),
        card.weight,
        JsonStr(&String::from_utf8_lossy(&card.host)),
        card.pid
    );
    if card.every_ms > 0 {
        let _ = write!(text, ",\"every_ms\":{}", card.every_ms);
    }
    text.push('}');
    text
}

fn skydns(url: &Url, card: &Card) -> String {
    let host = match url.host() {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.to_owned(),
    };
    format!(
        "{{\"host\":{},\"port\":{},\"priority\":10,\"weight\":{},\"ttl\":5}}",
        JsonStr(&host),
        url.port(),
        card.weight
    )
}

/// A url and a host name at their longest, every character of the latter escaped, are shorter.
const LONGEST_CARD: usize = 4096;
/// The folder of the marks, and so no name for a balancer here.
pub const MARKS: &str = "ts";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn site() -> Site {
        Site {
            prefix: "/beacond".to_owned(),
            cluster: "default".to_owned(),
            balancer: "web".to_owned(),
            layouts: vec![Layout::Plain, Layout::Traefik, Layout::SkyDns],
            service: "shop".to_owned(),
            zone: "web.example.lan".to_owned(),
        }
    }

    fn url(text: &str) -> Url {
        Url::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_and_values_as_documented() {
        let (site, url) = (site(), url("http://10.0.0.5:8080"));
        let card = Card { weight: 3, host: b"we\"b".to_vec(), pid: 7, every_ms: 5000 };
        let lease = site.lease(&url);
        let entries = site.entries(&url, &card);
        assert_eq!(
            entries,
            [
                (
                    "/beacond/default/web/http://10.0.0.5:8080".to_owned(),
                    Some(
                        r#"{"url":"http://10.0.0.5:8080","weight":3,"host":"we\"b","pid":7,"every_ms":5000}"#
                            .to_owned()
                    )
                ),
                (
                    format!("traefik/http/services/shop/loadbalancer/servers/{lease}/url"),
                    Some("http://10.0.0.5:8080".to_owned())
                ),
                (
                    format!("/skydns/lan/example/web/{lease:016x}"),
                    Some(r#"{"host":"10.0.0.5","port":8080,"priority":10,"weight":3,"ttl":5}"#.to_owned())
                ),
            ]
        );
        let shut = site.entries(&url, &Card { weight: 0, ..card });
        assert_eq!(shut.iter().map(|(_, value)| value.is_some()).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(site.mark(&url), "/beacond/default/ts/web/http://10.0.0.5:8080");
        assert!(entries.iter().zip(site.ranges()).all(|((key, _), range)| key.starts_with(&range)));
    }

    #[test]
    fn a_lease_is_the_same_for_everybody_and_another_for_everything_else() {
        let (site, a) = (site(), url("http://10.0.0.5:8080"));
        // Written down: a new version must come to the same numbers as the receivers beside it.
        assert_eq!(site.lease(&a), 6_530_350_467_836_718_892);
        let others = [
            site.lease(&url("http://10.0.0.5:8081")),
            Site { balancer: "api".to_owned(), ..site.clone() }.lease(&a),
            Site { cluster: "b".to_owned(), ..site.clone() }.lease(&a),
            Site { prefix: "/x".to_owned(), ..site.clone() }.lease(&a),
            site.marks_lease(1),
            site.marks_lease(2),
        ];
        assert!(others.iter().all(|other| *other > 0 && *other != site.lease(&a)));
        assert!(site.marks_lease(1) != site.marks_lease(2));
    }

    #[test]
    fn marks_sort_as_their_texts_do() {
        let marks = [0, 5, 999_999, 1_766_900_000_000_000, 1_766_900_000_000_001, 9_999_999_999_999_999];
        let texts = marks.map(mark_text);
        assert!(texts.is_sorted() && texts.iter().all(|text| text.len() == 16));
        assert!(marks.iter().zip(&texts).all(|(mark, text)| read_mark(text.as_bytes()) == Some(*mark)));
        for bad in ["", "5", "-000000000000005", "00000000000000x5", "99999999999999999999"] {
            assert_eq!(read_mark(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_others_wrote_is_nobodys_card() {
        let a = url("http://10.0.0.5:8080");
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"url":"http://10.0.0.6:8080","weight":1}"#,
            r#"{"url":"http://10.0.0.5:8080"}"#,
            r#"{"url":"http://10.0.0.5:8080","weight":257}"#,
            r#"{"url":"http://10.0.0.5:8080","weight":-1}"#,
            &format!(r#"{{"url":"http://10.0.0.5:8080","weight":1,"more":[{}0]}}"#, "0,".repeat(2_100)),
        ] {
            assert_eq!(read_card(&a, bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(read_url("/beacond/default/web/HTTP://10.0.0.5", "/beacond/default/web/"), None);
        assert_eq!(read_url("/beacond/default/web/a", "/beacond/default/web/"), None);
    }

    proptest! {
        #[test]
        fn cards_come_back(weight in 0u16..=256, host in "[ -~\u{e9}\u{2028}]{0,12}", pid: u32, every_ms: u32) {
            let (site, a) = (site(), url("http://10.0.0.5:8080"));
            let card = Card { weight, host: host.into_bytes(), pid, every_ms };
            let (key, value) = site.entries(&a, &card).swap_remove(0);
            prop_assert_eq!(read_url(&key, &site.range(Layout::Plain)), Some(a.clone()));
            prop_assert_eq!(read_card(&a, value.unwrap().as_bytes()), Some(card));
        }
    }
}
