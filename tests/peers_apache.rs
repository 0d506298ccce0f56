//! Announcements drive a real Apache httpd.
#![cfg(all(feature = "apache", feature = "listen"))]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::apache::{Apache, Member};
use common::backend::Backend;
use common::beat::Beat;
use common::daemon::{Daemon, args, private_file, secret_file};
use common::load::Load;
use common::sender::Sender;
use common::standin::{Asked, StandIn, response};
use common::{Answer, get, own_ip, status_of, wait_for, wait_until};
use std::path::Path;
use std::time::{Duration, Instant};

struct Scene {
    dir: tempfile::TempDir,
    apache: Apache,
}

impl Scene {
    fn new() -> Scene {
        Scene::with("", "")
    }

    fn with(global: &str, balancer: &str) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let apache = Apache::start(dir.path(), global, balancer);
        Scene { dir, apache }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A receiver with a sink for Apache's balancer `web`; `listen` and `sink` are more of their options.
    fn beacond(&self, listen: &str, sink: &str) -> Daemon {
        beacond(self.path(), &self.apache.manager(), listen, sink)
    }

    fn serves(&self, backend: &Backend) -> bool {
        get(self.apache.web, "/") == Answer::Http(200, backend.addr.to_string())
    }

    fn member(&self, backend: &Backend) -> Option<Member> {
        self.apache.member(&backend.url())
    }

    fn status(&self, backend: &Backend) -> String {
        self.member(backend).map_or("absent".to_owned(), |member| member.status)
    }
}

fn beacond(dir: &Path, url: &str, listen: &str, sink: &str) -> Daemon {
    let secret = secret_file(dir);
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {secret} {listen} \
         + apache --url {url} --apache-balancer web {sink}"
    );
    Daemon::start_args(dir, &args(&line))
}

/// How a member stands with the sink.
fn view(beacond: &Daemon, url: &str, balancer: &str) -> (String, String) {
    let view = beacond.member("default", url)["sinks"][format!("apache:{balancer}")].clone();
    let text = |name: &str| view[name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("error"))
}

#[test]
fn appears_falls_silent_returns_and_says_goodbye() {
    let scene = Scene::new();
    assert_eq!(status_of(scene.apache.web), 503);
    let beacond = scene.beacond("--timeout 1", "");
    let backend = Backend::start(own_ip());
    let beat = Beat::of(&beacond, &[&backend]);
    wait_until("Apache serves it", || scene.serves(&backend));
    wait_until("status says so", || view(&beacond, &backend.url(), "web").0 == "up");

    drop(beat);
    beacond.line("evicted backend");
    wait_until("Apache stops serving it", || status_of(scene.apache.web) == 503);
    assert_eq!(scene.status(&backend), "Init Drn Dis", "disabled, with our mark");

    let beat = Beat::of(&beacond, &[&backend]);
    beacond.line("re-enabled backend");
    wait_until("Apache serves it again", || scene.serves(&backend));
    assert_eq!(scene.status(&backend), "Init Ok");

    drop(beat);
    Sender::new(beacond.listening()).leave(&backend.url());
    beacond.line("left backend");
    wait_until("it is out of rotation", || scene.status(&backend).contains("Dis"));
    assert_eq!(status_of(scene.apache.web), 503);
    wait_until("it is there all the same", || scene.apache.members("web").len() == 1);
}

#[test]
fn goodbye_lets_requests_finish_and_drain_can_be_the_end() {
    let scene = Scene::new();
    let beacond = scene.beacond("--timeout 0", "");
    let backend = Backend::start(own_ip());
    let sender = Sender::new(beacond.listening());
    sender.announce(&backend.url(), "");
    wait_until("Apache serves it", || scene.serves(&backend));
    let web = scene.apache.web;
    let slow = std::thread::spawn(move || get(web, "/slow15"));
    std::thread::sleep(Duration::from_millis(200));
    sender.leave(&backend.url());
    wait_until("new requests are turned away", || status_of(web) == 503);
    wait_until("it is draining", || view(&beacond, &backend.url(), "web").0 == "draining");
    assert!(!slow.is_finished() && scene.status(&backend) == "Init Drn Ok");
    assert_eq!(slow.join().unwrap(), Answer::Http(200, backend.addr.to_string()));
    wait_until("then it is disabled", || scene.status(&backend).contains("Dis"));
    drop(beacond);

    let beacond = scene.beacond("--timeout 500ms", "--on-evict drain --every 100ms");
    let beat = Beat::of(&beacond, &[&backend]);
    wait_until("it returns", || scene.serves(&backend));
    drop(beat);
    beacond.line("evicted backend");
    wait_until("it is drained", || scene.status(&backend) == "Init Drn Ok");
    let _beat = Beat::of(&beacond, &[&backend]);
    wait_until("it returns", || scene.serves(&backend));
}

