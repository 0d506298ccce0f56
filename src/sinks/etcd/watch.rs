//! The role `etcd-watch` at work: members that other receivers keep in etcd, brought into a balancer here.

use super::layout::{Card, Layout, Site};
use super::link::{LINK, Link, Reply};
use super::machine::Todo;
use super::watcher::{Saying, Watcher};
use super::{AUTH_FILE, CLUSTER, ENDPOINT, PREFIX};
use crate::beacon::admission::Admission;
use crate::beacon::settings;
use crate::bytes::Printable;
use crate::clock::Mono;
use crate::config::plan::Ground;
use crate::config::{Error, Section, values};
use crate::http1::HttpUrl;
use crate::members::{Announce, BalancerId, Heard, Member, Reason, State, Writer};
use crate::options::{Opt, Role, Story, Table};
use crate::reactor::{Cx, Done, Key, Planned, Ready, Service};
use crate::secret::Login;
use crate::sinks::follow::log_news;
use crate::sorted::Sorted;
use crate::stats::Counter;
use crate::url::Url;
use crate::wheel::TimerId;
use std::io;
use std::time::Duration;

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "etcd-watch",
    story: Story::Found,
    table: Table::Writes,
    summary: "take the members from etcd, where other receivers keep them",
    about: "Makes the members that other beacond keep in etcd (role etcd, layout plain) the members of a balancer here, \
            so that a proxy or a load balancer far from the receivers follows them. A member whose key is gone has \
            left. While etcd is away everybody stays, and status shows the balancer as deaf; when it is back, absences \
            count only after the timeout, for receivers need time to write their members again.",
    options: &[
        ENDPOINT,
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer whose members these are, here and in etcd. A leading balancer:// is dropped.",
        },
        PREFIX,
        CLUSTER,
        AUTH_FILE,
        Opt {
            name: "every",
            arg: "TIME",
            repeat: false,
            default: "2",
            help: "How often etcd is asked what has changed, at least 100ms.",
        },
        Opt {
            name: "timeout",
            arg: "TIME",
            repeat: false,
            default: "30",
            help: "How long after a start, and after etcd was away, nobody is taken out for being absent there. The \
                   receivers' own timeout is what it should be.",
        },
        settings::MAX_MEMBERS,
        settings::FORGET,
        settings::SCHEMES,
        settings::ALLOW_NAMES,
        settings::ALLOW,
    ],
};

/// A balancer that follows etcd.
pub struct Watch {
    config: Config,
    watcher: Option<Watcher>,
    link: Link,
    balancer: Option<BalancerId>,
    timer: Option<TimerId>,
    full: bool,
}

/// What the options come to.
struct Config {
    endpoints: Vec<HttpUrl>,
    login: Option<Login>,
    site: Site,
    admission: Admission,
    every: Duration,
    grace: Duration,
}

/// Reads the section: a watch ready to start.
///
/// # Errors
/// The first option or file that is wrong.
pub fn plan(section: &Section, ground: &mut Ground<'_>) -> Result<Planned, Error> {
    let login = super::login(section, ground)?;
    let fingerprint = super::fingerprint(section, login.as_ref());
    let (cluster, balancer) = super::place(section)?;
    let config = Config {
        endpoints: super::endpoints(section)?,
        login,
        site: Site {
            prefix: section.need("prefix", super::prefix)?,
            cluster,
            balancer,
            layouts: vec![Layout::Plain],
            service: String::new(),
            zone: String::new(),
        },
        admission: settings::admission(section)?,
        every: section.need("every", values::duration_from(Duration::from_millis(100)))?,
        grace: section.need("timeout", values::duration)?,
    };
    Ok(Planned { service: Box::new(Watch::new(config)), fingerprint })
}

impl Watch {
    fn new(config: Config) -> Watch {
        let link = Link::new(config.endpoints.clone(), config.login.clone());
        Watch { config, watcher: None, link, balancer: None, timer: None, full: false }
    }

    /// Asks while there is something to ask.
    fn proceed(&mut self, cx: &mut Cx<'_>) {
        while !self.link.is_busy() {
            let Some(watcher) = &mut self.watcher else { return };
            match watcher.next(cx.now.mono) {
                Todo::Wait(at) => return cx.rearm(&mut self.timer, TIMER, at),
                Todo::Send(call) => {
                    let reply = self.link.ask(call, cx);
                    self.heard(reply, cx);
                }
            }
        }
    }

