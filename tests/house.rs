//! The rules of the house that a compiler does not know: what each layer may touch, who may name whom, and how long
//! a file or a function may be. Reads `src/` as text; each test lists everything that breaks its rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes to values and back. A trailing `/` means everything below.
const WIRE: &[&str] = &[
    "beacon/auth.rs",
    "beacon/mod.rs",
    "beacon/scan.rs",
    "beacon/wire.rs",
    "bytes.rs",
    "cidr.rs",
    "clock.rs",
    "http1/",
    "proxy/hello/",
    "proxy/ppv2/",
    "proxy/tunnel.rs",
    "show.rs",
    "sinks/apache/commands.rs",
    "sinks/apache/page.rs",
    "sinks/apache/xml.rs",
    "sinks/caddy/upstreams.rs",
    "sinks/etcd/base64.rs",
    "sinks/etcd/wire.rs",
    "sinks/haproxy/commands.rs",
    "sinks/haproxy/replies.rs",
    "sinks/mod.rs",
    "sinks/rendered/layout.rs",
    "sinks/rendered/list.rs",
    "sorted.rs",
    "url.rs",
];

/// Decisions: (now, input) to values. They may use wire files and each other.
const STATE: &[&str] = &[
    "admin/request.rs",
    "beacon/admission.rs",
    "beacon/announce/stamp.rs",
    "beacon/gate.rs",
    "beacon/health.rs",
    "beacon/member_keys.rs",
    "config/env.rs",
    "config/values.rs",
    "members/",
    "proxy/access.rs",
    "proxy/balance/",
    "proxy/dump.rs",
    "proxy/end.rs",
    "proxy/env.rs",
    "proxy/flight.rs",
    "proxy/ledger.rs",
    "proxy/limits.rs",
    "proxy/pair.rs",
    "proxy/report.rs",
    "proxy/routes.rs",
    "proxy/upstreams.rs",
    "proxy/verdict/",
    "secret/login.rs",
    "secret/mod.rs",
    "sinks/apache/machine/",
    "sinks/apache/notes.rs",
    "sinks/caddy/machine.rs",
    "sinks/diff.rs",
    "sinks/etcd/layout.rs",
    "sinks/etcd/machine/",
    "sinks/etcd/mirror.rs",
    "sinks/etcd/watcher.rs",
    "sinks/exec/deliveries.rs",
    "sinks/haproxy/machine/",
    "sinks/haproxy/notes.rs",
    "sinks/machine.rs",
    "sinks/tried.rs",
    "sinks/trouble.rs",
    "sinks/rendered/machine/",
    "state_text.rs",
    "stats.rs",
    "taps.rs",
    "tools/demo/judge.rs",
    "views.rs",
    "wheel.rs",
];

/// The only files that may name a service: they put the program together, and join the rows of its options.
const WIRING: &[&str] = &["main.rs", "lib.rs", "assembly.rs", "daemon.rs", "options.rs"];

/// Rooms: a file in one may not name another. What is pure in them is everybody's.
const ROOMS: &[&str] = &[
    "beacon/announce",
    "beacon/listen",
    "proxy",
    "sinks/apache",
    "sinks/caddy",
    "sinks/exec",
    "sinks/haproxy",
    "sinks/exec",
    "sinks/file",
    "sinks/haproxy",
    "sinks/nginx",
    "sinks/etcd",
    "sinks/exec",
    "sinks/haproxy",
    "admin",
    "state",
];

/// What wire and state files never say: input and output, clocks, randomness, logging. `log::LevelFilter` is a value.
const IMPURE: &[&str] = &[
    "mio::",
    "nix::",
    "socket2::",
    "slab::",
    "signal_hook",
    "getrandom",
    "std::io",
    "std::fs",
    "std::env",
    "std::os::",
    "std::process",
    "std::thread",
    "std::sync",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "ToSocketAddrs",
    "Instant",
    "SystemTime",
    "RandomState",
    "HashMap::new",
    "HashSet::new",
    "log::error",
    "log::warn",
    "log::info",
    "log::debug",
    "log::trace",
    "log::log",
    "println!",
    "eprintln!",
    "crate::reactor",
];

/// Longest file in lines before its tests, and longest function.
const FILE: usize = 400;
const FUNCTION: usize = 60;

/// One file of `src/`: its path there, and its text up to its tests.
struct Source {
    path: String,
    text: String,
}

#[test]
fn wire_and_state_touch_nothing_but_values() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|s| is_in(&s.path, WIRE) || is_in(&s.path, STATE)) {
        for (number, line) in source.code() {
            broken.extend(
                IMPURE
                    .iter()
                    .filter(|word| says(line, word))
                    .map(|word| format!("{}:{number}: a pure file says {word}", source.path)),
            );
        }
    }
    none(&broken);
}

