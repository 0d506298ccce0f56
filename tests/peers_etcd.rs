//! Members in a real etcd: written by one beacond or several, followed by others.
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::daemon::{Daemon, private_file, secret_file};
use common::etcd::Etcd;
use common::sender::{Sender, now_us};
use common::standin::{StandIn, response};
use common::tcp::Upstream;
use common::{PATIENCE, free_port, own_ip, wait_until};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

struct Scene {
    dir: tempfile::TempDir,
    etcd: Etcd,
}

const MEMBERS: &str = "/beacond/default/default/";
const MARKS: &str = "/beacond/default/ts/default/";

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let etcd = Etcd::start(dir.path());
        Scene { dir, etcd }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A receiver that writes into etcd; `listen` and `sink` are more of their options.
    fn writer(&self, listen: &str, sink: &str) -> Daemon {
        self.writer_at("127.0.0.1:0", listen, sink)
    }

    fn writer_at(&self, at: &str, listen: &str, sink: &str) -> Daemon {
        let line = format!(
            "listen --listen {at} --allow 127.0.0.0/8 --secret-file {} {listen} + etcd --endpoint {} {sink}",
            secret_file(self.path()),
            self.etcd.url(),
        );
        Daemon::start(self.path(), &line)
    }

    /// A proxy far from any receiver.
    fn reader(&self, watch: &str) -> (Daemon, SocketAddr) {
        let at = free_port(own_ip());
        let line = format!(
            "etcd-watch --endpoint {} --allow 127.0.0.0/8 --every 100ms {watch} + proxy --listen {at} --balance roundrobin \
             --slow-start 0",
            self.etcd.url()
        );
        (Daemon::start(self.path(), &line), at)
    }

    fn key(&self, url: &str) -> Option<String> {
        self.etcd.get(&format!("{MEMBERS}{url}"))
    }
}

/// A sender's heart beats on while the value lives.
struct Heart {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    fn beat(to: SocketAddr, urls: Vec<String>, every: Duration) -> Heart {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let sender = Sender::new(to);
            while !stopped.load(Ordering::Relaxed) {
                urls.iter().for_each(|url| sender.announce(url, ""));
                std::thread::sleep(every);
            }
        });
        Heart { stop, thread: Some(thread) }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Who answers behind a proxy, by the line it begins with.
