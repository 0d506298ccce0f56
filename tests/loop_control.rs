//! The control socket in a real loop, beside services that carry sessions: their reports, and traces of them.
#![expect(clippy::unwrap_used, reason = "a test ends where its world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "tests are the other side of the sockets")]

use beacond::admin::client::{ask, follow};
use beacond::admin::control::{Control, Facts};
use beacond::admin::request::Request;
use beacond::clock::Now;
use beacond::config::Error;
use beacond::reactor::{Cx, Form, Key, LogPipe, Plan, Planned, Reactor, Service};
use beacond::shared::Shared;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Carries sessions of its own making while somebody watches: one every few milliseconds, each of them for `a.example`
/// and then for `b.example`, with `bulk` lines.
struct Carrier {
    name: &'static str,
    next: u64,
    bulk: usize,
    /// Ends the loop when this file appears.
    end: PathBuf,
    /// Whether anybody watched at the last beat: tells when a tap is gone.
    watched: PathBuf,
}

const BEAT: Duration = Duration::from_millis(3);
const PATIENCE: Duration = Duration::from_secs(20);

impl Service for Carrier {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        cx.arm(Key(0), cx.now.mono);
        cx.arm(Key(1), cx.now.mono.after(PATIENCE * 2));
        Ok(())
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        assert_eq!(key, Key(0), "nobody ended this");
        cx.arm(Key(0), cx.now.mono.after(BEAT));
        if self.end.exists() {
            cx.shut_down();
        }
        let taps = &mut cx.shared.taps;
        if taps.is_empty() {
            let _ = std::fs::remove_file(&self.watched);
            return;
        }
        std::fs::write(&self.watched, "").unwrap();
        let id = self.next;
        self.next += 1;
        let sni = ["a.example", "b.example"][usize::from(id % 2 == 1)];
        if taps.follow(id, [192, 0, 2, 1].into(), Some(sni)) {
            taps.line(id, &format_args!("accepted sni={sni}"));
            taps.dump(id, &"first flight", b"hello");
            (0..self.bulk).for_each(|n| taps.line(id, &format_args!("{n} {}", "x".repeat(1000))));
            taps.line(id, &"end=done");
            taps.end(id);
        }
    }

    fn sessions(&self, form: Form, _now: Now, _shared: &Shared, out: &mut String) {
        let _ = match form {
            Form::Text => writeln!(out, "{} carries on", self.name),
            Form::Json => write!(out, "{{\"name\":\"{}\"}}", self.name),
        };
    }

    fn stop(&mut self, _cx: &mut Cx<'_>) {}
}

/// Runs a control socket beside two carriers and one service that carries nothing, while `test` asks it.
fn beside(bulk: usize, test: impl FnOnce(&Path, &Path) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let (path, end) = (folder.path().join("control"), folder.path().join("end"));
    let watched = folder.path().join("watched");
    let facts = Facts { level: log::LevelFilter::Info, carries: true, late: false };
    let control = Control::new(path.clone(), facts);
    let carrier = |name, bulk, watched: &Path| Carrier {
        name,
        next: 0,
        bulk,
        end: end.clone(),
        watched: watched.to_owned(),
    };
    let services: [Box<dyn Service>; 4] = [
        Box::new(carrier("one", bulk, &watched)),
        Box::new(Idle),
        Box::new(control),
        // Its sessions have numbers of their own.
        Box::new(Carrier { next: 1 << 32, ..carrier("two", 0, &folder.path().join("watched2")) }),
    ];
    let planned = services.map(|service| Planned { service, fingerprint: String::new() });
    let plan = Plan { services: planned.into(), ..Plan::default() };
    let mut reactor = Reactor::new(LogPipe::default(), Box::new(|| Ok(Plan::default()))).unwrap();
    reactor.open(&plan).unwrap();
    reactor.start(plan).unwrap();
    let asking = std::thread::spawn({
        let end = end.clone();
        move || {
            // Also when the test fails.
            let _end = Ender(end);
            test(&path, &watched);
        }
    });
    reactor.run().unwrap();
    asking.join().unwrap();
}

struct Ender(PathBuf);

impl Drop for Ender {
    fn drop(&mut self) {
        std::fs::write(&self.0, "").unwrap();
    }
}

struct Idle;

impl Service for Idle {
    fn name(&self) -> String {
        "idle".to_owned()
    }

    fn start(&mut self, _cx: &mut Cx<'_>) -> io::Result<()> {
        Ok(())
    }

