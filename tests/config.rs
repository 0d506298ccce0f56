//! Configuration from outside: sections are command lines, and every mistake has one exact line.
#![cfg(all(
    feature = "announce",
    feature = "listen",
    feature = "haproxy",
    feature = "exec",
    feature = "proxy"
))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use beacond::config::argv::{self, Invocation, Source};
use beacond::config::global::Global;
use beacond::config::plan::plan;
use beacond::config::values::{self, HostPort};
use beacond::config::{Config, Error, Section, file, grammar::fuzz_config};
use beacond::members::WhenDeaf;
use beacond::options;
use beacond::tools::check;
use proptest::prelude::*;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

const HOST: &str = "node7";

fn invocation(line: &[&str]) -> Result<Invocation, Error> {
    argv::invocation(line.iter().map(OsString::from), HOST)
}

fn roles(line: &str) -> Vec<Section> {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    argv::sections(&words, HOST).unwrap_or_else(|e| panic!("{line}: {e}")).1
}

/// The message and status that a command line of blank-separated words is refused with.
fn refused(line: &str) -> (u8, String) {
    let words: Vec<&str> = line.split(' ').collect();
    let Error { status, message } = invocation(&words).map(|i| format!("{i:?}")).expect_err(line);
    (status, message)
}

/// Writes files into a fresh folder and loads the first; messages come without the folder's name.
fn load(files: &[(&str, &str)]) -> Result<(Section, Vec<Section>), Error> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let base = format!("{}/", folder.path().display());
    let loaded = file::load(&format!("{base}{}", files[0].0), HOST);
    loaded.map_err(|e| Error { message: e.message.replace(&base, ""), ..e })
}

fn load_refused(files: &[(&str, &str)]) -> (u8, String) {
    let Error { status, message } = load(files).map(|_| ()).expect_err(files[0].1);
    (status, message)
}

#[test]
fn a_command_line_is_read() {
    let sections = roles(
        "--log-level debug listen --listen 0.0.0.0:5555 --keep-last --allow 10.0.0.0/8 --allow=192.0.2.0/24 \
         + haproxy --prefix + --backend web + haproxy --backend=api",
    );
    let names: Vec<&str> = sections.iter().map(|s| s.role().name).collect();
    assert_eq!(names, ["listen", "haproxy", "haproxy"]);
    let [listen, web, api] = &sections[..] else { panic!() };
    assert_eq!(listen.text("listen"), Some("0.0.0.0:5555"));
    assert!(listen.flag("keep-last") && !listen.flag("weak-secret"));
    assert_eq!(listen.all("allow", values::text).unwrap(), ["10.0.0.0/8", "192.0.2.0/24"]);
    assert_eq!(listen.get("timeout", values::duration).unwrap(), Some(Duration::from_secs(30)));
    assert!(!listen.given("timeout") && listen.given("listen"));
    assert_eq!((web.text("prefix"), web.text("backend")), (Some("+"), Some("web")));
    assert_eq!((api.text("prefix"), api.text("backend")), (Some("b-"), Some("api")));
    assert_eq!(roles("listen --listen=--timeout")[0].text("listen"), Some("--timeout"));
}

