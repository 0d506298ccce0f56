//! The life of a daemon: start, errors, reload, control socket, state file, end.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::daemon::{Daemon, private_file, run, run_args, secret_file};
use common::sender::Sender;
use common::{SECRET, wait_until};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const LISTEN: &str = "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --balancer web";

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn daemon_of(dir: &Path, config: &Path) -> Daemon {
    Daemon::start(dir, &format!("-c {}", config.display()))
}

#[track_caller]
fn refused(line: &str, status: i32, message: &str) {
    let out = run(line);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(status), "{line}\n{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.contains(message), "{line}\nwanted: {message}\nsaid: {stderr}");
    assert!(!stderr.contains(SECRET));
}

#[test]
fn check_warns_of_what_a_start_would_warn_of() {
    let dir = tempfile::tempdir().unwrap();
    let odd = private_file(dir.path(), "odd", &format!("# from Windows\n{SECRET}\r\n"));
    let wanted =
        format!("secret file {odd}: line 2: the carriage return at its end counts as part of the secret");
    let checked = run(&format!("check {LISTEN} --secret-file {odd} + exec --command true --balancer web"));
    let stdout = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(stdout, format!("warning: argument 9 (--secret-file): {wanted}\nok\n"));
    let daemon = Daemon::start(dir.path(), &format!("{LISTEN} --secret-file {odd}"));
    daemon.line(&wanted);
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_the_agreed_status() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let secret = secret_file(dir.path());
    let open = private_file(dir.path(), "open", &format!("{SECRET}\n"));
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let short = private_file(dir.path(), "short", "hunter2\n");
    let busy = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap();

    refused("listen --listen 127.0.0.1:0", 2, "a secret to verify with");
    refused("listen --tiemout 3", 2, "did you mean timeout?");
    refused(
        &format!("listen --secret-file {secret} --timeout soon"),
        2,
        "argument 4 (--timeout): 'soon': wanted a time",
    );
    refused(&format!("listen --secret-file {secret} --max-skew 500ms"), 2, "whole seconds");
    refused(&format!("listen --secret-file {secret} --rcvbuf 2g"), 2, "'2g': wanted a size from 4k to 512m");
    refused(
        &format!("listen --secret-file {secret} --balancer balancer://"),
        2,
        "printable ASCII characters",
    );
    refused(&format!("listen --secret-file {open}"), 2, "readable or writable by everybody");
    refused(&format!("listen --secret-file {short}"), 2, "22");
    refused(&format!("listen --secret-file {at}/none"), 1, "none");
    refused(&format!("listen --secret-file {secret} --listen 192.0.2.1:0"), 1, "no such address");
    refused(&format!("listen --secret-file {secret} --listen no-such-host.invalid:0"), 1, "cannot resolve");
    refused(
        &format!("listen --secret-file {secret} --listen {busy}"),
        1,
        "argument 4 (--listen): cannot open",
    );
    let long = "x".repeat(104);
    refused(&format!("--control {long} {LISTEN} --unauthenticated"), 2, "): 'xxx");
    refused(&format!("--control {long} {LISTEN} --unauthenticated"), 2, "a path of at most 103 bytes");
    for check in ["", "check "] {
        for (option, value, said) in [
            ("--user", "nosuch", "'nosuch': no such user"),
            ("--state", "/nosuch/x", "/nosuch: no such folder: make it first"),
            ("--pid-file", "/nosuch/x", "/nosuch: no such folder: make it first"),
            ("--control", "/nosuch/x", "/nosuch: no such folder: make it first"),
        ] {
            refused(
                &format!("{check}{option} {value} {LISTEN} --unauthenticated"),
                1,
                &format!("({option}): {said}"),
            );
        }
    }
    if cfg!(feature = "etcd") {
        refused(
            "etcd --endpoint http://u:hush@h:80",
            2,
            "'...@h:80': wanted a url without user and password: see --auth-file",
        );
    }
    let login = "announce --address 127.0.0.1 --check http://u:hush@h:80/";
    refused(
        &format!("{login} --secret-file {secret} --advertise http://127.0.0.1:80 --allow 127.0.0.0/8"),
        2,
        "): '...@h:80/': wanted a url without user and password",
    );
    refused(
        &format!("announce --secret-file {secret} --address 127.0.0.1 --advertise http://127.0.0.1:80"),
        2,
        "--allow",
    );
    refused(
        &format!("announce --secret-file {secret} --address 127.0.0.1 --advertise mailto:x"),
        2,
        "advertise",
    );
    refused(&format!("-c {at}/none.conf"), 1, "none.conf");
    refused(
        &format!("listen --secret-file {secret} + listen --secret-file {secret} --forget 1d"),
        2,
        "forget",
    );
    refused(&format!("status --control {at}/none"), 1, "is beacond running");

    let config = dir.path().join("c");
    write(&config, &format!("[listen]\nlisten 127.0.0.1:0\nsecret-file {secret}\ntimeout x\n"));
    refused(&format!("check -c {}", config.display()), 2, "c:4: timeout: 'x': wanted a time");
    write(&config, &format!("[listen]\nlisten 127.0.0.1:0\nsecret-file {secret}\n"));
    let out = run(&format!("check --show -c {}", config.display()));
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        text.ends_with("ok\n") && text.contains("timeout 30  (default)") && text.contains("/c:3)"),
        "{text}"
    );
    assert!(!text.contains(SECRET));
}

