//! What HAProxy answers on its runtime API, read back into values.
//!
//! Follows HAProxy's management guide ("Unix Socket commands") as versions 2.6 to 3.4 really behave: columns
//! are found by the names in the header line, because later versions append more. One read is `show info;show
//! servers state B;show servers conn B` on a connection of its own, up to its end:
//! ```text
//! Name: HAProxy
//! Version: 2.6.12-1+deb12u4
//! Pid: 5626
//! Stopping: 0
//!                                              (an empty line ends each part)
//! 1
//! # be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight ...
//! 3 dyn 7 b-10.0.0.5:8080 10.0.0.5 2 0 1 1 16 6 3 4 6 0 0 1 - 8080 - 0 0 - - 0
//!
//! # bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est ... idle_cur idle_per_thr[1]
//! dyn/b-10.0.0.5:8080 3/7 10.0.0.5 8080 - 5000 0 1 1 0 0 50 0 0
//! ```
//! This file decides nothing: what the numbers mean for a member is the machine's affair.

use crate::bytes::Printable;
use crate::sorted::Sorted;
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::str::FromStr;

/// The longest reply that is read, in bytes: some 30,000 servers.
pub const MAX_REPLY: usize = 4 << 20;

/// One process of HAProxy. A reload or a restart makes another one, which has forgotten every run-time
/// server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// When it started, in seconds since the epoch (a container gives every process the same id); 0 if
    /// unsaid.
    pub started: u64,
}

/// The backend as HAProxy has it at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Who answered.
    pub process: Process,
    /// It is the old process after a reload, finishing its connections.
    pub stopping: bool,
    /// Major and minor version.
    pub version: (u16, u16),
    /// All servers of the backend, ours or not.
    pub rows: Vec<Row>,
}

/// One server of the backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// As given to `add server`.
    pub name: String,
    /// Its number, unique in the backend.
    pub id: u32,
    /// `None`: no address (yet).
    pub addr: Option<IpAddr>,
    /// 0: the client's port.
    pub port: u16,
    /// 0 stopped, 1 starting, 2 running, 3 stopping.
    pub op: u8,
    /// Bits: who has taken it out of rotation, and how far.
    pub admin: u32,
    /// The weight set at run time, before slow start.
    pub weight: u16,
    /// Seconds since it last came into rotation or left it.
    pub unchanged: u32,
    /// 0 none yet or under way, 1 neutral, 2 failed, 3 passed, 4 passed but no new sessions.
    pub check_result: u8,
    /// How many checks from being down; jumps to its maximum when one passes.
    pub check_health: u32,
    /// Bits: 2 configured, 4 enabled, 8 paused.
    pub check_state: u32,
    /// Connections in use and kept idle; `None` if HAProxy did not say.
    pub conns: Option<(u32, u32)>,
}

impl Row {
    /// In maintenance, whoever asked for it.
    #[must_use]
    pub fn in_maint(&self) -> bool {
        self.admin & (ADMIN_FORCED_MAINT | ADMIN_INHERITED_MAINT | ADMIN_RESOLVER_MAINT) != 0
    }

    /// Told to take no new connections.
    #[must_use]
    pub fn in_drain(&self) -> bool {
        self.admin & (ADMIN_FORCED_DRAIN | ADMIN_INHERITED_DRAIN) != 0
    }

    /// Has health checks in its configuration.
    #[must_use]
    pub fn has_checks(&self) -> bool {
        self.check_state & CHECK_CONFIGURED != 0
    }

    /// Its health checks are switched on.
    #[must_use]
    pub fn checks_enabled(&self) -> bool {
        self.check_state & CHECK_ENABLED != 0
    }

    /// Not stopped by its checks.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.op != 0
    }

    /// No check has come to a result, or one is under way.
    #[must_use]
    pub fn unjudged(&self) -> bool {
        self.check_result == CHECK_UNKNOWN
    }

    /// Its last check has passed, and it runs.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.runs() && self.check_result == CHECK_PASSED
    }
}

/// Why a read gave no snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unread {
    /// The socket's level is too low even for reading.
    Permission,
    /// HAProxy has no such backend.
    NoBackend,
    /// The connection ended before the reply did.
    CutShort,
    /// Something else than the reply above; its first line.
    Unexpected(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Permission => f.write_str("permission denied: the stats socket needs `level admin`"),
            Unread::NoBackend => f.write_str("no such backend in HAProxy"),
            Unread::CutShort => f.write_str("the reply was cut short"),
            Unread::Unexpected(line) => write!(f, "unexpected reply: {line}"),
        }
    }
}