fn greeting(proxy: SocketAddr) -> Option<SocketAddr> {
    let stream = TcpStream::connect(proxy).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

fn url(port: u16) -> String {
    format!("http://{}:{port}", own_ip())
}

#[test]
fn a_member_comes_is_reweighted_falls_silent_returns_and_says_goodbye() {
    let scene = Scene::new();
    scene.etcd.put("/beacond/default/default/notes", "not ours");
    let beacond = scene.writer("--timeout 2", "");
    let sender = Sender::new(beacond.listening());
    let url = url(8080);
    sender.announce(&url, " weight=3 every=1");
    wait_until("it is in etcd", || scene.key(&url).is_some());
    let card: serde_json::Value = serde_json::from_str(&scene.key(&url).unwrap()).unwrap();
    assert_eq!(
        (&card["url"], &card["weight"], &card["host"]),
        (&url.clone().into(), &3.into(), &"test".into())
    );
    wait_until("status says so", || {
        beacond.member("default", &url)["sinks"]["etcd:default"]["state"] == "up"
    });

    sender.announce(&url, " weight=9");
    wait_until("the weight arrives", || scene.key(&url).unwrap_or_default().contains("\"weight\":9"));

    // Nobody hears it any more: not we, but its lease takes it away.
    let silent = Instant::now();
    beacond.line("evicted backend");
    wait_until("its lease runs out", || scene.key(&url).is_none());
    let took = silent.elapsed();
    assert!(took > Duration::from_millis(1_500) && took < Duration::from_secs(6), "{took:?}");

    sender.announce(&url, "");
    wait_until("it is in etcd again", || scene.key(&url).is_some());
    let before = Instant::now();
    sender.leave(&url);
    wait_until("it has left", || scene.key(&url).is_none());
    assert!(before.elapsed() < Duration::from_millis(1_500), "at once");
    assert_eq!(scene.etcd.get("/beacond/default/default/notes").as_deref(), Some("not ours"));
}

#[test]
fn every_layout_has_its_keys_on_one_lease() {
    let scene = Scene::new();
    scene.etcd.put("/skydns/lan/example/web/printer", "{\"host\":\"10.0.0.9\"}");
    let layouts = "--layout skydns --layout plain --layout traefik --service shop --zone web.example.lan";
    let beacond = scene.writer("", layouts);
    let sender = Sender::new(beacond.listening());
    let url = url(8081);
    sender.announce(&url, " weight=5");
    let traefik = "traefik/http/services/shop/loadbalancer/servers/";
    wait_until("it is in etcd", || scene.key(&url).is_some());
    let servers = scene.etcd.keys(traefik);
    let (key, value) = servers.first_key_value().unwrap();
    let number: u64 = key.strip_prefix(traefik).unwrap().strip_suffix("/url").unwrap().parse().unwrap();
    assert_eq!((servers.len(), value), (1, &url));
    let record: serde_json::Value =
        serde_json::from_str(&scene.etcd.get(&format!("/skydns/lan/example/web/{number:016x}")).unwrap())
            .unwrap();
    assert_eq!((&record["port"], &record["weight"]), (&8081.into(), &5.into()));
    // A weight of 0 is nothing that Traefik knows.
    sender.announce(&url, " weight=0");
    wait_until("it is out of Traefik's sight", || scene.etcd.keys(traefik).is_empty());
    assert!(scene.key(&url).unwrap().contains("\"weight\":0"));
    sender.announce(&url, "");
    wait_until("it is back", || !scene.etcd.keys(traefik).is_empty());
    sender.leave(&url);
    wait_until("it has left", || scene.key(&url).is_none());
    assert!(scene.etcd.keys(traefik).is_empty());
    assert_eq!(scene.etcd.keys("/skydns/").len(), 1, "the printer stays");
}

#[test]
fn two_receivers_keep_the_same_members_and_one_that_is_killed_takes_nothing_away() {
    let scene = Scene::new();
    let (one, two) = (scene.writer("--timeout 2", ""), scene.writer("--timeout 2", ""));
    let urls: Vec<String> = (0..5).map(|n| url(9000 + n)).collect();
    let to_one = Heart::beat(one.listening(), urls.clone(), Duration::from_millis(200));
    let _to_two = Heart::beat(two.listening(), urls.clone(), Duration::from_millis(200));
    wait_until("all are there", || scene.etcd.keys(MEMBERS).len() == 5);
    one.kill();
    drop(to_one);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        assert_eq!(scene.etcd.keys(MEMBERS).len(), 5, "after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_goodbye_that_one_receiver_missed_is_not_undone_by_it() {
    let scene = Scene::new();
    // Long enough for a slow disk: nobody is to be evicted here.
    let (one, two) = (scene.writer("--timeout 60", ""), scene.writer("--timeout 60", "--every 200ms"));
    let url = url(8082);
    let text = format!("BEACON url={url} host=test pid=7 seq=0 ts={}", now_us());
    for beacond in [&one, &two] {
        Sender::new(beacond.listening()).send(&text);
        wait_until("both have it", || {
            beacond.member("default", &url)["sinks"]["etcd:default"]["state"] == "up"
        });
    }
    Sender::new(one.listening()).leave(&url);
    wait_until("it has left", || scene.key(&url).is_none());
    wait_until("the other sees that it is gone", || {
        let sink = two.member("default", &url)["sinks"]["etcd:default"].clone();
        sink["error"].as_str().is_some_and(|error| error.contains("newer"))
    });
    assert_eq!(scene.key(&url), None);
    // It returns to the other alone, with something newer still.
    Sender::new(two.listening()).announce(&url, "");
    wait_until("it is there again", || scene.key(&url).is_some());
}

#[test]
fn a_restarted_receiver_without_a_state_file_knows_replays() {
    let scene = Scene::new();
    let beacond = scene.writer("", "");
    let url = url(8083);
    let recorded = format!("BEACON url={url} host=test pid=7 seq=0 ts={}", now_us());
    Sender::new(beacond.listening()).send(&recorded);
    wait_until("its mark is there", || scene.etcd.keys(MARKS).len() == 1);
    beacond.kill();
    let beacond = scene.writer("", "");
    beacond.line("1 replay mark(s) taken over");
    let sender = Sender::new(beacond.listening());
    sender.send(&recorded);
    beacond.line("replayed/reordered ts");
    assert!(beacond.member("default", &url).is_null());
    sender.announce(&url, "");
    beacond.line("added backend");

    // A goodbye ends all that was recorded before it.
    let recorded = format!("BEACON url={url} host=test pid=7 seq=0 ts={}", now_us());
    sender.send(&recorded);
    sender.leave(&url);
    wait_until("it has left", || scene.key(&url).is_none());
    beacond.kill();
    let beacond = scene.writer("", "");
    beacond.line("1 replay mark(s) taken over");
    Sender::new(beacond.listening()).send(&recorded);
    beacond.line("replayed/reordered ts");
}

#[test]
fn a_receiver_that_ends_leaves_its_marks_behind_even_without_periodic_ones() {
    let scene = Scene::new();
    let beacond = scene.writer("", "--marks 0");
    let url = url(8084);
    let sender = Sender::new(beacond.listening());
    sender.announce(&url, "");
    wait_until("it is there", || scene.key(&url).is_some());
    let recorded = format!("BEACON url={url} host=test pid=7 seq=0 ts={}", now_us());
    sender.send(&recorded);
    wait_until("it is heard", || beacond.counter("beacon.accepted") == 2);
    assert_eq!(beacond.stop(), Some(0));
    let beacond = scene.writer("", "--marks 0");
    beacond.line("1 replay mark(s) taken over");
    Sender::new(beacond.listening()).send(&recorded);
    beacond.line("replayed/reordered ts");
}

#[test]
fn etcd_killed_frozen_and_back_loses_nobody_here_and_is_filled_again() {
    let mut scene = Scene::new();
    let beacond = scene.writer("--timeout 3", "--every 300ms");
    let urls: Vec<String> = (0..3).map(|n| url(9100 + n)).collect();
    let _heart = Heart::beat(beacond.listening(), urls.clone(), Duration::from_millis(200));
    wait_until("all are there", || scene.etcd.keys(MEMBERS).len() == 3);
    scene.etcd.kill();
    beacond.line("etcd at");
    scene.etcd.run();
    beacond.line("etcd is back");
    wait_until("all are there", || scene.etcd.keys(MEMBERS).len() == 3);

    let mark = beacond.mark();
    scene.etcd.signal("STOP");
    beacond.line_after(mark, "no answer in time");
    scene.etcd.signal("CONT");
    beacond.line_after(mark, "etcd is back");
    wait_until("all are there", || scene.etcd.keys(MEMBERS).len() == 3);

    // A store made anew.
    let mark = beacond.mark();
    scene.etcd.kill();
    beacond.line_after(mark, "etcd at");
    std::fs::remove_dir_all(scene.path().join(format!("etcd-{}", scene.etcd.addr.ip()))).unwrap();
    scene.etcd.run();
    wait_until("all are there again", || scene.etcd.keys(MEMBERS).len() == 3);
    assert_eq!(beacond.counter("member.evicted"), 0);
}

#[test]
fn a_key_that_somebody_took_away_or_changed_is_put_right() {
    let scene = Scene::new();
    let beacond = scene.writer("", "--every 200ms");
    let url = url(8085);
    Sender::new(beacond.listening()).announce(&url, "");
    wait_until("it is there", || scene.key(&url).is_some());
    let value = scene.key(&url).unwrap();
    scene.etcd.put(&format!("{MEMBERS}{url}"), "something else");
    wait_until("it is put right", || scene.key(&url).as_deref() == Some(&value));
    // Undone before it was read back, it would count as a change without effect, and wait for a minute.
    wait_until("and read back", || beacond.member("default", &url)["sinks"]["etcd:default"]["state"] == "up");
    let lease = beacond::sinks::etcd::layout::Site {
        prefix: "/beacond".to_owned(),
        cluster: "default".to_owned(),
        balancer: "default".to_owned(),
        layouts: Vec::new(),
        service: String::new(),
        zone: String::new(),
    }
    .lease(&beacond::url::Url::parse(url.as_bytes()).unwrap());
    scene.etcd.call("/v3/lease/revoke", &serde_json::json!({"ID": lease.to_string()}));
    wait_until("it is there again", || scene.key(&url).as_deref() == Some(&value));
}

#[test]
fn the_next_endpoint_is_asked_when_one_fails() {
    let scene = Scene::new();
    let nobody = free_port(own_ip());
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} + etcd --endpoint http://{nobody} --endpoint {}",
        secret_file(scene.path()),
        scene.etcd.url(),
    );
    let beacond = Daemon::start(scene.path(), &line);
    let url = url(8086);
    Sender::new(beacond.listening()).announce(&url, "");
    wait_until("it is there", || scene.key(&url).is_some());
    assert!(!beacond.log().iter().any(|line| line.contains("refused")), "nothing to complain about");
}