#[test]
fn what_a_command_line_asks_for() {
    assert!(matches!(invocation(&[]), Ok(Invocation::Overview)));
    assert!(matches!(invocation(&["-V"]), Ok(Invocation::Version)));
    assert!(matches!(invocation(&["--help"]), Ok(Invocation::Help(None))));
    assert!(matches!(invocation(&["help", "listen"]), Ok(Invocation::Help(Some(t))) if t == "listen"));
    assert!(matches!(invocation(&["listen", "--help"]), Ok(Invocation::Help(Some(t))) if t == "listen"));
    assert!(matches!(invocation(&["status", "-h"]), Ok(Invocation::Help(Some(t))) if t == "status"));
    let run = invocation(&["--log-stamp", "-c", "x.conf"]).unwrap();
    let Invocation::Run(Source::File { global, path }) = run else { panic!("{run:?}") };
    assert!(global.flag("log-stamp") && path == "x.conf");
    let check = invocation(&["check", "--show", "--log-stamp", "listen", "--keep-last"]).unwrap();
    let Invocation::Study(tool, own, Source::Words { global, roles }) = check else { panic!("{check:?}") };
    assert_eq!(tool.role.name, "check");
    assert!(own.flag("show") && global.flag("log-stamp") && roles[0].flag("keep-last"));
    // A tool's own option may stand behind a role that has none of its name.
    let line =
        ["explain", "proxy", "--listen", ":1", "--alpn=h2", "+", "listen", "--sni", "a", "--keep-last"];
    let explain = invocation(&line).unwrap();
    let Invocation::Study(tool, own, Source::Words { roles, .. }) = explain else { panic!("{explain:?}") };
    assert_eq!((tool.role.name, own.text("sni"), own.text("alpn")), ("explain", Some("a"), Some("h2")));
    assert!(roles[0].text("listen") == Some(":1") && roles[1].flag("keep-last"));
    let help = invocation(&["explain", "-h"]);
    assert!(matches!(help, Ok(Invocation::Help(Some(t))) if t == "explain"));
    let tool = invocation(&["log", "debug", "--for", "5min"]).unwrap();
    let Invocation::Tool(tool, section, operands) = tool else { panic!("{tool:?}") };
    assert_eq!((tool.role.name, operands[0].text.as_str(), operands[0].word), ("log", "debug", 2));
    assert_eq!(section.text("for"), Some("5min"));
}

#[test]
fn mistakes_on_a_command_line() {
    for (line, message) in [
        ("lisen", "argument 1 ('lisen'): unknown role: did you mean listen?"),
        (
            "zzzzzzzz",
            "argument 1 ('zzzzzzzz'): unknown role: wanted one of announce, listen, haproxy, apache, caddy, nginx, file, etcd, etcd-watch, exec, proxy",
        ),
        ("statu", "argument 1 ('statu'): unknown role: did you mean status?"),
        ("--log-stamp status", "argument 2 ('status'): wanted the tool as first argument"),
        ("--log-stamp", "no role: wanted ROLE or -c FILE"),
        ("check", "no role: wanted ROLE or -c FILE"),
        ("-c", "argument 1 (-c): no value: wanted FILE"),
        ("-c --log-stamp", "argument 1 (-c): no value: wanted FILE"),
        ("-c x --config=y", "argument 3 (--config): given already at argument 1: wanted once"),
        ("-c x listen", "argument 3 ('listen'): wanted no role beside the file of argument 1"),
        ("-x listen", "argument 1 ('-x'): unknown option: wanted a long one, --NAME"),
        ("--timeout 3 listen", "argument 1 (--timeout): unknown global option: see beacond help"),
        ("listen 0.0.0.0", "argument 2 ('0.0.0.0'): wanted an option of listen, or + and another role"),
        ("listen +", "argument 2 (+): no role: wanted ROLE"),
        ("listen --timeot 3", "argument 2 (--timeot): unknown option of listen: did you mean timeout?"),
        ("listen --backend web", "argument 2 (--backend): unknown option of listen: see beacond help listen"),
        ("listen --", "argument 2 (--): unknown option of listen: see beacond help listen"),
        ("listen --timeout", "argument 2 (--timeout): no value: wanted TIME"),
        ("listen --timeout=", "argument 2 (--timeout): '': wanted TIME"),
        ("listen --keep-last=yes", "argument 2 (--keep-last): 'yes': wanted no value, it is a flag"),
        (
            "listen --listen --timeout 3",
            "argument 2 (--listen): '--timeout' is an option: wanted a value, or --listen=--timeout",
        ),
        (
            "listen --timeout 3 --timeout=4",
            "argument 4 (--timeout): given already at argument 2: wanted once",
        ),
        (
            "listen --keep-last --keep-last",
            "argument 3 (--keep-last): given already at argument 2: wanted once",
        ),
        (
            "listen --secret-file a\nb",
            "argument 2 (--secret-file): 'a\\nb': wanted text without control characters",
        ),
        ("listen --sni a", "argument 2 (--sni): unknown option of listen: see beacond help listen"),
        ("explain proxy --sni a --sni b", "argument 5 (--sni): given already at argument 3: wanted once"),
        ("explain proxy --show", "argument 3 (--show): unknown option of proxy: see beacond help proxy"),
        ("explain --sni a", "no role: wanted ROLE or -c FILE"),
        ("help a b", "argument 3 ('b'): wanted one topic"),
        ("status --jsn", "argument 2 (--jsn): unknown option of status: did you mean json?"),
    ] {
        assert_eq!(refused(line), (2, message.to_owned()), "{line}");
    }
    let word = std::os::unix::ffi::OsStringExt::from_vec(vec![b'a', 0xff]);
    let error = argv::invocation([OsString::from("listen"), word], HOST).unwrap_err();
    assert_eq!(error, Error::text("argument 2: wanted UTF-8 text"));
}