/// Reads the reply to the three `show` commands about `backend`.
///
/// # Errors
/// [`Unread`] says what came instead.
pub fn snapshot(reply: &[u8], backend: &str) -> Result<Snapshot, Unread> {
    let text = std::str::from_utf8(reply).map_err(|_| Unread::Unexpected(excerpt(reply)))?;
    let mut parts =
        text.split("\n\n").map(|part| part.trim_start_matches('\n')).filter(|part| !part.is_empty());
    let info = Info(parts.next().unwrap_or(""));
    let process = info.process().ok_or_else(|| refusal(text))?;
    let mut rows = servers_state(parts.next().ok_or(Unread::CutShort)?, backend)?;
    let conns = servers_conn(parts.next().ok_or(Unread::CutShort)?, backend)?;
    if !text.ends_with("\n\n") {
        return Err(Unread::CutShort);
    }
    for row in &mut rows {
        row.conns = conns.get(row.name.as_str()).copied();
    }
    Ok(Snapshot { process, stopping: info.stopping(), version: info.version(), rows })
}

/// Reads the reply to `show info` alone: which process answers.
///
/// # Errors
/// [`Unread`] says what came instead.
pub fn process(reply: &[u8]) -> Result<Process, Unread> {
    let text = std::str::from_utf8(reply).map_err(|_| Unread::Unexpected(excerpt(reply)))?;
    Info(text).process().ok_or_else(|| refusal(text))
}

/// What the answer to one line of commands amounts to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing to object, as far as HAProxy says; reading back will show.
    Done,
    /// `add server`: the name or the number is taken; another beacond would take the same. Reading back shows
    /// whether by what we want.
    Exists,
    /// The server is not there: we acted on what was true a moment ago.
    Gone,
    /// The socket's level is too low.
    Permission,
    /// HAProxy would not; its words.
    Refused(String),
}

/// Reads the answer to a line that changes something.
///
/// The answers of several commands on one line cannot be told apart safely, so the first one that objects
/// stands for all.
#[must_use]
pub fn answer(reply: &[u8]) -> Answer {
    let said = |part: &[u8], what: &str| part.starts_with(what.as_bytes());
    let objection = reply
        .split(|&b| b == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !FINE.iter().any(|fine| said(line, fine)));
    match objection {
        None => Answer::Done,
        Some(line) if said(line, "Already exists") || said(line, "'id' : custom id") => Answer::Exists,
        Some(line) if said(line, "No such server") => Answer::Gone,
        Some(line) if said(line, "Permission denied") => Answer::Permission,
        Some(line) => Answer::Refused(excerpt(line)),
    }
}

/// Writes a snapshot the way HAProxy 2.6 would: for models of HAProxy in tests, and for checking the reader.
#[doc(hidden)]
#[must_use]
pub fn render(snapshot: &Snapshot, backend: &str) -> String {
    let Snapshot { process: Process { pid, started }, stopping, version: (major, minor), rows } = snapshot;
    let stopping = u8::from(*stopping);
    let mut out = format!("Name: HAProxy\nVersion: {major}.{minor}.0\nPid: {pid}\nStopping: {stopping}\n");
    let _ = writeln!(out, "Start_time_sec: {started}\n\n1\n{STATE_HEADER}");
    for row in rows {
        let addr = row.addr.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        let Row {
            name, id, port, op, admin, weight, unchanged, check_result, check_health, check_state, ..
        } = row;
        let _ = write!(
            out,
            "3 {backend} {id} {name} {addr} {op} {admin} {weight} 0 {unchanged} 1 {check_result} "
        );
        let _ = writeln!(out, "{check_health} {check_state} 0 0 1 - {port} - 0 0 - - 0");
    }
    let _ = writeln!(out, "\n{CONN_HEADER}");
    for row in rows {
        if let Some((used, idle)) = row.conns {
            let _ = writeln!(
                out,
                "{backend}/{} 3/{} - {} - 5000 {used} 1 1 0 0 50 {idle} 0",
                row.name, row.id, row.port
            );
        }
    }
    out.push('\n');
    out
}

/// The lines of `show info`.
struct Info<'a>(&'a str);

impl<'a> Info<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let mut fields = self.0.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(have, _)| *have == name).map(|(_, value)| value.trim())
    }

    fn process(&self) -> Option<Process> {
        let pid = self.get("Pid")?.parse().ok()?;
        let started = self.get("Start_time_sec").and_then(|secs| secs.parse().ok()).unwrap_or(0);
        Some(Process { pid, started })
    }

    fn stopping(&self) -> bool {
        self.get("Stopping").is_some_and(|flag| flag != "0")
    }

    fn version(&self) -> (u16, u16) {
        self.get("Version").map_or((0, 0), version)
    }
}

