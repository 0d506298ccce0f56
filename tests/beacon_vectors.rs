//! The reference's own vectors: keys, MACs and datagrams made by running `mod_proxy_beacon` and its sender, through the
//! library and through `beacond decode beacon`.
#![expect(clippy::unwrap_used, reason = "a test's way to fail")]

use beacond::beacon::auth::{self, Key};
use beacond::beacon::wire::Claim;
use beacond::bytes::{Escaped, from_hex, to_hex};
use beacond::secret;
use beacond::tools::decode::beacon::Decoder;
use serde_json::Value;
use std::time::Duration;

fn vectors(name: &str) -> Value {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list<'a>(vectors: &'a Value, name: &str) -> &'a [Value] {
    vectors[name].as_array().unwrap()
}

fn hex(entry: &Value, name: &str) -> Vec<u8> {
    from_hex(entry[name].as_str().unwrap()).unwrap()
}

/// The secret of an entry; `None` is a receiver without one.
fn secret(entry: &Value) -> Option<Vec<u8>> {
    entry["secret_hex"].as_str().map(|text| from_hex(text).unwrap())
}

/// The skew a receiver acts by: what is not above zero is its default.
fn skew(entry: &Value) -> Duration {
    Duration::from_secs(
        u64::try_from(entry["max_skew_s"].as_i64().unwrap()).ok().filter(|s| *s > 0).unwrap_or(30),
    )
}

#[test]
fn keys() {
    let vectors = vectors("beacon.json");
    for entry in list(&vectors, "keys") {
        let key = Key::from_secret(&hex(entry, "secret_hex"));
        assert_eq!(to_hex(key.bytes()), entry["key_hex"], "{}", entry["name"]);
    }
}

#[test]
fn macs() {
    let vectors = vectors("beacon.json");
    for entry in list(&vectors, "macs") {
        let mac = Key::from_secret(&hex(entry, "secret_hex")).mac(&hex(entry, "msg_hex"));
        assert_eq!(str::from_utf8(&mac).unwrap(), entry["mac_hex"], "{}", entry["secret_name"]);
    }
}

#[test]
fn datagrams_through_the_library() {
    let vectors = vectors("beacon.json");
    for entry in list(&vectors, "datagrams").iter().filter(|entry| entry["balancer"] != false) {
        let name = &entry["name"];
        let keys: Vec<Key> = secret(entry).iter().map(|secret| Key::from_secret(secret)).collect();
        let (datagram, now) = (hex(entry, "datagram_hex"), entry["now_us"].as_i64().unwrap());
        let result = auth::verify(&datagram, &keys, now, skew(entry));
        match entry["verdict"].as_str().unwrap() {
            "accept" => {
                let verified = result.unwrap();
                assert_eq!(verified.ts, entry["ts"].as_i64().unwrap(), "{name}");
                assert_eq!(verified.body.claim(), Claim::Here(&hex(entry, "url_hex")), "{name}");
            }
            "log_only" => assert_eq!(result.unwrap().body.claim(), Claim::Nothing, "{name}"),
            "drop" => assert_eq!(result.unwrap_err().text(), entry["reason"], "{name}"),
            "ignore" => assert_eq!(result.unwrap_err().text(), "empty", "{name}"),
            other => panic!("{name}: unknown verdict {other}"),
        }
    }
}

#[test]
fn datagrams_through_decode() {
    let vectors = vectors("beacon.json");
    let mut checked = 0;
    for entry in list(&vectors, "datagrams").iter().filter(|entry| entry["balancer"] != false) {
        let secret = secret(entry);
        if secret.as_ref().is_some_and(|bytes| bytes.contains(&b'\n')) {
            continue; // no line of a secret file can hold it
        }
        let secrets = secret.map(|bytes| secret::parse(&bytes, true).unwrap());
        let verdict = Decoder::new(secrets.as_ref(), skew(entry))
            .verdict(&hex(entry, "datagram_hex"), entry["now_us"].as_i64().unwrap());
        let ts = verdict.split(' ').nth(1).unwrap_or_default();
        let expected = match entry["verdict"].as_str().unwrap() {
            "accept" => format!("accept ts={} url={}", entry["ts"], Escaped(&hex(entry, "url_hex"))),
            "log_only" => format!("accept {ts}"),
            "drop" => format!("drop {}", entry["reason"].as_str().unwrap()),
            _ => "drop empty".to_owned(),
        };
        assert_eq!(verdict, expected, "{}", entry["name"]);
        checked += 1;
    }
    assert_eq!(checked, 116);
}

#[test]
fn captured_datagrams() {
    let vectors = vectors("beacon_captured.json");
    for entry in list(&vectors, "datagrams") {
        let (datagram, text) = (hex(entry, "hex"), entry["text"].as_str().unwrap());
        let now = entry["received_us"].as_i64().unwrap();
        let secrets = secret(entry).map(|bytes| secret::parse(&bytes, true).unwrap());
        let keys: Vec<Key> = secret(entry).iter().map(|secret| Key::from_secret(secret)).collect();
        let verified = auth::verify(&datagram, &keys, now, Duration::from_secs(30)).unwrap();

        let field = |name: &str| text.split(' ').find_map(|token| token.strip_prefix(name));
        let body = verified.body;
        assert_eq!(body.url, field("url=").map(str::as_bytes));
        assert_eq!(Some(body.host), field("host=").map(str::as_bytes));
        assert_eq!(Some(body.pid.to_string().as_str()), field("pid="));
        assert_eq!(Some(body.seq.to_string().as_str()), field("seq="));

        let ts = if keys.is_empty() { "0" } else { field("ts=").unwrap() };
        let url = field("url=").map(|url| format!(" url={url}")).unwrap_or_default();
        let verdict = Decoder::new(secrets.as_ref(), Duration::from_secs(30)).verdict(&datagram, now);
        assert_eq!(verdict, format!("accept ts={ts}{url}"), "{text}");

        // What its sender signed, we sign the same.
        if let Some(key) = keys.first() {
            let mut again = text.rsplit_once(" mac=").unwrap().0.as_bytes().to_vec();
            key.sign(&mut again);
            assert_eq!(again, datagram);
        }
    }
}
