//! What the files say, byte for byte, in every format; and that each is what the program that reads it documents. The
//! programs themselves judge in `peers_files.rs` and `peers_nginx.rs`.
//!
//! `UPDATE=1 cargo test --test golden` writes the files of `tests/golden` anew: look at the difference.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use beacond::sinks::rendered::layout::{Format, Layout, Servers, Shown};
use beacond::url::Url;
use serde_json::Value;
use std::fs;
use std::path::Path;

const FORMATS: [(Format, &str); 7] = [
    (Format::Nginx, "web.members"),
    (Format::Prometheus, "prometheus.json"),
    (Format::Envoy, "envoy.json"),
    (Format::Traefik, "traefik.yml"),
    (Format::Hosts, "hosts"),
    (Format::Json, "members.json"),
    (Format::Lines, "lines"),
];

fn layout(format: Format) -> Layout {
    let labels = [("zone", "a"), ("note", "say \"hi\"\\")];
    Layout {
        format,
        balancer: "web".to_owned(),
        service: "web.lan".to_owned(),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        options: "max_fails=1".to_owned(),
        tls: false,
    }
}

/// Members of every kind, as far as the format takes them.
fn members(layout: &Layout) -> Servers {
    let all = [
        ("http://10.0.0.5:8080", Shown::Up(1)),
        ("http://10.0.0.6:8080", Shown::Up(3)),
        ("http://10.0.0.7:8080", Shown::Up(0)),
        ("http://10.0.0.8:8080", Shown::Draining),
        ("http://[2001:db8::5]:8080", Shown::Up(256)),
        ("https://web9.example:8443", Shown::Up(1)),
    ];
    let place = |(url, shown): &(&str, Shown)| {
        Some((layout.place(&Url::parse(url.as_bytes()).unwrap()).ok()?, *shown))
    };
    all.iter().filter_map(place).collect()
}

fn rendered(format: Format) -> Vec<u8> {
    let layout = layout(format);
    layout.render(&members(&layout))
}

fn json(format: Format) -> Value {
    serde_json::from_slice(&rendered(format)).unwrap()
}

#[test]
fn as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (format, name) in FORMATS {
        for (path, bytes) in [
            (folder.join(name), rendered(format)),
            (folder.join(format!("{name}.empty")), layout(format).render(&Servers::default())),
        ] {
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, &bytes).unwrap();
            }
            let recorded = fs::read_to_string(&path).unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), recorded, "{}", path.display());
        }
    }
}

#[test]
fn what_was_written_is_read_back() {
    for (format, name) in FORMATS {
        let layout = layout(format);
        let members = members(&layout);
        let read = layout.read(&layout.render(&members)).unwrap();
        for (url, shown) in read.iter() {
            let same = members.get(url) == Some(shown);
            // Envoy has one word for both; hosts has none for a weight.
            let idle = matches!(members.get(url), Some(Shown::Up(0) | Shown::Draining));
            assert!(same || idle || format == Format::Hosts, "{name}: {url} {shown:?}");
        }
        let up =
            |servers: &Servers| servers.iter().filter(|(_, shown)| matches!(shown, Shown::Up(1..))).count();
        assert_eq!(up(&read), up(&members), "{name}");
        assert_eq!(layout.render(&read), layout.render(&members).clone(), "{name}");
        assert_eq!(
            layout.read(&layout.render(&Servers::default())),
            Some(Servers::default()),
            "{name}: empty"
        );
        assert_eq!(layout.read(b" \n"), Some(Servers::default()), "{name}: a file of nothing");
    }
}

#[test]
fn what_others_wrote_is_told_apart() {
    for text in [
        "server web1.lan:80;\n",
        "server 10.0.0.5:80;\nkeepalive 8;\n",
        "user www-data;\nevents { }\n",
        "127.0.0.1 localhost\n::1 localhost\n",
        "[{\"targets\":[\"a:1\"]}]\n",
        "{}\n",
        "root:x:0:0:root:/root:/bin/bash\n",
        "\u{fffd}\0\n",
    ] {
        for (format, name) in FORMATS {
            assert_eq!(layout(format).read(text.as_bytes()), None, "{name}: {text:?}");
        }
    }
    let by_hand =
        layout(Format::Nginx).read(b"# mine\n  server 10.0.0.5:80  weight=2 max_fails=3;\n").unwrap();
    let url = Url::parse(b"tcp://10.0.0.5:80").unwrap();
    assert_eq!(by_hand.get(&url), Some(&Shown::Up(2)), "lines by hand are a beginning");
}

