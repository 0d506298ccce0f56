//! What the options of a proxy come to: its routes, who may in, and everything else as values.
//!
//! Reads the file that `header-file` names; opens no socket and knows no session.

use super::access::{Access, Rule};
use super::balance::{Balance, HashKey};
use super::hello;
use super::routes::{self, Duplicate, Match, Route, Routes, Target};
use super::tunnel::{Header, Template};
use crate::cidr::Cidr;
use crate::config::values::{self, LONGEST_SOCKET, balancer_name, duration, duration_from};
use crate::config::{Error, Given, Section, Shown};
use crate::reactor::bank::plain;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// The most bytes in a file of headers.
const MAX_HEADERS: u64 = 64 * 1024;
const TEN_MS: Duration = Duration::from_millis(10);

/// The options as values, but for the address, the routes and the rules of access.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Whether the first bytes are read as a TLS hello.
    pub sniff: bool,
    /// Whether a hello with a server name must come.
    pub require_sni: bool,
    /// Whether a PROXY header must come.
    pub accept_proxy: bool,
    /// From whom; empty for anybody.
    pub accept_proxy_from: Vec<Cidr>,
    /// How long PROXY header and hello may take together.
    pub hello_timeout: Duration,
    /// How long a hello may be, in bytes.
    pub hello_size: usize,
    /// After which silence the server is to speak first.
    pub server_first: Option<Duration>,
    /// Who is asked about each session.
    pub auth: Option<Auth>,
    /// How many sessions there may be; `None` for what the descriptor limit has room for.
    pub max_sessions: Option<usize>,
    /// How many one source may have; 0 for any number.
    pub max_sessions_per_source: u32,
    /// How many may be at their first bytes.
    pub max_hello: usize,
    /// How a member is picked.
    pub balance: Balance,
    /// How long a new member's weight rises; zero for not at all.
    pub slow_start: Duration,
    /// How long one try to connect may take.
    pub connect_timeout: Duration,
    /// How long all tries may take.
    pub connect_deadline: Duration,
    /// What becomes of the sessions of an evicted member.
    pub on_evict: OnEnd,
    /// What becomes of the sessions of a member that left.
    pub on_leave: OnEnd,
    /// The longest silence in a session; `None` for any.
    pub idle_timeout: Option<Duration>,
    /// The longest silence once one half is closed; `None` for any.
    pub half_close_timeout: Option<Duration>,
    /// How many bytes of all sessions may wait to be taken.
    pub max_buffered: usize,
    /// Whether the kernel may move bytes by itself where it can.
    pub splice: bool,
    /// The PROXY header that a member gets first.
    pub send_proxy: Option<SendProxy>,
    /// The headers for an HTTP proxy: those written as options, then those of the file, then
    /// those of the environment. Of one name only those of the first of these kinds are here.
    pub headers: Vec<Header>,
    /// The two letters of this host's country, in capitals.
    pub country: Option<String>,
    /// How often names are looked up again.
    pub resolve_interval: Duration,
    /// How long sessions may go on after the end was asked for.
    pub drain_timeout: Duration,
    /// Whether each session is logged at its end.
    pub access_log: bool,
    /// Where first bytes of refused sessions are kept.
    pub dump: Option<Dump>,
    /// How many connections are taken in one go.
    pub accept_batch: usize,
    /// How many may wait in the kernel.
    pub backlog: u16,
}

/// Who is asked about each session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Auth {
    /// The Unix socket.
    pub path: PathBuf,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long it holds; zero for not at all.
    pub cache: Duration,
    /// Whether sessions pass while nobody answers.
    pub fail_open: bool,
}

/// Where first bytes of refused sessions are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dump {
    /// The folder.
    pub folder: PathBuf,
    /// How many files there may be.
    pub files: usize,
}

/// What becomes of the sessions of a member that is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnEnd {
    /// They go on.
    Keep,
    /// They are cut after this long.
    Drain(Duration),
    /// They are cut at once.
    Cut,
}

/// The version of a PROXY header that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendProxy {
    /// The line of text.
    V1,
    /// The binary one, with what a header that came in said besides.
    V2,
}

impl OnEnd {
    /// Reads `keep`, `drain:TIME` or `cut`.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<OnEnd, String> {
        match text.split_once(':') {
            None if text == "keep" => Ok(OnEnd::Keep),
            None if text == "cut" => Ok(OnEnd::Cut),
            Some(("drain", time)) => duration(time).map(OnEnd::Drain),
            _ => Err("keep, drain:TIME or cut".to_owned()),
        }
    }
}

impl SendProxy {
    /// Reads `v1` or `v2`.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<SendProxy, String> {
        match text {
            "v1" => Ok(SendProxy::V1),
            "v2" => Ok(SendProxy::V2),
            _ => Err("v1 or v2".to_owned()),
        }
    }
}

