//! Announcements drive a real nginx.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use beacond::sinks::rendered::layout::{Format, Layout, Servers, Shown};
use beacond::url::Url;
use common::backend::Backend;
use common::daemon::{Daemon, args, secret_file};
use common::nginx_http::NginxHttp;
use common::sender::Sender;
use common::{Answer, get, own_ip, status_of, wait_until};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

struct Scene {
    dir: tempfile::TempDir,
    nginx: NginxHttp,
}

/// Short times, for tests.
const QUICK: &str = "--min-gap 100ms --coalesce 20ms --every 200ms";

impl Scene {
    /// nginx is prepared, and does not run.
    fn cold() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let nginx = NginxHttp::prepare(dir.path());
        Scene { dir, nginx }
    }

    /// beacond has written the first file, and nginx runs.
    fn new(listen: &str, sink: &str) -> (Scene, Daemon) {
        let mut scene = Scene::cold();
        let beacond = scene.beacond(listen, sink);
        scene.nginx.run();
        (scene, beacond)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A receiver with the sink; `listen` and `sink` are more of their options.
    fn beacond(&self, listen: &str, sink: &str) -> Daemon {
        let line = format!(
            "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} {listen} + nginx --file {} {sink}",
            secret_file(self.path()),
            self.nginx.members().display()
        );
        let mut words = args(&line);
        for (option, value) in [("--test", self.nginx.test()), ("--reload", self.nginx.reload())] {
            if !words.iter().any(|word| word == option) {
                words.extend([option.to_owned(), value]);
            }
        }
        Daemon::start_args(self.path(), &words)
    }

    fn serves(&self, backend: &Backend) -> bool {
        get(self.nginx.web, "/") == Answer::Http(200, backend.addr.to_string())
    }

    fn view(&self, beacond: &Daemon, url: &str) -> serde_json::Value {
        let name = format!("nginx:{}", self.nginx.members().display());
        beacond.member("default", url)["sinks"][name].clone()
    }

    /// What is wrong with the reload, as the log said last.
    fn error(beacond: &Daemon) -> String {
        beacond.log().into_iter().rfind(|line| line.contains("the reload failed")).unwrap_or_default()
    }

    fn has(&self, text: &str) -> bool {
        self.nginx.text().contains(text)
    }
}

#[test]
fn appears_falls_silent_returns_and_says_goodbye() {
    let (scene, beacond) = Scene::new("--timeout 1", QUICK);
    wait_until("nobody is there", || status_of(scene.nginx.web) == 502);
    let backend = Backend::start(own_ip());
    let sender = Sender::new(beacond.listening());
    let keep = |until: &dyn Fn() -> bool, what: &str| {
        wait_until(what, || {
            sender.announce(&backend.url(), "");
            until()
        });
    };
    keep(&|| scene.serves(&backend), "nginx serves it");
    keep(&|| scene.view(&beacond, &backend.url())["state"] == "up", "status says so");

    beacond.line("evicted backend");
    wait_until("nginx stops serving it", || status_of(scene.nginx.web) == 502);
    assert!(!scene.has(&backend.addr.to_string()));

    keep(&|| scene.serves(&backend), "nginx serves it again");
    sender.leave(&backend.url());
    beacond.line("left backend");
    wait_until("nginx stops serving it again", || status_of(scene.nginx.web) == 502);
    assert!(beacond.log().iter().all(|line| !line.contains("WARN")), "{:#?}", beacond.log());
}

#[test]
fn weights_schemes_and_names() {
    let (scene, beacond) = Scene::new("", &format!("{QUICK} --server-options max_fails=0"));
    let backends: Vec<Backend> = (0..3).map(|_| Backend::start(own_ip())).collect();
    let sender = Sender::new(beacond.listening());
    for (backend, weight) in backends.iter().zip([1, 3, 0]) {
        sender.announce(&backend.url(), &format!(" weight={weight}"));
    }
    sender.announce("https://127.8.8.8:443", "");
    wait_until("all are up", || {
        backends.iter().take(2).all(|b| scene.view(&beacond, &b.url())["state"] == "up")
            && scene.view(&beacond, &backends[2].url())["state"] == "draining"
    });
    let line = |n: usize, words: &str| format!("server {}{words} max_fails=0;\n", backends[n].addr);
    assert!(scene.has(&line(0, "")) && scene.has(&line(1, " weight=3")) && scene.has(&line(2, " down")));
    assert_eq!(scene.view(&beacond, "https://127.8.8.8:443")["error"], "refused: scheme https");
    let hits = |wanted: [u32; 3]| {
        let mut hits = [0; 3];
        for _ in 0..40 {
            // The old workers, which have nobody, may still answer.
            let Answer::Http(200, body) = get(scene.nginx.web, "/") else { return false };
            hits[backends.iter().position(|b| b.addr.to_string() == body).unwrap()] += 1;
        }
        hits == wanted
    };
    wait_until("traffic follows the weights", || hits([10, 30, 0]));
    sender.announce(&backends[2].url(), " weight=4");
    wait_until("traffic follows the new weight", || hits([5, 15, 20]));
}