#[test]
fn who_asks_is_told_and_told_again() {
    let mut scene = Scene::new();
    scene.etcd.demand_login("hush hush");
    let auth = private_file(scene.path(), "auth", "root:hush hush\n");
    let beacond = scene.writer("--timeout 3", &format!("--auth-file {auth} --every 200ms"));
    let (reader, _) = scene.reader(&format!("--auth-file {auth}"));
    let url = url(8087);
    let _heart = Heart::beat(beacond.listening(), vec![url.clone()], Duration::from_millis(200));
    wait_until("it is there", || scene.key(&url).is_some());
    reader.line("added backend");
    // Its tokens are gone with the process.
    scene.etcd.restart();
    scene.etcd.log_in("hush hush");
    let other = Heart::beat(beacond.listening(), vec![self::url(8088)], Duration::from_millis(200));
    wait_until("both are there", || scene.etcd.keys(MEMBERS).len() == 2);
    drop(other);
    for daemon in [&beacond, &reader] {
        assert!(!daemon.log().iter().any(|line| line.contains("hush")), "no secrets in the log");
    }
    let stranger = private_file(scene.path(), "stranger", "root:wrong\n");
    let beacond = scene.writer("", &format!("--auth-file {stranger}"));
    beacond.line("authentication failed");
    let line = scene.writer("", "").line("etcd says");
    assert!(line.contains("user name is empty"), "{line}");
    std::fs::set_permissions(&auth, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let open = common::daemon::run(&format!("check etcd --endpoint http://127.0.0.1:1 --auth-file {auth}"));
    assert!(!open.status.success() && String::from_utf8_lossy(&open.stderr).contains("chmod o="), "{open:?}");
}

#[test]
fn a_token_that_ran_out_or_that_is_worth_nothing_any_more_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene { etcd: Etcd::start_signing(dir.path(), 2), dir };
    scene.etcd.demand_login("hush hush");
    let auth = private_file(scene.path(), "auth", "root:hush hush\n");
    let beacond = scene.writer("--timeout 3", &format!("--auth-file {auth} --every 200ms"));
    let (reader, _) = scene.reader(&format!("--auth-file {auth}"));
    let count = |etcd: &mut Etcd| {
        etcd.log_in("hush hush");
        etcd.keys(MEMBERS).len()
    };
    let _first = Heart::beat(beacond.listening(), vec![url(8090)], Duration::from_millis(200));
    wait_until("it is there", || count(&mut scene.etcd) == 1);
    // Every change of users or roles makes all tokens old.
    scene.etcd.add_role("another", "hush hush");
    let _second = Heart::beat(beacond.listening(), vec![url(8091)], Duration::from_millis(200));
    wait_until("both are there", || count(&mut scene.etcd) == 2);
    wait_until("and followed", || reader.counter("member.added") == 2);
    let start = Instant::now();
    wait_until("tokens run out", || start.elapsed() > Duration::from_secs(3));
    let _third = Heart::beat(beacond.listening(), vec![url(8092)], Duration::from_millis(200));
    wait_until("all are there", || count(&mut scene.etcd) == 3);
    wait_until("and followed", || reader.counter("member.added") == 3);
    for daemon in [&beacond, &reader] {
        let trouble = daemon.log().into_iter().find(|line| line.contains("etcd says"));
        assert_eq!(trouble, None, "nothing to complain about");
    }
}