#[test]
fn weights_arrive_and_share() {
    let scene = Scene::new();
    let beacond = scene.beacond("", "");
    let backends: Vec<Backend> = (0..4).map(|_| Backend::start(own_ip())).collect();
    let sender = Sender::new(beacond.listening());
    for (backend, weight) in backends.iter().zip([1, 3, 0, 256]) {
        if weight != 256 {
            sender.announce(&backend.url(), &format!(" weight={weight}"));
        }
    }
    let factor = |n: usize| scene.member(&backends[n]).map(|m| (m.factor, m.status.contains("Ok")));
    let serving = |n: usize, factor_: &str| factor(n) == Some((factor_.to_owned(), true));
    wait_until("both are there", || serving(0, "1.00") && serving(1, "3.00"));
    assert_eq!(factor(2), None, "who takes nothing is not added");
    let mut hits = [0; 2];
    for _ in 0..40 {
        let Answer::Http(200, body) = get(scene.apache.web, "/") else { panic!("a request failed") };
        hits[backends.iter().position(|b| b.addr.to_string() == body).unwrap()] += 1;
    }
    assert!((8..=12).contains(&hits[0]), "{hits:?}");
    sender.announce(&backends[1].url(), " weight=7");
    wait_until("the new weight arrives", || serving(1, "7.00"));
    sender.announce(&backends[3].url(), " weight=256");
    wait_until("the largest", || serving(3, "100.00"));
    sender.announce(&backends[1].url(), " weight=0");
    wait_until("weight 0 drains", || scene.status(&backends[1]).contains("Drn"));
    wait_until("and is shown so", || view(&beacond, &backends[1].url(), "web").0 == "draining");
    sender.announce(&backends[1].url(), " weight=2");
    wait_until("and ends", || serving(1, "2.00"));
}

#[test]
fn apache_killed_reloaded_and_persisting_is_healed() {
    let mut scene = Scene::new();
    // The default pace: what heals it is that the connection is gone.
    let beacond = scene.beacond("", "");
    let backend = Backend::start(own_ip());
    let _beat = Beat::of(&beacond, &[&backend]);
    wait_until("Apache serves it", || scene.serves(&backend));

    let (mark, start) = (beacond.mark(), Instant::now());
    scene.apache.reload();
    wait_until("the next generation serves it", || {
        beacond.log()[mark..].iter().any(|l| l.contains("Apache was restarted")) && scene.serves(&backend)
    });
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());

    let mark = beacond.mark();
    scene.apache.kill();
    beacond.line_after(mark, "Connection refused");
    scene.apache.run();
    wait_until("the restarted Apache serves it", || scene.serves(&backend));

    // With BalancerPersist it forgets nothing, and nothing needs to be done.
    scene.apache.stop();
    scene.apache.configure("BalancerPersist On", "");
    scene.apache.run();
    wait_until("it serves it again", || scene.serves(&backend));
    scene.apache.stop();
    scene.apache.run();
    assert!(scene.serves(&backend), "from the first request on");
    scene.apache.reload();
    let mark = beacond.mark();
    wait_until("beacond has looked again", || {
        std::thread::sleep(Duration::from_millis(50));
        view(&beacond, &backend.url(), "web") == ("up".to_owned(), String::new())
    });
    wait_until("the next generation serves it", || scene.serves(&backend));
    assert!(beacond.log()[mark..].iter().all(|l| !l.contains("POST")), "{:#?}", &beacond.log()[mark..]);
}

#[test]
fn a_frozen_apache_is_waited_for() {
    let scene = Scene::new();
    let beacond = scene.beacond("--timeout 500ms", "--every 200ms");
    let (backend, other) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let _beat = Beat::of(&beacond, &[&backend]);
    let gone = Beat::of(&beacond, &[&other]);
    wait_until("both are served", || [&backend, &other].iter().all(|b| scene.status(b) == "Init Ok"));
    scene.apache.signal("STOP");
    drop(gone);
    beacond.line("no answer in time");
    let error = wait_for("status shows it", || {
        let (_, error) = view(&beacond, &backend.url(), "web");
        (!error.is_empty()).then_some(error)
    });
    assert!(error.contains("no answer in time"), "{error}");
    beacond.line("evicted backend");
    scene.apache.signal("CONT");
    beacond.line("Apache is back");
    wait_until("what had changed is done", || scene.status(&other).contains("Dis"));
    wait_until("the one that beats is served", || scene.serves(&backend));
}

