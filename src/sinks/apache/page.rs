//! What Apache's balancer-manager answers: its XML, and what only its page for people says.
//!
//! Follows `mod_proxy_balancer.c` of httpd 2.4, as 2.4.71 really writes:
//!
//! ```text
//! <?xml version='1.0' encoding='UTF-8' ?>
//! <httpd:manager xmlns:httpd='http://httpd.apache.org'>
//!   <httpd:balancers>
//!     <httpd:balancer>
//!       <httpd:name>balancer://cluster</httpd:name>
//!       <httpd:nonce>025931ad-6d58-bdea-5f43-2a7959e43e9e</httpd:nonce>     (not before December 2025)
//!       <httpd:workers>
//!         <httpd:worker>
//!           <httpd:name>http://10.0.0.5:8080</httpd:name>
//!           <httpd:loadfactor>1.00</httpd:loadfactor>                       (twice)
//!           <httpd:status>Init Drn Ok </httpd:status>
//!           <httpd:elected>0</httpd:elected>
//!           <httpd:busy>0</httpd:busy> ...
//! ```
//!
//! The reader is for exactly this: elements, attributes that nobody looks at, text with entities. Whatever else XML has
//! (comments, document types, CDATA) is refused. The page for people is searched, not read: for the nonce in its links,
//! and for how many members there may be. This file decides nothing.

use super::xml::{Token, Tokens, decode};
use std::fmt;

/// One balancer at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Balancer {
    /// What a change must bring along. `None`: this version does not say. Empty: there is none, and no change.
    pub nonce: Option<String>,
    /// Its members.
    pub workers: Vec<Worker>,
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Worker {
    /// Its url, as Apache has it.
    pub name: String,
    /// Its weight in hundredths.
    pub factor: u32,
    /// Whether it takes requests.
    pub status: Status,
    /// Requests that are under way.
    pub busy: u64,
    /// Requests it has had.
    pub elected: u64,
}

/// What is known of a member's state: one flag for each word of it that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// `Dis`: takes nothing.
    pub disabled: bool,
    /// `Drn`: takes only what belongs to sessions it has.
    pub draining: bool,
    /// `Stop`: takes nothing, and only an operator says so.
    pub stopped: bool,
    /// `Ok`: usable. Absent when the last attempt to connect failed.
    pub ok: bool,
}

/// Why a page is not what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unread {
    /// HTML instead of XML.
    Html,
    /// Neither.
    Strange,
    /// There is no such balancer.
    NoBalancer,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unread::Html => {
                "no XML in the answer: this is not balancer-manager, or its server name is not in --referer"
            }
            Unread::Strange => "the answer is not the XML of balancer-manager",
            Unread::NoBalancer => "no such balancer in Apache",
        })
    }
}

/// What only the page for people says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Links {
    /// The nonce in the balancer's link.
    pub nonce: String,
    /// How many members there may be, and how many there are.
    pub slots: Option<(u32, u32)>,
}

/// Reads the XML: the balancer called `name`, without `balancer://`.
///
/// # Errors
/// The page is something else, or the balancer is not in it.
pub fn read(page: &[u8], name: &str) -> Result<Balancer, Unread> {
    let text = str::from_utf8(page).map_err(|_| Unread::Strange)?;
    let start = text.trim_ascii_start();
    if start.get(..5).is_some_and(|head| ["<!DOC", "<html"].iter().any(|h| head.eq_ignore_ascii_case(h))) {
        return Err(Unread::Html);
    }
    let mut tokens = Tokens::new(text).ok_or(Unread::Strange)?;
    let mut reading = Reading { name, stack: Vec::new(), text: String::new(), found: None, now: None };
    while let Some(token) = tokens.take().ok_or(Unread::Strange)? {
        reading.take(token).ok_or(Unread::Strange)?;
    }
    if reading.stack.is_empty() { reading.found.ok_or(Unread::NoBalancer) } else { Err(Unread::Strange) }
}

/// How far reading has come.
struct Reading<'a> {
    name: &'a str,
    stack: Vec<&'a str>,
    /// The text since the last tag.
    text: String,
    found: Option<Balancer>,
    now: Option<(String, Balancer)>,
}

impl<'a> Reading<'a> {
    /// One token; `None` where it does not belong.
    fn take(&mut self, token: Token<'a>) -> Option<()> {
        match token {
            Token::Text(text) if self.stack.is_empty() => text.trim_ascii().is_empty().then_some(()),
            Token::Text(text) => {
                self.text = decode(text)?;
                Some(())
            }
            Token::Open(element) => {
                let root = self.stack.is_empty();
                self.stack.push(element);
                self.text.clear();
                let fits = self.stack.len() <= MOST_DEEP && (!root || element == "manager");
                fits.then(|| self.begin())
            }
            Token::Close(element) => {
                let mut path = std::mem::take(&mut self.stack);
                let last = path.pop()?;
                self.end(&path, last)?;
                self.text.clear();
                self.stack = path;
                (last == element).then_some(())
            }
        }
    }