#[test]
fn nothing_is_written_while_nothing_changes() {
    let scene = Scene::new();
    // Announcements go on, and leases are kept; the marks of members that are up are not asked for.
    let beacond = scene.writer("--timeout 4", "--marks 0 --every 500ms");
    let urls: Vec<String> = (0..200).map(|n| format!("http://{}:{}", own_ip(), 10_000 + n)).collect();
    let _heart = Heart::beat(beacond.listening(), urls, Duration::from_millis(500));
    wait_until("all are there", || scene.etcd.keys(MEMBERS).len() == 200);
    wait_until("and known to be", || {
        let members =
            beacond.status()["balancers"]["default"]["members"].as_array().cloned().unwrap_or_default();
        members.iter().filter(|m| m["sinks"]["etcd:default"]["state"] == "up").count() == 200
    });
    let before = scene.etcd.written();
    // Twice the time of a lease: all of them have been kept alive.
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!(scene.etcd.keys(MEMBERS).len(), 200);
    assert_eq!(scene.etcd.written(), before, "proposals to the raft log, and the revision");
}

#[test]
fn a_proxy_far_away_follows_and_keeps_its_members_while_etcd_is_dead() {
    let mut scene = Scene::new();
    // A store with a past: by its revisions the one that is made anew is told from it, before it has caught up.
    (0..100).for_each(|_| scene.etcd.put("/other", "x"));
    let beacond = scene.writer("--timeout 3", "--every 300ms");
    let (reader, web) = scene.reader("--timeout 3");
    let (first, second) = (Upstream::greeting(), Upstream::greeting());
    let url = |upstream: &Upstream| format!("http://{}", upstream.addr);
    let serves = |upstream: &Upstream| (0..4).any(|_| greeting(web) == Some(upstream.addr));
    let _heart = Heart::beat(beacond.listening(), vec![url(&first)], Duration::from_millis(200));
    let other = Heart::beat(beacond.listening(), vec![url(&second)], Duration::from_millis(200));
    wait_until("both are served", || serves(&first) && serves(&second));

    scene.etcd.kill();
    reader.line("2 member(s) stay as they were");
    wait_until("status says so", || !reader.status()["balancers"]["default"]["deaf_since_s"].is_null());
    // Longer than the timeout, its lease, and the grace.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(7) {
        assert!(serves(&first) && serves(&second), "after {:?}", start.elapsed());
    }
    scene.etcd.run();
    reader.line("etcd is back");
    wait_until("it hears again", || reader.status()["balancers"]["default"]["deaf_since_s"].is_null());
    assert_eq!(reader.counter("member.left"), 0);

    drop(other);
    Sender::new(beacond.listening()).leave(&url(&second));
    reader.line("left backend");
    wait_until("one is served", || (0..4).all(|_| greeting(web) == Some(first.addr)));

    // Made anew and empty: believed only after the grace time, by when it is filled again.
    scene.etcd.kill();
    std::fs::remove_dir_all(scene.path().join(format!("etcd-{}", scene.etcd.addr.ip()))).unwrap();
    let mark = reader.mark();
    scene.etcd.run();
    reader.line_after(mark, "another store answers");
    wait_until("it is filled again", || scene.key(&url(&first)).is_some());
    assert!(serves(&first));
    assert_eq!(reader.counter("member.left"), 1);
}

