//! `beacond demo` as a newcomer runs it: every step observed, in time, beside another one, and nothing left behind.
#![cfg(all(feature = "announce", feature = "listen", feature = "proxy"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::daemon::run;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// What each line of the story must say, in order.
const STORY: [&str; 9] = [
    " three backends, their announcers, a listener and a proxy, all at 127.",
    " web1, web2 and web3 have announced themselves: up in the table",
    "x web3, 0 failed",
    " web2 dies: its port refuses connections",
    " web2 is evicted ",
    " web2 returns: up after ",
    " times dropped (mac mismatch); ",
    " web3 says goodbye and has left ",
    "all 7 steps observed in ",
];

/// Starts it with `folder` for its files.
fn start(folder: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacond"));
    command.arg("demo").env("TMPDIR", folder).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The whole story was told, and how long it took.
#[track_caller]
fn told(out: &Output) -> Duration {
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{text}{errors}");
    assert_eq!(errors, "");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), STORY.len(), "{text}");
    for (line, fragment) in lines.iter().zip(STORY) {
        assert!(line.contains(fragment), "no {fragment:?} in {line:?}");
    }
    let seconds = lines[8].split(' ').nth(5).and_then(|n| n.parse().ok()).unwrap();
    Duration::from_secs_f64(seconds)
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn the_whole_story_twice_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let demos = [start(folder.path()), start(folder.path())];
    for demo in demos {
        let took = told(&demo.wait_with_output().unwrap());
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    assert_eq!(entries(folder.path()), 0);
}

#[test]
fn an_interrupted_story_fails_and_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = start(folder.path());
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    // The second line is about the daemon, which is there by then.
    assert!(lines.by_ref().take(2).all(|line| line.is_ok()));
    assert_eq!(entries(folder.path()), 1);
    assert!(Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap().success());
    assert!(lines.map_while(Result::ok).all(|line| !line.starts_with("all ")));
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    let mut errors = String::new();
    demo.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(errors, "beacond: demo: interrupted before every step was observed\n");
    assert_eq!(entries(folder.path()), 0);
}

#[test]
fn a_wrong_word_is_refused() {
    let out = run("demo now");
    assert_eq!(out.status.code(), Some(2));
    let out = run("demo --log-level loud");
    assert_eq!(out.status.code(), Some(2));
}