#[test]
fn beacond_killed_and_started_again_is_no_outage() {
    let scene = Scene::new();
    let beacond = scene.beacond("--timeout 1", "--every 200ms");
    let (kept, silent) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let beat = Beat::of(&beacond, &[&kept]);
    Sender::new(beacond.listening()).announce(&silent.url(), "");
    // What is added is disabled at first, too.
    wait_until("both are in", || [&kept, &silent].iter().all(|b| scene.status(b) == "Init Ok"));
    wait_until("the silent one is evicted", || scene.status(&silent).contains("Dis"));
    let load = Load::on(scene.apache.web);
    beacond.kill();
    drop(beat);
    let beacond = scene.beacond("--timeout 1", "--every 200ms");
    beacond.line("following balancer web of Apache, 2 member(s) there");
    let _beat = Beat::of(&beacond, &[&kept]);
    let start = Instant::now();
    // The next run's own eviction rule must not touch whoever it has not heard yet.
    while start.elapsed() < Duration::from_millis(1500) {
        assert_eq!(scene.status(&kept), "Init Ok");
    }
    let (count, failed) = load.end();
    assert!(count > 20 && failed.is_empty(), "{count} requests, failed: {failed:?}");
    // What the last run took out is not mistaken for the operator's will.
    let _both = Beat::of(&beacond, &[&silent]);
    wait_until("the evicted one returns", || scene.status(&silent) == "Init Ok");
}

#[test]
fn what_is_not_ours_stays_and_the_operator_wins() {
    let fixed = Backend::start(own_ip());
    let lines = format!(
        "BalancerMember {} loadfactor=5\nBalancerMember http://127.0.0.1:1/app status=+D",
        fixed.url()
    );
    let scene = Scene::with("", &lines);
    let beacond = scene.beacond("--timeout 500ms", "--every 100ms");
    let backend = Backend::start(own_ip());
    let beat = Beat::of(&beacond, &[&backend]);
    wait_until("ours is there", || scene.status(&backend) == "Init Ok");
    drop(beat);
    wait_until("ours is evicted", || scene.status(&backend).contains("Dis"));
    let beat = Beat::of(&beacond, &[&backend]);
    wait_until("ours returns", || scene.status(&backend) == "Init Ok");
    let others = || {
        let all = scene.apache.members("web").into_iter().filter(|m| m.name != backend.url());
        all.map(|m| (m.status, m.factor)).collect::<Vec<_>>()
    };
    let untouched = [("Init Ok".to_owned(), "5.00".to_owned()), ("Init Dis".to_owned(), "1.00".to_owned())];
    wait_until("the others are as they were", || others() == untouched);

    // It has served: then its being disabled is somebody's will.
    for _ in 0..12 {
        status_of(scene.apache.web);
    }
    let name = backend.url().replace(':', "%3A").replace('/', "%2F");
    scene.apache.operate(&format!("w={name}&w_status_D=1"));
    wait_until("beacond sees it", || view(&beacond, &backend.url(), "web").0 == "operator");
    drop(beat);
    drop(beacond);
    let beacond = scene.beacond("--timeout 500ms", "--every 100ms");
    let _beat = Beat::of(&beacond, &[&backend]);
    wait_until("the next beacond does, too", || view(&beacond, &backend.url(), "web").0 == "operator");
    assert_eq!(scene.status(&backend), "Init Dis");
    scene.apache.operate(&format!("w={name}&w_status_D=0"));
    wait_until("the operator gives it back", || view(&beacond, &backend.url(), "web").0 == "up");
    assert_eq!(beacond.stop(), Some(0));
    assert_eq!(scene.status(&backend), "Init Ok", "a clean end of beacond is no outage");
    wait_until("the others are as they were", || others() == untouched);
}