#[test]
fn a_watch_that_starts_while_etcd_is_away_and_what_it_does_not_let_in() {
    let mut scene = Scene::new();
    let url = url(8089);
    let card = format!("{{\"url\":\"{url}\",\"weight\":1}}");
    scene.etcd.put(&format!("{MEMBERS}{url}"), &card);
    scene.etcd.put(&format!("{MEMBERS}http://10.0.0.1:80"), "{\"url\":\"http://10.0.0.1:80\",\"weight\":1}");
    scene.etcd.put(&format!("{MEMBERS}note"), "x");
    scene.etcd.kill();
    let (reader, web) = scene.reader("--timeout 500ms");
    reader.line("0 member(s) stay as they were");
    assert_eq!(greeting(web), None);
    scene.etcd.run();
    reader.line("added backend");
    let line = reader.line("are left out");
    assert!(line.contains("2 key(s)") && line.contains("--allow"), "{line}");
    assert!(reader.member("default", "http://10.0.0.1:80").is_null());
    // Written without a lease by somebody, and taken away again.
    let before = Instant::now();
    scene.etcd.call(
        "/v3/kv/deleterange",
        &serde_json::json!({"key": beacond::sinks::etcd::base64::encode(format!("{MEMBERS}{url}").as_bytes())}),
    );
    reader.line("left backend");
    assert!(before.elapsed() < PATIENCE);
}

