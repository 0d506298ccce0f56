//! The committed pages are what the table of options and the prose beside them yield. To write them again:
//! `BEACOND_WRITE=1 cargo test --test docs`.
#![cfg(all(
    feature = "announce",
    feature = "listen",
    feature = "haproxy",
    feature = "exec",
    feature = "apache",
    feature = "nginx",
    feature = "caddy",
    feature = "file",
    feature = "etcd",
    feature = "proxy"
))]

use beacond::config::argv::{self, Invocation, Source};
use beacond::config::plan::plan;
use beacond::config::{Section, file};
use beacond::tools::completions;
use beacond::{help, man, options};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn at(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares a committed file with what it should hold, or writes it where that is asked for.
fn compare(name: &str, text: &str) {
    // Another test may be reading a page that is as it should be.
    let differs = fs::read_to_string(at(name)).is_ok_and(|committed| committed != text);
    if differs && std::env::var_os("BEACOND_WRITE").is_some() {
        fs::write(at(name), text).expect("the page can be written");
    }
    let committed = fs::read_to_string(at(name)).unwrap_or_default();
    assert!(committed == text, "{name} is stale: run BEACOND_WRITE=1 cargo test --test docs");
}

/// Whether a shell or checker is installed here; what it would have judged is skipped and said so otherwise.
fn installed(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: no {program} here");
    }
    found
}

/// What a program says about `text` on its standard input: status and both outputs.
fn judged(program: &str, args: &[&str], text: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn manual_pages_are_current() {
    for name in ["man/beacond.8", "man/beacond.conf.5"] {
        let prose = fs::read_to_string(at(&format!("{name}.in"))).expect("the prose is there");
        compare(name, &man::page(&prose));
    }
}

#[test]
fn the_readmes_table_is_current() {
    const MARKS: (&str, &str) = ("<!-- options: generated -->\n", "<!-- end of options -->");
    let Ok(readme) = fs::read_to_string(at("README.md")) else { return };
    let (before, rest) = readme.split_once(MARKS.0).expect("the README has the first mark");
    let (_, after) = rest.split_once(MARKS.1).expect("the README has the second mark");
    compare("README.md", &[before, MARKS.0, &man::table(), MARKS.1, after].concat());
}

#[test]
fn manual_pages_name_every_option() {
    let page = fs::read_to_string(at("man/beacond.8")).expect("the page is there");
    let conf = fs::read_to_string(at("man/beacond.conf.5")).expect("the page is there");
    for opt in options::roles().iter().flat_map(|r| r.options) {
        assert!(page.contains(&format!(".It Fl -{}", opt.name)), "beacond.8: {}", opt.name);
        assert!(conf.contains(&format!(".It Cm {}", opt.name)), "beacond.conf.5: {}", opt.name);
    }
    for opt in options::GLOBAL.options {
        assert!(conf.contains(&format!(".Cm {}", opt.name)), "beacond.conf.5: {}", opt.name);
    }
}

#[test]
fn manual_pages_have_nothing_to_warn_about() {
    for name in ["man/beacond.8", "man/beacond.conf.5"] {
        let page = fs::read_to_string(at(name)).expect("the page is there");
        if installed("mandoc") {
            let (_, said) = judged("mandoc", &["-T", "lint", "-W", "warning"], &page);
            assert_eq!(said, "", "{name}");
        }
        if installed("groff") {
            let (fine, said) = judged("groff", &["-mandoc", "-ww", "-z", "-Tutf8"], &page);
            assert!(fine && said.is_empty(), "{name}: {said}");
        }
    }
}

/// The literal blocks of a page's prose, with continued lines joined.
fn blocks(name: &str) -> Vec<String> {
    let page = fs::read_to_string(at(name)).expect("the prose is there");
    let blocks = page.split(".Bd -literal -offset indent\n").skip(1);
    blocks.map(|b| b.split(".Ed").next().unwrap_or_default().replace("\\e\n", "")).collect()
}

/// What a configuration file's text holds.
fn loaded(text: &str) -> (Section, Vec<Section>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.conf");
    fs::write(&path, text).expect("it can be written");
    file::load(&path.to_string_lossy(), "h").expect("it is right")
}

#[test]
fn the_file_in_the_manual_is_the_command_beside_it() {
    let blocks = blocks("man/beacond.conf.5.in");
    let [text, command, example] = &blocks[..] else { unreachable!("three blocks: {blocks:?}") };
    let (global, roles) = loaded(text);
    let words: Vec<String> = command.split_whitespace().skip(1).map(str::to_owned).collect();
    let (same_global, same) = argv::sections(&words, "h").expect("it is right");
    let texts = |global: &Section, roles: &[Section]| -> Vec<String> {
        std::iter::once(global).chain(roles).map(Section::fingerprint).collect()
    };
    assert_eq!(texts(&global, &roles), texts(&same_global, &same));
    assert_eq!(plan(&loaded(example).1).expect("they fit together").warnings, [""; 0]);
}

#[test]
fn commands_in_the_manual_are_read() {
    let blocks = blocks("man/beacond.8.in");
    let commands =
        blocks.iter().flat_map(|b| b.lines()).filter_map(|l| l.split_once("beacond ").map(|c| c.1));
    let mut read = 0;
    for command in commands {
        let words = command.split(" > ").next().unwrap_or_default().split_whitespace();
        let invocation = argv::invocation(words.map(Into::into), "h").expect(command);
        if let Invocation::Run(Source::Words { roles, .. }) = invocation {
            assert_eq!(plan(&roles).expect(command).warnings, [""; 0], "{command}");
        }
        read += 1;
    }
    assert!(read >= 6, "only {read} commands found");
}

#[test]
fn shells_take_the_completions() {
    for shell in ["bash", "zsh"] {
        let script = completions::script(shell).expect("there is one");
        if installed(shell) {
            let (fine, said) = judged(shell, &["-n"], &script);
            assert!(fine && said.is_empty(), "{shell}: {said}");
        }
    }
    let refused = completions::script("fish").expect_err("there is none");
    assert_eq!(refused.message, "completions: 'fish': wanted bash or zsh");
}

#[test]
fn bash_completes_words() {
    if !installed("bash") {
        return;
    }
    let script = completions::script("bash").expect("there is one");
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let ask = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; _beacond; echo \"${{COMPREPLY[*]}}\"\n",
            words.iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1
        );
        judged("bash", &["--norc"], &ask).1.trim_end().to_owned()
    };
    for (line, words) in [
        ("beacond ann", "announce"),
        ("beacond listen --max", "--max-skew --max-members"),
        ("beacond listen --listen x + ha", "haproxy"),
        ("beacond listen --listen x + haproxy --ba", "--backend --balancer"),
        ("beacond check listen --keep", "--keep-last"),
        ("beacond check --sh", "--show"),
        ("beacond help st", "status"),
        ("beacond keygen m", "member"),
        ("beacond decode p", "proxy"),
        ("beacond completions z", "zsh"),
        ("beacond listen --secret-file Cargo.tom", "Cargo.toml"),
    ] {
        assert_eq!(complete(line), words, "{line}");
    }
}

#[test]
fn the_first_screen_names_only_what_exists() {
    let screen = help::overview();
    assert_eq!(screen.lines().last(), Some("more: beacond help found|ROLE"));
    for line in screen.lines().filter_map(|l| l.strip_prefix("  beacond ")) {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(help::topic(Some(name)).is_ok(), "{name}");
    }
}