#[test]
fn mistakes_in_a_file() {
    for (text, message) in [
        ("", "a.conf: no role: wanted a section such as [listen]"),
        ("[lisen]", "a.conf:1: [lisen]: unknown role: did you mean listen?"),
        ("\n[listen] # x", "a.conf:2: '[listen] # x': wanted [ROLE] alone on its line"),
        ("[listen]\n--timeout 3", "a.conf:2: --timeout: wanted the option without dashes: timeout"),
        ("[listen]\ntimeout=3", "a.conf:2: timeout: wanted a blank between option and value, not ="),
        ("[listen]\n\ntimeot 3", "a.conf:3: timeot: unknown option of listen: did you mean timeout?"),
        ("timeout 3\n[listen]", "a.conf:1: timeout: unknown global option: see beacond help"),
        // The line that lost its value is the one that is named, not the next one, which it would swallow.
        ("[listen]\nlisten\ntimeout 3", "a.conf:2: listen: no value: wanted ADDR"),
        ("[listen]\nkeep-last yes", "a.conf:2: keep-last: 'yes': wanted no value, it is a flag"),
        ("[listen]\ntimeout 3\n\ntimeout 4", "a.conf:4: timeout: given already at a.conf:2: wanted once"),
        ("[listen]\nlisten a\x07", "a.conf:2: listen: 'a\\u{7}': wanted text without control characters"),
    ] {
        assert_eq!(load_refused(&[("a.conf", text)]), (2, message.to_owned()), "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.conf");
    fs::write(&path, b"[listen]\n# \xff\n").unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(file::load(path, HOST).unwrap_err(), Error::text(format!("{path}:2: wanted UTF-8 text")));
    let missing = file::load("/nonexistent/x.conf", HOST).unwrap_err();
    assert_eq!(missing.status, 1);
    assert!(missing.message.starts_with("/nonexistent/x.conf: cannot read: No such file"), "{missing}");
}

#[test]
fn values_that_are_wrong_say_where() {
    let said = roles("listen --timeout 30x")[0].get("timeout", values::duration).unwrap_err();
    assert_eq!(said.message, "argument 2 (--timeout): '30x': wanted a time such as 30, 500ms, 5min or 1h");
    let (_, sections) = load(&[("a.conf", "[haproxy]\nbackend web\n[listen]\nmax-skew 500ms\n")]).unwrap();
    for (said, message) in [
        (
            sections[0].need("socket", values::text).unwrap_err(),
            "/a.conf:1: [haproxy]: socket: missing: wanted PATH|HOST:PORT",
        ),
        (
            sections[1].need("max-skew", values::whole_seconds).unwrap_err(),
            "/a.conf:4: max-skew: '500ms': wanted a time in whole seconds, at least 1",
        ),
        (sections[1].wrong("secret-file", "a secret"), "/a.conf:3: [listen]: secret-file: wanted a secret"),
        (sections[1].wrong("timeout", "less"), "/a.conf:3: [listen]: timeout: '30': wanted less"),
    ] {
        assert!(said.status == 2 && said.message.ends_with(message), "{said}");
    }
}

#[test]
fn includes() {
    let (global, sections) = load(&[
        (
            "a.conf",
            "include conf.d/*.conf\n[listen]\ninclude common/secret\ntimeout 7\ninclude common/*.none",
        ),
        ("conf.d/20.conf", "[haproxy]\nbackend two\n"),
        ("conf.d/10.conf", "log-stamp\n[haproxy]\nbackend one\n"),
        ("conf.d/30.conf~", "rubbish"),
        ("conf.d/.hidden.conf", "rubbish"),
        ("conf.d/folder.conf/x", "rubbish"),
        ("common/secret", "secret-file s\n[exec]\ncommand x"),
    ])
    .unwrap();
    assert!(global.flag("log-stamp"));
    let names: Vec<&str> = sections.iter().map(|s| s.role().name).collect();
    assert_eq!(names, ["haproxy", "haproxy", "listen", "exec"]);
    assert_eq!((sections[0].text("backend"), sections[1].text("backend")), (Some("one"), Some("two")));
    // A file that opens a section ends with it: the next line belongs to the section of the include.
    assert_eq!((sections[2].text("secret-file"), sections[2].text("timeout")), (Some("s"), Some("7")));
}

#[test]
fn includes_that_are_wrong() {
    assert_eq!(
        load_refused(&[("a.conf", "[listen]\ninclude b.conf\n"), ("b.conf", "\nlog-x y")]),
        (2, "b.conf:2: log-x: unknown option of listen: see beacond help listen".to_owned())
    );
    assert_eq!(
        load_refused(&[("a.conf", "include *.conf\n")]),
        (2, "a.conf:1: include: 'a.conf': wanted a file that does not include itself".to_owned())
    );
    assert_eq!(
        load_refused(&[("a.conf", "include */x.conf\n")]),
        (2, "a.conf:1: include: '*/x.conf': wanted wildcards in the last part of the path only".to_owned())
    );
    assert_eq!(
        load_refused(&[("a.conf", "\ninclude missing.conf\n")]),
        (
            1,
            "a.conf:2: include: missing.conf: cannot read: No such file or directory (os error 2)".to_owned()
        )
    );
    assert_eq!(
        load_refused(&[("a.conf", "include nowhere/*.conf\n")]),
        (1, "a.conf:1: include: nowhere: cannot list: No such file or directory (os error 2)".to_owned())
    );
    let chain: Vec<(String, String)> =
        (0..12).map(|n| (format!("{n}.conf"), format!("include {}.conf\n", n + 1))).collect();
    let chain: Vec<(&str, &str)> = chain.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    assert_eq!(load_refused(&chain), (2, "8.conf:1: include: '9.conf': wanted at most 8 levels".to_owned()));
    let many = "include b\n".repeat(256);
    assert_eq!(
        load_refused(&[("a.conf", &many), ("b", "")]),
        (2, "a.conf:256: include: 'b': wanted at most 256 files".to_owned())
    );
    let long = "#".repeat(1 << 20) + "\n";
    assert_eq!(load_refused(&[("a.conf", &long)]), (2, "'a.conf': wanted at most 1048576 bytes".to_owned()));
}

#[test]
fn the_command_line_wins_over_the_files_global_options() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.conf");
    fs::write(&path, "log-level warn\nstate /s\n[listen]\n").unwrap();
    let words = ["--log-level", "debug", "-c", path.to_str().unwrap()];
    let Ok(Invocation::Run(source)) = invocation(&words) else { panic!() };
    let config = Config::load(&source, HOST).unwrap();
    assert_eq!((config.global.text("log-level"), config.global.text("state")), (Some("debug"), Some("/s")));
}

