//! The health check in a real loop, against real sockets and commands.
#![cfg(feature = "announce")]
#![expect(clippy::unwrap_used, reason = "a test ends where its world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "tests are the other side of the sockets")]

use beacond::beacon::health::{Change, Check, HealthConfig};
use beacond::beacon::probe::{KEYS, Probe};
use beacond::reactor::{Cx, Done, Key, LogPipe, Plan, Planned, Reactor, Ready, Service};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

/// Owns a probe as an announcer does; asks `step` about every change and ends when that says so.
struct Owner<F> {
    probe: Probe,
    step: F,
    drained: Rc<RefCell<bool>>,
}

const FIRST: usize = 7;
const GIVE_UP: Key = Key(0);
const PATIENCE: Duration = Duration::from_secs(20);

impl<F: FnMut(Change, bool) -> bool + 'static> Owner<F> {
    fn heed(&mut self, change: Option<Change>, cx: &mut Cx<'_>) {
        if let Some(change) = change
            && (self.step)(change, self.probe.is_open())
        {
            cx.shut_down();
        }
    }
}

impl<F: FnMut(Change, bool) -> bool + 'static> Service for Owner<F> {
    fn name(&self) -> String {
        "owner".to_owned()
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        cx.arm(GIVE_UP, cx.now.mono.after(PATIENCE));
        let change = self.probe.start(cx);
        self.heed(change, cx);
        Ok(())
    }

    fn ready(&mut self, key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        assert!((FIRST..FIRST + KEYS).contains(&key.0));
        let change = self.probe.ready(key, cx);
        self.heed(change, cx);
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        assert!(key != GIVE_UP, "waited in vain for the gate");
        assert!((FIRST..FIRST + KEYS).contains(&key.0));
        let change = self.probe.timer(key, cx);
        self.heed(change, cx);
    }

    fn done(&mut self, key: Key, result: Done, cx: &mut Cx<'_>) {
        assert_eq!(key, Key(FIRST));
        let Done::Resolved(found) = result else { return };
        let change = self.probe.resolved(found, cx);
        self.heed(change, cx);
    }

    fn child_exited(&mut self, cx: &mut Cx<'_>) {
        let change = self.probe.child_exited(cx);
        self.heed(change, cx);
    }

    fn drain(&mut self, cx: &mut Cx<'_>) -> bool {
        let drained = self.probe.drain(cx);
        *self.drained.borrow_mut() = drained;
        drained
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.probe.stop(cx);
    }
}

/// Runs `check` until `step` has seen enough changes of the gate.
fn run(check: &str, rise: usize, fall: usize, step: impl FnMut(Change, bool) -> bool + 'static) {
    let config = HealthConfig {
        check: Check::parse(check).unwrap(),
        interval: Duration::from_millis(30),
        timeout: Duration::from_millis(200),
        rise,
        fall,
    };
    let drained = Rc::new(RefCell::new(false));
    let owner = Owner { probe: Probe::new(config, Key(FIRST)), step, drained: Rc::clone(&drained) };
    let planned = Planned { service: Box::new(owner), fingerprint: String::new() };
    let mut reactor = Reactor::new(LogPipe::default(), Box::new(|| Ok(Plan::default()))).unwrap();
    reactor.start(Plan { services: vec![planned], ..Plan::default() }).unwrap();
    reactor.run().unwrap();
    assert!(*drained.borrow(), "whatever was under way at the end is gone");
}