#[test]
fn imports_go_downward() {
    let sources = sources();
    let paths: BTreeSet<&str> = sources.iter().map(|s| s.path.as_str()).collect();
    let mut broken = Vec::new();
    for source in &sources {
        let wire = is_in(&source.path, WIRE);
        let pure = wire || is_in(&source.path, STATE);
        for named in source.names(&paths) {
            let ok = match () {
                () if wire => is_in(&named, WIRE) || named == "stats.rs",
                () if pure => is_in(&named, WIRE) || is_in(&named, STATE),
                () if source.path.starts_with("reactor/") => {
                    named.starts_with("reactor/")
                        || named == "shared.rs"
                        || is_in(&named, WIRE)
                        || is_in(&named, STATE)
                }
                () => true,
            };
            if !ok {
                broken.push(format!("{} names {named}, which lies above it", source.path));
            }
        }
    }
    none(&broken);
}

#[test]
fn no_service_names_another() {
    let sources = sources();
    let paths: BTreeSet<&str> = sources.iter().map(|s| s.path.as_str()).collect();
    let mut broken = Vec::new();
    for source in sources.iter().filter(|s| !WIRING.contains(&s.path.as_str())) {
        for named in source.names(&paths) {
            let pure = is_in(&named, WIRE) || is_in(&named, STATE);
            let other = room(&named).filter(|other| Some(*other) != room(&source.path));
            // The tools are the control socket's clients.
            let client = source.path.starts_with("tools/") && named.starts_with("admin/")
                || source.path == "main.rs" && named.starts_with("admin/");
            // What is explained is read as the proxy reads it.
            let explained = source.path == "tools/explain.rs" && named == "proxy/settings.rs";
            if let Some(other) = other.filter(|_| !pure && !client && !explained) {
                broken.push(format!("{} names {named} in the room {other}", source.path));
            }
        }
    }
    none(&broken);
}

#[test]
fn every_listed_file_exists() {
    let sources = sources();
    let missing: Vec<_> = WIRE
        .iter()
        .chain(STATE)
        .chain(WIRING)
        .filter(|listed| !sources.iter().any(|s| is_in(&s.path, &[listed])))
        .map(|listed| format!("{listed} is in a list of layers but not in src"))
        .collect();
    none(&missing);
}

#[test]
fn files_and_functions_are_short() {
    let mut broken = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines >= FILE {
            broken.push(format!("{}: {lines} lines before its tests", source.path));
        }
        broken.extend(
            source
                .functions()
                .filter(|(_, _, lines)| *lines > FUNCTION)
                .map(|(number, name, lines)| format!("{}:{number}: {name} has {lines} lines", source.path)),
        );
    }
    none(&broken);
}

#[test]
fn every_file_says_what_it_is_for() {
    let headless =
        sources().iter().filter(|s| !s.text.starts_with("//! ")).map(|s| s.path.clone()).collect::<Vec<_>>();
    none(&headless);
}

#[test]
fn nothing_is_left_to_do_and_nothing_hides() {
    let banned = [".unwrap()", "TODO", "FIXME", "XXX", "macro_rules!", "#[allow(", "#![allow(", "unsafe {"];
    let mut broken = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            broken.extend(
                banned
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{}:{}: {word}", source.path, number + 1)),
            );
        }
    }
    none(&broken);
}

#[test]
fn the_rules_would_notice() {
    let source = Source {
        path: "members/x.rs".to_owned(),
        text: "//! x\nuse crate::{a::B, reactor::{Cx, bank::plain}};\nuse super::y::Z;\nfn f() {\n    \
               crate::shared::g(\"// no comment\"); // log::warn!\n}\n"
            .to_owned(),
    };
    let paths = BTreeSet::from(["a.rs", "reactor/mod.rs", "reactor/bank.rs", "members/y.rs", "shared.rs"]);
    let named = ["a.rs", "members/y.rs", "reactor/bank.rs", "reactor/mod.rs", "shared.rs"];
    assert_eq!(source.names(&paths), named.map(str::to_owned).into());
    assert!(!source.code().any(|(_, line)| says(line, "log::warn")));
    assert!(says("use std::io;", "std::io") && !says("use mystd::io;", "std::io"));
    assert_eq!(source.functions().collect::<Vec<_>>(), [(4, "f", 3)]);
}