#[test]
fn existing_members_are_adopted_and_own_ports_are_no_second_member() {
    let ip = own_ip();
    let scene =
        Scene::with("", &format!("BalancerMember http://{ip}\nBalancerMember http://{ip}:8080 status=+D"));
    let beacond = scene.beacond("--allow-names", "--every 100ms");
    let sender = Sender::new(beacond.listening());
    for url in [format!("HTTP://{ip}:80/"), format!("http://{ip}:8080"), "http://Web-1.example:80".to_owned()]
    {
        sender.announce(&url, " weight=4");
    }
    let state = || {
        let of = |m: Member| (m.name, m.factor, m.status.contains("Dis"));
        scene.apache.members("web").into_iter().map(of).collect::<Vec<_>>()
    };
    let name = |text: &str| (text.to_owned(), "4.00".to_owned(), false);
    let wanted =
        [name(&format!("http://{ip}")), name(&format!("http://{ip}:8080")), name("http://web-1.example")];
    // Those from the file come last.
    let sorted = || {
        let mut all = state();
        all.sort();
        all
    };
    wait_until("all three are there once", || sorted() == wanted);
    sender.announce("gopher://10.0.0.1:70", "");
    sender.announce("h2c://127.0.0.1:70", "");
    let log = beacond.log();
    assert!(log.iter().all(|l| !l.contains("balancer add failed")), "{log:#?}");
}

#[test]
fn a_full_balancer_is_said() {
    let scene = Scene::new();
    let beacond = scene.beacond("", "--every 100ms");
    let sender = Sender::new(beacond.listening());
    let ip = own_ip();
    for port in 8001..=8009 {
        sender.announce(&format!("http://{ip}:{port}"), "");
    }
    let line = beacond.line("balancer add failed: no room, all 8 members of web are taken");
    let url = format!("http://{}", line.split("http://").nth(1).unwrap().split(": ").next().unwrap());
    wait_until("status says so", || {
        let (state, error) = view(&beacond, &url, "web");
        state == "refused" && error.contains("no room")
    });
    wait_until("the others are in", || {
        scene.apache.members("web").iter().filter(|m| !m.status.contains("Dis")).count() == 8
    });
}

#[test]
fn what_apache_refuses_or_ignores_is_said() {
    let scene = Scene::with(
        "<Proxy balancer://ro>\nProxySet growth=2 nonce=None\n</Proxy>\nProxyPass /ro balancer://ro/",
        "",
    );
    let url = format!("http://{}", common::free_port(own_ip()));
    let said = |url_of_apache: &str, sink: &str, fragment: &str| {
        let beacond = beacond(scene.path(), url_of_apache, "", sink);
        Sender::new(beacond.listening()).announce(&url, "");
        let line = beacond.line(fragment);
        assert!(line.contains("WARN") || line.starts_with("warn"), "{line}");
    };
    let manager = scene.apache.manager();
    said(&manager, "--referer http://elsewhere.example/", "no XML in the answer");
    said(&format!("http://{}/nothing", scene.apache.web), "", "status 503");
    let ro = manager.clone();
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} + apache --url {ro} --apache-balancer ro \
         + apache --url {ro} --apache-balancer nope",
        secret_file(scene.path())
    );
    let beacond = Daemon::start_args(scene.path(), &args(&line));
    Sender::new(beacond.listening()).announce(&url, "");
    beacond.line("nonce=None makes it read-only");
    beacond.line("no such balancer in Apache: nope");
}

#[test]
fn a_manager_behind_a_password() {
    let dir = tempfile::tempdir().unwrap();
    // openssl passwd -apr1 -salt saltsalt 'hush hush'
    let hash = std::process::Command::new("openssl")
        .args(["passwd", "-apr1", "-salt", "saltsalt", "hush hush"])
        .output()
        .unwrap();
    let users = dir.path().join("users");
    std::fs::write(&users, format!("admin:{}", String::from_utf8(hash.stdout).unwrap())).unwrap();
    let global = format!(
        "<Location /balancer-manager>\nAuthType Basic\nAuthName manager\nAuthUserFile {}\nRequire valid-user\n</Location>",
        users.display()
    );
    let apache = Apache::start(dir.path(), &global, "");
    let backend = Backend::start(own_ip());
    let without = beacond(dir.path(), &apache.manager(), "", "");
    without.line("status 401");
    drop(without);
    let file = private_file(dir.path(), "login", "admin:hush hush\n");
    let beacond = beacond(dir.path(), &apache.manager(), "", &format!("--auth-file {file}"));
    let _beat = Beat::of(&beacond, &[&backend]);
    wait_until("Apache serves it", || get(apache.web, "/") == Answer::Http(200, backend.addr.to_string()));
    let log = beacond.log();
    assert!(log.iter().all(|l| !l.contains("hush") && !l.contains("Basic")), "{log:#?}");
}