#[test]
fn reload_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let secret = secret_file(dir.path());
    let config = dir.path().join("beacond.conf");
    let first =
        format!("[listen]\nlisten 127.0.0.1:0\nbalancer web\nallow 127.0.0.0/8\nsecret-file {secret}\n");
    write(&config, &first);
    let daemon = daemon_of(dir.path(), &config);
    let addr = daemon.listening();
    Sender::new(addr).announce("http://127.9.0.1:80", "");
    daemon.line("added backend http://127.9.0.1:80");
    let reload = format!("reload --control {}", daemon.control.display());

    // Nothing changed: nothing restarts.
    assert!(run(&reload).status.success());
    assert_eq!(daemon.log().iter().filter(|l| l.contains("listening for beacons")).count(), 1);

    // A mistake: said to the client and in the log, and everything runs on.
    write(&config, &format!("{first}[nonsense]\n"));
    let out = run(&reload);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("nonsense"), "{out:?}");
    daemon.line("reload failed, nothing changed");
    // One socket of two cannot be opened: the other is not opened either.
    write(
        &config,
        &format!(
            "{first}[listen]\nlisten 127.0.0.1:0\nbalancer b\nsecret-file {secret}\n[listen]\nlisten 192.0.2.1:9\nbalancer c\nsecret-file {secret}\n"
        ),
    );
    let out = run(&reload);
    assert_eq!(out.status.code(), Some(1));
    let place = format!("{}:11: listen: cannot open", config.display());
    assert!(String::from_utf8_lossy(&out.stderr).contains(&place), "{out:?}");
    assert!(daemon.status()["balancers"].get("b").is_none());
    assert_eq!(daemon.listening(), addr);

    // A change: the same socket, the same members, other rules; and a second receiver.
    let mark = daemon.mark();
    let second = first.replace("allow 127.0.0.0/8", "allow 127.9.0.2\ntimeout 400ms");
    write(&config, &format!("{second}[listen]\nlisten 127.0.0.1:0\nbalancer b\nsecret-file {secret}\n"));
    daemon.signal("HUP");
    daemon.line_after(mark, "configuration reloaded");
    assert!(daemon.line_after(mark, "listening for beacons on").1.contains(&addr.to_string()));
    assert_eq!(daemon.member("web", "http://127.9.0.1:80")["state"], "up");
    assert!(daemon.status()["balancers"]["b"].is_object());
    Sender::new(addr).announce("http://127.9.0.2:80", "");
    daemon.line("added backend http://127.9.0.2:80");
    // The member that is not admitted any more cannot keep itself alive.
    Sender::new(addr).announce("http://127.9.0.1:80", "");
    wait_until("it is refused", || daemon.counter("beacon.drop.bad_url") == 1);

    // A secret that changed inside its file counts as a change, too.
    private_file(dir.path(), "secret", "an-entirely-different-secret-now\n");
    assert!(run(&reload).status.success());
    Sender::new(addr).announce("http://127.9.0.2:80", "");
    wait_until("the old secret is refused", || daemon.counter("beacon.drop.mac_mismatch") == 1);

    // A balancer that is gone from the file is gone.
    write(&config, &second);
    assert!(run(&reload).status.success());
    assert_eq!(daemon.status()["balancers"].get("b"), None);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_reload_that_renames_the_balancer_goes_on_hearing() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("conf");
    let text = |balancer: &str| {
        format!("[listen]\nlisten 127.0.0.1:0\nunauthenticated\nallow 127.0.0.0/8\nbalancer {balancer}\n")
    };
    write(&config, &text("old"));
    let daemon = daemon_of(dir.path(), &config);
    let addr = daemon.listening();
    write(&config, &text("new"));
    let reload = format!("reload --control {}", daemon.control.display());
    assert!(run(&reload).status.success());
    Sender::new(addr).raw(b"url=http://127.9.0.1:80");
    daemon.line("added backend http://127.9.0.1:80 to balancer://new");
}

