//! Announcements drive a real Caddy.
#![cfg(all(feature = "caddy", feature = "listen"))]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::backend::Backend;
use common::beat::Beat;
use common::caddy::Caddy;
use common::daemon::{Daemon, args, secret_file};
use common::load::Load;
use common::sender::Sender;
use common::standin::{Asked, StandIn, response};
use common::{Answer, get, own_ip, status_of, wait_for, wait_until};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

struct Scene {
    dir: tempfile::TempDir,
    caddy: Caddy,
}

impl Scene {
    fn new() -> Scene {
        Scene::with(r#""upstreams": []"#)
    }

    fn with(handler: &str) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let caddy = Caddy::start(dir.path(), handler);
        Scene { dir, caddy }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A receiver with a sink; `listen` and `sink` are more of their options.
    fn beacond(&self, listen: &str, sink: &str) -> Daemon {
        beacond(self.path(), self.caddy.admin, listen, sink)
    }

    fn serves(&self, backend: &Backend) -> bool {
        get(self.caddy.web, "/") == Answer::Http(200, backend.addr.to_string())
    }
}

fn beacond(dir: &Path, admin: SocketAddr, listen: &str, sink: &str) -> Daemon {
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} {listen} + caddy --url http://{admin} {sink}",
        secret_file(dir)
    );
    let id = if sink.contains("--id") { "" } else { " --id web" };
    Daemon::start_args(dir, &args(&format!("{line}{id}")))
}

/// How a member stands with the sink.
fn view(beacond: &Daemon, url: &str) -> (String, String) {
    let view = beacond.member("default", url)["sinks"]["caddy:web"].clone();
    let text = |name: &str| view[name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("error"))
}

