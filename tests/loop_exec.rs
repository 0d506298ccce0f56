//! The exec sink in a real loop, with real commands.
#![cfg(feature = "exec")]
#![expect(clippy::unwrap_used, reason = "a test ends where its world is not as it must be")]

use beacond::clock::Mono;
use beacond::members::{Announce, BalancerId, Policy, WhenDeaf};
use beacond::reactor::{Cx, Key, LogPipe, Plan, Planned, Reactor, Service};
use beacond::sinks::exec::{Config, service::Exec};
use beacond::views::ViewState;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tempfile::TempDir;

/// One thing after the other: each is asked every few milliseconds until it says `true`.
type Step = Box<dyn FnMut(&mut Cx<'_>) -> bool>;

struct Script {
    steps: Vec<Step>,
    at: usize,
    give_up: Mono,
}

impl Service for Script {
    fn name(&self) -> String {
        "script".to_owned()
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        self.give_up = cx.now.mono.after(PATIENCE);
        self.timer(Key(0), cx);
        Ok(())
    }

    fn timer(&mut self, _key: Key, cx: &mut Cx<'_>) {
        assert!(cx.now.mono < self.give_up, "waited in vain for step {}", self.at);
        if self.steps[self.at](cx) {
            self.at += 1;
            self.give_up = cx.now.mono.after(PATIENCE);
        }
        if self.at == self.steps.len() {
            cx.shut_down();
        } else {
            cx.arm(Key(0), cx.now.mono.after(Duration::from_millis(3)));
        }
    }

    fn stop(&mut self, _cx: &mut Cx<'_>) {}
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a shell script; the sink runs it with the folder as its argument.
struct Hook {
    folder: TempDir,
}

impl Hook {
    fn new(script: &str) -> Hook {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("hook"), script).unwrap();
        Hook { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn planned(&self, timeout: Duration) -> Planned {
        let path = |name| self.file(name).to_str().unwrap().to_owned();
        let command = vec!["/bin/sh".to_owned(), path("hook"), path("")];
        planned(command, timeout)
    }
}

fn planned(command: Vec<String>, timeout: Duration) -> Planned {
    let fingerprint = format!("{command:?} {timeout:?}");
    let config = Config { command, name: "sh".to_owned(), balancer: "web".to_owned(), timeout };
    Planned { service: Box::new(Exec::new(config)), fingerprint }
}

/// Runs the sink and the steps in one loop until the last step is done; `next` is the sink after a reload.
fn run(sink: Planned, next: Option<Planned>, steps: Vec<Step>) {
    let script = Script { steps, at: 0, give_up: Mono::NEVER };
    let script = Planned { service: Box::new(script), fingerprint: String::new() };
    let next = RefCell::new(next);
    let planner = move || {
        let nothing = Script { steps: Vec::new(), at: 0, give_up: Mono::NEVER };
        let script = Planned { service: Box::new(nothing), fingerprint: String::new() };
        let next = next.borrow_mut().take().into_iter();
        Ok(Plan {
            services: next.chain([script]).collect(),
            balancers: vec![("web".to_owned(), policy())],
            ..Plan::default()
        })
    };
    let mut reactor = Reactor::new(LogPipe::default(), Box::new(planner)).unwrap();
    let plan = Plan {
        services: vec![sink, script],
        balancers: vec![("web".to_owned(), policy())],
        ..Plan::default()
    };
    reactor.open(&plan).unwrap();
    reactor.start(plan).unwrap();
    reactor.run().unwrap();
}

fn policy() -> Policy {
    Policy {
        max_members: 2000,
        forget: Duration::from_secs(3600),
        keep_last: false,
        when_deaf: WhenDeaf::Hold,
        timeout: Duration::from_secs(3600),
        max_skew: Duration::from_secs(1),
    }
}

fn web(cx: &Cx<'_>) -> BalancerId {
    cx.shared.members.find("web").unwrap()
}

fn announce(cx: &mut Cx<'_>, url: &str, weight: u16, ts: i64) {
    let message = Announce { url: url.as_bytes(), weight, ts, ..Announce::default() };
    let (balancer, now) = (web(cx), cx.now.mono);
    let _ = cx.shared.members.announce(balancer, &message, now);
}

fn up(url: &'static str, weight: u16, ts: i64) -> Step {
    Box::new(move |cx| {
        announce(cx, url, weight, ts);
        true
    })
}

fn leave(url: &'static str, ts: i64) -> Step {
    Box::new(move |cx| {
        let (balancer, now) = (web(cx), cx.now.mono);
        let _ = cx.shared.members.leave(balancer, url.as_bytes(), ts, now);
        true
    })
}

fn reads(file: &Path, expected: &str) -> Step {
    let (file, expected) = (file.to_owned(), expected.to_owned());
    Box::new(move |_| {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(expected.starts_with(&text), "read {text:?}, expected {expected:?}");
        text == expected
    })
}

/// Waits until the sink shows this of `url`, the error without the time that it names.
fn shows(url: &'static str, state: ViewState, error: Option<&'static str>) -> Step {
    Box::new(move |cx| {
        let balancer = web(cx);
        let Some(id) = cx.shared.members.lookup(balancer, url.as_bytes()) else { return false };
        let views: Vec<_> = cx.shared.views.of(balancer, id).collect();
        matches!(views[..], [(name, view)] if name == "exec:sh" && view.state == state && view.error == error)
    })
}

const TELL: &str = r#"
{ echo "$BEACOND_EVENT $BEACOND_BALANCER $BEACOND_URL $BEACOND_HOST $BEACOND_PORT $BEACOND_WEIGHT $BEACOND_SETTLED"
  sed 's/^/  /'; } >>"$1/told"
"#;

const A: &str = "http://10.0.0.1:80";
const B: &str = "http://[2001:db8::1]:8080";

#[test]
fn each_change_is_told_with_all_that_are_up() {
    let hook = Hook::new(TELL);
    let told = hook.file("told");
    let first = format!("up web {A} 10.0.0.1 80 1 0\n  {A} 1\n");
    let second = format!("{first}up web {B} 2001:db8::1 8080 7 0\n  {A} 1\n  {B} 7\n");
    let third = format!("{second}left web {A} 10.0.0.1 80 1 0\n  {B} 7\n");
    let fourth = format!("{third}up web {B} 2001:db8::1 8080 9 0\n  {B} 9\n");
    let fifth = format!("{fourth}left web {B} 2001:db8::1 8080 9 0\n");
    let steps = vec![
        up(A, 1, 1),
        reads(&told, &first),
        shows(A, ViewState::Up, None),
        up(B, 7, 1),
        reads(&told, &second),
        up(A, 1, 2),
        leave(A, 3),
        reads(&told, &third),
        shows(A, ViewState::Down, None),
        up(B, 9, 2),
        reads(&told, &fourth),
        leave(B, 3),
        reads(&told, &fifth),
    ];
    run(hook.planned(PATIENCE), None, steps);
}

#[test]
fn a_failure_is_shown_and_tried_again() {
    let hook =
        Hook::new(r#"echo "$BEACOND_URL" >>"$1/told"; [ -e "$1/fixed" ] || { echo broken >&2; exit 3; }"#);
    let (told, fixed) = (hook.file("told"), hook.file("fixed"));
    let fix: Step = Box::new(move |_| std::fs::write(&fixed, "").is_ok());
    let steps = vec![
        up(A, 1, 1),
        shows(A, ViewState::Checking, Some("exit status 3")),
        fix,
        shows(A, ViewState::Up, None),
        reads(&told, &format!("{A}\n{A}\n")),
    ];
    run(hook.planned(PATIENCE), None, steps);
}

#[test]
fn a_command_that_cannot_be_run_is_an_error_to_show() {
    let missing = vec!["/nonexistent/sh".to_owned()];
    let steps = vec![
        up(A, 1, 1),
        up(B, 1, 1),
        shows(A, ViewState::Checking, Some("cannot run: No such file or directory")),
    ];
    run(planned(missing, PATIENCE), None, steps);
}

#[test]
fn at_the_deadline_the_whole_group_is_killed() {
    let hook = Hook::new("sleep 1000 & echo $! $$ >\"$1/pids\"; wait");
    let pids = hook.file("pids");
    let gone: Step = Box::new(move |_| {
        let text = std::fs::read_to_string(&pids).unwrap();
        let mut pids = text.split_whitespace().map(|pid| pid.parse().unwrap());
        let [sleep, shell]: [i32; 2] = std::array::from_fn(|_| pids.next().unwrap());
        assert!(kill(Pid::from_raw(shell), None).is_err(), "the shell has been reaped");
        // The grandchild is reaped by whoever is init here, sooner or later; a zombie is dead enough.
        let stat = std::fs::read_to_string(format!("/proc/{sleep}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")
    });
    let steps = vec![up(A, 1, 1), shows(A, ViewState::Checking, Some("killed after 300ms")), gone];
    run(hook.planned(Duration::from_millis(300)), None, steps);
}

#[test]
fn at_the_deadline_a_command_that_left_its_group_is_killed_too() {
    // Into the group of the test itself, where only its own number reaches it.
    let hook = Hook::new("exec perl -e 'setpgrp(0, getpgrp(getppid())); sleep 1000'");
    let steps = vec![up(A, 1, 1), shows(A, ViewState::Checking, Some("killed after 300ms"))];
    run(hook.planned(Duration::from_millis(300)), None, steps);
}

#[test]
fn a_long_list_a_deaf_command_and_a_shouting_one() {
    // More than a pipe holds, to a command that reads it, one that reads nothing and one that writes without end.
    let hook = Hook::new(
        r#"case "$BEACOND_WEIGHT" in
            0) ;;
            1) wc -l >"$1/counted" ;;
            2) echo told >"$1/deaf" ;;
            3) head -c 3000000 /dev/zero | tr '\0' '\n' >&2; yes shouting | head -c 3000000 >&2; echo told >"$1/loud" ;;
        esac"#,
    );
    // A comes first in the same turn, so it is told first, with everybody in the list.
    let everybody: Step = Box::new(|cx| {
        announce(cx, A, 1, 1);
        for n in 0..300 {
            announce(cx, &format!("http://{n:03}{}.example.org:8080", ".a-long-name".repeat(19)), 0, 1);
        }
        true
    });
    let steps = vec![
        everybody,
        reads(&hook.file("counted"), "301\n"),
        up(A, 2, 2),
        reads(&hook.file("deaf"), "told\n"),
        up(A, 3, 3),
        reads(&hook.file("loud"), "told\n"),
        shows(A, ViewState::Up, None),
    ];
    run(hook.planned(PATIENCE), None, steps);
}

#[test]
fn a_reload_lets_the_run_end_and_tells_the_new_command() {
    let old = Hook::new(
        r#"echo start >>"$1/told"; until [ -e "$1/go" ]; do sleep 0.01; done; echo end >>"$1/told""#,
    );
    let new = Hook::new(r#"echo "$BEACOND_EVENT" >>"$1/told""#);
    let (told, go, told_new) = (old.file("told"), old.file("go"), new.file("told"));
    let nothing_yet = told_new.clone();
    let steps: Vec<Step> = vec![
        up(A, 1, 1),
        reads(&told, "start\n"),
        Box::new(|cx| {
            cx.reload(Key(1));
            true
        }),
        Box::new(|cx| cx.shared.views.sinks().count() == 1),
        shows(A, ViewState::Checking, None),
        Box::new(move |_| {
            assert!(!nothing_yet.exists(), "one at a time");
            std::fs::write(&go, "").is_ok()
        }),
        reads(&told, "start\nend\n"),
        reads(&told_new, "up\n"),
        shows(A, ViewState::Up, None),
    ];
    run(old.planned(PATIENCE), Some(new.planned(PATIENCE)), steps);
}

#[test]
fn the_end_has_the_patience_that_the_command_was_given() {
    let hook = Hook::new(r#"echo start >>"$1/told"; sleep 5.5; echo end >>"$1/told""#);
    let told = hook.file("told");
    run(hook.planned(PATIENCE), None, vec![up(A, 1, 1), reads(&told, "start\n")]);
    assert_eq!(std::fs::read_to_string(told).unwrap(), "start\nend\n");
}

#[test]
fn the_end_waits_for_the_run_and_begins_no_other() {
    let hook = Hook::new(
        r#"echo "$BEACOND_URL" >>"$1/told"; until [ -e "$1/go" ]; do sleep 0.01; done; echo end >>"$1/told""#,
    );
    let (told, go) = (hook.file("told"), hook.file("go"));
    let told_later = Rc::new(told.clone());
    let steps: Vec<Step> = vec![
        up(A, 1, 1),
        up(B, 1, 1),
        reads(&told, &format!("{A}\n")),
        // The last step: the program begins to end in the same turn.
        Box::new(move |_| std::fs::write(&go, "").is_ok()),
    ];
    run(hook.planned(PATIENCE), None, steps);
    assert_eq!(std::fs::read_to_string(&*told_later).unwrap(), format!("{A}\nend\n"));
}