#[test]
fn two_commands_of_one_program_have_views_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("beacond.conf");
    let base =
        format!("[listen]\nlisten 127.0.0.1:0\nallow 127.0.0.0/8\nsecret-file {}\n", secret_file(dir.path()));
    let [one, two] = ["1", "2"].map(|name| format!("[exec]\ncommand sh -c \"exit {name}\"\n"));
    write(&config, &format!("{base}{one}{two}"));
    let daemon = daemon_of(dir.path(), &config);
    Sender::new(daemon.listening()).announce("http://127.9.5.1:80", "");
    let errors = || {
        let sinks = daemon.member("default", "http://127.9.5.1:80")["sinks"].clone();
        let sinks = sinks.as_object().cloned().unwrap_or_default();
        let error = |view: &serde_json::Value| view["error"].as_str().unwrap_or_default().to_owned();
        sinks.iter().map(|(name, view)| format!("{name} {}", error(view))).collect::<Vec<_>>()
    };
    let both = ["exec:sh exit status 1", "exec:sh@2 exit status 2"];
    wait_until("each shows what became of it", || errors() == both);
    write(&config, &format!("{base}{two}"));
    daemon.signal("HUP");
    daemon.line("configuration reloaded");
    wait_until("the other is alone", || errors() == ["exec:sh exit status 2"]);
    let mark = daemon.mark();
    write(&config, &format!("{base}{two}{one}"));
    daemon.signal("HUP");
    daemon.line_after(mark, "configuration reloaded");
    wait_until("both are there", || errors() == ["exec:sh exit status 2", "exec:sh@2 exit status 1"]);
}

#[test]
fn a_reload_that_drops_a_sender_says_goodbye() {
    let dir = tempfile::tempdir().unwrap();
    let secret = secret_file(dir.path());
    let listen = Daemon::start(dir.path(), &format!("{LISTEN} --secret-file {secret}"));
    let config = dir.path().join("announce.conf");
    let section = |url: &str, interval: &str| {
        format!(
            "[announce]\naddress {}\nadvertise {url}\nallow 127.0.0.0/8\nsecret-file {secret}\ninterval {interval}\n",
            listen.listening()
        )
    };
    let (one, two) = ("http://127.9.0.1:80", "http://127.9.0.2:80");
    write(&config, &(section(one, "100ms") + &section(two, "100ms")));
    let announce = daemon_of(dir.path(), &config);
    listen.line(&format!("added backend {one}"));
    listen.line(&format!("added backend {two}"));
    write(&config, &section(one, "200ms"));
    announce.signal("HUP");
    listen.line(&format!("left backend {two}"));
    let before = listen.counter("beacon.accepted");
    wait_until("the other goes on", || listen.counter("beacon.accepted") > before + 2);
    assert_eq!(listen.member("web", one)["interval_s"], 0.2);
    assert_eq!(listen.counter("beacon.drop.replayed_ts"), 0, "timestamps go on across a reload");
    assert!(!listen.log().iter().any(|l| l.contains(&format!("left backend {one}"))));
}