fn servers_state(part: &str, backend: &str) -> Result<Vec<Row>, Unread> {
    let mut lines = part.lines().skip_while(|line| !line.starts_with('#'));
    let columns = Columns::of(lines.next().ok_or_else(|| refusal(part))?);
    lines
        .map(|line| {
            let fields = columns.read(line);
            (fields.get("be_name")? == backend).then(|| row(&fields))?
        })
        .collect::<Option<Vec<Row>>>()
        .ok_or(Unread::CutShort)
}

fn row(fields: &Fields<'_, '_>) -> Option<Row> {
    Some(Row {
        name: fields.get("srv_name")?.to_owned(),
        id: fields.number("srv_id")?,
        addr: fields.get("srv_addr")?.parse().ok(),
        port: fields.number("srv_port")?,
        op: fields.number("srv_op_state")?,
        admin: fields.number("srv_admin_state")?,
        weight: fields.number("srv_uweight")?,
        unchanged: fields.number("srv_time_since_last_change")?,
        check_result: fields.number("srv_check_result")?,
        check_health: fields.number("srv_check_health")?,
        check_state: fields.number("srv_check_state")?,
        conns: None,
    })
}

fn servers_conn<'a>(part: &'a str, backend: &str) -> Result<Sorted<&'a str, (u32, u32)>, Unread> {
    let mut lines = part.lines().skip_while(|line| !line.starts_with('#'));
    let columns = Columns::of(lines.next().ok_or_else(|| refusal(part))?);
    let conns = lines.filter_map(|line| {
        let fields = columns.read(line);
        let name = fields.get("bkname/svname")?.strip_prefix(backend)?.strip_prefix('/')?;
        Some((name, (fields.number("used_cur")?, fields.number("idle_cur")?)))
    });
    Ok(conns.collect())
}

/// The names in a `# name name name` line by place, the first of a name; looked up, not searched.
struct Columns<'a>(Sorted<&'a str, usize>);

impl<'a> Columns<'a> {
    fn of(header: &'a str) -> Columns<'a> {
        let names: Vec<&str> = header.trim_start_matches('#').split_whitespace().collect();
        Columns(names.into_iter().enumerate().rev().map(|(place, name)| (name, place)).collect())
    }

    fn read<'v>(&self, line: &'v str) -> Fields<'_, 'v> {
        Fields { places: &self.0, values: line.split_whitespace().collect() }
    }
}

struct Fields<'n, 'v> {
    places: &'n Sorted<&'n str, usize>,
    values: Vec<&'v str>,
}

impl<'v> Fields<'_, 'v> {
    fn get(&self, name: &str) -> Option<&'v str> {
        self.values.get(*self.places.get(name)?).copied()
    }

    fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }
}

/// What a part that is not the expected table says instead.
fn refusal(part: &str) -> Unread {
    match part.lines().find(|line| !line.is_empty()) {
        None => Unread::CutShort,
        Some(line) if line.starts_with("Permission denied") => Unread::Permission,
        Some(line) if line.contains("find backend") || line.starts_with("No such backend") => {
            Unread::NoBackend
        }
        Some(line) => Unread::Unexpected(excerpt(line.as_bytes())),
    }
}

/// `2.6.12-1+deb12u4` is (2, 6).
fn version(text: &str) -> (u16, u16) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The beginning of a line, fit for a log.
fn excerpt(line: &[u8]) -> String {
    Printable(line.get(..EXCERPT).unwrap_or(line)).to_string()
}

const EXCERPT: usize = 160;

const ADMIN_FORCED_MAINT: u32 = 0x01;
const ADMIN_INHERITED_MAINT: u32 = 0x02;
const ADMIN_FORCED_DRAIN: u32 = 0x08;
const ADMIN_INHERITED_DRAIN: u32 = 0x10;
const ADMIN_RESOLVER_MAINT: u32 = 0x20;

const CHECK_CONFIGURED: u32 = 0x02;
const CHECK_ENABLED: u32 = 0x04;
const CHECK_UNKNOWN: u8 = 0;
const CHECK_PASSED: u8 = 3;

/// How answers begin that object to nothing.
const FINE: [&str; 2] = ["New server registered", "Server deleted"];

const STATE_HEADER: &str = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
    srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
    srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port \
    srv_check_addr srv_agent_addr srv_agent_port";
const CONN_HEADER: &str = "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb \
    safe_nb idle_lim idle_cur idle_per_thr[1]";

