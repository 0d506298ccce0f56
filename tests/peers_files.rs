//! Announcements drive files that real programs read, and disks that fail.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stands outside the loop, and fails where it cannot go on"
)]

mod common;

use common::daemon::{Daemon, args, secret_file};
use common::dns::Dnsmasq;
use common::sender::Sender;
use common::{Answer, free_port, get, own_ip, wait_until};
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The words for a receiver with a sink of `format`.
fn words(dir: &Path, file: &Path, listen: &str, format: &str) -> Vec<String> {
    args(&format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} {listen} + file --every 200ms --file {} \
         --format {format}",
        secret_file(dir),
        file.display()
    ))
}

fn beacond(dir: &Path, file: &Path, listen: &str, format: &str) -> Daemon {
    Daemon::start_args(dir, &words(dir, file, listen, format))
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn view(beacond: &Daemon, file: &Path, url: &str) -> Value {
    beacond.member("default", url)["sinks"][format!("file:{}", file.display())].clone()
}

/// A real Prometheus; it ends with the value.
struct Prometheus {
    child: Child,
    addr: SocketAddr,
}

impl Prometheus {
    fn config(dir: &Path, targets: &Path) -> PathBuf {
        let config = dir.join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: 60s\nscrape_configs:\n  - job_name: members\n    file_sd_configs:\n      \
             - files: ['{}']\n",
            targets.display()
        );
        fs::write(&config, text).unwrap();
        config
    }

    fn start(dir: &Path, config: &Path) -> Prometheus {
        let addr = free_port(own_ip());
        let child = Command::new("/usr/bin/prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Prometheus is installed (tests/run.sh installs it)");
        let prometheus = Prometheus { child, addr };
        wait_until("Prometheus answers", || matches!(get(addr, "/-/ready"), Answer::Http(200, _)));
        prometheus
    }

    /// What it scrapes, and the labels that it found there.
    fn targets(&self) -> Vec<(String, Value)> {
        let Answer::Http(200, body) = get(self.addr, "/api/v1/targets?state=active") else {
            return Vec::new();
        };
        let report: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        let active = report["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        let row = |target: &Value| {
            (target["scrapeUrl"].as_str().unwrap().to_owned(), target["discoveredLabels"].clone())
        };
        let mut rows: Vec<_> = active.iter().map(row).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_scrapes_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("targets.json");
    let beacond = beacond(dir.path(), &file, "--allow-names", "prometheus --label zone=a=\"b\"");
    let sender = Sender::new(beacond.listening());
    sender.announce("http://127.7.0.1:9", " weight=3");
    sender.announce("https://web9.example:9443", "");
    wait_until("both are written", || text(&file).matches("targets").count() == 2);
    let config = Prometheus::config(dir.path(), &file);
    let verdict = Command::new("/usr/bin/promtool").args(["check", "config"]).arg(&config).output().unwrap();
    assert!(verdict.status.success(), "{verdict:?}");
    let prometheus = Prometheus::start(dir.path(), &config);
    let urls = || prometheus.targets().into_iter().map(|(url, _)| url).collect::<Vec<_>>();
    wait_until("it scrapes both", || {
        urls() == ["http://127.7.0.1:9/metrics", "https://web9.example:9443/metrics"]
    });
    let labels = prometheus.targets().remove(0).1;
    assert_eq!(labels["__meta_beacond_weight"], "3");
    assert_eq!(labels["__meta_beacond_balancer"], "default");
    assert_eq!(labels["zone"], "a=\"b\"");
    sender.leave("http://127.7.0.1:9");
    wait_until("it scrapes one", || urls() == ["https://web9.example:9443/metrics"]);
    sender.leave("https://web9.example:9443");
    wait_until("it scrapes none", || urls().is_empty());
}

#[test]
fn dnsmasq_answers_with_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("hosts.d");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("web");
    let beacond = beacond(dir.path(), &file, "--timeout 2 --allow-names", "hosts --service web.lan");
    let dnsmasq = Dnsmasq::start(&folder);
    let sender = Sender::new(beacond.listening());
    let (one, two) = (Ipv4Addr::new(127, 7, 1, 1), Ipv4Addr::new(127, 7, 1, 2));
    sender.announce(&format!("http://{two}:80"), "");
    wait_until("one is known, the other until it falls silent", || {
        sender.announce(&format!("http://{one}:80"), "");
        sender.announce(&format!("http://{one}:81"), "");
        dnsmasq.ask("web.lan").unwrap() == [one, two]
    });
    wait_until("the silent one is gone", || {
        sender.announce(&format!("http://{one}:80"), "");
        dnsmasq.ask("web.lan").unwrap() == [one]
    });
    sender.announce("http://web1.lan:80", "");
    wait_until("names are refused", || {
        sender.announce(&format!("http://{one}:80"), "");
        view(&beacond, &file, "http://web1.lan:80")["error"] == "refused: host name"
    });
    wait_until("it returns", || {
        sender.announce(&format!("http://{one}:80"), "");
        sender.announce(&format!("http://{two}:80"), "");
        dnsmasq.ask("web.lan").unwrap() == [one, two]
    });
    for url in [format!("http://{one}:80"), format!("http://{two}:80")] {
        sender.announce(&url, " weight=0");
    }
    wait_until("weight 0 is nobody", || dnsmasq.ask("web.lan").unwrap().is_empty());
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["web"], "nothing else for dnsmasq to read");
}