/// Asks again and again until told to stop; returns how many requests there were and which failed.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(u32, Vec<u16>)>,
}

impl Load {
    fn on(web: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut count, mut failed) = (0, Vec::new());
            while !stopped.load(Ordering::SeqCst) {
                count += 1;
                let status = status_of(web);
                if status != 200 {
                    failed.push(status);
                }
            }
            (count, failed)
        });
        Load { stop, thread }
    }

    #[track_caller]
    fn lost_nothing(self) {
        self.stop.store(true, Ordering::SeqCst);
        let (count, failed) = self.thread.join().unwrap();
        assert!(count > 20 && failed.is_empty(), "{count} requests, failed: {failed:?}");
    }
}

#[test]
fn reloads_under_load_lose_no_request() {
    let (scene, beacond) = Scene::new("", QUICK);
    let (one, two) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let sender = Sender::new(beacond.listening());
    sender.announce(&one.url(), "");
    // Until workers from before the first member, which answer 502, have gone.
    wait_until("nginx serves it, and nothing else", || (0..50).all(|_| scene.serves(&one)));
    let load = Load::on(scene.nginx.web);
    let before = scene.nginx.reloads();
    for _ in 0..6 {
        sender.announce(&one.url(), "");
        sender.announce(&two.url(), "");
        wait_until("a second joins", || scene.view(&beacond, &two.url())["state"] == "up");
        sender.leave(&two.url());
        wait_until("and leaves", || scene.view(&beacond, &two.url())["state"] == "down");
    }
    load.lost_nothing();
    assert_eq!(scene.nginx.reloads() - before, 12, "one reload a change");
}

#[test]
fn many_changes_share_a_reload_and_reloads_keep_their_distance() {
    let (scene, beacond) = Scene::new("", "--min-gap 1500ms --coalesce 50ms --every 200ms");
    let sender = Sender::new(beacond.listening());
    let backend = Backend::start(own_ip());
    sender.announce(&backend.url(), "");
    wait_until("nginx serves it", || scene.serves(&backend));
    let before = scene.nginx.reloads();
    let start = Instant::now();
    for n in 1..=50 {
        sender.announce(&format!("http://127.9.9.{n}:80"), " weight=0");
        wait_until("it is known", || {
            n % 10 != 0 || !beacond.member("default", &format!("http://127.9.9.{n}:80")).is_null()
        });
    }
    wait_until("all are there", || (1..=50).all(|n| scene.has(&format!("127.9.9.{n}:80 down"))));
    wait_until("and loaded", || scene.view(&beacond, "http://127.9.9.50:80")["state"] == "draining");
    let reloads = u128::try_from(scene.nginx.reloads() - before).unwrap();
    let allowed = start.elapsed().as_millis() / 1500 + 1;
    assert!(reloads <= allowed, "{reloads} reloads where {allowed} were allowed");
}

#[test]
fn a_file_that_fails_its_test_is_taken_back() {
    let (scene, beacond) = Scene::new("", QUICK);
    let (good, bad) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let sender = Sender::new(beacond.listening());
    sender.announce(&good.url(), "");
    wait_until("nginx serves it", || scene.serves(&good));
    wait_until("it is kept", || scene.path().join(".web.members.good").exists());
    // The operator is in the middle of something: the configuration is broken.
    let config = scene.path().join("nginx.conf");
    let whole = fs::read_to_string(&config).unwrap();
    let before = (scene.nginx.text(), scene.nginx.reloads());
    fs::write(&config, format!("{whole}}}\n")).unwrap();
    let mark = beacond.mark();
    sender.announce(&bad.url(), "");
    beacond.line_after(mark, "the test failed, the old file is put back");
    wait_until("the old file is back", || scene.nginx.text() == before.0);
    let error = scene.view(&beacond, &bad.url())["error"].as_str().unwrap().to_owned();
    assert!(error.contains("unexpected \"}\""), "{error}");
    assert!(scene.serves(&good));
    assert_eq!(scene.nginx.reloads(), before.1, "nothing was loaded");
    fs::write(&config, whole).unwrap();
    wait_until("both are served", || {
        scene.view(&beacond, &bad.url())["state"] == "up" && scene.has(&bad.addr.to_string())
    });
    wait_until("the error is gone", || scene.view(&beacond, &bad.url())["error"].is_null());
}