#[test]
fn the_hosts_name_in_values() {
    let sections = roles("announce --advertise http://{hostname}:8080 + announce --host other");
    assert_eq!(sections[0].text("advertise"), Some("http://node7:8080"));
    assert_eq!((sections[0].text("host"), sections[0].given("host")), (Some("node7"), false));
    assert_eq!(sections[1].text("host"), Some("other"));
}

#[test]
fn times_sizes_and_numbers() {
    for (text, us) in [
        ("0", 0),
        ("30", 30_000_000),
        ("30s", 30_000_000),
        ("7us", 7),
        ("500ms", 500_000),
        ("2mi", 120_000_000),
        ("2MIN", 120_000_000),
        ("1h", 3_600_000_000),
        ("1d", 86_400_000_000),
    ] {
        let time = Duration::from_micros(us);
        assert_eq!(values::duration(text), Ok(time), "{text}");
        assert_eq!(values::duration(&values::show_duration(time)), Ok(time), "{text}");
    }
    for text in
        ["", "s", "-1", "+1", "1.5", "1 s", "1m", "1hour", "99999999999999999999", "106751992d", "\u{661}"]
    {
        assert!(values::duration(text).is_err(), "{text}");
    }
    assert_eq!(values::size("64k"), Ok(65_536));
    assert_eq!(values::size("1m"), Ok(1 << 20));
    assert_eq!(values::size("17"), Ok(17));
    assert!(["", "k", "1kb", "-1", "99999999999g"].iter().all(|t| values::size(t).is_err()));
    assert_eq!(values::count("0"), Err("a whole number of at least 1".to_owned()));
    assert_eq!(values::number(0, 256)("257"), Err("a whole number from 0 to 256".to_owned()));
    assert_eq!(values::number(0, 256)("256"), Ok(256));
    assert!(values::whole_seconds("0").is_err() && values::whole_seconds("1500ms").is_err());
    assert_eq!(values::whole_seconds("2000ms"), Ok(Duration::from_secs(2)));
    let least = values::duration_from(Duration::from_millis(100));
    assert_eq!(least("99ms"), Err("a time of at least 100ms".to_owned()));
    assert_eq!(least("100ms"), Ok(Duration::from_millis(100)));
}

