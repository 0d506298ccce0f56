//! Announcements drive a real HAProxy.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::backend::Backend;
use common::daemon::{Daemon, secret_file};
use common::haproxy::Haproxy;
use common::load::Load;
use common::sender::Sender;
use common::{Answer, PATIENCE, get, own_ip, status_of, wait_for, wait_until};
use std::path::Path;
use std::time::{Duration, Instant};

struct Scene {
    dir: tempfile::TempDir,
    haproxy: Haproxy,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let haproxy = Haproxy::start(dir.path(), "");
        Scene { dir, haproxy }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A receiver with a sink for backend `web`; `listen` and `sink` are more of their options.
    fn beacond(&self, listen: &str, sink: &[&str]) -> Daemon {
        self.beacond_on(&self.haproxy.socket, listen, sink)
    }

    fn beacond_on(&self, socket: &Path, listen: &str, sink: &[&str]) -> Daemon {
        let line = format!(
            "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} {listen} + haproxy --socket {}",
            secret_file(self.path()),
            socket.display()
        );
        let mut words = common::daemon::args(&line);
        if !sink.contains(&"--backend") {
            words.extend(["--backend", "web"].map(str::to_owned));
        }
        words.extend(sink.iter().map(|w| (*w).to_owned()));
        Daemon::start_args(self.path(), &words)
    }

    /// A sender for `backend`, ten times a second.
    fn announce(&self, to: &Daemon, backend: &Backend) -> Daemon {
        Daemon::start(
            self.path(),
            &format!(
                "announce --address {} --advertise {} --allow 127.0.0.0/8 --interval 100ms --secret-file {}",
                to.listening(),
                backend.url(),
                secret_file(self.path())
            ),
        )
    }

    fn serves(&self, backend: &Backend) -> bool {
        get(self.haproxy.web, "/") == Answer::Http(200, backend.addr.to_string())
    }
}

/// Without checks, so that a member is served as soon as it is added.
const UNCHECKED: [&str; 2] = ["--server-options", "pool-max-conn 50 pool-purge-delay 5s"];

#[test]
fn appears_falls_silent_returns_and_says_goodbye() {
    let scene = Scene::new();
    assert_eq!(status_of(scene.haproxy.web), 503);
    let beacond = scene.beacond("--timeout 1", &[]);
    let backend = Backend::start(own_ip());

    let sender = scene.announce(&beacond, &backend);
    wait_until("HAProxy serves it", || scene.serves(&backend));
    wait_until("status says so", || {
        beacond.member("default", &backend.url())["sinks"]["haproxy:web"]["state"] == "up"
    });

    // Killed: no goodbye, so the timeout has to notice.
    sender.kill();
    beacond.line("evicted backend");
    wait_until("HAProxy stops serving it", || status_of(scene.haproxy.web) == 503);
    let server = scene.haproxy.server(backend.addr).unwrap();
    assert_eq!((server.admin & 1, server.weight), (1, 0), "evicted: weight 0 and maint");

    let sender = scene.announce(&beacond, &backend);
    beacond.line("re-enabled backend");
    wait_until("HAProxy serves it again", || scene.serves(&backend));

    assert_eq!(sender.stop(), Some(0));
    beacond.line("left backend");
    wait_until("HAProxy stops serving it again", || status_of(scene.haproxy.web) == 503);
}

#[test]
fn goodbye_lets_requests_finish() {
    let scene = Scene::new();
    let beacond = scene.beacond("", &UNCHECKED);
    let backend = Backend::start(own_ip());
    let sender = scene.announce(&beacond, &backend);
    wait_until("HAProxy serves it", || scene.serves(&backend));
    let web = scene.haproxy.web;
    let slow = std::thread::spawn(move || get(web, "/slow15"));
    wait_until("the request is under way", || {
        let conn = scene.haproxy.cli("show servers conn web");
        conn.lines().any(|l| l.contains(&backend.addr.ip().to_string()) && l.split(' ').nth(6) == Some("1"))
    });
    assert_eq!(sender.stop(), Some(0));
    beacond.line("left backend");
    wait_until("new requests are turned away", || status_of(web) == 503);
    assert_eq!(slow.join().unwrap(), Answer::Http(200, backend.addr.to_string()));
}