#[test]
fn nginx_away_and_back() {
    let (mut scene, beacond) = Scene::new("", QUICK);
    let (one, two) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let sender = Sender::new(beacond.listening());
    sender.announce(&one.url(), "");
    wait_until("nginx serves it", || scene.serves(&one));
    scene.nginx.kill();
    sender.announce(&two.url(), "");
    let mark = beacond.mark();
    beacond.line_after(mark.saturating_sub(20), "the reload failed");
    wait_until("the file has it all the same", || scene.has(&two.addr.to_string()));
    scene.nginx.run();
    wait_until("nginx serves it", || scene.serves(&two));
    wait_until("the error is gone", || {
        let view = scene.view(&beacond, &two.url());
        view["state"] == "up" && view["error"].is_null()
    });
}

#[test]
fn a_number_that_nginx_left_behind_hangs_up_nobody_else() {
    let scene = Scene::cold();
    // Its name must not have nginx in it, nor its arguments.
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid_file = scene.path().join("nginx.pid");
    fs::write(&pid_file, format!("{}\n", other.id())).unwrap();
    let beacond = scene.beacond("", QUICK);
    beacond.line("which is another process: nginx does not run");
    assert!(other.try_wait().unwrap().is_none(), "it was hung up");
    // That would be everybody.
    fs::write(&pid_file, "-1\n").unwrap();
    wait_until("it is no number", || Scene::error(&beacond).contains("holds no process number"));
    let _ = other.kill();
    let _ = other.wait();
}

#[test]
fn beacond_killed_and_started_again_is_no_outage_and_no_reload() {
    let (scene, beacond) = Scene::new("--timeout 1", QUICK);
    let (kept, silent) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let sender = Sender::new(beacond.listening());
    wait_until("both are served", || {
        [&kept, &silent].iter().all(|b| {
            sender.announce(&b.url(), "");
            scene.view(&beacond, &b.url())["state"] == "up"
        })
    });
    let good = scene.path().join(".web.members.good");
    wait_until("the copy is written", || {
        fs::read_to_string(&good).is_ok_and(|text| text == scene.nginx.text())
    });
    // HUP may be sent long before a busy machine lets nginx log it.
    wait_until("nginx serves both", || scene.serves(&kept) && scene.serves(&silent));
    beacond.kill();
    let (before, inode) = (scene.nginx.reloads(), fs::metadata(scene.nginx.members()).unwrap().ino());
    let load = Load::on(scene.nginx.web);
    let beacond = scene.beacond("--timeout 1", QUICK);
    let sender = Sender::new(beacond.listening());
    wait_until("one is heard again", || {
        sender.announce(&kept.url(), "");
        scene.view(&beacond, &kept.url())["state"] == "up"
    });
    assert_eq!(fs::metadata(scene.nginx.members()).unwrap().ino(), inode, "the file was not touched");
    assert_eq!(scene.nginx.reloads(), before, "nor nginx reloaded");
    wait_until("the other is out once a timeout has passed", || {
        sender.announce(&kept.url(), "");
        !scene.has(&silent.addr.to_string())
    });
    load.lost_nothing();
    assert!(scene.has(&kept.addr.to_string()));
}

#[test]
fn a_chain_that_a_crash_broke_off_is_begun_again() {
    let mut scene = Scene::cold();
    let backend = Backend::start(own_ip());
    let url = backend.url();
    // The last run wrote the file, and died before it was loaded.
    let layout = Layout {
        format: Format::Nginx,
        balancer: "default".to_owned(),
        service: String::new(),
        labels: Vec::new(),
        options: String::new(),
        tls: false,
    };
    let (at, old) = (scene.nginx.members(), layout.render(&Servers::default()));
    fs::write(scene.path().join(".web.members.good"), &old).unwrap();
    fs::write(&at, &old).unwrap();
    scene.nginx.run();
    let server = Url::parse(format!("tcp://{}", backend.addr).as_bytes()).unwrap();
    let new = layout.render(&Servers::from_iter([(server, Shown::Up(1))]));
    fs::write(&at, &new).unwrap();
    assert_eq!(status_of(scene.nginx.web), 502);
    let beacond = scene.beacond("", QUICK);
    wait_until("it is loaded although nobody has said anything", || scene.serves(&backend));
    assert!(beacond.member("default", &url).is_null());
    assert_eq!(fs::read(&at).unwrap(), new, "there was nothing to write");
}