    fn begin(&mut self) {
        match self.stack.as_slice() {
            BALANCER => self.now = Some(Default::default()),
            WORKER => self.worker(|balancer| balancer.workers.push(Worker::default())),
            _ => {}
        }
    }

    fn worker(&mut self, act: impl FnOnce(&mut Balancer)) {
        if let Some((_, balancer)) = &mut self.now {
            act(balancer);
        }
    }

    /// An element ends; `None` if its text is not what it must be.
    fn end(&mut self, above: &[&str], last: &str) -> Option<()> {
        let text = self.text.trim_ascii();
        match (above, self.now.as_mut()) {
            (["manager", "balancers"], Some(_)) if last == "balancer" => {
                let (name, balancer) = self.now.take()?;
                let name = name.strip_prefix("balancer://").unwrap_or(&name);
                if name.eq_ignore_ascii_case(self.name) && self.found.is_none() {
                    self.found = Some(balancer);
                }
            }
            (BALANCER, Some((name, balancer))) => match last {
                "name" => text.clone_into(name),
                "nonce" => balancer.nonce = Some(text.to_owned()),
                _ => {}
            },
            (WORKER, Some((_, balancer))) => balancer.workers.last_mut()?.field(last, text)?,
            _ => {}
        }
        Some(())
    }
}

const BALANCER: &[&str] = &["manager", "balancers", "balancer"];
const WORKER: &[&str] = &["manager", "balancers", "balancer", "workers", "worker"];
const MOST_DEEP: usize = 8;

impl Worker {
    fn field(&mut self, field: &str, text: &str) -> Option<()> {
        match field {
            "name" => text.clone_into(&mut self.name),
            "loadfactor" => self.factor = hundredths(text)?,
            "status" => {
                let has = |word| text.split_ascii_whitespace().any(|w| w == word);
                let (disabled, draining, stopped) = (has("Dis"), has("Drn"), has("Stop"));
                self.status = Status { disabled, draining, stopped, ok: has("Ok") };
            }
            "busy" => self.busy = text.parse().ok()?,
            "elected" => self.elected = text.parse().ok()?,
            _ => {}
        }
        Some(())
    }
}

/// `2.50` as 250.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "00"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() != 2 {
        return None;
    }
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part.parse().ok()?)
}

/// Searches the page for people for what it says of the balancer called `name`.
///
/// # Errors
/// It says nothing of it.
pub fn links(page: &[u8], name: &str) -> Result<Links, Unread> {
    let text = String::from_utf8_lossy(page);
    let title = format!(">balancer://{name}</a>").to_ascii_lowercase();
    let mut sections = text.split("<h3>").skip(1);
    let section = sections
        .find(|section| section.lines().next().is_some_and(|l| l.to_ascii_lowercase().contains(&title)))
        .ok_or(Unread::NoBalancer)?;
    let (_, link) = section.split_once("nonce=").ok_or(Unread::Strange)?;
    let nonce = link.split(['"', '&', '\'', '<', '>']).next().unwrap_or_default();
    if nonce.bytes().any(|b| !b.is_ascii_graphic()) {
        return Err(Unread::Strange);
    }
    Ok(Links { nonce: nonce.to_owned(), slots: slots(section) })
}

/// `20 [3 Used]`.
fn slots(section: &str) -> Option<(u32, u32)> {
    let (before, _) = section.split_once(" Used]")?;
    let (before, used) = before.rsplit_once(" [")?;
    let most = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    Some((most.parse().ok()?, used.parse().ok()?))
}

/// The XML of a balancer, as Apache would write it: for models of it.
#[doc(hidden)]
#[must_use]
pub fn render(name: &str, balancer: &Balancer) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut out = format!(
        "<?xml version='1.0' encoding='UTF-8' ?>\n<httpd:manager xmlns:httpd='http://httpd.apache.org'>\n\
         <httpd:balancers>\n<httpd:balancer>\n<httpd:name>balancer://{}</httpd:name>\n",
        escape(name)
    );
    if let Some(nonce) = &balancer.nonce {
        out.push_str(&format!("<httpd:nonce>{}</httpd:nonce>\n", escape(nonce)));
    }
    out.push_str("<httpd:workers>\n");
    for Worker { name, factor, status, busy, elected } in &balancer.workers {
        let flags = [
            (status.draining, "Drn "),
            (status.disabled, "Dis "),
            (status.stopped, "Stop "),
            (status.ok, "Ok "),
        ];
        let words: String = flags.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
        out.push_str(&format!(
            "<httpd:worker>\n<httpd:name>{}</httpd:name>\n<httpd:loadfactor>{}.{:02}</httpd:loadfactor>\n\
             <httpd:status>Init {words}</httpd:status>\n<httpd:elected>{elected}</httpd:elected>\n\
             <httpd:busy>{busy}</httpd:busy>\n</httpd:worker>\n",
            escape(name),
            factor / 100,
            factor % 100
        ));
    }
    out.push_str("</httpd:workers>\n</httpd:balancer>\n</httpd:balancers>\n</httpd:manager>\n");
    out
}