#[test]
fn nothing_is_written_when_nothing_changes_and_a_restart_empties_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("members.json");
    let first = beacond(dir.path(), &file, "", "json");
    let sender = Sender::new(first.listening());
    let url = |n: usize| format!("http://127.7.2.{n}:80");
    for n in 1..=20 {
        sender.announce(&url(n), "");
    }
    wait_until("all are there", || text(&file).matches("\"up\"").count() == 20);
    let stamp = || fs::metadata(&file).map(|m| (m.ino(), m.mtime_nsec())).unwrap();
    let writes = |daemon: &Daemon| daemon.log().iter().filter(|l| l.contains("wrote")).count();
    let again = |rounds: usize| {
        for n in 1..=20 {
            sender.announce(&url(n), "");
        }
        // In the log, so that all that was said before has been read.
        let heard = || first.log().iter().filter(|l| l.contains("received: BEACON")).count();
        wait_until("they were heard", || heard() >= 20 * rounds);
    };
    again(2);
    let (before, written) = (stamp(), writes(&first));
    (3..=6).for_each(again);
    assert_eq!((stamp(), writes(&first)), (before, written));
    first.kill();
    let second = beacond(dir.path(), &file, "--timeout 5", "json");
    let sender = Sender::new(second.listening());
    wait_until("one is heard", || {
        sender.announce(&url(1), "");
        view(&second, &file, &url(1))["state"] == "up"
    });
    assert_eq!((stamp(), writes(&second)), (before, 0), "the others are not known to be gone");
    wait_until("they are, once a timeout has passed", || {
        sender.announce(&url(1), "");
        text(&file).matches("\"up\"").count() == 1
    });
}

#[test]
fn a_goodbye_drains_where_the_format_can_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("eds.json");
    let beacond = beacond(dir.path(), &file, "--timeout 1 --max-skew 1 --forget 1", "envoy");
    let sender = Sender::new(beacond.listening());
    sender.announce("http://127.7.3.1:80", " weight=7");
    wait_until("it is healthy", || text(&file).contains("\"HEALTHY\",\"load_balancing_weight\":7"));
    sender.leave("http://127.7.3.1:80");
    wait_until("it drains", || text(&file).contains("DRAINING"));
    wait_until("it is forgotten", || !text(&file).contains("127.7.3.1"));
}

#[test]
fn the_command_runs_after_each_change_until_it_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let (file, log, ok) = (dir.path().join("lines"), dir.path().join("log"), dir.path().join("ok"));
    let script = dir.path().join("then.sh");
    let body = format!(
        "cp \"$BEACOND_FILE\" {log}.new && mv {log}.new {log}; echo of $BEACOND_BALANCER >&2; test -e {ok}\n",
        log = log.display(),
        ok = ok.display()
    );
    fs::write(&script, body).unwrap();
    let mut words = words(dir.path(), &file, "", "lines");
    words.extend(["--then".to_owned(), format!("sh {}", script.display())]);
    let first = Daemon::start_args(dir.path(), &words);
    let sender = Sender::new(first.listening());
    sender.announce("http://127.7.4.1:80", " weight=5");
    first.line("the command failed: exit status 1: of default");
    wait_until("it has seen the member", || text(&log) == "http://127.7.4.1:80 5\n");
    let error = view(&first, &file, "http://127.7.4.1:80")["error"].clone();
    assert!(error.as_str().is_some_and(|e| e.contains("exit status 1")), "{error}");
    let reload = first.log().into_iter().find(|line| line.contains("reload failed"));
    assert_eq!(reload, None, "nothing is reloaded here");
    fs::write(&ok, "").unwrap();
    wait_until("it succeeds", || view(&first, &file, "http://127.7.4.1:80")["state"] == "up");
    wait_until("that is kept", || text(&dir.path().join(".lines.good")) == text(&file));
    first.kill();
    fs::remove_file(&log).unwrap();
    let second = Daemon::start_args(dir.path(), &words);
    let sender = Sender::new(second.listening());
    sender.announce("http://127.7.4.1:80", " weight=5");
    wait_until("it is up", || view(&second, &file, "http://127.7.4.1:80")["state"] == "up");
    assert!(!log.exists(), "nothing new, no command");
}

/// The states of the daemon's children, as the kernel has them: `Z` for one that nobody has waited for.
fn children(beacond: &Daemon) -> String {
    let parent = beacond.pid().to_string();
    let stats = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let stat = fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let (state, rest) = stat.rsplit(") ").next()?.split_once(' ')?;
        (rest.split(' ').next()? == parent).then(|| state.to_owned())
    });
    stats.collect()
}