#[test]
fn what_others_did_to_the_file_is_undone_and_what_is_not_ours_is_left_alone() {
    let (scene, beacond) = Scene::new("--timeout 1", QUICK);
    let backend = Backend::start(own_ip());
    let sender = Sender::new(beacond.listening());
    let wait_until = |what: &str, state: &dyn Fn() -> bool| {
        wait_until(what, || {
            sender.announce(&backend.url(), "");
            state()
        });
    };
    wait_until("nginx serves it", &|| scene.serves(&backend));
    let ours = scene.nginx.text();
    for theirs in ["", "server 127.0.0.1:9;\n", "not a line of ours\n"] {
        let reloads = scene.nginx.reloads();
        fs::write(scene.nginx.members(), theirs).unwrap();
        wait_until("the file is as it was", &|| scene.nginx.text() == ours);
        wait_until("nginx was told", &|| scene.nginx.reloads() > reloads);
    }
    fs::remove_file(scene.nginx.members()).unwrap();
    wait_until("the file is back", &|| scene.nginx.text() == ours);
    let warnings = beacond.log().iter().filter(|line| line.contains("somebody else")).count();
    assert_eq!(warnings, 1, "said once, not each time");
    drop(beacond);

    let precious = "user www-data;\nevents { }\n";
    fs::write(scene.nginx.members(), precious).unwrap();
    let beacond = scene.beacond("", QUICK);
    beacond.line("did not write");
    let sender = Sender::new(beacond.listening());
    sender.announce(&backend.url(), "");
    common::wait_until("status says why", || {
        scene.view(&beacond, &backend.url())["error"].as_str().is_some_and(|e| e.contains("did not write"))
    });
    assert_eq!(scene.nginx.text(), precious);
    fs::remove_file(scene.nginx.members()).unwrap();
    common::wait_until("moved away, it is written", || scene.has(&backend.addr.to_string()));
}

#[test]
fn a_reload_is_verified_by_its_generation() {
    let mut scene = Scene::cold();
    let options = format!(
        "{QUICK} --generation-file {}/web.gen --verify http://{}/generation",
        scene.path().display(),
        scene.nginx.web
    );
    let beacond = scene.beacond("", &options);
    scene.nginx.run();
    let backend = Backend::start(own_ip());
    let sender = Sender::new(beacond.listening());
    sender.announce(&backend.url(), "");
    wait_until("it is up", || scene.view(&beacond, &backend.url())["state"] == "up");
    let text = scene.nginx.text();
    let generation = text.lines().find_map(|line| line.strip_prefix("# generation ")).unwrap();
    // An old worker may take a connection yet.
    let loaded = Answer::Http(200, generation.to_owned());
    wait_until("nginx says it", || get(scene.nginx.web, "/generation") == loaded);
    drop(beacond);

    // A reload that says yes and does nothing.
    let beacond = scene.beacond("", &format!("{options} --reload /bin/true"));
    let sender = Sender::new(beacond.listening());
    sender.announce(&backend.url(), "");
    let other = Backend::start(own_ip());
    sender.announce(&other.url(), "");
    beacond.line("the reload did not take");
    assert_eq!(scene.view(&beacond, &other.url())["state"], "checking");
}

