//! Receiver and sender, the real binary on loopback.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::daemon::{Daemon, private_file, run, secret_file};
use common::sender::{Sender, now_us};
use common::{SECRET, wait_until};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};

const LISTEN: &str = "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --balancer web";

fn receiver(dir: &std::path::Path, more: &str) -> Daemon {
    Daemon::start(dir, &format!("{LISTEN} --secret-file {} {more}", secret_file(dir)))
}

#[test]
fn a_member_appears_falls_silent_and_returns() {
    let dir = tempfile::tempdir().unwrap();
    let listen = receiver(dir.path(), "--timeout 300ms");
    let sender = Sender::new(listen.listening());
    let url = "http://127.9.0.1:8080";

    sender.announce(url, " weight=3 every=100ms");
    listen.line(&format!("added backend {url} to balancer://web"));
    let member = listen.member("web", url);
    assert_eq!(member["state"], "up");
    assert_eq!(member["weight"], 3);
    assert_eq!(member["host"], "test");
    assert_eq!(member["pid"], 7);
    assert_eq!(member["key"], 0);
    assert!(member["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{member}");

    listen.line(&format!("evicted backend {url} from balancer://web"));
    assert_eq!(listen.member("web", url)["state"], "down");

    sender.announce(url, "");
    listen.line(&format!("re-enabled backend {url} in balancer://web"));
    assert_eq!(listen.member("web", url)["state"], "up");

    sender.leave(url);
    listen.line(&format!("left backend {url} from balancer://web"));
    assert_eq!(listen.member("web", url)["state"], "left");
    assert_eq!(listen.stop(), Some(0));
}

/// The process is stopped as it comes back from waiting, with what it was called for in its hands and announcements in
/// its socket. By the clock everybody has been silent for too long; they were not.
#[test]
fn a_pause_of_the_process_is_nobodys_silence() {
    let dir = tempfile::tempdir().unwrap();
    let listen = receiver(dir.path(), "--timeout 1500ms --when-deaf evict");
    let sender = Sender::new(listen.listening());
    let url = "http://127.9.0.1:8080";
    for round in 0..2 {
        sender.announce(url, "");
        // Something to do that is no announcement.
        let mut other = std::os::unix::net::UnixStream::connect(&listen.control).unwrap();
        let heard = |count| wait_until("it is heard", || listen.counter("beacon.accepted") >= count);
        heard(2 * round + 1);
        listen.signal("STOP");
        other.write_all(b"s").unwrap();
        // Longer than the timeout: this time is what is tested.
        std::thread::sleep(Duration::from_secs(2));
        sender.announce(url, "");
        listen.signal("CONT");
        heard(2 * round + 2);
    }
    assert_eq!(listen.counter("member.evicted"), 0, "{:#?}", listen.log());
}

/// Two listeners of one balancer: what the one admits, the other still does not.
#[test]
fn each_listener_admits_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let secret = secret_file(dir.path());
    let listen = |ports| {
        format!(
            "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8:{ports} --balancer web --secret-file {secret}"
        )
    };
    let daemon = Daemon::start(dir.path(), &format!("{} + {}", listen("9000-9099"), listen("8000-8099")));
    let wide = daemon.listening();
    let mark = daemon.log().iter().position(|line| line.contains("listening for beacons")).unwrap() + 1;
    let (_, line) = daemon.line_after(mark, "listening for beacons on ");
    let fenced = line.rsplit(' ').next().unwrap().parse().unwrap();
    let url = "http://127.9.0.1:9050";
    Sender::new(wide).announce(url, " weight=5");
    daemon.line("added backend");
    let stranger = Sender::new(fenced);
    stranger.announce(url, " weight=0");
    stranger.leave(url);
    wait_until("both are dropped", || daemon.counter("beacon.drop.bad_url") == 2);
    let member = daemon.member("web", url);
    assert_eq!((&member["state"], &member["weight"]), (&json!("up"), &json!(5)));
}