impl Settings {
    /// The values of a section whose routes are `routes`.
    ///
    /// # Errors
    /// The first value or file that is wrong, and options that do not fit together.
    pub fn from_section(section: &Section, routes: &Routes) -> Result<Settings, Error> {
        let require_sni = section.flag("require-sni");
        let at_least = |name, least| section.need(name, duration_from(least));
        let settings = Settings {
            sniff: section.flag("sniff") || require_sni || routes.needs_hello(),
            require_sni,
            accept_proxy: section.flag("accept-proxy"),
            accept_proxy_from: section.all("accept-proxy-from", Cidr::parse)?,
            hello_timeout: at_least("hello-timeout", Duration::from_millis(100))?,
            hello_size: section.need("hello-size", values::size_within(512, hello::MAX_CAP))?,
            server_first: section.get("server-first", duration_from(TEN_MS))?,
            auth: auth(section)?,
            max_sessions: section.get("max-sessions", values::count)?,
            max_sessions_per_source: number(section, "max-sessions-per-source", 0, u32::MAX)?,
            max_hello: section.need("max-hello", values::count)?,
            balance: section.need("balance", Balance::parse)?,
            slow_start: section.need("slow-start", duration)?,
            connect_timeout: at_least("connect-timeout", TEN_MS)?,
            connect_deadline: section.need("connect-deadline", duration)?,
            on_evict: section.need("on-evict", OnEnd::parse)?,
            on_leave: section.need("on-leave", OnEnd::parse)?,
            idle_timeout: limit(section, "idle-timeout")?,
            half_close_timeout: limit(section, "half-close-timeout")?,
            max_buffered: section.need("max-buffered", values::size_within(256 * 1024, usize::MAX))?,
            splice: !section.flag("no-splice"),
            send_proxy: section.get("send-proxy", SendProxy::parse)?,
            headers: headers(section)?,
            country: section.get("country", values::country)?,
            resolve_interval: at_least("resolve-interval", Duration::from_secs(1))?,
            drain_timeout: section.need("drain-timeout", duration)?,
            access_log: section.flag("access-log"),
            dump: dump(section)?,
            accept_batch: number(section, "accept-batch", 1, 1024_u32)?,
            backlog: number(section, "backlog", 1, u16::MAX)?,
        };
        settings.fit_together(section, routes)?;
        Ok(settings)
    }

    /// Refuses options that say nothing without another, or contradict it.
    fn fit_together(&self, section: &Section, routes: &Routes) -> Result<(), Error> {
        let connects = routes.iter().any(|r| matches!(r.target, Target::Connect(_)));
        // A verdict may name any target.
        let may_connect = connects || self.auth.is_some();
        let hash = |key| self.balance == Balance::Hash(key);
        let late = self.server_first.is_some_and(|time| time >= self.hello_timeout);
        let alone = [
            ("accept-proxy-from", !self.accept_proxy, "--accept-proxy beside it"),
            ("auth-timeout", self.auth.is_none(), "--auth beside it"),
            ("auth-cache", self.auth.is_none(), "--auth beside it"),
            ("auth-fail-open", self.auth.is_none(), "--auth beside it"),
            ("header", !may_connect, "a route to connect:HOST:PORT, which alone sends headers"),
            ("header-file", !may_connect, "a route to connect:HOST:PORT, which alone sends headers"),
            (
                "balance",
                hash(HashKey::Sni) && !self.sniff,
                "--sniff beside it: there is no server name without",
            ),
            (
                "balance",
                hash(HashKey::Authority) && !self.accept_proxy,
                "--accept-proxy beside it: there is no authority without",
            ),
            ("dump-files", self.dump.is_none(), "--dump beside it"),
            ("server-first", !self.sniff, "--sniff beside it: without, nobody waits for the client"),
            ("server-first", late, "a time shorter than --hello-timeout"),
            ("connect-deadline", self.connect_deadline < self.connect_timeout, "at least --connect-timeout"),
        ];
        // The environment gives what it has, needed or not.
        match alone.iter().find(|(name, wrong, _)| *wrong && says(section, name)) {
            Some((name, _, wanted)) => Err(section.wrong(name, wanted)),
            None => Ok(()),
        }
    }
}

/// Whether the section says something by this option: what it has as a default counts where it can be wrong by itself.
fn says(section: &Section, name: &str) -> bool {
    section.given(name) || name == "connect-deadline"
}