/// Waits longer than anything else does: for a command's deadline.
#[track_caller]
fn killed_in_a_minute(beacond: &Daemon, what: &str) {
    let start = Instant::now();
    let says = |line: &String| line.contains(what) && line.contains("killed after 30 s");
    while !beacond.log().iter().any(says) {
        assert!(start.elapsed() < Duration::from_secs(60), "no line says that {what:?} was killed");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A script that writes its number into a file and then hangs, with a child, while there is no file `fine`.
fn hanging(dir: &Path, name: &str) -> (String, PathBuf) {
    let (script, pid) = (dir.join(name), dir.join(format!("{name}.pid")));
    let at = dir.display();
    let body = format!("test -e {at}/fine && exit 0\necho $$ >{at}/{name}.pid\nsleep 1000 & wait\n");
    fs::write(&script, body).unwrap();
    (format!("sh {}", script.display()), pid)
}

#[test]
fn commands_that_hang_are_killed_at_their_deadline_and_hold_up_nobody() {
    let scene = Scene::cold();
    let at = scene.path().display();
    let (test, test_pid) = hanging(scene.path(), "test");
    let (then, then_pid) = hanging(scene.path(), "then");
    let mut words = args(&format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} + nginx {QUICK} --file {at}/web.members \
         --reload /bin/true --test X + file --file {at}/with --format lines --then X + file --file {at}/quick \
         --format lines",
        secret_file(scene.path()),
    ));
    let mut commands = [test, then].into_iter();
    words.iter_mut().filter(|word| *word == "X").for_each(|word| *word = commands.next().unwrap());
    let beacond = Daemon::start_args(scene.path(), &words);
    let sender = Sender::new(beacond.listening());
    sender.announce("http://127.8.1.1:80", "");
    wait_until("both commands run", || test_pid.exists() && then_pid.exists());
    let hung = [test_pid, then_pid].map(|pid| {
        common::wait_for("its number is there", || fs::read_to_string(&pid).ok()?.trim().parse::<u32>().ok())
    });
    let quick = scene.path().join("quick");
    let mut worst = Duration::ZERO;
    for n in 2..=21 {
        let start = Instant::now();
        sender.announce(&format!("http://127.8.1.{n}:80"), "");
        wait_until("it is there", || {
            fs::read_to_string(&quick).unwrap_or_default().contains(&format!("127.8.1.{n}:80 "))
        });
        worst = worst.max(start.elapsed());
    }
    assert!(worst < Duration::from_millis(500), "{worst:?}");
    // With the old file put back or not: the first test may have been one of the file without members.
    killed_in_a_minute(&beacond, "the test failed");
    killed_in_a_minute(&beacond, "the command failed");
    fs::write(scene.path().join("fine"), "").unwrap();
    for pid in hung {
        let group = format!("-{pid}");
        wait_until("nothing is left of its group", || {
            let alive = std::process::Command::new("kill").args(["-0", "--", &group]).output().unwrap();
            !alive.status.success()
        });
    }
    wait_until("and then all is well", || {
        let member = beacond.member("default", "http://127.8.1.2:80");
        member["sinks"]
            .as_object()
            .is_some_and(|sinks| sinks.len() == 3 && sinks.values().all(|s| s["state"] == "up"))
    });
}

#[test]
fn an_end_in_the_middle_of_a_test_leaves_no_untested_file() {
    let scene = Scene::cold();
    let script = scene.path().join("test.sh");
    fs::write(&script, "grep -q 127.8.4.1 $BEACOND_FILE && { sleep 5.5; exit 1; }\nexit 0\n").unwrap();
    let options = format!("{QUICK} --reload /bin/true --test X");
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} + nginx --file {} {options}",
        secret_file(scene.path()),
        scene.nginx.members().display()
    );
    let mut words = args(&line);
    words.iter_mut().filter(|word| *word == "X").for_each(|word| *word = format!("sh {}", script.display()));
    let beacond = Daemon::start_args(scene.path(), &words);
    wait_until("there is a first file", || {
        scene.path().join(".web.members.good").exists() || !scene.nginx.text().is_empty()
    });
    Sender::new(beacond.listening()).announce("http://127.8.4.1:80", "");
    wait_until("it is under test", || scene.has("127.8.4.1"));
    beacond.stop();
    assert!(!scene.has("127.8.4.1"), "{}", scene.nginx.text());
}

#[test]
fn a_frozen_nginx_is_waited_for_and_holds_up_nobody() {
    let mut scene = Scene::cold();
    let at = scene.path().display().to_string();
    let options = format!(
        "{QUICK} --generation-file {at}/web.gen --verify http://{}/generation + file --file {at}/quick --format lines",
        scene.nginx.web
    );
    let line = format!("--test X --reload {} {options}", scene.nginx.reload());
    let mut words = args(&format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} + nginx --file {at}/web.members {line}",
        secret_file(scene.path()),
    ));
    words.iter_mut().filter(|word| *word == "X").for_each(|word| *word = scene.nginx.test());
    let beacond = Daemon::start_args(scene.path(), &words);
    scene.nginx.run();
    let (one, two) = (Backend::start(own_ip()), Backend::start(own_ip()));
    let sender = Sender::new(beacond.listening());
    sender.announce(&one.url(), "");
    wait_until("nginx serves it", || scene.serves(&one));
    wait_until("it is up", || scene.view(&beacond, &one.url())["state"] == "up");
    scene.nginx.signal("STOP");
    let (mark, start) = (beacond.mark(), Instant::now());
    sender.announce(&two.url(), "");
    let quick = scene.path().join("quick");
    wait_until("the file beside has it", || {
        fs::read_to_string(&quick).unwrap_or_default().contains(&two.addr.to_string())
    });
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    beacond.line_after(mark, "the reload did not take");
    assert_eq!(scene.view(&beacond, &two.url())["state"], "checking");
    scene.nginx.signal("CONT");
    wait_until("nginx serves it", || scene.serves(&two));
    wait_until("it is up", || scene.view(&beacond, &two.url())["state"] == "up");
}