#[test]
fn a_member_cannot_keep_itself_alive() {
    let out = common::daemon::run(
        "check etcd-watch --endpoint http://127.0.0.1:1 + etcd --endpoint http://127.0.0.1:1",
    );
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("another cluster or prefix"), "{said}");
    let out = common::daemon::run(
        "check etcd-watch --endpoint http://127.0.0.1:1 + etcd --endpoint http://127.0.0.1:1 --cluster copy",
    );
    assert!(out.status.success(), "a copy for others is fine: {out:?}");
}

#[test]
fn what_would_mix_up_keys_is_refused() {
    let at = "--endpoint http://127.0.0.1:1";
    for (line, wanted) in [
        (format!("etcd-watch {at} --prefix /beacond/ + etcd {at}"), "another cluster or prefix"),
        (format!("etcd-watch {at} --balancer balancer://default + etcd {at}"), "another cluster or prefix"),
        (format!("etcd-watch {at} + etcd-watch {at} --cluster b"), "another balancer than"),
        // Where the marks of web are.
        (format!("etcd {at} --balancer ts/web"), "replay marks"),
        (format!("etcd {at} --balancer web --prefix /beacond/default --cluster ts"), "replay marks"),
        (format!("etcd-watch {at} --balancer ts"), "replay marks"),
    ] {
        let out = common::daemon::run(&format!("check {line}"));
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(wanted), "{line}: {said}");
    }
}

#[test]
fn who_is_heard_by_nobody_after_a_reload_is_not_kept_alive() {
    let scene = Scene::new();
    let config = |listen: &str| {
        private_file(
            scene.path(),
            "conf",
            &format!("{listen}\n[etcd]\nendpoint {}\nevery 200ms\n", scene.etcd.url()),
        )
    };
    let secret = secret_file(scene.path());
    let path =
        config(&format!("[listen]\nlisten 127.0.0.1:0\nallow 127.0.0.0/8\nsecret-file {secret}\ntimeout 2"));
    let beacond = Daemon::start(scene.path(), &format!("-c {path}"));
    let url = url(8093);
    Sender::new(beacond.listening()).announce(&url, "");
    wait_until("it is there", || scene.key(&url).is_some());
    config("");
    beacond.signal("HUP");
    wait_until("its lease runs out", || scene.key(&url).is_none());
}

#[test]
fn garbage_is_survived_within_bounds_and_the_end_is_not_held_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut turn = 0;
    let json = |body: &str| response(200, "application/json", body);
    let liar = StandIn::start(move |_| {
        turn += 1;
        match turn % 8 {
            0 => json("<html>"),
            1 => json("{}"),
            2 => Vec::new(),
            // Sixteen megabytes that come to more than a gigabyte once they are read.
            3 => json(&format!("{{\"responses\":[{}0]}}", "{\"\":0},".repeat((16 << 20) / 7 - 9))),
            4 => json(&" ".repeat(17 << 20)),
            5 => response(401, "application/json", "{\"error\":\"x\",\"code\":16}"),
            6 => json("{\"token\":\"a\\r\\nb\",\"header\":{\"revision\":\"-1\"},\"responses\":[{},{},null]}"),
            _ => b"SSH-2.0-x\r\n".to_vec(),
        }
    });
    let auth = private_file(dir.path(), "auth", "root:hush hush\n");
    let file = dir.path().join("members");
    let etcd = format!("--endpoint http://{} --auth-file {auth} --every 100ms", liar.addr);
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} + etcd {etcd} \
         + etcd-watch {etcd} --balancer other + file --file {} --format lines",
        secret_file(dir.path()),
        file.display()
    );
    let beacond = Daemon::start(dir.path(), &line);
    let sender = Sender::new(beacond.listening());
    wait_until("it was told a lot", || liar.asked().len() >= 24);
    sender.announce(&url(8094), "");
    wait_until("a file beside is written", || {
        std::fs::read_to_string(&file).is_ok_and(|t| t.contains(":8094 "))
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", beacond.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(peak < 150_000, "{peak} kB");
    assert!(!beacond.log().iter().any(|line| line.contains("hush")), "no secrets in the log");
    let start = Instant::now();
    assert_eq!(beacond.stop(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
