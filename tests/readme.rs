//! What the papers say about the program is so: log lines that exist, links that lead somewhere, blocks that are tried.
//! The blocks themselves are run by `tests/readme.sh`.
#![cfg(all(feature = "announce", feature = "listen", feature = "haproxy", feature = "exec"))]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|e| unreachable!("{name}: {e}"))
}

/// All of `src/`, with the literals that go on over a line's end made one.
fn source() -> String {
    let mut text = String::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of src") {
            let path: PathBuf = entry.expect("an entry of it").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                text.push_str(&fs::read_to_string(path).expect("a readable source"));
            }
        }
    }
    let mut joined = String::new();
    for piece in text.split("\\\n") {
        joined.push_str(if joined.is_empty() { piece } else { piece.trim_start() });
    }
    joined
}

/// The pieces in backquotes of a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn the_log_lines_in_the_readme_exist() {
    let (readme, source) = (read("README.md"), source());
    let section = readme.split("## What a log line means").nth(1).expect("the section is there");
    let rows = section.split("\n## ").next().unwrap_or_default().lines().filter(|l| l.starts_with("| `"));
    let mut pieces = 0;
    for row in rows {
        let first = row.split(" | ").next().unwrap_or_default();
        for piece in quoted(first).flat_map(|fragment| fragment.split('…')) {
            // What the program fills in stands between `…`; a closing bracket alone says nothing.
            let piece = piece.trim_matches(|c: char| c == ' ' || c == ')' || c == ':');
            let known = piece.split("(last: ").all(|part| source.contains(part));
            assert!(known, "no source says {piece:?}, which the README explains");
            pieces += 1;
        }
    }
    assert!(pieces > 40, "only {pieces} fragments found");
}

#[test]
fn links_between_the_papers_lead_somewhere() {
    for paper in
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "RELEASE.md", "dist/README.md"]
    {
        let folder = root().join(paper);
        let folder = folder.parent().expect("a file is in a folder");
        for link in read(paper).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let leads = link.starts_with("https://") || file.is_empty() || folder.join(file).exists();
            assert!(leads, "{paper}: {link} leads nowhere");
        }
    }
}

#[test]
fn every_command_of_the_readme_is_tried() {
    let readme = read("README.md");
    let lines: Vec<&str> = readme.lines().collect();
    let mut inside = false;
    let mut tried = 0;
    for (at, line) in lines.iter().enumerate().filter(|(_, l)| l.starts_with("```")) {
        inside = !inside;
        if inside {
            let mark = lines[..at].last().is_some_and(|l| l.starts_with("<!-- tried: "));
            assert!(mark, "line {}: a block {line} without a mark that says how it is tried", at + 1);
            tried += 1;
        }
    }
    assert!(tried >= 10, "only {tried} blocks");
}