#[test]
fn reloads_leave_the_command_that_runs_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (at, file, config) = (dir.path().display(), dir.path().join("lines"), dir.path().join("conf"));
    let script = format!(
        "echo begin $1 >>{at}/log; until [ -e {at}/go ]; do sleep 0.02; done; echo end $1 >>{at}/log; \
         test -e {at}/well"
    );
    fs::write(dir.path().join("then.sh"), script).unwrap();
    let secret = secret_file(dir.path());
    let configure = |run: u32| {
        let text = format!(
            "[listen]\nlisten 127.0.0.1:0\nallow 127.0.0.0/8\nsecret-file {secret}\n[file]\nfile {}\nformat lines\n\
             min-gap 0\nevery 200ms\nthen sh {at}/then.sh {run}\n",
            file.display()
        );
        fs::write(&config, text).unwrap();
    };
    configure(0);
    let beacond = Daemon::start(dir.path(), &format!("-c {}", config.display()));
    let sender = Sender::new(beacond.listening());
    sender.announce("http://127.7.9.1:80", "");
    let log = dir.path().join("log");
    wait_until("the command runs", || text(&log) == "begin 0\n");
    for run in 1..=5 {
        configure(run);
        let mark = beacond.mark();
        beacond.signal("HUP");
        beacond.line_after(mark, "configuration reloaded");
        let children = children(&beacond);
        assert!(children.len() == 1 && children != "Z", "{children}");
    }
    fs::write(dir.path().join("go"), "").unwrap();
    // It fails, and the new command is run.
    wait_until("the old command has ended", || text(&log).starts_with("begin 0\nend 0\nbegin 5\n"));
    fs::write(dir.path().join("well"), "").unwrap();
    wait_until("all is well", || view(&beacond, &file, "http://127.7.9.1:80")["state"] == "up");
    assert_eq!(children(&beacond), "");
}

#[test]
fn a_second_term_kills_what_runs_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (at, file) = (dir.path().display(), dir.path().join("lines"));
    fs::write(dir.path().join("hang.sh"), format!("echo >{at}/$1; sleep 1000\n")).unwrap();
    let mut words = words(dir.path(), &file, "", "lines");
    words.extend(["--then".to_owned(), format!("sh {at}/hang.sh then")]);
    words.extend(["+", "exec", "--command"].map(str::to_owned));
    words.push(format!("sh {at}/hang.sh exec"));
    let mut beacond = Daemon::start_args(dir.path(), &words);
    Sender::new(beacond.listening()).announce("http://127.7.9.2:80", "");
    wait_until("both run", || dir.path().join("then").exists() && dir.path().join("exec").exists());
    beacond.signal("TERM");
    beacond.line("stopping");
    beacond.signal("TERM");
    beacond.wait();
    beacond.line(&format!("file:{}: the command is killed: the program ends", file.display()));
    beacond.line("sh: killed: the program ends");
}

#[test]
fn a_disk_that_is_full_or_read_only_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let file = disk.join("lines");
    let words = words(dir.path(), &file, "", "lines");
    let beacond = Daemon::spawn_on_a_small_disk(64, &disk, &dir.path().join("control"), &words);
    let sender = Sender::new(beacond.listening());
    let seen = || text(&beacond.inside(&file));
    sender.announce("http://127.7.5.1:80", "");
    wait_until("it is written", || seen() == "http://127.7.5.1:80 1\n");

    let filler = beacond.inside(&disk.join("filler"));
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    sender.announce("http://127.7.5.2:80", "");
    beacond.line("cannot write the file: ");
    assert_eq!(seen(), "http://127.7.5.1:80 1\n", "the old file is whole");
    let error = view(&beacond, &file, "http://127.7.5.2:80")["error"].clone();
    assert!(
        error.as_str().is_some_and(|e| e.contains("cannot write the file: No space left on device")),
        "{error}"
    );
    fs::remove_file(&filler).unwrap();
    wait_until("both are written", || seen() == "http://127.7.5.1:80 1\nhttp://127.7.5.2:80 1\n");
    wait_until("the error is gone", || view(&beacond, &file, "http://127.7.5.2:80")["error"].is_null());

    beacond.run_inside(&format!("mount -o remount,ro {}", disk.display()));
    let mark = beacond.mark();
    sender.leave("http://127.7.5.1:80");
    beacond.line_after(mark, "Read-only file system");
    assert_eq!(seen().lines().count(), 2);
    beacond.run_inside(&format!("mount -o remount,rw {}", disk.display()));
    wait_until("the change is made up for", || seen() == "http://127.7.5.2:80 1\n");
    let warnings = beacond.log().iter().filter(|line| line.contains("cannot write")).count();
    assert_eq!(warnings, 2, "once for each trouble, however often it was tried");
}

#[test]
fn a_folder_that_is_not_there_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("later");
    let file = folder.join("lines");
    let beacond = beacond(dir.path(), &file, "", "lines");
    let sender = Sender::new(beacond.listening());
    sender.announce("http://127.7.6.1:80", "");
    beacond.line("cannot write the file: No such file or directory");
    fs::create_dir(&folder).unwrap();
    wait_until("it is written", || text(&file) == "http://127.7.6.1:80 1\n");
}
