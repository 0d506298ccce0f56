//! The role `proxy` as it is configured, and the tool that explains it: the real program, its files and environment.
#![cfg(all(feature = "listen", feature = "proxy"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use beacond::config::argv::{self, Invocation};
use beacond::proxy::balance::{Balance, HashKey};
use beacond::proxy::settings::{self, OnEnd, SendProxy, Settings};
use beacond::tools::check;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// What the program answers in a fresh folder with these files and variables: its status and what it printed.
fn beacond(files: &[(&str, &str)], vars: &[(&str, &str)], line: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_beacond"))
        .args(line.split(' '))
        .current_dir(folder.path())
        .env_clear()
        .envs(vars.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

/// The settings of a command line, or the message that refuses it.
fn settings(line: &str) -> Result<Settings, String> {
    let words: Vec<String> = line.split(' ').map(|word| word.replace('~', " ")).collect();
    let section = argv::sections(&words, "h").map_err(|e| e.message)?.1.remove(0);
    settings::access(&section).map_err(|e| e.message)?;
    let routes = settings::routes(&section).map_err(|e| e.message)?;
    Settings::from_section(&section, &routes).map_err(|e| e.message)
}

const CONF: &str = "[proxy]
listen :443
require-sni
accept-proxy
allow 10.0.0.0/8
deny 10.6.0.0/16
route *.example.com=balancer:web
route www.example.com=10.0.0.9:443
route alpn:h2=connect:proxy.example:3128
route authority:git.example=reject
[listen]
unauthenticated
balancer web
[proxy]
listen :80
balancer web
";

#[test]
fn a_session_is_explained_by_rule_and_place() {
    for (ask, first) in [
        (
            "--sni WWW.example.com. --from 10.1.2.3",
            "  from       10.1.2.3: allowed by --allow 10.0.0.0/8 (a.conf:5)\n\
             \x20 route      www.example.com=10.0.0.9:443 (a.conf:8): the server name is this one\n\
             \x20 target     10.0.0.9:443\n",
        ),
        (
            "--sni a.b.example.com --from ::ffff:10.6.0.1",
            "  from       ::ffff:10.6.0.1: denied by --deny 10.6.0.0/16 (a.conf:6)\n\
             \x20 route      *.example.com=balancer:web (a.conf:7): the longest wildcard over the server name\n\
             \x20 refused    denied\n",
        ),
        (
            "--sni other.org --alpn x --alpn h2 --from 192.0.2.1",
            "  from       192.0.2.1: denied: no --allow covers it\n\
             \x20 route      alpn:h2=connect:proxy.example:3128 (a.conf:9): the first of the client's protocols that a \
             route names\n\
             \x20 refused    denied\n",
        ),
        (
            "--sni 10.0.0.1 --authority Git.Example:443",
            "  sni        10.0.0.1: no host name, so no route can match it\n\
             \x20 route      authority:git.example=reject (a.conf:10): the authority of the PROXY header is this one\n\
             \x20 refused    rejected\n",
        ),
        (
            "--alpn h2",
            "  route      alpn:h2=connect:proxy.example:3128 (a.conf:9): the first of the client's protocols that a \
             route names\n\
             \x20 refused    no-sni: a.conf:3: require-sni\n",
        ),
        (
            "--sni example.com",
            "  route      none matches, and there is no default\n\
             \x20 refused    no-route\n",
        ),
    ] {
        let (status, said) = beacond(&[("a.conf", CONF)], &[], &format!("explain -c a.conf {ask}"));
        let (one, other) = said.split_once("\n\n").unwrap();
        assert_eq!(
            (status, one),
            (0, format!("[proxy]  (a.conf:1)  listens at 0.0.0.0:443\n{first}").trim_end())
        );
        assert!(other.starts_with("[proxy]  (a.conf:14)  listens at 0.0.0.0:80\n"), "{said}");
    }
    let ask = "explain -c a.conf --sni a --alpn b --authority c --from ::1";
    let (_, said) = beacond(&[("a.conf", CONF)], &[], ask);
    assert_eq!(
        said.split_once("0.0.0.0:80\n").unwrap().1,
        "  from       ::1: allowed: no --deny covers it\n\
         \x20 sni        not read: there is no --sniff, and no route that needs it\n\
         \x20 alpn       not read: there is no --sniff, and no route that needs it\n\
         \x20 authority  not read: there is no --accept-proxy\n\
         \x20 route      default=balancer:web (a.conf:16): no other route matches\n\
         \x20 target     balancer:web\n"
    );
}

#[test]
fn what_cannot_be_explained() {
    let files = [("a.conf", CONF), ("b.conf", "[listen]\nunauthenticated\n")];
    for (line, status, message) in [
        ("explain -c b.conf", 1, "beacond: b.conf: no proxy section: there is nothing to explain\n"),
        ("explain -c c.conf", 1, "beacond: c.conf: cannot read: No such file or directory (os error 2)\n"),
        ("explain listen --sni a", 1, "beacond: no proxy section: there is nothing to explain\n"),
        ("explain --sni a", 2, "beacond: no role: wanted ROLE or -c FILE\n"),
        (
            "explain -c a.conf --from host",
            2,
            "beacond: argument 4 (--from): 'host': wanted an IP address such as 192.0.2.7 or 2001:db8::7\n",
        ),
        (
            "explain -c a.conf --sni \u{e9}",
            2,
            "beacond: argument 4 (--sni): '\u{e9}': wanted a server name in ASCII, as clients send it\n",
        ),
        (
            "explain proxy --listen :1 --route a=b",
            2,
            "beacond: argument 5 (--route): 'a=b': wanted balancer:NAME, HOST:PORT, connect:HOST:PORT or reject as \
             target\n",
        ),
    ] {
        assert_eq!(beacond(&files, &[], line), (status, message.to_owned()), "{line}");
    }
}

#[test]
fn every_option_comes_to_its_value() {
    let plain = settings("proxy").unwrap();
    assert_eq!((plain.sniff, plain.splice, plain.balance), (false, true, Balance::P2c));
    assert_eq!((plain.hello_size, plain.max_buffered), (16_389, 64 << 20));
    assert_eq!((plain.idle_timeout, plain.server_first), (Some(Duration::from_secs(600)), None));
    assert_eq!((plain.max_sessions, plain.auth.is_none(), plain.dump.is_none()), (None, true, true));
    for line in ["--sniff", "--require-sni", "--route a.b=reject", "--route alpn:a=reject"] {
        assert!(settings(&format!("proxy {line}")).unwrap().sniff, "{line}");
    }
    let all = settings(
        "proxy --accept-proxy --accept-proxy-from 10.0.0.0/8 --auth unix:/a --auth-cache 5 --auth-fail-open --balance \
         hash:authority --on-evict drain:5min --on-leave cut --idle-timeout 0 --half-close-timeout 0 --no-splice \
         --send-proxy v2 --header x:~{country} --country de --dump d --dump-files 3 --max-sessions 5 --access-log",
    )
    .unwrap();
    let auth = all.auth.unwrap();
    assert_eq!(
        (auth.timeout, auth.cache, auth.fail_open),
        (Duration::from_secs(2), Duration::from_secs(5), true)
    );
    assert_eq!((all.on_evict, all.on_leave), (OnEnd::Drain(Duration::from_secs(300)), OnEnd::Cut));
    assert_eq!((all.idle_timeout, all.half_close_timeout, all.splice), (None, None, false));
    assert_eq!((all.send_proxy, all.balance), (Some(SendProxy::V2), Balance::Hash(HashKey::Authority)));
    assert_eq!((all.country.as_deref(), all.dump.unwrap().files), (Some("DE"), 3));
    assert_eq!(all.headers[0].to_string(), "x: {country}");
}

#[test]
fn options_that_are_wrong_or_do_not_fit() {
    for (line, message) in [
        (
            "--accept-proxy-from ::1",
            "argument 2 (--accept-proxy-from): '::1': wanted --accept-proxy beside it",
        ),
        ("--auth-timeout 1", "argument 2 (--auth-timeout): '1': wanted --auth beside it"),
        ("--auth-fail-open", "argument 2 (--auth-fail-open): wanted --auth beside it"),
        ("--auth /x", "argument 2 (--auth): '/x': wanted unix:PATH, PATH of at most 103 bytes"),
        (
            "--header a:1",
            "argument 2 (--header): 'a:1': wanted a route to connect:HOST:PORT, which alone sends headers",
        ),
        (
            "--header Host:1",
            "argument 2 (--header): 'Host:1': wanted a header such as 'X-Client: {client_ip}'; Host, Connection and lengths are beacond's own",
        ),
        (
            "--balance hash:sni",
            "argument 2 (--balance): 'hash:sni': wanted --sniff beside it: there is no server name without",
        ),
        (
            "--balance hash:authority",
            "argument 2 (--balance): 'hash:authority': wanted --accept-proxy beside it: there is no authority without",
        ),
        ("--dump-files 3", "argument 2 (--dump-files): '3': wanted --dump beside it"),
        (
            "--server-first 1",
            "argument 2 (--server-first): '1': wanted --sniff beside it: without, nobody waits for the client",
        ),
        (
            "--sniff --server-first 5",
            "argument 3 (--server-first): '5': wanted a time shorter than --hello-timeout",
        ),
        (
            "--connect-timeout 6",
            "argument 1 (proxy): --connect-deadline: '5': wanted at least --connect-timeout",
        ),
        (
            "--route authority:a=reject",
            "argument 2 (--route): 'authority:a=reject': wanted --accept-proxy beside it: only a PROXY header has an \
             authority",
        ),
        (
            "--route a.b=reject --route A.b.=h:1",
            "argument 4 (--route): 'A.b.=h:1': wanted one target for what argument 2 matches already",
        ),
        (
            "--balancer web --route a.b=balancer:x",
            "argument 2 (--balancer): 'web': wanted a route to it, as default=balancer:web",
        ),
        (
            "--deny host",
            "argument 2 (--deny): 'host': wanted an address or CIDR such as 192.0.2.7, 10.0.0.0/8 or fd00::/8",
        ),
        ("--hello-size 65537", "argument 2 (--hello-size): '65537': wanted a size from 512 to 64k"),
        ("--max-buffered 1k", "argument 2 (--max-buffered): '1k': wanted a size of at least 256k"),
        ("--hello-timeout 50ms", "argument 2 (--hello-timeout): '50ms': wanted a time of at least 100ms"),
        ("--on-leave drain", "argument 2 (--on-leave): 'drain': wanted keep, drain:TIME or cut"),
        ("--send-proxy 1", "argument 2 (--send-proxy): '1': wanted v1 or v2"),
        ("--country DEU", "argument 2 (--country): 'DEU': wanted the two letters of a country, such as DE"),
        ("--accept-batch 1025", "argument 2 (--accept-batch): '1025': wanted a whole number from 1 to 1024"),
        ("--max-hello 0", "argument 2 (--max-hello): '0': wanted a whole number of at least 1"),
    ] {
        assert_eq!(settings(&format!("proxy {line}")), Err(message.to_owned()), "{line}");
    }
}

#[test]
fn headers_come_from_options_then_the_file_then_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headers");
    let path = path.to_str().unwrap();
    fs::write(path, "# ours\nx-a: file\nX-B: file\n").unwrap();
    let line =
        format!("proxy --route default=connect:h:1 --header X-a:1 --header x-a:2 --header-file {path}");
    let of = |s: &Settings| s.headers.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(of(&settings(&line).unwrap()), ["X-a: 1", "x-a: 2", "X-B: file"]);
    fs::write(path, "\nx\n").unwrap();
    let wanted = format!(
        "argument 8 (--header-file): {path}:2: 'x': wanted a header such as 'X-Client: {{client_ip}}'"
    );
    assert_eq!(settings(&line), Err(wanted));
    fs::write(path, [0xff]).unwrap();
    assert!(settings(&line).unwrap_err().ends_with("wanted a file in UTF-8"));
    fs::write(path, "#".repeat(65_537)).unwrap();
    assert!(settings(&line).unwrap_err().ends_with("wanted a file of at most 65536 bytes"));
    fs::remove_file(path).unwrap();
    assert!(settings(&line).unwrap_err().starts_with("argument 8 (--header-file): "));
}

#[test]
fn the_environment_gives_defaults_where_it_is_asked_for() {
    let vars = [("ENVOY_PORT", "9000"), ("ENVOY_UPSTREAM", "up.example:1"), ("ENVOY_COUNTRY", "de")];
    let first = |line: &str| beacond(&[], &vars, &format!("explain {line}")).1;
    assert_eq!(
        first("proxy --env"),
        "[proxy]  (argument 2)  listens at 127.0.0.1:9000\n\
         \x20 route      default=connect:up.example:1 (ENVOY_UPSTREAM): no other route matches\n\
         \x20 target     connect:up.example:1\n"
    );
    assert!(first("proxy --env --route default=balancer:web").ends_with("target     balancer:web\n"));
    assert!(first("proxy --env --balancer web").ends_with("target     balancer:web\n"));
    assert_eq!(first("proxy"), "beacond: argument 2 (proxy): --listen: missing: wanted ADDR\n");
    let (_, unset) = beacond(&[("a.conf", "[proxy]\nenv\n")], &[], "explain -c a.conf");
    assert!(
        unset.contains("listens at 127.0.0.1:8000\n") && unset.contains("(ENVOY_UPSTREAM, not set)"),
        "{unset}"
    );
    let words = ["check", "--show", "proxy", "--env", "--header", "X-Region-Key: none"].map(Into::into);
    let Ok(Invocation::Study(_, _, source)) = argv::invocation(words, "h") else {
        unreachable!("it is right")
    };
    let mut shown = Vec::new();
    check::run(&source, true, "h", &|_| Ok(vec![]), &mut shown).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    for line in [
        "listen 127.0.0.1:8000  (ENVOY_IP and ENVOY_PORT, not set)",
        "route default=connect:localhost:10000  (ENVOY_UPSTREAM, not set)",
        "header X-Region-Key: none  (argument 5)",
        "header x-session-key: {client_ip_hex}  (ENVOY_SESSION_KEY, not set)",
        "accept-batch 64  (default)",
    ] {
        assert!(shown.contains(&format!("\n{line}\n")), "{line} in {shown}");
    }
    assert!(!shown.contains("x-region-key"), "{shown}");
    for (name, value, message) in [
        ("ENVOY_PORT", "x", "ENVOY_PORT: 'x': wanted a port from 0 to 65535"),
        (
            "ENVOY_UPSTREAM",
            "host",
            "ENVOY_UPSTREAM (route): 'default=connect:host': wanted balancer:NAME, HOST:PORT, connect:HOST:PORT or \
             reject as target",
        ),
        (
            "ENVOY_COUNTRY",
            "usa",
            "ENVOY_COUNTRY (country): 'USA': wanted the two letters of a country, such as DE",
        ),
        ("ENVOY_ACCEPTORS", "0", "ENVOY_ACCEPTORS (accept-batch): '0': wanted a whole number from 1 to 1024"),
        (
            "ENVOY_HEADERS",
            "a: 1|b",
            "ENVOY_HEADERS (header): 'b': wanted a header such as 'X-Client: {client_ip}'",
        ),
    ] {
        let said = beacond(&[], &[(name, value)], "explain proxy --env");
        assert_eq!(said, (2, format!("beacond: {message}\n")));
    }
}