/// An operator replaces `timeout 0` because of members that are dead: those it is meant for.
#[test]
fn a_reloaded_timeout_evicts_those_that_are_silent_already() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("beacond.conf");
    let configure = |timeout| {
        let secret = secret_file(dir.path());
        let text = format!(
            "[listen]\nlisten 127.0.0.1:0\nallow 127.0.0.0/8\nbalancer web\ntimeout {timeout}\nsecret-file {secret}\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    configure("0");
    let daemon = Daemon::start(dir.path(), &format!("-c {}", file.display()));
    let url = "http://127.9.0.1:8080";
    Sender::new(daemon.listening()).announce(url, "");
    daemon.line("added backend");
    configure("300ms");
    daemon.signal("HUP");
    daemon.line("configuration reloaded");
    daemon.line(&format!("evicted backend {url}"));
}

#[test]
fn every_malformed_datagram_has_a_reason_and_a_counter() {
    let dir = tempfile::tempdir().unwrap();
    let listen = receiver(dir.path(), "--max-members 1");
    let to = listen.listening();
    let sender = Sender::new(to);
    let rogue = Sender::with_secret(to, "another-secret-of-good-length");
    let now = now_us();
    sender.raw(b"");
    sender.raw(b"BEACON url=http://127.9.0.1:80");
    sender.raw(b"BEACON url=http://127.9.0.1:80 mac=1");
    rogue.announce("http://127.9.0.1:80", "");
    sender.send("BEACON url=http://127.9.0.1:80");
    sender.send(&format!("BEACON url=http://127.9.0.1:80 ts={}", now - 31_000_000));
    sender.announce("http://10.0.0.1:80", "");
    sender.announce("gopher://127.9.0.1:80", "");
    sender.announce("http://127.9.0.1:80", " to=other");
    sender.send(&format!("BEACON leave=http://127.9.0.1:80 url=http://127.9.0.1:80 ts={now}"));
    sender.send(&format!("BEACON url=http://127.9.0.1:80 ts={now}"));
    sender.send(&format!("BEACON url=http://127.9.0.1:80 ts={now}"));
    sender.announce("http://127.9.0.2:80", "");
    wait_until("all thirteen are counted", || listen.counter("beacon.received") == 13);
    let counters = listen.status()["counters"].clone();
    let wanted = [
        ("empty", 1),
        ("no_mac", 1),
        ("bad_mac_length", 1),
        ("mac_mismatch", 1),
        ("no_ts", 1),
        ("stale_timestamp", 1),
        ("bad_url", 3),
        ("wrong_balancer", 1),
        ("replayed_ts", 1),
        ("table_full", 1),
    ];
    for (reason, count) in wanted {
        assert_eq!(counters[format!("beacon.drop.{reason}")], count, "{reason}: {counters}");
    }
    // At most one line a second at warn, each drop at debug.
    let log = listen.log();
    assert_eq!(log.iter().filter(|l| l.contains("dropped an announcement from")).count(), 11, "{log:#?}");
    let lines = log.iter().filter(|l| l.contains("announcement(s) (last: ")).count();
    assert!((1..=3).contains(&lines), "{log:#?}");
}

#[test]
fn announce_speaks_to_listen_and_says_goodbye() {
    let dir = tempfile::tempdir().unwrap();
    let secret = secret_file(dir.path());
    let listen = receiver(dir.path(), "");
    let second = receiver(dir.path(), "");
    let url = "http://127.9.1.1:8080";
    let announce = Daemon::start(
        dir.path(),
        &format!(
            "announce --address {} --address {} --advertise {url} --allow 127.0.0.0/8 --balancer web --weight 9 \
             --interval 100ms --secret-file {secret}",
            listen.listening(),
            second.listening()
        ),
    );
    for receiver in [&listen, &second] {
        receiver.line(&format!("added backend {url} to balancer://web"));
        wait_until("it is refreshed", || receiver.counter("beacon.accepted") > 3);
        let member = receiver.member("web", url);
        assert_eq!(member["weight"], 9);
        assert_eq!(member["interval_s"], 0.1);
    }
    assert_eq!(announce.stop(), Some(0));
    listen.line(&format!("left backend {url} from balancer://web"));
    second.line(&format!("left backend {url} from balancer://web"));
}

#[test]
fn the_last_drop_of_a_burst_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    let listen = receiver(dir.path(), "");
    let sender = Sender::new(listen.listening());
    sender.raw(b"BEACON url=http://127.9.0.1:80");
    sender.announce("gopher://127.9.0.1:80", "");
    sender.announce("http://127.9.0.1:80", " to=other");
    listen.line("dropped 1 announcement(s) (last: no mac)");
    listen.line("dropped 2 announcement(s) (last: wrong balancer)");
    let places = listen.log().iter().filter(|l| l.ends_with(" at 127.0.0.1:0")).count();
    assert_eq!(places, 2, "{:#?}", listen.log());
    sender.raw(b"BEACON");
    wait_until("it is counted", || listen.counter("beacon.drop.no_mac") == 2);
    let log = listen.mark();
    assert_eq!(listen.stop_with_log().iter().skip(log).filter(|l| l.contains("(last: no mac)")).count(), 1);
}

