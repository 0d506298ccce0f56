//! Several sinks in one beacond, several beacond on one file or balancer, and a thousand members: nobody waits for
//! anybody else, nobody fights, and nobody writes what is there.
#![cfg(all(
    feature = "listen",
    feature = "apache",
    feature = "caddy",
    feature = "etcd",
    feature = "file",
    feature = "haproxy"
))]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test stands outside the loop, fails where it cannot go on, and tells its figures"
)]

mod common;

use common::apache::Apache;
use common::backend::Backend;
use common::beat::Beat;
use common::caddy::Caddy;
use common::daemon::{Daemon, args, secret_file};
use common::etcd::Etcd;
use common::sender::Sender;
use common::{free_port, own_ip, wait_until};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A receiver with these sinks.
fn beacond(dir: &Path, listen: &str, sinks: &str) -> Daemon {
    let secret = secret_file(dir);
    let line =
        format!("listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {secret} {listen} {sinks}");
    Daemon::start_args(dir, &args(&line))
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Which file it is, and when it was written.
fn stamp(file: &Path) -> (u64, i64, i64) {
    fs::metadata(file).map(|m| (m.ino(), m.mtime(), m.mtime_nsec())).unwrap()
}

/// How many changes it has made: files written, lists and members changed.
fn writes(beacond: &Daemon) -> usize {
    let writes = |line: &&String| [": wrote ", ": PATCH ", ": POST "].iter().any(|what| line.contains(what));
    beacond.log().iter().filter(writes).count()
}

/// For so long, `state` holds all the time.
#[track_caller]
fn stays(time: Duration, mut state: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert!(state(), "after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Median and worst of some times.
fn figures(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

#[test]
fn nobody_waits_for_who_is_dead_frozen_or_silent() {
    let dir = tempfile::tempdir().unwrap();
    let caddy = Caddy::start(dir.path(), r#""upstreams": []"#);
    let apache = Apache::start(dir.path(), "", "");
    let silent = [0; 2].map(|_| TcpListener::bind((own_ip(), 0)).unwrap());
    let [mute, dumb] = silent.each_ref().map(|listener| listener.local_addr().unwrap());
    let file = dir.path().join("members");
    let nobody = free_port(own_ip());
    let sinks = format!(
        "+ apache --url {manager} --apache-balancer web --every 200ms \
         + apache --url http://{nobody}/balancer-manager --apache-balancer web \
         + caddy --url http://{mute} --id other --every 200ms \
         + etcd --endpoint http://{nobody} --endpoint http://{dumb} --every 200ms \
         + haproxy --socket {dir}/nobody.sock --backend web \
         + file --file {dir}/no/such/folder/members --format lines \
         + caddy --url http://{admin} --id web --min-gap 0 \
         + file --file {file} --format lines",
        manager = apache.manager(),
        admin = caddy.admin,
        dir = dir.path().display(),
        file = file.display(),
    );
    let beacond = beacond(dir.path(), "", &sinks);
    let sender = Sender::new(beacond.listening());
    sender.announce("http://127.8.0.1:80", "");
    wait_until("Apache has it, who is well so far", || !apache.members("web").is_empty());
    apache.signal("STOP");
    beacond.line("apache:web@");
    for trouble in ["no answer in time", "Connection refused", "cannot write the file"] {
        beacond.line(trouble);
    }
    let (mut in_file, mut in_caddy) = (Vec::new(), Vec::new());
    for n in 2..=41 {
        let addr = format!("127.8.0.{n}:80").parse().unwrap();
        let start = Instant::now();
        sender.announce(&format!("http://{addr}"), "");
        wait_until("it is in the file", || text(&file).contains(&format!("http://{addr} ")));
        in_file.push(start.elapsed());
        wait_until("Caddy has it", || caddy.has(addr));
        in_caddy.push(start.elapsed());
    }
    apache.signal("CONT");
    for (what, times) in [("file", in_file), ("Caddy", in_caddy)] {
        let (median, worst) = figures(times);
        eprintln!("{what}: median {median:?}, worst {worst:?}");
        // Who waited for one of the others would wait for a second or two, each time.
        assert!(
            median < Duration::from_millis(100) && worst < Duration::from_millis(800),
            "{what}: {worst:?}"
        );
    }
}

#[test]
fn two_on_one_file_agree_and_rest() {
    for format in ["lines", "json", "prometheus"] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("members");
        let sink = format!("+ file --every 100ms --file {} --format {format}", file.display());
        let [one, two] = [0; 2].map(|_| beacond(dir.path(), "--timeout 1", &sink));
        let backends = [0; 3].map(|_| Backend::start(own_ip()));
        let [first, second, third] = backends.each_ref();
        let beats = [&one, &two].map(|to| Beat::of(to, &[first, second]));
        let has = |backend: &Backend| text(&file).contains(&backend.addr.to_string());
        wait_until("both members are there", || has(first) && has(second));
        wait_until("it is agreed on", || {
            let before = (stamp(&file), writes(&one), writes(&two));
            stays_for(Duration::from_millis(500), || (stamp(&file), writes(&one), writes(&two)) == before)
        });
        let before = (stamp(&file), writes(&one), writes(&two));
        stays(Duration::from_secs(2), || (stamp(&file), writes(&one), writes(&two)) == before);

        // What comes and what goes is there once, whoever writes it first.
        let more = [&one, &two].map(|to| Beat::of(to, &[third]));
        wait_until("the third is there", || has(third));
        drop(beats);
        wait_until("two are gone", || !has(first) && !has(second) && has(third));
        let written = writes(&one) + writes(&two);
        assert!(written <= before.1 + before.2 + 8, "{format}: {written} writes");
        one.kill();
        drop(more);
        wait_until("who is left takes the third out", || !has(third) || text(&file).contains("down"));
    }
}

/// Whether `state` holds for so long.
fn stays_for(time: Duration, mut state: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < time {
        if !state() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn two_on_one_caddy_agree_and_rest() {
    let dir = tempfile::tempdir().unwrap();
    let caddy = Caddy::start(dir.path(), r#""upstreams": []"#);
    let sink = format!("+ caddy --url http://{} --id web --every 200ms --min-gap 50ms", caddy.admin);
    let [one, two] = [0; 2].map(|_| beacond(dir.path(), "--timeout 1 --when-deaf evict", &sink));
    let backends = [0; 3].map(|_| Backend::start(own_ip()));
    let [first, second, lone] = backends.each_ref();
    let beats = [&one, &two].map(|to| Beat::of(to, &[first, second]));
    let list = || {
        let mut dials: Vec<String> =
            caddy.upstreams()?.iter().map(|entry| entry["dial"].as_str().unwrap().to_owned()).collect();
        dials.sort();
        Some(dials)
    };
    let sorted = |backends: &[&Backend]| {
        let mut dials: Vec<String> = backends.iter().map(|backend| backend.addr.to_string()).collect();
        dials.sort();
        dials
    };
    wait_until("both members are there once", || list() == Some(sorted(&[first, second])));
    let before = writes(&one) + writes(&two);
    stays(Duration::from_secs(3), || list().is_none_or(|list| list == sorted(&[first, second])));
    assert_eq!(writes(&one) + writes(&two), before, "nothing is written that is there");

    // One hears a member that the other does not: not a reason to fight over it.
    let to_one = Beat::of(&one, &[lone]);
    wait_until("it is there", || list() == Some(sorted(&[first, second, lone])));
    let before = writes(&one) + writes(&two);
    stays(Duration::from_secs(3), || list().is_none_or(|list| list == sorted(&[first, second, lone])));
    assert_eq!(writes(&one) + writes(&two), before);

    drop(to_one);
    wait_until("it fell silent", || list() == Some(sorted(&[first, second])));
    one.kill();
    stays(Duration::from_secs(2), || list().is_none_or(|list| list == sorted(&[first, second])));
    drop(beats);
    wait_until("who is left takes them out", || list() == Some(Vec::new()));
}

#[test]
fn a_thousand_members_at_rest_write_nothing_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let urls: Vec<String> =
        (0..1_000).map(|n| format!("http://127.9.{}.{}:80", n / 250, n % 250 + 1)).collect();
    let workers: String = urls.iter().map(|url| format!("BalancerMember {url}\n")).collect();
    let log = dir.path().join("asked");
    let apache = Apache::start(dir.path(), &format!("CustomLog {} \"%m %U\"", log.display()), &workers);
    let caddy = Caddy::start(dir.path(), r#""upstreams": []"#);
    let etcd = Etcd::start(dir.path());
    let files =
        ["lines", "json", "prometheus", "envoy", "traefik"].map(|format| (format, dir.path().join(format)));
    let mut sinks = format!(
        "+ apache --url {} --apache-balancer web --every 1 + caddy --url http://{} --id web --every 1 \
         + etcd --endpoint {} --marks 0 --every 1",
        apache.manager(),
        caddy.admin,
        etcd.url()
    );
    for (format, file) in &files {
        sinks += &format!(" + file --every 200ms --format {format} --file {}", file.display());
    }
    let beacond = beacond(dir.path(), "--timeout 6 --max-members 1100", &sinks);
    let _beat = Beat::of_urls(&beacond, urls.clone(), Duration::from_millis(500));
    let all_up = || {
        let status = beacond.status();
        let members = status["balancers"]["default"]["members"].as_array().cloned().unwrap_or_default();
        members.len() == urls.len()
            && members.iter().all(|member| {
                let sinks = member["sinks"].as_object().unwrap();
                sinks.len() == 3 + files.len() && sinks.values().all(|sink| sink["state"] == "up")
            })
    };
    let start = Instant::now();
    while !all_up() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "in vain; {} in etcd",
            etcd.keys("/beacond/").len()
        );
    }
    eprintln!("all is filled in after {:?}", start.elapsed());
    let posts = || text(&log).lines().filter(|line| line.starts_with("POST")).count();
    let stamps = || files.each_ref().map(|(_, file)| stamp(file));
    let before = (etcd.written(), posts(), stamps(), writes(&beacond));
    let (looks, cpu, start) = (text(&log).lines().count(), beacond.cpu(), Instant::now());
    // Twice the time of a lease: all of them are kept alive meanwhile.
    stays(Duration::from_secs(13), || stamps() == before.2);
    eprintln!("CPU at rest: {:?} in {:?}", beacond.cpu() - cpu, start.elapsed());
    assert_eq!((etcd.written(), posts(), stamps(), writes(&beacond)), before);
    assert!(text(&log).lines().count() > looks + 3, "Apache is looked at all the same");
    assert_eq!(etcd.keys("/beacond/default/default/").len(), urls.len());
    assert_eq!(beacond.counter("member.evicted"), 0);
}