impl Source {
    /// Its lines without comments, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines()).map(|(number, line)| (number, without_comment(line)))
    }

    /// The files of this crate that it names, in `use` lines or by a full path.
    fn names(&self, paths: &BTreeSet<&str>) -> BTreeSet<String> {
        let code: String = self.code().flat_map(|(_, line)| [line, "\n"]).collect();
        let mut named = Vec::new();
        for (at, _) in code.match_indices("crate::") {
            expand(&[], code[at + "crate::".len()..].chars().collect::<Vec<_>>().as_slice(), &mut named);
        }
        let here = self.module();
        for (at, _) in code.match_indices("super::").filter(|(at, _)| !code[..*at].ends_with("super::")) {
            let rest = code[at..].trim_start_matches("super::");
            let up = (code.len() - at - rest.len()) / "super::".len();
            let base: Vec<String> = here[..here.len().saturating_sub(up)].to_vec();
            expand(&base, rest.chars().collect::<Vec<_>>().as_slice(), &mut named);
        }
        named.iter().filter_map(|path| file_of(path, paths)).filter(|file| *file != self.path).collect()
    }

    /// Its module path.
    fn module(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').map(str::to_owned).collect()
    }

    /// Its functions: line number, name, lines from head to closing brace. Relies on rustfmt's indentation.
    fn functions(&self) -> impl Iterator<Item = (usize, &str, usize)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let heads: Vec<_> = (0..lines.len()).filter_map(|at| Some((at, name_of(lines[at])?))).collect();
        heads.into_iter().map(move |(at, name)| {
            let indent = &lines[at][..lines[at].len() - lines[at].trim_start().len()];
            let close = format!("{indent}}}");
            let one_line = lines[at].ends_with('}') || lines[at].ends_with(';');
            let length = if one_line { 0 } else { lines[at..].iter().position(|l| *l == close).unwrap_or(0) };
            (at + 1, name, length + 1)
        })
    }
}

/// Every file of `src/`, cut where its tests begin.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of src") {
            let path = entry.expect("an entry of it").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(source(&root, &path));
            }
        }
    }
    assert!(found.len() > 50, "only {} files in src", found.len());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn source(root: &Path, path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).expect("a readable source");
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    let path = path.strip_prefix(root).expect("it is in src").to_string_lossy().replace('\\', "/");
    Source { path, text }
}

fn is_in(path: &str, list: &[&str]) -> bool {
    list.iter().any(|entry| path == *entry || entry.ends_with('/') && path.starts_with(entry))
}

/// The room a file lies in: the service's own folder, or the file of that name.
fn room(path: &str) -> Option<&'static str> {
    let inside =
        |room: &&&str| path.strip_prefix(**room).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
    ROOMS.iter().find(inside).copied()
}

/// Whether `line` says `word` as a word of its own.
fn says(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && !line[at + word.len()..]
                .starts_with(|c: char| word.ends_with(char::is_alphabetic) && c.is_lowercase())
    })
}

/// The line up to a `//` that is not within quotes.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match c {
            '"' if before != '\\' => quoted = !quoted,
            '/' if before == '/' && !quoted => return &line[..at - 1],
            _ => {}
        }
        before = c;
    }
    line
}

/// The paths of `a::b`, or of `a::{b, c::{d}}`, below `base`.
fn expand(base: &[String], text: &[char], found: &mut Vec<Vec<String>>) {
    let mut path = base.to_vec();
    let mut word = String::new();
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        match c {
            '{' => {
                let mut depth = 0;
                let mut start = at + 1;
                for (i, &c) in text.iter().enumerate().skip(at) {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    if depth == 0 || depth == 1 && c == ',' {
                        expand(&path, &text[start..i], found);
                        start = i + 1;
                    }
                    if depth == 0 {
                        return;
                    }
                }
                return;
            }
            ':' if !word.is_empty() => path.push(std::mem::take(&mut word)),
            ':' => {}
            c if c.is_alphanumeric() || c == '_' => word.push(c),
            c if c.is_whitespace() && word.is_empty() => {}
            _ => break,
        }
        at += 1;
    }
    path.push(word);
    found.push(path);
}

/// The file of the longest beginning of a path that is a module.
fn file_of(path: &[String], paths: &BTreeSet<&str>) -> Option<String> {
    (1..=path.len()).rev().find_map(|n| {
        let stem = path[..n].join("/");
        [format!("{stem}.rs"), format!("{stem}/mod.rs")]
            .into_iter()
            .find(|file| paths.contains(file.as_str()))
    })
}

/// The name of the function that begins on this line.
fn name_of(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for word in ["pub ", "pub(crate) ", "pub(super) ", "const ", "async "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    rest.strip_prefix("fn ")?.split(['(', '<']).next()
}

#[track_caller]
fn none(broken: &[String]) {
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