#[test]
fn a_member_is_served_only_after_its_first_passed_check() {
    let scene = Scene::new();
    let beacond = scene.beacond("", &["--server-options", "check inter 200ms rise 1 fall 2"]);
    // Nothing listens there yet.
    let addr = common::free_port(own_ip());
    let sender = Sender::new(beacond.listening());
    sender.announce(&format!("http://{addr}"), "");
    wait_until("it waits for its check", || {
        beacond.member("default", &format!("http://{addr}"))["sinks"]["haproxy:web"]["state"] == "checking"
    });
    let server = scene.haproxy.server(addr).unwrap();
    assert_eq!(server.admin & 8, 8, "drained: it gets nothing");
    let backend = Backend::start_at(addr);
    wait_until("HAProxy serves it", || scene.serves(&backend));
}

#[test]
fn three_members_share_and_weights_arrive() {
    let scene = Scene::new();
    let beacond = scene.beacond("", &UNCHECKED);
    let backends: Vec<Backend> = (0..3).map(|_| Backend::start(own_ip())).collect();
    let sender = Sender::new(beacond.listening());
    for (backend, weight) in backends.iter().zip([10, 20, 0]) {
        sender.announce(&backend.url(), &format!(" weight={weight}"));
    }
    let weights = || {
        backends
            .iter()
            .map(|b| scene.haproxy.server(b.addr).map(|s| (s.weight, s.admin & 1)))
            .collect::<Vec<_>>()
    };
    wait_until("all are there with their weights", || {
        weights() == [Some((10, 0)), Some((20, 0)), Some((0, 0))]
    });
    let mut hits = [0; 3];
    for _ in 0..60 {
        let Answer::Http(200, body) = get(scene.haproxy.web, "/") else { panic!("a request failed") };
        hits[backends.iter().position(|b| b.addr.to_string() == body).unwrap()] += 1;
    }
    assert!((15..=25).contains(&hits[0]) && (35..=45).contains(&hits[1]) && hits[2] == 0, "{hits:?}");
    sender.announce(&backends[2].url(), " weight=5");
    wait_until("the new weight arrives", || weights()[2] == Some((5, 0)));
}

#[test]
fn haproxy_reloaded_or_killed_is_filled_again() {
    let mut scene = Scene::new();
    let beacond =
        scene.beacond("", &["--server-options", "check inter 200ms rise 1 fall 2", "--every", "300ms"]);
    let backend = Backend::start(own_ip());
    let _sender = scene.announce(&beacond, &backend);
    wait_until("HAProxy serves it", || scene.serves(&backend));

    scene.haproxy.reload();
    wait_until("the new worker serves it", || scene.serves(&backend));

    let mark = beacond.mark();
    scene.haproxy.kill();
    beacond.line_after(mark, "haproxy");
    scene.haproxy.run();
    wait_until("the restarted HAProxy serves it", || scene.serves(&backend));
}