/// Any bytes as a reply: no panic; what is understood survives being written and read again.
#[doc(hidden)]
pub fn fuzz_haproxy_replies(data: &[u8]) {
    let _ = answer(data);
    let _ = process(data);
    if let Ok(first) = snapshot(data, "dyn") {
        let text = render(&first, "dyn");
        let again = snapshot(text.as_bytes(), "dyn").expect("what we write, we read");
        assert_eq!(again, first, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/haproxy_replies");
        std::fs::read(format!("{folder}/{name}")).unwrap()
    }

    #[test]
    fn a_backend_as_haproxy_2_6_shows_it() {
        let seen = snapshot(&seed("read_v6_and_maint"), "dyn").unwrap();
        assert_eq!((seen.version, seen.stopping), ((2, 6), false));
        assert!(seen.process.pid > 1 && seen.process.started > 1_700_000_000);
        let names: Vec<&str> = seen.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["b-127.31.1.1:18081", "b-127.31.1.1:18082", "b-127.31.1.1:18083", "b-::1:80"]);
        let up = &seen.rows[1];
        assert!(up.runs() && up.passed() && up.has_checks() && up.checks_enabled());
        assert!(!up.in_maint() && !up.in_drain());
        assert_eq!((up.weight, up.conns, up.port, up.id), (1, Some((0, 1)), 18082, 504_189));
        let new = &seen.rows[3];
        assert!(new.in_maint() && new.has_checks() && !new.checks_enabled() && !new.passed() && !new.runs());
        assert_eq!((new.addr, new.conns), (Some("::1".parse().unwrap()), Some((0, 0))));
        assert_eq!(process(&seed("info")), Ok(seen.process));
    }

    #[test]
    fn what_comes_instead_of_a_backend() {
        assert_eq!(snapshot(&seed("read_no_backend"), "nope"), Err(Unread::NoBackend));
        assert_eq!(snapshot(&seed("permission"), "dyn"), Err(Unread::Permission));
        assert_eq!(snapshot(b"", "dyn"), Err(Unread::CutShort));
        assert_eq!(
            snapshot(b"220 mail ESMTP\r\n", "dyn"),
            Err(Unread::Unexpected("220 mail ESMTP".to_owned()))
        );
        assert_eq!(snapshot(&seed("read_dyn"), "other"), Err(Unread::CutShort), "rows of another backend");
        assert!(matches!(process(b"\xff"), Err(Unread::Unexpected(_))));
    }

    #[test]
    fn a_reply_cut_anywhere_is_no_reply() {
        let whole = seed("read_v6_and_maint");
        for end in 0..whole.len() {
            assert!(snapshot(&whole[..end], "dyn").is_err(), "{end}");
        }
    }

    #[test]
    fn a_header_as_long_as_a_reply_costs_no_more_than_the_reply() {
        // A search of the header for each line would take hours over this.
        let (names, lines) = ("a ".repeat(MAX_REPLY / 4), "x\n".repeat(MAX_REPLY / 4));
        let text = format!("Pid: 5\n\n1\n# be_name srv_name\n\n# {names}\n{lines}\n");
        assert_eq!(snapshot(text.as_bytes(), "dyn").map(|seen| seen.rows), Ok(Vec::new()));
    }

    #[test]
    fn answers() {
        for (name, want) in [
            ("registered", Answer::Done),
            ("deleted", Answer::Done),
            ("exists", Answer::Exists),
            ("id_taken", Answer::Exists),
            ("no_such_server", Answer::Gone),
            ("permission", Answer::Permission),
        ] {
            assert_eq!(answer(&seed(name)), want, "{name}");
        }
        for (name, words) in [
            ("static", "Backend must use a dynamic load balancing"),
            ("cookie", "'cookie' option is not accepted"),
            ("unknown_keyword", "unknown keyword 'bogus'"),
            ("no_such_backend", "No such backend"),
            ("not_in_maint", "Only servers in maintenance mode"),
            ("weight_300", "Absolute weight can only be"),
            ("unknown_command", "Unknown command"),
        ] {
            let Answer::Refused(said) = answer(&seed(name)) else { panic!("{name}") };
            assert!(said.starts_with(words), "{said}");
        }
        assert_eq!(answer(b"\n\n\n"), Answer::Done);
        let endless = vec![b'x'; 10_000];
        assert!(matches!(answer(&endless), Answer::Refused(said) if said.len() == EXCERPT));
    }

    #[test]
    fn seeds_and_damaged_seeds_do_no_harm() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/haproxy_replies");
        for file in std::fs::read_dir(folder).unwrap() {
            let whole = std::fs::read(file.unwrap().path()).unwrap();
            fuzz_haproxy_replies(&whole);
            for at in (0..whole.len()).step_by(7) {
                let mut damaged = whole.clone();
                damaged[at] = damaged[at].wrapping_add(1 + u8::try_from(at % 200).unwrap());
                fuzz_haproxy_replies(&damaged);
            }
        }
    }
}
