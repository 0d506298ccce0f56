//! Every fuzz function holds over its seeds on a stable compiler as well; and every one has seeds and a target.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use beacond::{beacon, config, http1, members, proxy, secret, sinks, state_text};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A fuzz function and the name of its target.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 19] = [
    ("admission", beacon::admission::fuzz_admission),
    ("apache_xml", sinks::apache::page::fuzz_apache_xml),
    ("balance", proxy::balance::fuzz_balance),
    ("beacon", beacon::auth::fuzz_beacon),
    ("beacon_unverified", beacon::auth::fuzz_beacon_unverified),
    ("caddy_upstreams", sinks::caddy::upstreams::fuzz_caddy_upstreams),
    ("config", config::grammar::fuzz_config),
    ("etcd_replies", sinks::etcd::wire::fuzz_etcd_replies),
    ("flight", proxy::flight::fuzz_flight),
    ("haproxy_replies", sinks::haproxy::replies::fuzz_haproxy_replies),
    ("hello", proxy::hello::fuzz_hello),
    ("http1", http1::fuzz_http1),
    ("member_keys", beacon::gate::fuzz_member_keys),
    ("members", members::fuzz_members),
    ("ppv2", proxy::ppv2::fuzz_ppv2),
    ("rendered", sinks::rendered::layout::fuzz_rendered),
    ("secret", secret::fuzz_secret),
    ("state", state_text::fuzz_state),
    ("verdict", proxy::verdict::fuzz_verdict),
];

/// More than the seeds: each shortened and with one byte changed, for what a fuzzer would try first.
#[test]
fn every_target_holds_over_its_seeds() {
    for (name, target) in TARGETS {
        let seeds = files(&root().join("fuzz/seeds").join(name));
        assert!(seeds.len() >= 6, "{name} has {} seeds", seeds.len());
        for seed in seeds {
            let seed = fs::read(seed).unwrap();
            target(&seed);
            target(&seed[..seed.len() / 2]);
            for at in (0..seed.len()).step_by(1 + seed.len() / 16) {
                let mut bent = seed.clone();
                bent[at] ^= 0x11;
                target(&bent);
            }
        }
    }
}

#[test]
fn every_fuzz_function_is_a_target_with_seeds() {
    let mut functions = BTreeSet::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for path in files(&folder) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            let names = text.split("pub fn fuzz_").skip(1).filter_map(|rest| rest.split('(').next());
            functions.extend(names.map(str::to_owned));
        }
    }
    assert_eq!(functions, TARGETS.map(|(name, _)| name.to_owned()).into(), "src/ and this file");
    assert_eq!(functions, stems("fuzz/fuzz_targets"), "src/ and fuzz/fuzz_targets/");
    assert_eq!(functions, stems("fuzz/seeds"), "src/ and fuzz/seeds/");
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for name in functions {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "fuzz/Cargo.toml lacks {name}"
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn stems(folder: &str) -> BTreeSet<String> {
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files(&root().join(folder)).into_iter().map(name).collect()
}