#[test]
fn advertise_without_a_host_fills_in_the_source_address() {
    let dir = tempfile::tempdir().unwrap();
    let secret = secret_file(dir.path());
    let listen = receiver(dir.path(), "");
    let _announce = Daemon::start(
        dir.path(),
        &format!(
            "announce --address {} --advertise http://:8080 --allow 127.0.0.0/8 --secret-file {secret}",
            listen.listening()
        ),
    );
    listen.line("added backend http://127.0.0.1:8080 to balancer://web");
}

#[test]
fn a_name_that_does_not_resolve_is_never_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let secret = secret_file(dir.path());
    let listen = receiver(dir.path(), "");
    let announce = Daemon::start(
        dir.path(),
        &format!(
            "announce --address no-such-host.invalid --address {} --address localhost:{} --advertise http://:1 \
             --allow 127.0.0.0/8 --secret-file {secret}",
            listen.listening(),
            listen.listening().port()
        ),
    );
    announce.line("cannot resolve no-such-host.invalid");
    listen.line("added backend http://127.0.0.1:1 to balancer://web");
    wait_until("both routes announce", || listen.counter("beacon.accepted") >= 2);
}

#[test]
fn rotation_signs_with_the_first_or_with_all() {
    let dir = tempfile::tempdir().unwrap();
    let old = private_file(dir.path(), "old", &format!("{SECRET}\n"));
    let new = private_file(dir.path(), "new", &format!("a-new-secret-of-good-length\n{SECRET}\n"));
    let knows_old = Daemon::start(dir.path(), &format!("{LISTEN} --secret-file {old}"));
    let knows_both = Daemon::start(dir.path(), &format!("{LISTEN} --secret-file {new}"));
    let url = "http://127.9.2.1:80";
    let _sender = Daemon::start(
        dir.path(),
        &format!(
            "announce --address {} --address {} --advertise {url} --allow 127.0.0.0/8 --secret-file {new} --sign all",
            knows_old.listening(),
            knows_both.listening()
        ),
    );
    for receiver in [&knows_old, &knows_both] {
        receiver.line("added backend");
    }
    wait_until("both datagrams arrive", || knows_both.counter("beacon.accepted") == 2);
    assert_eq!(knows_both.member("web", url)["key"], 1, "the last of the two is signed with the second");
    assert_eq!(knows_old.counter("beacon.drop.mac_mismatch"), 1);
}

#[test]
fn member_keys_bind_a_backend_to_its_url() {
    let dir = tempfile::tempdir().unwrap();
    let master = private_file(dir.path(), "master", "a-master-key-of-good-length\n");
    let mine = "http://127.9.3.1:80";
    let out = run(&format!("keygen member --master {master} --balancer web --url {mine}"));
    assert!(out.status.success(), "{out:?}");
    let passphrase = String::from_utf8(out.stdout).unwrap();
    let listen = Daemon::start(dir.path(), &format!("{LISTEN} --member-keys {master}"));
    let sender = Sender::with_secret(listen.listening(), passphrase.trim());
    sender.announce("http://127.9.3.2:80", "");
    sender.announce(mine, "");
    listen.line(&format!("added backend {mine} to balancer://web"));
    assert_eq!(listen.counter("beacon.drop.mac_mismatch"), 1);
    assert_eq!(listen.member("web", "http://127.9.3.2:80"), Value::Null);
}