#[test]
fn addresses() {
    let of = |host: &str, port| HostPort { host: (!host.is_empty()).then(|| host.to_owned()), port };
    for (text, address) in [
        ("10.0.0.1:5555", of("10.0.0.1", Some(5555))),
        ("udp://10.0.0.1:5555", of("10.0.0.1", Some(5555))),
        ("10.0.0.1", of("10.0.0.1", None)),
        (":5555", of("", Some(5555))),
        ("[2001:DB8::1]:1", of("2001:db8::1", Some(1))),
        ("[::]", of("::", None)),
        ("lb.example.", of("lb.example.", None)),
        ("lb-1_a:0", of("lb-1_a", Some(0))),
    ] {
        assert_eq!(values::addr(text), Ok(address), "{text}");
    }
    for (text, wanted) in [
        ("::1", "the IPv6 address in brackets: [::1]"),
        ("5555", "a colon before a port: :5555"),
        ("h:65536", "a port from 0 to 65535"),
        ("h:", "a port from 0 to 65535"),
        ("h:+1", "a port from 0 to 65535"),
    ] {
        assert_eq!(values::addr(text), Err(wanted.to_owned()), "{text}");
    }
    for text in ["", ":", "udp://", "1.2.3", "1.2.3.256", "[::1", "[x]:1", "[::1]x", "a b", "-a", "a..b"] {
        assert!(values::addr(text).is_err(), "{text}");
    }
    for text in ["u@h", "h/", "\u{e9}", "://h", "1x://h"] {
        assert!(values::addr(text).is_err(), "{text}");
    }
}