/// The routes of a section: the written ones, or else one that leads all to its balancer.
///
/// # Errors
/// A route that is wrong, two of one kind, one that nothing can match, and a balancer that no route leads to.
pub fn routes(section: &Section) -> Result<Routes, Error> {
    let lines: Vec<_> = section.each("route").collect();
    let mut list = Vec::new();
    for line in &lines {
        let (matches, target) = routes::parse(&line.text).map_err(|wanted| section.refuse(line, &wanted))?;
        if matches.needs_header() && !section.flag("accept-proxy") {
            let wanted = "--accept-proxy beside it: only a PROXY header has an authority";
            return Err(section.refuse(line, wanted));
        }
        list.push(Route { matches, target, place: line.origin.to_string() });
    }
    let balancer = section.need("balancer", balancer_name)?;
    if list.is_empty() {
        let place = section.each("balancer").next().map_or_else(String::new, |v| v.origin.to_string());
        list.push(Route { matches: Match::Default, target: Target::Balancer(balancer.clone()), place });
    }
    let routes = Routes::new(list).map_err(|Duplicate { first, again }| {
        let (first, again) = (lines[first], lines[again]);
        section.refuse(again, &format!("one target for what {} matches already", first.origin))
    })?;
    if section.given("balancer") && !routes.balancers().contains(&balancer.as_str()) {
        let wanted = format!("a route to it, as default=balancer:{}", Shown(&balancer));
        return Err(section.wrong("balancer", &wanted));
    }
    Ok(routes)
}

/// Who may in.
///
/// # Errors
/// The first value that is wrong.
pub fn access(section: &Section) -> Result<Access, Error> {
    let rules = |name| {
        let rule = |value: &Given| {
            let place = |range| Rule { range, place: value.origin.to_string() };
            Cidr::parse(&value.text).map(place).map_err(|wanted| section.refuse(value, &wanted))
        };
        section.each(name).map(rule).collect::<Result<Vec<_>, _>>()
    };
    Ok(Access::new(rules("allow")?, rules("deny")?))
}

fn auth(section: &Section) -> Result<Option<Auth>, Error> {
    let path = section.get("auth", |text| {
        let path = text.strip_prefix("unix:").filter(|path| (1..=LONGEST_SOCKET).contains(&path.len()));
        path.map(PathBuf::from).ok_or_else(|| format!("unix:PATH, PATH of at most {LONGEST_SOCKET} bytes"))
    })?;
    let (timeout, cache) =
        (section.need("auth-timeout", duration_from(TEN_MS))?, section.need("auth-cache", duration)?);
    Ok(path.map(|path| Auth { path, timeout, cache, fail_open: section.flag("auth-fail-open") }))
}

fn dump(section: &Section) -> Result<Option<Dump>, Error> {
    let files = number(section, "dump-files", 1, 65_536_u32)?;
    Ok(section.get("dump", |text| Ok(PathBuf::from(text)))?.map(|folder| Dump { folder, files }))
}

/// Makes sure that there is a folder for dumps, where they are asked for.
///
/// # Errors
/// There is none.
pub fn check_dump_folder(section: &Section, settings: &Settings) -> Result<(), Error> {
    let Some(Dump { folder, .. }) = &settings.dump else { return Ok(()) };
    let why = match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "not a folder".to_owned(),
        Err(e) => plain(&e),
    };
    let place = section.place_of("dump");
    Err(Error::world(format!("{place}: {}: {why}", Shown(&folder.display().to_string()))))
}

/// A time in which 0 stands for no limit.
fn limit(section: &Section, name: &str) -> Result<Option<Duration>, Error> {
    Ok(Some(section.need(name, duration)?).filter(|time| !time.is_zero()))
}

/// A number of any type; the bounds fit it.
fn number<T: TryFrom<u64>>(
    section: &Section,
    name: &str,
    least: u64,
    most: impl Into<u64>,
) -> Result<T, Error> {
    let most = most.into();
    section.need(name, |text| {
        let number = values::number(least, most)(text)?;
        T::try_from(number).map_err(|_| format!("a whole number from {least} to {most}"))
    })
}

/// All headers. Of one name, those written as options are sent, else those of the file, else those of the environment.
fn headers(section: &Section) -> Result<Vec<Header>, Error> {
    let (mut written, mut from_env) = (Vec::new(), Vec::new());
    for value in section.each("header") {
        let header = Header::parse(&value.text).map_err(|wanted| section.refuse(value, &wanted))?;
        if value.origin.is_written() { written.push(header) } else { from_env.push(header) }
    }
    for more in [header_file(section)?, from_env] {
        let known = written.len();
        let new = |header: &Header| !written.iter().take(known).any(|other| other.is_named_as(header));
        let new: Vec<Header> = more.into_iter().filter(new).collect();
        written.extend(new);
    }
    Ok(written)
}

fn header_file(section: &Section) -> Result<Vec<Header>, Error> {
    let Some(path) = section.text("header-file") else { return Ok(Vec::new()) };
    let place = section.place_of("header-file");
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_HEADERS + 1).read_to_end(&mut bytes))
        .map_err(|e| Error::world(format!("{place}: {}: {}", Shown(path), plain(&e))))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_HEADERS) {
        return Err(section.wrong("header-file", &format!("a file of at most {MAX_HEADERS} bytes")));
    }
    let text = str::from_utf8(&bytes).map_err(|_| section.wrong("header-file", "a file in UTF-8"))?;
    let headers = Template::parse(text).map_err(|(line, text, wanted)| {
        Error::text(format!("{place}: {}:{line}: '{}': wanted {wanted}", Shown(path), Shown(text)))
    })?;
    Ok(headers.0)
}