/// The state of balancer `web` with one member, as a stand-in tells it.
fn xml(nonce: Option<&str>, member: Option<(&str, &str)>) -> String {
    use beacond::sinks::apache::page::{Balancer, Status, Worker, render};
    let worker = member.map(|(name, status)| Worker {
        name: name.to_owned(),
        factor: 100,
        status: Status { disabled: status == "Dis", ok: status == "Ok", ..Status::default() },
        ..Worker::default()
    });
    let nonce = nonce.map(str::to_owned);
    render("web", &Balancer { nonce, workers: worker.into_iter().collect() })
}

#[test]
fn an_old_nonce_is_read_again_and_the_change_repeated() {
    const URL: &str = "http://127.9.9.9:80";
    // An older version, whose XML has no nonce: it stands in the links. It becomes another after the first change.
    let mut changes = 0;
    let stand_in = StandIn::start(move |asked: &Asked| {
        let nonce = if changes == 0 { "first" } else { "second" };
        if asked.line == "GET /m" {
            let page = format!(
                "<html><h3>Status for <a href='/m?b=web&nonce={nonce}'>balancer://web</a></h3><td>9 [0 Used]</td>"
            );
            return response(200, "text/html", &page);
        }
        if asked.line.starts_with("POST") {
            changes += 1;
        }
        let member = match changes {
            0 | 1 => None,
            2 => Some(("http://127.9.9.9", "Dis")),
            _ => Some(("http://127.9.9.9", "Ok")),
        };
        response(200, "text/xml", &xml(None, member))
    });
    let dir = tempfile::tempdir().unwrap();
    let manager = format!("http://{}/m", stand_in.addr);
    let beacond = beacond(dir.path(), &manager, "", "");
    Sender::new(beacond.listening()).announce(URL, "");
    beacond.line("is up, weight 1");
    let asked = stand_in.asked();
    let lines: Vec<&str> =
        asked.iter().map(|a| a.line.as_str()).skip_while(|l| *l == "GET /m?xml=1").collect();
    assert_eq!(lines, ["GET /m", "POST /m", "GET /m", "POST /m", "POST /m"]);
    let posts: Vec<&Asked> = asked.iter().filter(|a| a.line == "POST /m").collect();
    assert!(posts[0].body.contains("nonce=first") && posts[1].body.contains("nonce=second"));
    assert!(asked.iter().all(|a| a.headers.contains(&format!("Referer: {manager}"))));
    assert!(posts.iter().all(|a| a.body.len() < 1024 && a.body.ends_with("&xml=1")));
}

#[test]
fn garbage_is_said_once_and_survived() {
    let good = xml(Some("n"), Some(("http://127.9.9.9", "Ok")));
    let xml = |text: &str| response(200, "text/xml", text);
    let garbage = [
        [Vec::new(), b"SSH-2.0-OpenSSH\r\n".to_vec()],
        [xml(&good[..good.len() / 2]), xml(&good.replace("worker", "w\u{0}rker"))],
        [xml("<manager><balancers>"), response(200, "text/html", "<!DOCTYPE HTML><html>")],
        [
            response(500, "text/plain", "no"),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        ],
    ];
    let scenes: Vec<_> = garbage
        .into_iter()
        .map(|garbage| {
            let (mut garbage, good) = (garbage.into_iter(), xml(&good));
            let stand_in = StandIn::start(move |_: &Asked| garbage.next().unwrap_or_else(|| good.clone()));
            let dir = tempfile::tempdir().unwrap();
            let beacond = beacond(dir.path(), &format!("http://{}/m", stand_in.addr), "", "--every 100ms");
            Sender::new(beacond.listening()).announce("http://127.9.9.9:80", "");
            (stand_in, beacond, dir)
        })
        .collect();
    for (stand_in, beacond, _dir) in scenes {
        beacond.line("Apache is back");
        wait_until("all is well", || {
            view(&beacond, "http://127.9.9.9:80", "web") == ("up".to_owned(), String::new())
        });
        let asked = stand_in.asked();
        assert!(asked.iter().all(|a| a.line == "GET /m?xml=1"), "nothing is changed on garbage: {asked:#?}");
        let log = beacond.log();
        let said = log.iter().filter(|l| l.starts_with("warn")).count();
        assert!((1..=2).contains(&said), "{log:#?}");
    }
}