#[test]
fn names_and_commands() {
    assert_eq!(values::balancer_name("balancer://web"), Ok("web".to_owned()));
    assert_eq!(values::balancer_name("web"), Ok("web".to_owned()));
    for text in ["", "balancer://", "a b", "\u{e9}", &"x".repeat(256)] {
        assert!(values::balancer_name(text).is_err(), "{text}");
    }
    assert_eq!(values::command("a  b\t\"c d\"e \"\"").unwrap(), ["a", "b", "c de", ""]);
    for text in ["", " ", "\"a", "\"\" a"] {
        assert!(values::command(text).is_err(), "{text}");
    }
}

#[test]
fn several_sections_make_one_plan() {
    let plan_of = |line: &str| plan(&roles(line));
    let one = plan_of(
        "listen --listen :1 --balancer web --timeout 10 --max-skew 5 + listen --listen [::]:1 --balancer \
         balancer://web --timeout 20 + exec --balancer web --command x",
    )
    .unwrap();
    assert_eq!(one.balancers.len(), 1);
    let policy = &one.balancers[0].policy;
    assert_eq!((policy.timeout, policy.max_skew), (Duration::from_secs(20), Duration::from_secs(30)));
    assert_eq!((policy.max_members, policy.when_deaf, policy.keep_last), (256, WhenDeaf::Hold, false));
    assert_eq!(one.addresses[0], Some(HostPort { host: Some("0.0.0.0".into()), port: Some(1) }));
    assert_eq!((one.addresses[2].as_ref(), one.warnings.len()), (None, 0));
    let never = plan_of("listen --timeout 0 + listen --listen :1 --timeout 9").unwrap();
    assert_eq!(never.balancers[0].policy.timeout, Duration::ZERO);
    assert_eq!(never.addresses[0].as_ref().unwrap().port, Some(5555));
    let lonely = plan_of("listen --balancer a + haproxy --balancer b --socket s --backend b").unwrap();
    assert_eq!(
        lonely.warnings,
        [
            "argument 6 (--balancer): nothing brings members into the balancer 'b'",
            "argument 2 (--balancer): nothing follows the balancer 'a': its members are only logged",
        ]
    );
    // The same value in other words is the same value; port 0 is another port each time.
    assert!(plan_of("listen --forget 60 + listen --listen :1 --forget 1min").is_ok());
    assert!(plan_of("listen --listen :0 + listen --listen :0").is_ok());
}

#[test]
fn listen_takes_its_address_from_the_proxy_of_its_balancer() {
    for (line, listen, proxy) in [
        ("listen + proxy --listen 10.0.0.1:443", "10.0.0.1:443", "10.0.0.1:443"),
        ("listen + proxy --listen :443", "0.0.0.0:443", "0.0.0.0:443"),
        ("listen --listen :6000 + proxy --listen [::1]:443", "[::1]:6000", "[::1]:443"),
        ("listen --listen 10.0.0.9 + proxy --listen [::1]:443", "10.0.0.9:443", "[::1]:443"),
        ("listen --listen 10.0.0.9:1 + proxy --listen 10.0.0.9:1", "10.0.0.9:1", "10.0.0.9:1"),
        ("listen --balancer a + proxy --listen :443", "0.0.0.0:5555", "0.0.0.0:443"),
        ("listen --balancer a + proxy --listen h:443 --route x.y=balancer:a", "h:443", "h:443"),
        ("listen + proxy --listen h:443 --route x.y=balancer:a", "0.0.0.0:5555", "h:443"),
        ("listen + proxy --listen h:443 --route x.y=reject", "0.0.0.0:5555", "h:443"),
    ] {
        let addresses = plan(&roles(line)).expect(line).addresses;
        let text: Vec<String> = addresses.iter().flatten().map(HostPort::to_string).collect();
        assert_eq!(text, [listen, proxy], "{line}");
    }
    // The first of two that follow it, and whatever the order of sections.
    let both =
        "proxy --listen :1 --route a.b=balancer:x + proxy --listen :2 --balancer x + listen --balancer x";
    assert_eq!(plan(&roles(both)).unwrap().addresses[2].as_ref().unwrap().port, Some(1));
    let routed = plan(&roles("listen --balancer a + proxy --listen :1 --route a.b=balancer:b")).unwrap();
    assert_eq!(
        routed.warnings,
        [
            "argument 8 (--route): nothing brings members into the balancer 'b'",
            "argument 2 (--balancer): nothing follows the balancer 'a': its members are only logged",
        ]
    );
}