/// Asserts that the gate opens, then calls `harm`, and ends once the gate has closed.
fn opens_and_closes(mut harm: impl FnMut() + 'static) -> impl FnMut(Change, bool) -> bool + 'static {
    let mut opened = false;
    move |change, open| {
        if std::mem::replace(&mut opened, true) {
            assert_eq!((change, open), (Change::Closed, false));
            return true;
        }
        assert_eq!((change, open), (Change::Opened, true));
        harm();
        false
    }
}

/// A server that answers each connection with the next of `answers`, the last of them again and again. It waits for
/// the whole question first; an empty answer is silence until the other side hangs up.
fn server(answers: &'static [&'static str]) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for n in 0.. {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = Vec::new();
            let mut byte = [0; 1];
            while !question.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                question.extend(byte);
            }
            let _ = tell.send(String::from_utf8_lossy(&question).into_owned());
            match answers[answers.len().min(n + 1) - 1] {
                "" => drop(stream.read(&mut byte)),
                // In two pieces, for good measure.
                answer => {
                    let (first, rest) = answer.split_at(answer.len() / 2);
                    let _ = stream.write_all(first.as_bytes());
                    let _ = stream.flush();
                    let _ = stream.write_all(rest.as_bytes());
                }
            }
        }
    });
    (address, asked)
}

#[test]
fn tcp_follows_the_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    run(&format!("tcp:{address}"), 3, 2, opens_and_closes(move || drop(listener.take())));
}

#[test]
fn tcp_by_name_tries_every_address() {
    // Most often `localhost` is ::1 first, where nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut listener = Some(listener);
    run(&format!("tcp:localhost:{port}"), 1, 1, opens_and_closes(move || drop(listener.take())));
}

#[test]
fn http_by_status() {
    const GOOD: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    const MOVED: &str = "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 5\r\n\r\nhello";
    const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let (address, asked) = server(&[GOOD, BAD, GOOD, MOVED, BAD, GOOD, BAD, BAD]);
    run(&format!("http:http://{address}/up?x=1"), 2, 2, opens_and_closes(|| ()));
    let question = asked.recv().unwrap();
    assert!(question.starts_with(&format!("GET /up?x=1 HTTP/1.1\r\nHost: {address}\r\n")), "{question}");
    assert_eq!(asked.try_iter().count(), 7);
}

#[test]
fn http_that_is_silent_strange_or_gone() {
    for bad in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\nX: y"] {
        let answers: &'static [&'static str] = Box::leak(Box::new(["HTTP/1.0 200 OK\r\n\r\nendless", bad]));
        let (address, _asked) = server(answers);
        run(&format!("http://{address}"), 1, 2, opens_and_closes(|| ()));
    }
}

#[test]
fn exec_by_exit_status() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("healthy");
    std::fs::write(&file, "").unwrap();
    let check = format!("exec:test -e {}", file.display());
    run(&check, 2, 2, opens_and_closes(move || std::fs::remove_file(&file).unwrap()));
}

#[test]
fn exec_that_hangs_has_failed_and_is_killed() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("hang");
    let path = file.display();
    let check = format!("exec:sh -c \"[ -e {path} ] && sleep 1000 & wait $!; ! [ -e {path} ]\"");
    run(&check, 1, 2, opens_and_closes(move || std::fs::write(&file, "").unwrap()));
}

#[test]
fn exec_that_cannot_be_run_never_opens() {
    // Judged by another check on the same clock: ten intervals later the gate has still not moved.
    let config = |check: &str| HealthConfig {
        check: Check::parse(check).unwrap(),
        interval: Duration::from_millis(5),
        timeout: Duration::from_millis(200),
        rise: 1,
        fall: 1,
    };
    let missing = Owner {
        probe: Probe::new(config("exec:/nonexistent/check"), Key(FIRST)),
        step: |_, _| unreachable!("the gate moved"),
        drained: Rc::default(),
    };
    let patient = HealthConfig { rise: 10, ..config("exec:true") };
    let other = Owner {
        probe: Probe::new(patient, Key(FIRST)),
        step: |change, _| change == Change::Opened,
        drained: Rc::default(),
    };
    let services: [Box<dyn Service>; 2] = [Box::new(missing), Box::new(other)];
    let planned = services.map(|service| Planned { service, fingerprint: String::new() });
    let mut reactor = Reactor::new(LogPipe::default(), Box::new(|| Ok(Plan::default()))).unwrap();
    reactor.start(Plan { services: planned.into(), ..Plan::default() }).unwrap();
    reactor.run().unwrap();
}