#[test]
fn beacond_killed_and_started_again_is_no_outage() {
    let scene = Scene::new();
    let options = ["--server-options", "pool-max-conn 50", "--every", "200ms"];
    let beacond = scene.beacond("--timeout 1", &options);
    let (kept, silent) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let sender = Sender::new(beacond.listening());
    sender.announce(&silent.url(), "");
    sender.announce(&kept.url(), "");
    wait_until("both are served", || {
        [&kept, &silent].iter().all(|b| scene.haproxy.server(b.addr).is_some_and(|s| s.admin == 0))
    });
    // One is evicted by this run of beacond, which is then killed.
    wait_until("the silent one is evicted", || {
        sender.announce(&kept.url(), "");
        scene.haproxy.server(silent.addr).is_none_or(|s| s.admin & 1 == 1)
    });
    let load = Load::on(scene.haproxy.web);
    beacond.kill();
    let beacond = scene.beacond("--timeout 1", &options);
    let sender = Sender::new(beacond.listening());
    let start = Instant::now();
    // The next run's own eviction rule must not touch whoever it has not heard yet.
    while start.elapsed() < Duration::from_millis(1500) {
        sender.announce(&kept.url(), "");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (count, failed) = load.end();
    assert!(count > 20 && failed.is_empty(), "{count} requests, failed: {failed:?}");
    // The evicted one returns: what the last run did is not mistaken for the operator's will.
    sender.announce(&silent.url(), "");
    wait_until("it is enabled again", || {
        sender.announce(&silent.url(), "");
        sender.announce(&kept.url(), "");
        scene.haproxy.server(silent.addr).is_some_and(|s| s.admin & 1 == 0 && s.weight == 1)
    });
}

#[test]
fn the_operators_maintenance_wins() {
    let scene = Scene::new();
    let beacond = scene.beacond("", &["--server-options", "pool-max-conn 50", "--every", "200ms"]);
    let backend = Backend::start(own_ip());
    let _sender = scene.announce(&beacond, &backend);
    wait_until("HAProxy serves it", || scene.serves(&backend));
    let name = scene.haproxy.server(backend.addr).unwrap().name;
    scene.haproxy.cli(&format!("set server web/{name} state maint"));
    wait_until("beacond sees it", || {
        beacond.member("default", &backend.url())["sinks"]["haproxy:web"]["state"] == "operator"
    });
    assert_eq!(status_of(scene.haproxy.web), 503);
    scene.haproxy.cli(&format!("set server web/{name} state ready"));
    wait_until("beacond sees that, too", || {
        beacond.member("default", &backend.url())["sinks"]["haproxy:web"]["state"] == "up"
    });
    assert!(scene.serves(&backend));
}

#[test]
fn servers_of_the_file_are_left_alone() {
    let scene = Scene::new();
    let beacond = scene.beacond("--timeout 300ms", &["--backend", "mixed", "--every", "100ms"]);
    let sender = Sender::new(beacond.listening());
    let addr = common::free_port(own_ip());
    sender.announce(&format!("http://{addr}"), "");
    wait_until("ours is there", || scene.haproxy.servers("mixed").len() == 2);
    beacond.line("evicted backend");
    let fixed = || scene.haproxy.servers("mixed").into_iter().find(|s| s.name == "fixed1").unwrap();
    let (admin, weight) = (fixed().admin, fixed().weight);
    sender.announce(&format!("http://{addr}"), "");
    beacond.line("re-enabled backend");
    assert_eq!((fixed().admin, fixed().weight), (admin, weight));
    assert_eq!(beacond.stop(), Some(0));
    assert_eq!(scene.haproxy.servers("mixed").len(), 2, "a clean end of beacond is no outage either");
}

#[test]
fn what_haproxy_refuses_is_said() {
    let scene = Scene::new();
    let url = format!("http://{}", common::free_port(own_ip()));
    let refused = |beacond: &Daemon, fragment: &str| {
        Sender::new(beacond.listening()).announce(&url, "");
        wait_until("it is said", || {
            let loud = |l: &&String| l.starts_with("warn") || l.starts_with("error");
            beacond.log().iter().filter(loud).any(|l| l.contains(fragment))
        });
    };
    refused(&scene.beacond("", &["--backend", "nope"]), "nope");
    refused(&scene.beacond("", &["--backend", "static_only"]), "balancer add failed");
    refused(&scene.beacond_on(&scene.haproxy.operator_socket, "", &[]), "ermission denied");
    let missing = scene.path().join("no.sock");
    refused(&scene.beacond_on(&missing, "", &[]), "no.sock");
    // In status, too.
    let beacond = scene.beacond("", &["--backend", "static_only"]);
    Sender::new(beacond.listening()).announce(&url, "");
    let view = wait_for("status shows the error", || {
        let view = beacond.member("default", &url)["sinks"]["haproxy:static_only"].clone();
        view["error"].is_string().then_some(view)
    });
    assert_eq!(view["state"], "refused");
    assert!(view["error"].as_str().unwrap().contains("dynamic"), "{view}");
}

#[test]
fn members_that_haproxy_cannot_serve_are_refused_by_name() {
    let scene = Scene::new();
    let beacond = scene.beacond("--allow-names", &[]);
    let sender = Sender::new(beacond.listening());
    sender.announce("http://web-1.example:80", "");
    sender.announce("https://127.9.0.1:443", "");
    let error = |url: &str| beacond.member("default", url)["sinks"]["haproxy:web"]["error"].clone();
    wait_until("the host name is refused", || error("http://web-1.example:80") == "refused: host name");
    wait_until("the scheme is refused", || {
        error("https://127.9.0.1:443").as_str().is_some_and(|e| e.contains("scheme"))
    });
    assert!(scene.haproxy.servers("web").is_empty());
}

#[test]
fn an_absent_haproxy_is_waited_for() {
    let mut scene = Scene::new();
    scene.haproxy.kill();
    let beacond = scene.beacond("", &UNCHECKED);
    let backend = Backend::start(own_ip());
    let _sender = scene.announce(&beacond, &backend);
    beacond.line("added backend");
    beacond.line("haproxy.sock");
    let before = beacond.mark();
    scene.haproxy.run();
    wait_until("HAProxy serves it", || scene.serves(&backend));
    // Said once, not at every try.
    let lines = beacond.log()[..before].iter().filter(|l| l.contains("haproxy.sock")).count();
    assert!(lines <= 2, "{:#?}", beacond.log());
}

#[test]
fn two_beacond_on_one_backend_do_not_fight() {
    let scene = Scene::new();
    let options = ["--server-options", "pool-max-conn 50", "--every", "100ms"];
    let one = scene.beacond("--timeout 700ms", &options);
    let two = scene.beacond("--timeout 700ms", &options);
    let (backend, other) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let send = |which: &[&Backend]| {
        for daemon in [&one, &two] {
            let sender = Sender::new(daemon.listening());
            which.iter().for_each(|b| sender.announce(&b.url(), ""));
        }
    };
    send(&[&backend, &other]);
    wait_until("both are served", || {
        send(&[&backend, &other]);
        [&backend, &other].iter().all(|b| scene.haproxy.server(b.addr).is_some_and(|s| s.admin == 0))
    });
    assert_eq!(scene.haproxy.servers("web").len(), 2, "one server an address, whoever added it");
    let load = Load::on(scene.haproxy.web);
    wait_until("the silent one is out", || {
        send(&[&backend]);
        scene.haproxy.server(other.addr).is_none_or(|s| s.admin & 1 == 1)
    });
    wait_until("and back in", || {
        send(&[&backend, &other]);
        scene.haproxy.server(other.addr).is_some_and(|s| s.admin == 0)
    });
    let (count, failed) = load.end();
    assert!(count > 5 && failed.is_empty(), "{count} requests, failed: {failed:?}");
    for daemon in [one, two] {
        let log = daemon.log();
        let changes = log.iter().filter(|l| l.contains("haproxy") && !l.starts_with("debug")).count();
        assert!(changes < 20, "{log:#?}");
    }
}

#[test]
fn a_datagram_is_traffic_within_milliseconds() {
    let scene = Scene::new();
    let beacond = scene.beacond("", &UNCHECKED);
    let sender = Sender::new(beacond.listening());
    let backend = Backend::start(own_ip());
    let start = Instant::now();
    sender.announce(&backend.url(), "");
    while !scene.serves(&backend) {
        assert!(start.elapsed() < PATIENCE);
    }
    // The figure itself is a bench's; this is the order of magnitude.
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}