#[test]
fn the_control_socket_has_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &format!("{LISTEN} --unauthenticated"));
    daemon.listening();
    let mode = fs::metadata(&daemon.control).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ask = |text: &str| {
        let mut stream = UnixStream::connect(&daemon.control).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    };
    assert!(ask("status json\n").starts_with("ok\n{"));
    assert!(ask("status\r\n").starts_with("ok\n"));
    assert!(ask("make coffee\n").starts_with("error wanted: status"));
    assert!(ask(&"x".repeat(4000)).starts_with("error "));
    assert!(ask("\n").starts_with("error "));
    // A line that is ended by the end alone.
    let mut stream = UnixStream::connect(&daemon.control).unwrap();
    stream.write_all(b"status json").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("ok\n{"), "{reply}");
    // Eight that say nothing take all places; a ninth is told so; when they go there is room again.
    let idle: Vec<UnixStream> = (0..8).map(|_| UnixStream::connect(&daemon.control).unwrap()).collect();
    wait_until("all places are taken", || {
        let mut ninth = UnixStream::connect(&daemon.control).unwrap();
        let mut reply = String::new();
        let _ = ninth.read_to_string(&mut reply);
        reply == "error too many clients\n"
    });
    let turned_away = run(&format!("status --control {}", daemon.control.display()));
    assert_eq!(String::from_utf8_lossy(&turned_away.stderr), "beacond: too many clients\n");
    // They harm nobody else.
    Sender::new(daemon.listening()).raw(b"url=http://127.9.0.1:80");
    daemon.line("added backend http://127.9.0.1:80");
    drop(idle);
    wait_until("there is room again", || daemon.status().is_object());
}

#[test]
fn the_log_level_changes_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with("info", dir.path(), &format!("{LISTEN} --unauthenticated"));
    let sender = Sender::new(daemon.listening());
    let control = daemon.control.display().to_string();
    assert!(run(&format!("log debug --for 300ms --control {control}")).status.success());
    daemon.line("log level is now debug");
    sender.raw(b"url=http://127.9.0.1:80");
    daemon.line("received: url=http://127.9.0.1:80");
    daemon.line("log level is now info");
    assert_eq!(run(&format!("log loud --control {control}")).status.code(), Some(2));
}

#[test]
fn a_reload_keeps_who_is_at_the_control_socket() {
    let dir = tempfile::tempdir().unwrap();
    if !cfg!(feature = "proxy") {
        return;
    }
    let config = dir.path().join("conf");
    let text = |level: &str| {
        let roles = "[listen]\nlisten 127.0.0.1:0\nallow 127.0.0.0/8\nbalancer web\nunauthenticated\n";
        let proxy = "[proxy]\nlisten 127.0.0.1:0\nroute default=127.0.0.1:9\n";
        write(&config, &format!("log-level {level}\n{roles}{proxy}"));
    };
    text("info");
    let daemon = daemon_of(dir.path(), &config);
    daemon.listening();
    let mut trace = BufReader::new(UnixStream::connect(&daemon.control).unwrap());
    trace.get_ref().write_all(b"trace for 1500ms\n").unwrap();
    let mut line = String::new();
    trace.read_line(&mut line).unwrap();
    assert_eq!(line, "ok\n");
    text("debug\npid-file p");
    let reload = run(&format!("reload --control {}", daemon.control.display()));
    assert!(reload.status.success(), "{reload:?}");
    let said = "control, state, user, pid-file and log-stamp change at the next start, not at a reload\n";
    assert_eq!(String::from_utf8_lossy(&reload.stdout), said);
    line.clear();
    trace.read_to_string(&mut line).unwrap();
    assert_eq!(line, "… 0 of 10 sessions\n");
    text("debug");
    let reload = run(&format!("reload --control {}", daemon.control.display()));
    assert!(reload.status.success() && reload.stdout.is_empty(), "{reload:?}");
}