#[test]
fn schemes_and_names_are_honoured_or_refused() {
    let refused = |format, tls, url: &str| {
        let layout = Layout { tls, ..layout(format) };
        layout.place(&Url::parse(url.as_bytes()).unwrap()).err().map(|why| why.to_string())
    };
    for format in [Format::Nginx, Format::Envoy] {
        assert_eq!(refused(format, false, "https://10.0.0.5:1").as_deref(), Some("refused: scheme https"));
        assert_eq!(refused(format, true, "http://10.0.0.5:1").as_deref(), Some("refused: scheme http"));
        assert_eq!(refused(format, true, "https://10.0.0.5:1"), None);
        assert_eq!(refused(format, false, "http://web1:1").as_deref(), Some("refused: host name"));
    }
    assert_eq!(refused(Format::Hosts, false, "http://web1:1").as_deref(), Some("refused: host name"));
    assert_eq!(refused(Format::Traefik, false, "ajp://web1:1").as_deref(), Some("refused: scheme ajp"));
    for format in [Format::Prometheus, Format::Json, Format::Lines] {
        assert_eq!(refused(format, false, "ajp://web1:1"), None);
    }
}

/// https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
#[test]
fn prometheus_documents_groups_of_targets_with_labels_of_text() {
    let groups = json(Format::Prometheus);
    let groups = groups.as_array().unwrap();
    assert_eq!(groups.len(), 5, "all but the one that said goodbye");
    for group in groups {
        assert!(group.as_object().unwrap().keys().all(|key| key == "targets" || key == "labels"));
        let target = group["targets"][0].as_str().unwrap();
        assert!(!target.contains('/') && target.contains(':'), "{target}");
        assert!(group["labels"].as_object().unwrap().values().all(Value::is_string));
        assert_eq!(group["labels"]["note"], "say \"hi\"\\");
    }
    assert_eq!(groups[4]["labels"]["__scheme__"], "https");
}

/// https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/endpoint/v3/endpoint.proto
#[test]
fn envoy_documents_a_cluster_load_assignment() {
    let response = json(Format::Envoy);
    assert!(response["version_info"].is_string());
    let resource = &response["resources"][0];
    assert_eq!(resource["@type"], "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment");
    assert_eq!(resource["cluster_name"], "web.lan");
    let endpoints = resource["endpoints"][0]["lb_endpoints"].as_array().unwrap();
    let row = |endpoint: &Value| {
        let address = &endpoint["endpoint"]["address"]["socket_address"];
        let ip: std::net::IpAddr = address["address"].as_str().unwrap().parse().unwrap();
        let weight = endpoint["load_balancing_weight"].as_u64().unwrap();
        assert!(weight >= 1 && address["port_value"].as_u64() == Some(8080));
        (ip.to_string(), weight, endpoint["health_status"].as_str().unwrap().to_owned())
    };
    let rows: Vec<_> = endpoints.iter().map(row).collect();
    let of = |ip: &str, weight, status: &str| (ip.to_owned(), weight, status.to_owned());
    assert_eq!(
        rows,
        [
            of("10.0.0.5", 1, "HEALTHY"),
            of("10.0.0.6", 3, "HEALTHY"),
            of("10.0.0.7", 1, "DRAINING"),
            of("10.0.0.8", 1, "DRAINING"),
            of("2001:db8::5", 256, "HEALTHY"),
        ]
    );
    let changed = Layout { service: "other".to_owned(), ..layout(Format::Envoy) }.render(&Servers::default());
    let changed: Value = serde_json::from_slice(&changed).unwrap();
    assert_ne!(changed["version_info"], response["version_info"], "other members, another version");
}

/// https://doc.traefik.io/traefik/reference/routing-configuration/http/load-balancing/service/
#[test]
fn traefik_documents_services_with_servers() {
    let config = json(Format::Traefik);
    let servers = config["http"]["services"]["web.lan"]["loadBalancer"]["servers"].as_array().unwrap();
    let rows: Vec<_> = servers.iter().map(|s| (s["url"].as_str().unwrap(), s["weight"].as_u64())).collect();
    assert_eq!(
        rows,
        [
            ("http://10.0.0.5:8080", None),
            ("http://10.0.0.6:8080", Some(3)),
            ("http://[2001:db8::5]:8080", Some(256)),
            ("https://web9.example:8443", None),
        ]
    );
}

#[test]
fn ours_is_as_documented() {
    let file = json(Format::Json);
    assert_eq!(file["balancer"], "web");
    let members = file["members"].as_array().unwrap();
    assert_eq!(members.len(), 6);
    let last = members.iter().find(|m| m["host"] == "2001:db8::5").unwrap();
    assert_eq!((&last["scheme"], &last["state"]), (&Value::from("http"), &Value::from("up")));
    assert_eq!((last["port"].as_u64(), last["weight"].as_u64()), (Some(8080), Some(256)));
    assert!(members.iter().any(|m| m["state"] == "draining" && m["url"] == "http://10.0.0.8:8080"));
}