#[test]
fn sections_that_do_not_fit_together() {
    for (line, message) in [
        (
            "listen --max-members 9 + listen --listen :1",
            "argument 5 (listen): --max-members: '256': wanted what the balancer 'default' has at argument 2 \
             (--max-members) (9)",
        ),
        (
            "listen --listen :1 + listen --keep-last",
            "argument 6 (--keep-last): wanted what the balancer 'default' has at argument 1 (listen): --keep-last",
        ),
        (
            "listen --when-deaf hold:5 + listen --listen :1 --when-deaf evict",
            "argument 8 (--when-deaf): 'evict': wanted what the balancer 'default' has at argument 2 \
             (--when-deaf) (hold:5)",
        ),
        (
            "listen --max-members 0",
            "argument 2 (--max-members): '0': wanted a whole number from 1 to 1048576",
        ),
        ("listen --when-deaf never", "argument 2 (--when-deaf): 'never': wanted hold, hold:TIME or evict"),
        (
            "listen --listen :5555 --balancer a + listen",
            "argument 7 (listen): --listen: wanted another address than argument 2 (--listen)",
        ),
        ("proxy", "argument 1 (proxy): --listen: missing: wanted ADDR"),
        ("proxy --listen h", "argument 2 (--listen): 'h': wanted a port too, such as :443"),
        ("listen + proxy", "argument 3 (proxy): --listen: missing: wanted ADDR"),
        (
            "proxy --listen :443 + proxy --listen 0.0.0.0:443",
            "argument 6 (--listen): '0.0.0.0:443': wanted another address than argument 2 (--listen)",
        ),
        (
            "haproxy --socket s --backend b + haproxy --backend b --socket s",
            "argument 8 (--backend): 'b': wanted another backend or socket than argument 4 (--backend)",
        ),
    ] {
        assert_eq!(plan(&roles(line)).expect_err(line), Error::text(message), "{line}");
    }
}