#[test]
fn sessions_and_traces_are_asked_for_by_commands() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &format!("{LISTEN} --unauthenticated"));
    daemon.listening();
    let control = daemon.control.display().to_string();
    let said = |line: &str| String::from_utf8(run(&format!("{line} --control {control}")).stdout).unwrap();
    assert_eq!(said("status --sessions"), "nothing here carries sessions\n");
    assert_eq!(said("status --sessions --json"), "{\"proxies\":[],\"proxies_left_out\":0}\n");
    refused(&format!("trace --control {control}"), 1, "nothing here carries sessions");
    if cfg!(feature = "proxy") {
        let line = format!("{LISTEN} --unauthenticated + proxy --listen 127.0.0.1:0 --balancer web");
        let daemon = Daemon::start(dir.path(), &line);
        daemon.listening();
        let control = daemon.control.display().to_string();
        let said =
            |line: &str| String::from_utf8(run(&format!("{line} --control {control}")).stdout).unwrap();
        let trace = "trace --sni *.example.com --from 192.0.2.0/24 --count 7 --for 50ms";
        assert_eq!(said(trace), "… 0 of 7 sessions\n");
        refused("trace --for 2h", 2, "--for): '2h': wanted a time such as");
        refused("trace --count 1001", 2, "wanted a whole number from 1 to 1000");
        refused("trace --sni a*b", 2, "wanted a name such as");
        refused(&format!("trace --control {control}x"), 1, "is beacond running");
    }
}

#[test]
fn who_reads_no_more_hears_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &format!("{LISTEN} --unauthenticated"));
    daemon.listening();
    let beacond = common::daemon::program();
    let run_sh = |line: &str, word: &str| {
        std::process::Command::new("sh").args(["-c", line]).arg(&beacond).arg(word).output().unwrap()
    };
    let control = daemon.control.display().to_string();
    let watch = run_sh("(\"$0\" status --watch --control \"$1\"; echo $? >&2) | head -n 1", &control);
    assert_eq!(String::from_utf8_lossy(&watch.stderr), "0\n");
    let full = run_sh("echo 00 | \"$0\" decode \"$1\" >/dev/full", "beacon");
    let said = String::from_utf8_lossy(&full.stderr);
    assert!(
        full.status.code() == Some(1) && said.starts_with("beacond: standard output: No space"),
        "{full:?}"
    );
}

#[test]
fn a_second_daemon_does_not_take_a_live_control_socket() {
    let dir = tempfile::tempdir().unwrap();
    let first = Daemon::start(dir.path(), &format!("{LISTEN} --unauthenticated"));
    first.listening();
    let control = first.control.display().to_string();
    let out = run(&format!("--control {control} {LISTEN} --unauthenticated"));
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("another process answers there"), "{out:?}");
    let status = first.status();
    assert!(status.is_object());
    // One that was killed left its name behind: replaced.
    let path = first.control.clone();
    first.kill();
    assert!(path.exists());
    let second = Daemon::spawn("debug", &path, &common::daemon::args(&format!("{LISTEN} --unauthenticated")));
    second.listening();
    assert!(second.status().is_object());
    assert_eq!(second.stop(), Some(0));
    assert!(!path.exists(), "removed at a clean end");
}

fn with_state(dir: &Path, state: &Path) -> Daemon {
    Daemon::start(
        dir,
        &format!("--state {} {LISTEN} --secret-file {} --timeout 5", state.display(), secret_file(dir)),
    )
}