    fn heard(&mut self, reply: Option<Reply>, cx: &mut Cx<'_>) {
        let (Some(watcher), Some(id), Some(reply)) = (&mut self.watcher, self.balancer, reply) else {
            return;
        };
        let (now, random) = (cx.now.mono, cx.random());
        let sayings = match reply {
            Ok((status, body)) => watcher.answered(status, &body, now, random),
            Err(why) => {
                watcher.failed(&why, now, random);
                None
            }
        };
        let away = watcher.is_away();
        let news = watcher.news();
        log_news("etcd-watch", &self.name(), news);
        if away {
            cx.shared.members.cut_off(id, now);
        }
        if let Some(sayings) = sayings {
            cx.shared.members.reached(id, now);
            let full = sayings.iter().filter(|saying| self.act(id, saying, cx));
            let full: Sorted<Url, ()> = full.map(|saying| (saying.url().clone(), ())).collect();
            if !full.is_empty() && !self.full {
                let (name, why, count) = (self.name(), Reason::TableFull.text(), full.len());
                log::warn!(target: "etcd-watch", "{name}: {why}: {count} left out");
            }
            self.full = !full.is_empty();
            if let Some(watcher) = self.watcher.as_mut().filter(|_| !full.is_empty()) {
                watcher.not_brought(&full);
            }
        }
    }

    /// Does what etcd says of one url; true if there was no room for it.
    fn act(&self, id: BalancerId, saying: &Saying, cx: &mut Cx<'_>) -> bool {
        let (writer, now) = (cx.writer(), cx.now);
        let members = &mut cx.shared.members;
        let (url, outcome) = match saying {
            Saying::Here(url, card) => (url, members.announce(id, &statement(url, card, writer), now.mono)),
            Saying::Gone(url) => {
                let known = members.lookup(id, url.text().as_bytes()).and_then(|m| members.get(id, m));
                let newest = known.and_then(Member::mark).unwrap_or(i64::MIN).saturating_add(1);
                (url, members.leave(id, url.text().as_bytes(), now.unix_us.max(newest), now.mono))
            }
        };
        let (counter, what, preposition) = match outcome {
            Heard::Added(..) => (Counter::MemberAdded, "added backend", "to"),
            Heard::Revived(..) => (Counter::MemberRevived, "re-enabled backend", "in"),
            Heard::Left(_) => (Counter::MemberLeft, "left backend", "from"),
            Heard::Dropped(Reason::TableFull) => return true,
            Heard::Refreshed(..) | Heard::Ignored | Heard::Dropped(_) => return false,
        };
        cx.shared.stats.add(counter);
        let balancer = &self.config.site.balancer;
        log::info!(target: "etcd-watch", "{what} {} {preposition} balancer://{balancer}", Printable(url.text().as_bytes()));
        false
    }
}

impl Service for Watch {
    fn name(&self) -> String {
        format!("etcd-watch:{}", self.config.site.balancer)
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        let Config { site, admission, every, grace, .. } = &self.config;
        let id = cx.shared.members.find(&site.balancer).ok_or(io::ErrorKind::NotFound)?;
        self.balancer = Some(id);
        // Those that an earlier run, or we before a reload, brought in.
        let ours = |member: &Member| member.from().ip().is_unspecified();
        let writer = cx.writer();
        cx.shared.members.adopt(id, writer, Duration::ZERO, &mut |member| ours(member));
        let brought = cx.shared.members.members(id);
        let brought = brought.filter(|(_, member)| member.state() == State::Up && ours(member));
        let brought: Vec<Url> = brought.filter_map(|(_, member)| Url::parse(member.url()).ok()).collect();
        let watcher = Watcher::new(site, admission.clone(), *every, *grace, brought.into_iter(), cx.now.mono);
        self.watcher = Some(watcher);
        self.proceed(cx);
        Ok(())
    }

    fn ready(&mut self, _key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        let reply = self.link.ready(cx);
        self.heard(reply, cx);
        self.proceed(cx);
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        if key == LINK {
            let reply = self.link.timer(cx);
            self.heard(reply, cx);
        } else {
            self.timer = None;
        }
        self.proceed(cx);
    }

    fn done(&mut self, _key: Key, result: Done, cx: &mut Cx<'_>) {
        let reply = self.link.done(result, cx);
        self.heard(reply, cx);
        self.proceed(cx);
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        let writer = cx.writer();
        if let Some(id) = self.balancer {
            cx.shared.members.reached(id, cx.now.mono);
            cx.shared.members.release(id, writer, cx.now.mono);
        }
        self.link.close(cx);
        cx.rearm(&mut self.timer, TIMER, Mono::NEVER);
    }
}

/// What a key says, as if the member said it. It is never evicted for silence: etcd says when it is gone.
fn statement<'a>(url: &'a Url, card: &'a Card, writer: Writer) -> Announce<'a> {
    Announce {
        url: url.text().as_bytes(),
        replay_check: false,
        timeout: Duration::ZERO,
        every: (card.every_ms > 0).then(|| Duration::from_millis(card.every_ms.into())),
        weight: card.weight,
        host: &card.host,
        pid: card.pid,
        writer,
        ..Announce::default()
    }
}

const TIMER: Key = Key(1);