#[test]
fn health_decides_who_is_announced() {
    let dir = tempfile::tempdir().unwrap();
    let secret = secret_file(dir.path());
    let listen = receiver(dir.path(), "");
    let backend = common::backend::Backend::start(common::own_ip());
    let url = backend.url();
    let announce = Daemon::start(
        dir.path(),
        &format!(
            "announce --address {} --advertise {url} --allow 127.0.0.0/8 --secret-file {secret} --interval 100ms \
             --check {url}/ --check-interval 100ms --rise 2 --fall 2 --leave-on-fail",
            listen.listening()
        ),
    );
    announce.line("healthy: announcing");
    listen.line(&format!("added backend {url}"));
    let addr = backend.addr;
    drop(backend);
    announce.line("unhealthy: saying goodbye");
    listen.line(&format!("left backend {url}"));
    let _backend = common::backend::Backend::start_at(addr);
    listen.line(&format!("re-enabled backend {url}"));
}

#[test]
fn a_deaf_receiver_evicts_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let listen = receiver(dir.path(), "--timeout 400ms");
    let sender = Sender::new(listen.listening());
    let rogue = Sender::with_secret(listen.listening(), "another-secret-of-good-length");
    let urls = ["http://127.9.4.1:80", "http://127.9.4.2:80"];
    for url in urls {
        sender.announce(url, "");
    }
    wait_until("both are up", || urls.iter().all(|u| listen.member("web", u)["state"] == "up"));
    rogue.announce(urls[0], "");
    let line = listen.line("deaf");
    assert!(line.contains("mac mismatch"), "{line}");
    assert!(listen.status()["balancers"]["web"]["deaf_since_s"].is_number());
    assert!(urls.iter().all(|u| listen.member("web", u)["state"] == "up"));
    // Heard again: the other one has a full timeout, and then is evicted after all.
    sender.announce(urls[0], "");
    let heard = Instant::now();
    wait_until("deafness is over", || listen.status()["balancers"]["web"]["deaf_since_s"].is_null());
    while listen.log().iter().all(|l| !l.contains("evicted backend")) {
        sender.announce(urls[0], "");
        assert!(heard.elapsed() < common::PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(heard.elapsed() >= Duration::from_millis(390), "{:?}", heard.elapsed());
    assert_eq!(listen.member("web", urls[0])["state"], "up");
    assert_eq!(listen.member("web", urls[1])["state"], "down");
}

#[test]
fn unauthenticated_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let listen = Daemon::start(dir.path(), &format!("{LISTEN} --unauthenticated"));
    listen.line("UNAUTHENTICATED");
    let sender = Sender::new(listen.listening());
    sender.raw(b"url=http://127.9.5.1:80");
    listen.line("added backend http://127.9.5.1:80");
    sender.raw(b"BEACON leave=http://127.9.5.1:80");
    wait_until("the goodbye is ignored", || listen.counter("beacon.received") == 2);
    assert_eq!(listen.member("web", "http://127.9.5.1:80")["state"], "up");
}

#[test]
fn status_has_the_agreed_shape() {
    let dir = tempfile::tempdir().unwrap();
    let listen = receiver(dir.path(), "");
    Sender::new(listen.listening()).announce("http://127.9.6.1:80", "");
    listen.line("added backend");
    let status = listen.status();
    assert!(status["version"].is_string() && status["uptime_s"].is_u64(), "{status}");
    assert!(status["balancers"]["web"].as_object().unwrap().contains_key("deaf_since_s"));
    let mut member = status["balancers"]["web"]["members"][0].clone();
    let from = member["from"].take();
    assert!(from.as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(member["age_s"].take().is_number());
    let wanted = json!({"url": "http://127.9.6.1:80", "state": "up", "weight": 1, "age_s": null, "interval_s": null,
        "from": null, "host": "test", "pid": 7, "key": 0, "sinks": {}});
    assert_eq!(member, wanted);
    let table = run(&format!("status --control {}", listen.control.display()));
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("http://127.9.6.1:80") && table.contains("up"), "{table}");
}