#[test]
fn members_and_replay_marks_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let daemon = with_state(dir.path(), &state);
    let sender = Sender::new(daemon.listening());
    let ts = common::sender::now_us();
    let datagram = format!("BEACON url=http://127.9.0.1:80 host=h pid=1 ts={ts} weight=7");
    sender.send(&datagram);
    sender.announce("http://127.9.0.2:80", "");
    daemon.line("added backend http://127.9.0.2:80");
    sender.leave("http://127.9.0.2:80");
    wait_until("the file has both", || {
        let text = fs::read_to_string(&state).unwrap_or_default();
        text.contains("127.9.0.1:80 up") && text.contains("127.9.0.2:80 left")
    });
    daemon.kill();

    let daemon = with_state(dir.path(), &state);
    daemon.line("2 members (1 up) taken over");
    let sender = Sender::new(daemon.listening());
    assert_eq!(daemon.member("web", "http://127.9.0.1:80")["state"], "up");
    assert_eq!(daemon.member("web", "http://127.9.0.1:80")["weight"], 7);
    assert_eq!(daemon.member("web", "http://127.9.0.2:80")["state"], "left");
    sender.send(&datagram);
    wait_until("the replay is refused", || daemon.counter("beacon.drop.replayed_ts") == 1);
    // A clean end writes the marks as well.
    sender.announce("http://127.9.0.1:80", "");
    wait_until("it is heard", || daemon.counter("beacon.accepted") == 1);
    assert_eq!(daemon.stop(), Some(0));
    let text = fs::read_to_string(&state).unwrap();
    assert!(!text.contains(&ts.to_string()), "{text}");
}

#[test]
fn nobody_else_can_lock_the_state_file() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let daemon = with_state(dir.path(), &state);
    daemon.listening();
    let mode = fs::metadata(dir.path().join("state.lock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_state_file_that_cannot_be_read_is_kept_beside() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::write(&state, "beacond state 99\nsomething from the future\n").unwrap();
    let daemon = with_state(dir.path(), &state);
    daemon.line("starting with an empty table");
    daemon.listening();
    let kept = fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .find(|e| e.file_name().to_string_lossy().contains("unreadable"));
    assert_eq!(
        fs::read_to_string(kept.unwrap().path()).unwrap(),
        "beacond state 99\nsomething from the future\n"
    );
    // A second process on the same file is kept out.
    let out = run(&format!(
        "--control {}/c2 --state {} {LISTEN} --unauthenticated",
        dir.path().display(),
        state.display()
    ));
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("locked"), "{out:?}");
}

#[test]
fn a_disk_that_is_full_is_said_once_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    // A folder in the way of the temporary file fails every write, whoever runs the test.
    let state = dir.path().join("state");
    fs::create_dir(dir.path().join(".state.tmp")).unwrap();
    let daemon = with_state(dir.path(), &state);
    Sender::new(daemon.listening()).announce("http://127.9.0.1:80", "");
    daemon.line("cannot write");
    fs::remove_dir(dir.path().join(".state.tmp")).unwrap();
    assert_eq!(daemon.stop(), Some(0));
    assert!(fs::read_to_string(&state).unwrap().contains("127.9.0.1:80 up"));
}

#[test]
fn pid_file_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let daemon =
        Daemon::start(dir.path(), &format!("--pid-file {} {LISTEN} --unauthenticated", pid.display()));
    daemon.listening();
    assert_eq!(fs::read_to_string(&pid).unwrap().trim(), daemon.pid().to_string());
    let mode = fs::metadata(&pid).unwrap().permissions().mode();
    assert_eq!(mode & 0o022, 0, "nobody else can have another process killed");
    assert_eq!(daemon.stop(), Some(0));
    assert!(!pid.exists());
    // A link that somebody put there is not written through.
    let precious = private_file(dir.path(), "precious", "precious");
    std::os::unix::fs::symlink(&precious, &pid).unwrap();
    refused(&format!("--pid-file {} {LISTEN} --unauthenticated", pid.display()), 1, "pid-file");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn root_is_given_up() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // Readable by nobody's group alone: fit for the user that it becomes, not for root's groups.
    let secret = secret_file(dir.path());
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    nix::unistd::chown(Path::new(&secret), None, Some(nobody.gid)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    let daemon = Daemon::start(dir.path(), &format!("--user nobody {LISTEN} --secret-file {secret}"));
    daemon.listening();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let uids = status.lines().find(|l| l.starts_with("Uid:")).unwrap();
    assert!(uids.split_whitespace().skip(1).all(|uid| uid == nobody.uid.to_string()), "{uids}");
    assert!(run(&format!("reload --control {}", daemon.control.display())).status.success());
    assert_eq!(daemon.stop(), Some(0));
    let out = run(&format!("--user no-such-user {LISTEN} --unauthenticated"));
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("no such user"), "{out:?}");
}