#[test]
fn appears_falls_silent_returns_and_says_goodbye() {
    // The handler has no list at all: it must be made.
    let scene = Scene::with(r#""flush_interval": 0"#);
    let beacond = scene.beacond("--timeout 1", "");
    let backend = Backend::start(own_ip());
    let beat = Beat::of(&beacond, &[&backend]);
    wait_until("Caddy serves it", || scene.serves(&backend));
    wait_until("status says so", || view(&beacond, &backend.url()).0 == "up");
    drop(beat);
    beacond.line("evicted backend");
    wait_until("Caddy stops serving it", || status_of(scene.caddy.web) == 503);
    wait_until("status says so", || view(&beacond, &backend.url()).0 == "down");
    let beat = Beat::of(&beacond, &[&backend]);
    beacond.line("re-enabled backend");
    wait_until("Caddy serves it again", || scene.serves(&backend));
    drop(beat);
    let sender = Sender::new(beacond.listening());
    sender.leave(&backend.url());
    beacond.line("left backend");
    wait_until("it is out", || scene.caddy.upstreams() == Some(Vec::new()));
    sender.announce(&backend.url(), " weight=5");
    wait_until("it is in, whatever its weight", || scene.caddy.has(backend.addr));
    sender.announce(&backend.url(), " weight=0");
    wait_until("but for 0", || !scene.caddy.has(backend.addr));
}

#[test]
fn goodbye_lets_requests_finish() {
    let scene = Scene::new();
    let beacond = scene.beacond("", "");
    let backend = Backend::start(own_ip());
    Sender::new(beacond.listening()).announce(&backend.url(), "");
    wait_until("Caddy serves it", || scene.serves(&backend));
    let web = scene.caddy.web;
    let slow = std::thread::spawn(move || get(web, "/slow10"));
    std::thread::sleep(Duration::from_millis(200));
    Sender::new(beacond.listening()).leave(&backend.url());
    wait_until("it is out", || !scene.caddy.has(backend.addr));
    assert!(!slow.is_finished());
    assert_eq!(slow.join().unwrap(), Answer::Http(200, backend.addr.to_string()));
}

#[test]
fn many_changes_are_few_reloads() {
    let scene = Scene::new();
    let beacond = scene.beacond("", "--min-gap 400ms");
    let sender = Sender::new(beacond.listening());
    let ip = own_ip();
    let start = Instant::now();
    for port in 8001..=8060 {
        sender.announce(&format!("http://{ip}:{port}"), "");
        std::thread::sleep(Duration::from_millis(10));
    }
    wait_until("all are in", || scene.caddy.upstreams().is_some_and(|list| list.len() == 60));
    let took = start.elapsed();
    let changes = beacond.log().iter().filter(|l| l.contains("PATCH /id/web/upstreams")).count();
    assert!(changes as u128 <= took.as_millis() / 400 + 1, "{changes} changes in {took:?}");
    assert!(changes >= 2);
}

#[test]
fn caddy_killed_is_filled_again_and_frozen_is_waited_for() {
    let mut scene = Scene::new();
    let beacond = scene.beacond("--timeout 500ms", "");
    let (backend, other) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let _beat = Beat::of(&beacond, &[&backend]);
    let gone = Beat::of(&beacond, &[&other]);
    let both = |scene: &Scene| [&backend, &other].iter().all(|b| scene.caddy.has(b.addr));
    wait_until("both are in", || both(&scene));
    let mark = beacond.mark();
    scene.caddy.kill();
    beacond.line_after(mark, "Connection refused");
    scene.caddy.run();
    wait_until("the restarted one has both", || both(&scene));

    scene.caddy.signal("STOP");
    drop(gone);
    beacond.line("evicted backend");
    beacond.line("no answer in time");
    let error =
        wait_for("status shows it", || Some(view(&beacond, &backend.url()).1).filter(|e| !e.is_empty()));
    assert!(error.contains("no answer in time"), "{error}");
    let mark = beacond.mark();
    scene.caddy.signal("CONT");
    beacond.line_after(mark, "Caddy is back");
    wait_until("what had changed is done", || !scene.caddy.has(other.addr));
    wait_until("Caddy serves", || scene.serves(&backend));
}

#[test]
fn beacond_killed_and_started_again_is_no_outage() {
    let scene = Scene::new();
    let beacond = scene.beacond("--timeout 1", "--every 200ms");
    let (kept, silent) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let beat = Beat::of(&beacond, &[&kept]);
    Sender::new(beacond.listening()).announce(&silent.url(), "");
    wait_until("it was in", || scene.caddy.has(silent.addr));
    wait_until("the silent one is evicted", || !scene.caddy.has(silent.addr));
    wait_until("Caddy serves the other", || scene.serves(&kept));
    let load = Load::on(scene.caddy.web);
    beacond.kill();
    drop(beat);
    let beacond = scene.beacond("--timeout 1", "--every 200ms");
    beacond.line("following handler web of Caddy, 1 upstream(s) there");
    let _beat = Beat::of(&beacond, &[&kept]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        assert!(scene.caddy.has(kept.addr));
    }
    let (count, failed) = load.end();
    assert!(count > 20 && failed.is_empty(), "{count} requests, failed: {failed:?}");
}

#[test]
fn what_is_not_ours_keeps_its_place() {
    let fixed = r#"{"dial":"127.0.0.1:1","max_requests":3}"#;
    let scene = Scene::with(&format!(r#""upstreams": [{fixed}, {{"dial":"127.0.0.1:2"}}]"#));
    let beacond = scene.beacond("--timeout 500ms", "--every 100ms --min-gap 0");
    let backend = Backend::start(own_ip());
    let beat = Beat::of(&beacond, &[&backend]);
    let text =
        || scene.caddy.upstreams().map(|list| serde_json::Value::Array(list).to_string()).unwrap_or_default();
    let ours = format!(r#"{{"dial":"{}"}}"#, backend.addr);
    let with = format!(r#"[{fixed},{{"dial":"127.0.0.1:2"}},{ours}]"#);
    wait_until("ours is behind them", || text() == with);
    // Somebody else adds to the list and moves ours.
    let moved = format!(r#"[{ours},{{"dial":"127.0.0.1:2"}},{{"dial":"127.0.0.1:3"}}]"#);
    scene.caddy.replace(&moved);
    drop(beat);
    beacond.line("evicted backend");
    wait_until("ours is out", || text() == r#"[{"dial":"127.0.0.1:2"},{"dial":"127.0.0.1:3"}]"#);
    // Somebody takes out what is ours: it is put back.
    let _beat = Beat::of(&beacond, &[&backend]);
    wait_until("it returns", || scene.caddy.has(backend.addr));
    scene.caddy.replace(r#"[{"dial":"127.0.0.1:2"}]"#);
    wait_until("it is put back", || text() == format!(r#"[{{"dial":"127.0.0.1:2"}},{ours}]"#));
    assert_eq!(beacond.stop(), Some(0));
    assert!(scene.caddy.has(backend.addr), "a clean end of beacond is no outage");
}

#[test]
fn what_caddy_refuses_is_said() {
    let scene = Scene::new();
    let unknown = scene.beacond("", "--id nope");
    unknown.line("unknown object ID 'nope': give the handler \"@id\": \"nope\"");
    let beacond = scene.beacond("--allow-names", "--tls");
    let sender = Sender::new(beacond.listening());
    sender.announce("http://127.9.9.9:80", "");
    sender.announce("https://Web-1.example", "");
    wait_until("the name is in", || {
        scene.caddy.upstreams().is_some_and(|list| list == [serde_json::json!({"dial": "web-1.example:443"})])
    });
    assert_eq!(view(&beacond, "http://127.9.9.9:80").1, "refused: scheme http");
    // As it answers where it is reached by a name that it does not know itself by.
    let stand_in =
        StandIn::start(|_: &Asked| response(403, "application/json", r#"{"error":"host not allowed: x"}"#));
    let beacond = self::beacond(scene.path(), stand_in.addr, "", "");
    beacond.line("status 403: host not allowed: x");
    let asked = stand_in.asked();
    assert!(asked[0].headers.contains(&format!("Host: {}", stand_in.addr)), "{asked:?}");
}

#[test]
fn a_list_that_has_changed_is_not_overwritten() {
    let scene_dir = tempfile::tempdir().unwrap();
    // The first change comes too late: somebody else has added to the list.
    let mut lists = vec![r#"[{"dial":"127.0.0.1:1"}]"#, r#"[{"dial":"127.0.0.1:1"},{"dial":"127.0.0.1:2"}]"#];
    let mut written: Option<String> = None;
    let stand_in = StandIn::start(move |asked: &Asked| {
        if asked.line.starts_with("GET") {
            let list = written.clone().unwrap_or_else(|| lists[0].to_owned());
            return format!(
                "HTTP/1.1 200 OK\r\nTrailer: ETag\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{list}\r\n0\r\nEtag: \"/c {}\"\r\n\r\n",
                list.len(),
                list.len()
            )
            .into_bytes();
        }
        if asked.headers.contains(&format!("If-Match: \"/c {}\"", lists[0].len())) && lists.len() == 1 {
            written = Some(asked.body.clone());
            return response(200, "application/json", "");
        }
        if lists.len() > 1 {
            lists.remove(0);
        }
        response(412, "application/json", r#"{"error":"If-Match header did not match current config hash"}"#)
    });
    let beacond = beacond(scene_dir.path(), stand_in.addr, "", "");
    Sender::new(beacond.listening()).announce("http://127.9.9.9:80", "");
    beacond.line("127.9.9.9:80 is in");
    let asked = stand_in.asked();
    let lines: Vec<&str> = asked.iter().map(|a| a.line.split(' ').next().unwrap()).collect();
    let first = lines.iter().position(|l| *l == "PATCH").unwrap();
    assert_eq!(lines[first..], ["PATCH", "GET", "PATCH", "GET"]);
    assert!(asked[first + 2].body.contains("127.0.0.1:2"));
    assert!(beacond.log().iter().all(|l| !l.starts_with("warn")), "{:#?}", beacond.log());
}

#[test]
fn garbage_is_said_and_survived() {
    let garbage = [
        response(200, "application/json", "{}"),
        response(200, "application/json", r#"[{"dial":"#),
        response(200, "text/html", "<html>"),
        response(500, "application/json", r#"{"error":7}"#),
        Vec::new(),
    ];
    let scenes: Vec<_> = garbage
        .into_iter()
        .map(|garbage| {
            let mut garbage = Some(garbage);
            let stand_in = StandIn::start(move |_: &Asked| {
                let list = || response(200, "application/json", r#"[{"dial":"127.9.9.9:80"}]"#);
                garbage.take().unwrap_or_else(list)
            });
            let dir = tempfile::tempdir().unwrap();
            let beacond = beacond(dir.path(), stand_in.addr, "", "");
            Sender::new(beacond.listening()).announce("http://127.9.9.9:80", "");
            (stand_in, beacond, dir)
        })
        .collect();
    for (stand_in, beacond, _dir) in scenes {
        beacond.line("Caddy is back");
        assert!(stand_in.asked().iter().all(|a| a.line.starts_with("GET")), "nothing is changed on garbage");
    }
}