#[test]
fn check_shows_every_value_and_its_origin() {
    let check = |words: &[&str], judge: &check::Judge| {
        let Invocation::Study(_, own, source) = invocation(words).unwrap() else { panic!() };
        let mut out = Vec::new();
        let checked = check::run(&source, own.flag("show"), HOST, judge, &mut out);
        checked.map(|()| String::from_utf8(out).unwrap())
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.conf");
    fs::write(&path, "[listen]\ntimeout 5\nkeep-last\n[haproxy]\nsocket s\nbackend b\n").unwrap();
    let path = path.to_str().unwrap();
    let shown = check(&["check", "--show", "--log-stamp", "-c", path], &|_| Ok(vec![])).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    let first =
        ["log-level info  (default)", "log-stamp  (argument 3)", "", &format!("[listen]  ({path}:1)")];
    assert_eq!(lines[..4], first);
    assert!(lines.contains(&format!("timeout 5  ({path}:2)").as_str()), "{shown}");
    assert!(lines.contains(&format!("keep-last  ({path}:3)").as_str()), "{shown}");
    assert!(lines.contains(&"max-skew 30  (default)"), "{shown}");
    assert!(lines.contains(&"listen 0.0.0.0:5555  (default)"), "{shown}");
    for (given, effective) in [(":6000", "0.0.0.0:6000"), ("udp://[::1]", "[::1]:5555"), ("lb", "lb:5555")] {
        let shown = check(&["check", "--show", "listen", "--listen", given], &|_| Ok(vec![])).unwrap();
        assert!(shown.contains(&format!("\nlisten {effective}  (argument 4)\n")), "{shown}");
    }
    let beside = ["check", "--show", "listen", "+", "proxy", "--listen", "10.0.0.1:8000"];
    let shown = check(&beside, &|_| Ok(vec![])).unwrap();
    assert_eq!(shown.matches("\nlisten 10.0.0.1:8000  (argument 6)\n").count(), 2, "{shown}");
    assert_eq!(lines.last(), Some(&"ok"));
    assert_eq!(check(&["check", "-c", path], &|_| Ok(vec![])).unwrap(), "ok\n");
    let warned = check(&["check", "listen"], &|c| plan(&c.roles).map(|p| p.warnings));
    assert_eq!(
        warned.unwrap(),
        "warning: argument 2 (listen): --balancer: nothing follows the balancer 'default': its members are \
         only logged\nok\n"
    );
    let refused = check(&["check", "listen"], &|c| Err(c.roles[0].wrong("secret-file", "one")));
    assert_eq!(refused, Err(Error::text("argument 2 (listen): --secret-file: wanted one")));
    let loud = check(&["check", "--log-level", "loud", "listen"], &|c| {
        Global::from_section(&c.global).map(|_| vec![])
    });
    let wanted = "argument 2 (--log-level): 'loud': wanted error, warn, info, debug or trace";
    assert_eq!(loud, Err(Error::text(wanted)));
}

/// Text that looks like a file: sections of real roles with real options, each once, and values of every sort. Now
/// and then rubbish.
fn file_text() -> impl Strategy<Value = String> {
    let value = prop_oneof!["[ -~]{1,20}", "\\PC{1,8}", Just("+".to_owned()), Just("--timeout".to_owned())];
    let rows = prop::collection::btree_map(0..24usize, value, 0..6);
    let section = (0..options::roles().len(), rows).prop_map(|(role, rows)| {
        let role = options::roles()[role];
        let row = |(opt, value): (usize, String)| {
            let opt = role.options.get(opt)?;
            Some(if opt.is_flag() { format!("{}\n", opt.name) } else { format!("{} {value}\n", opt.name) })
        };
        format!("[{}]\n{}", role.name, rows.into_iter().filter_map(row).collect::<String>())
    });
    prop_oneof![
        8 => prop::collection::vec(section, 0..4).prop_map(|s| s.concat()),
        1 => prop::collection::vec("(\\[listen\\]|timeout|\\PC{0,30})", 0..8).prop_map(|l| l.join("\n")),
    ]
}

proptest! {
    #[test]
    fn a_section_is_a_command_line(text in file_text()) {
        fuzz_config(text.as_bytes());
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_config(&bytes);
    }

    #[test]
    fn words_never_panic(
        words in prop::collection::vec(
            "(listen|exec|check|log|\\+|-c|--(timeout|allow|command|keep-last)(=x)?|\\PC{0,5})",
            0..8,
        ),
    ) {
        if let Err(e) = argv::invocation(words.iter().map(OsString::from), HOST) {
            prop_assert!(e.status == 2 && !e.message.contains('\n'), "{e:?}");
        }
    }

    #[test]
    fn values_never_panic(text in "\\PC{0,20}") {
        let _ = values::duration(&text);
        let _ = values::size(&text);
        if let Ok(address) = values::addr(&text) {
            prop_assert!(address.host.is_some() || address.port.is_some());
        }
        if let Ok(words) = values::command(&text) {
            prop_assert!(!words[0].is_empty());
        }
    }
}