#[test]
fn a_reader_of_the_log_that_stalls_stalls_nothing() {
    // Standard error is a pipe that nobody reads: the daemon goes on, and says later what was lost.
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("control");
    let line = format!("--log-level debug --control {} {LISTEN} --unauthenticated", control.display());
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_beacond"))
        .args(common::daemon::args(&line))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let status = || -> Value {
        let out = run(&format!("status --json --control {}", control.display()));
        serde_json::from_slice(&out.stdout).unwrap_or(Value::Null)
    };
    wait_until("it answers", || status().is_object());
    let mut stderr = child.stderr.take().unwrap();
    let mut head = [0; 4096];
    let got = stderr.read(&mut head).unwrap();
    let text = String::from_utf8_lossy(&head[..got]).into_owned();
    let addr = text
        .split("listening for beacons on ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let sender = Sender::new(addr);
    let wanted = 3000;
    for n in 0..wanted {
        sender.raw(format!("url=http://127.9.0.1:80 {}", "x".repeat(60)).as_bytes());
        if n % 50 == 0 {
            wait_until("it keeps up", || status()["counters"]["beacon.received"].as_u64() == Some(n + 1));
        }
    }
    wait_until("all were heard", || status()["counters"]["beacon.received"].as_u64() == Some(wanted));
    let (lines, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| lines.send(line).unwrap());
    });
    let pid = child.id().to_string();
    wait_until("the backlog is out", || {
        // Each status call is an event that lets the loop see that there is room again.
        status().is_object() && heard.try_iter().any(|line| line.contains("log lines lost"))
    });
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    assert!(heard.iter().any(|line| line.contains("stopped")), "the log goes on afterwards");
    reader.join().unwrap();
}

#[test]
fn out_of_descriptors_it_still_hears_and_does_not_spin() {
    let dir = tempfile::tempdir().unwrap();
    // Enough to start with, none for a client of the control socket.
    let daemon = Daemon::spawn_limited(
        14,
        &dir.path().join("control"),
        &common::daemon::args(&format!("{LISTEN} --unauthenticated")),
    );
    let addr = daemon.listening();
    let start = Instant::now();
    let mut clients: Vec<UnixStream> =
        (0..8).map(|_| UnixStream::connect(&daemon.control).unwrap()).collect();
    daemon.line("cannot accept");
    let before = daemon.cpu();
    let sender = Sender::new(addr);
    sender.raw(b"url=http://127.9.0.1:80");
    daemon.line("added backend http://127.9.0.1:80");
    wait_until("it has tried again", || {
        daemon.log().iter().filter(|l| l.contains("cannot accept")).count() >= 3
    });
    assert!(daemon.cpu() - before < Duration::from_millis(200), "{:?}", daemon.cpu());
    let lines = daemon.log().iter().filter(|l| l.contains("cannot accept")).count();
    assert!(u64::try_from(lines).unwrap() <= start.elapsed().as_secs() + 1, "one line a second, not {lines}");
    clients.clear();
    wait_until("it answers again", || daemon.status().is_object());
}

#[test]
fn words_with_blanks_reach_a_command_whole() {
    let dir = tempfile::tempdir().unwrap();
    let out = run_args(&["check", "exec", "--command", "/bin/sh -c \"exit 0\""].map(str::to_owned));
    assert!(out.status.success(), "{out:?}");
    drop(dir);
}