/// Any bytes as a page: no panic; what is understood survives being written and read again.
#[doc(hidden)]
pub fn fuzz_apache_xml(data: &[u8]) {
    for name in ["cluster", "mixed"] {
        let _ = links(data, name);
        if let Ok(first) = read(data, name) {
            let text = render(name, &first);
            assert_eq!(read(text.as_bytes(), name), Ok(first), "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &[u8] = include_bytes!("../../../fuzz/seeds/apache_xml/three.xml");
    const PEOPLE: &[u8] = include_bytes!("../../../fuzz/seeds/apache_xml/three.html");

    #[test]
    fn a_real_page() {
        let cluster = read(REAL, "Cluster").unwrap();
        assert_eq!(cluster.nonce.as_deref(), Some("025931ad-6d58-bdea-5f43-2a7959e43e9e"));
        let names: Vec<&str> = cluster.workers.iter().map(|w| w.name.as_str()).collect();
        assert_eq!(names, ["http://127.0.0.1:18081", "http://[::1]", "http://web-1.example:443"]);
        let first = &cluster.workers[0];
        assert_eq!((first.factor, first.status.draining, first.status.ok), (254, true, true));
        assert!(cluster.workers[1].status.disabled && !cluster.workers[1].status.ok);
        assert_eq!(read(REAL, "mixed").unwrap().workers.len(), 2);
        assert_eq!(read(REAL, "nope"), Err(Unread::NoBalancer));
        assert_eq!(read(PEOPLE, "cluster"), Err(Unread::Html));
    }

    #[test]
    fn a_real_page_for_people() {
        let found = links(PEOPLE, "cluster").unwrap();
        assert_eq!(found.nonce, "025931ad-6d58-bdea-5f43-2a7959e43e9e");
        assert_eq!(found.slots, Some((4, 3)));
        assert_eq!(links(PEOPLE, "mixed").unwrap().slots, Some((6, 2)));
        assert_eq!(links(PEOPLE, "clust"), Err(Unread::NoBalancer));
        // As older versions write it.
        let old = "<h3>LoadBalancer Status for <a href='/m?b=web&nonce=abc-1'>balancer://web</a></h3>";
        assert_eq!(links(old.as_bytes(), "web"), Ok(Links { nonce: "abc-1".to_owned(), slots: None }));
    }

    #[test]
    fn what_is_not_understood_is_not_guessed_at() {
        let page = |inner: &str| {
            let text = format!(
                "<m:manager><balancers><balancer><name>balancer://w</name>{inner}</balancer></balancers></m:manager>"
            );
            read(text.as_bytes(), "w")
        };
        assert_eq!(page(""), Ok(Balancer::default()));
        assert_eq!(page("<nonce/>").unwrap().nonce.as_deref(), Some(""));
        assert_eq!(page("<nonce>a&amp;&#x62;&#99;</nonce>").unwrap().nonce.as_deref(), Some("a&bc"));
        for bad in [
            "<x>",
            "</x>",
            "<!-- x -->",
            "<x><![CDATA[x]]></x>",
            "<x>&nope;</x>",
            "<x a='>",
            "<workers><worker><loadfactor>1</loadfactor></worker></workers>x</y>",
            "<workers><worker><loadfactor>-1.00</loadfactor></worker></workers>",
            "<workers><worker><busy>many</busy></worker></workers>",
            "<a><a><a><a><a><a><a></a></a></a></a></a></a></a>",
        ] {
            assert_eq!(page(bad), Err(Unread::Strange), "{bad}");
        }
        for bad in ["", "x", "<a/>", "\u{e9}<manager/>", "<manager/>x", "<manager>"] {
            assert_ne!(read(bad.as_bytes(), "w"), Ok(Balancer::default()), "{bad}");
            assert!(read(bad.as_bytes(), "w").is_err());
        }
        assert_eq!(read(b"\xff<manager/>", "w"), Err(Unread::Strange));
        assert_eq!(hundredths("100.00"), Some(10_000));
        assert!(
            ["", "1", ".00", "1.0", "1.000", "9999999999.00", "1.x0"]
                .iter()
                .all(|t| hundredths(t).is_none() || *t == "1")
        );
    }
}