    fn stop(&mut self, _cx: &mut Cx<'_>) {}
}

fn trace(path: &Path, line: &str) -> Result<Vec<String>, String> {
    let mut told = Vec::new();
    follow(path, &Request::parse(line).unwrap(), &mut |bytes| {
        told.extend_from_slice(bytes);
        Ok(())
    })
    .map_err(|e| e.message)?;
    Ok(String::from_utf8(told).unwrap().lines().map(str::to_owned).collect())
}

/// Asks, reads the first line, and leaves the rest.
fn open(path: &Path, line: &str) -> (BufReader<UnixStream>, String) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{line}").unwrap();
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    (reader, first)
}

#[track_caller]
fn wait_until(what: &str, mut state: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / BEAT.as_millis() {
        if state() {
            return;
        }
        std::thread::park_timeout(BEAT);
    }
    unreachable!("waited in vain until {what}");
}

#[test]
fn every_service_reports_its_sessions() {
    beside(0, |path, _| {
        let ask = |line: &str| ask(path, &Request::parse(line).unwrap()).unwrap();
        let json = r#"{"proxies":[{"name":"one"},{"name":"two"}],"proxies_left_out":0}"#;
        assert_eq!(ask("status sessions json").trim_end(), json);
        assert_eq!(ask("status sessions"), "one carries on\n\ntwo carries on\n");
        assert!(ask("status json").starts_with("{\"version\""));
    });
}

#[test]
fn a_trace_tells_of_its_sessions_and_ends_with_them() {
    beside(0, |path, watched| {
        let told = trace(path, "trace sni *.EXAMPLE from 192.0.2.0/24 count 3").unwrap();
        let of = |what: &str| told.iter().filter(|l| l.contains(what)).count();
        assert_eq!(
            (of(" accepted "), of("first flight, 5 bytes"), of("68 65 6c 6c 6f"), of("end=done")),
            (3, 3, 3, 3)
        );
        assert_eq!(told.last().unwrap(), "… 3 of 3 sessions");
        assert_eq!(told.len(), 13);
        let told = trace(path, "trace sni b.example count 2").unwrap();
        assert!(
            told.iter().any(|l| l.contains("sni=b.")) && !told.iter().any(|l| l.contains("sni=a.")),
            "{told:?}"
        );
        assert!(trace(path, "trace from 192.0.3.0/24 for 50ms").unwrap() == ["… 0 of 10 sessions"]);
        wait_until("no tap is left", || !watched.exists());
    });
}

#[test]
fn lines_come_as_they_happen() {
    beside(0, |path, _| {
        let mut seen = 0;
        let request = Request::parse("trace count 1000 for 1h").unwrap();
        let stopped = follow(path, &request, &mut |_| {
            seen += 1;
            if seen == 3 { Err(Error::world("enough")) } else { Ok(()) }
        });
        assert_eq!(stopped, Err(Error::world("enough")));
    });
}

#[test]
fn whoever_leaves_leaves_no_tap_and_a_fifth_is_turned_away() {
    beside(0, |path, watched| {
        let mut open_taps: Vec<_> =
            (0..4).map(|_| open(path, "trace for 1h count 1000 sni no.one")).collect();
        assert!(open_taps.iter().all(|(_, first)| first == "ok\n"));
        assert_eq!(trace(path, "trace"), Err("too many traces".to_owned()));
        assert!(ask(path, &Request::Status { sessions: false, json: false }).is_ok(), "others are served");
        open_taps.pop();
        wait_until("there is room again", || {
            let (again, first) = open(path, "trace for 1h count 1000 sni no.one");
            open_taps.push((again, first.clone()));
            first == "ok\n"
        });
        wait_until("they are noticed", || watched.exists());
        drop(open_taps);
        wait_until("no tap is left", || !watched.exists());
        // One that asks and is gone in the same breath.
        let mut hasty = UnixStream::connect(path).unwrap();
        hasty.write_all(b"trace for 1h\n").unwrap();
        drop(hasty);
        let (last, first) = open(path, "trace for 1h sni no.one");
        assert_eq!(first, "ok\n");
        wait_until("it is noticed", || watched.exists());
        drop(last);
        wait_until("no tap is left", || !watched.exists());
    });
}

#[test]
fn a_reader_that_is_slow_loses_lines_and_holds_up_nobody() {
    beside(400, |path, _| {
        let (mut slow, first) = open(path, "trace for 3 count 1000");
        assert_eq!(first, "ok\n");
        // What the socket, the reply under way and the queue hold is far less than what comes in three seconds.
        for _ in 0..20 {
            assert!(trace(path, "trace count 1").is_ok(), "others are served");
        }
        std::thread::park_timeout(Duration::from_secs(3));
        let mut rest = String::new();
        slow.read_to_string(&mut rest).unwrap();
        assert!(rest.contains(" lines lost\n"), "{} bytes", rest.len());
        assert!(rest.lines().last().unwrap().ends_with(" of 1000 sessions"));
        assert!(rest.len() < 1 << 20, "{} bytes", rest.len());
    });
}
