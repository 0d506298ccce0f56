//! What the files say: members as nginx, Prometheus, Envoy, Traefik, dnsmasq and scripts read them, and back.
//!
//! Nothing from the network gets into a file but the parts of a parsed url and integers. One server a line in every
//! format, so that a line is enough to read a server back and a `diff` of two versions says what changed. Reading is
//! for our own files: it tells which servers one has, or that it is none of ours. Reads and writes nothing but bytes.
//!
//! ```text
//! server 10.0.0.5:8080 weight=3 max_fails=1;                                  nginx
//! {"targets":["10.0.0.5:8080"],"labels":{"__meta_beacond_weight":"3", ...}}   prometheus (file_sd, http_sd)
//! {"health_status":"HEALTHY","load_balancing_weight":3,"endpoint":{...}}      envoy (EDS)
//! {"url":"http://10.0.0.5:8080","weight":3}                                   traefik (file provider)
//! 10.0.0.5 web.lan                                                            hosts (dnsmasq --hostsdir)
//! {"url":"http://10.0.0.5:8080", ... ,"weight":3,"state":"up"}                json
//! http://10.0.0.5:8080 3                                                      lines
//! ```

use super::list::{self, List};
use crate::bytes::JsonStr;
use crate::sinks::{Refused, address};
use crate::sorted::Sorted;
use crate::url::{Host, Url};
use std::fmt::Write;

/// A format of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Servers of an `upstream` of nginx.
    Nginx,
    /// Targets of Prometheus, for `file_sd_configs`; `http_sd_configs` takes the same.
    Prometheus,
    /// A `ClusterLoadAssignment` of Envoy, for EDS from a path.
    Envoy,
    /// A service of Traefik's file provider.
    Traefik,
    /// Addresses and one name, as in /etc/hosts.
    Hosts,
    /// Our own.
    Json,
    /// Url and weight, for scripts.
    Lines,
}

/// What a file says of a server that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// It is up, with this weight.
    Up(u16),
    /// It said goodbye.
    Draining,
}

/// The servers of a file, each by a url of which the format may use less than all.
pub type Servers = Sorted<Url, Shown>;

/// How a file is written: everything about it but its servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The format.
    pub format: Format,
    /// The balancer's name.
    pub balancer: String,
    /// What the members together are called: Envoy's cluster, Traefik's service, the name in hosts.
    pub service: String,
    /// Labels for Prometheus, added to every target.
    pub labels: Vec<(String, String)>,
    /// Parameters for nginx, added to every server.
    pub options: String,
    /// nginx and Envoy talk TLS to the members.
    pub tls: bool,
}

impl Layout {
    /// The whole file.
    #[must_use]
    pub fn render(&self, servers: &Servers) -> Vec<u8> {
        let mut body = String::new();
        for line in servers.iter().filter_map(|(url, &shown)| self.line(url, shown)) {
            if !body.is_empty() {
                body.push_str(self.list().between);
            }
            body.push_str(&line);
        }
        if body.is_empty() && self.format == Format::Nginx {
            body.push_str(FILLER);
        }
        let (head, tail) = (self.head(&body), self.list().tail);
        let end = if body.is_empty() { "" } else { "\n" };
        format!("{head}{body}{end}{tail}").into_bytes()
    }

    /// The servers of a file in this format; `None` for one that is not ours. An empty one is.
    #[must_use]
    pub fn read(&self, file: &[u8]) -> Option<Servers> {
        let text = str::from_utf8(file).ok()?;
        // Any hosts file would do, and there is one that must not be lost.
        if self.format == Format::Hosts && !text.trim().is_empty() && !text.contains(SIGNED) {
            return None;
        }
        let lines = self.list().lines(text)?;
        let found = lines.map(|line| self.server(line)).collect::<Option<Vec<_>>>()?;
        Some(found.into_iter().flatten().collect())
    }

    /// Which server a member's url leads to.
    ///
    /// # Errors
    /// The format has no way to say it.
    pub fn place(&self, url: &Url) -> Result<Url, Refused> {
        let scheme = url.scheme();
        let refused = || Refused::Scheme(scheme.to_owned());
        match self.format {
            Format::Nginx | Format::Envoy => {
                let tls = matches!(scheme, "https" | "wss" | "tls");
                if tls != self.tls {
                    return Err(refused());
                }
                address(url).map(|at| Url::from_ip(BARE, at.ip(), at.port()))
            }
            Format::Hosts => address(url).map(|at| Url::from_ip(BARE, at.ip(), NO_PORT)),
            Format::Traefik => {
                let scheme = match scheme {
                    "http" | "ws" => "http",
                    "https" | "wss" => "https",
                    "h2c" => "h2c",
                    _ => return Err(refused()),
                };
                Url::parse(format!("{scheme}://{}", url.authority()).as_bytes()).map_err(|_| refused())
            }
            Format::Prometheus | Format::Json | Format::Lines => Ok(url.clone()),
        }
    }

    /// Whether the format tells members that said goodbye from those that are gone.
    #[must_use]
    pub fn keeps_draining(&self) -> bool {
        matches!(self.format, Format::Envoy | Format::Json)
    }

    /// What tells the servers of one version of the file from those of another.
    #[must_use]
    pub fn generation(file: &[u8]) -> String {
        let servers = file.split(|&b| b == b'\n').filter(|line| !line.starts_with(b"#"));
        let hash = servers.flatten().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    /// What nginx answers with `generation` by, in a `location` of the operator's.
    #[must_use]
    pub fn generation_file(generation: &str) -> Vec<u8> {
        format!("return 200 \"{generation}\\n\";\n").into_bytes()
    }

    /// One server's line; `None` where the format leaves such a server out.
    fn line(&self, url: &Url, shown: Shown) -> Option<String> {
        let (at, weight) = (url.authority(), if let Shown::Up(weight) = shown { weight } else { 0 });
        let state = if shown == Shown::Draining { "draining" } else { "up" };
        let ip = || match url.host() {
            Host::Ip(ip) => Some(ip),
            Host::Name(_) => None,
        };
        if shown == Shown::Draining && !self.keeps_draining() {
            return None;
        }
        Some(match self.format {
            Format::Nginx => {
                ip()?;
                let mut line = format!("server {at}");
                let _ = match weight {
                    0 => write!(line, " down"),
                    1 => Ok(()),
                    _ => write!(line, " weight={weight}"),
                };
                let blank = if self.options.is_empty() { "" } else { " " };
                format!("{line}{blank}{};", self.options)
            }
            Format::Prometheus => self.target(url, weight),
            Format::Envoy => {
                let status = if weight == 0 { "DRAINING" } else { "HEALTHY" };
                format!(
                    "{{\"health_status\":\"{status}\",\"load_balancing_weight\":{},\"endpoint\":{{\"address\":\
                     {{\"socket_address\":{{\"address\":\"{}\",\"port_value\":{}}}}}}}}}",
                    weight.max(1),
                    ip()?,
                    url.port()
                )
            }
            Format::Traefik if weight == 0 => return None,
            Format::Traefik if weight == 1 => format!("{{\"url\":\"{url}\"}}"),
            Format::Traefik => format!("{{\"url\":\"{url}\",\"weight\":{weight}}}"),
            Format::Hosts if weight == 0 => return None,
            Format::Hosts => format!("{} {}", ip()?, self.service),
            Format::Json => format!(
                "{{\"url\":\"{url}\",\"scheme\":\"{}\",\"host\":\"{}\",\"port\":{},\"weight\":{weight},\"state\":\"{state}\"}}",
                url.scheme(),
                bare_host(url),
                url.port()
            ),
            Format::Lines => format!("{url} {weight}"),
        })
    }

    /// A target group of one member. Prometheus takes the scheme from a label.
    fn target(&self, url: &Url, weight: u16) -> String {
        let mut line = format!(
            "{{\"targets\":[\"{}\"],\"labels\":{{\"__meta_beacond_url\":\"{url}\",\"__meta_beacond_weight\":\"{weight}\",\
             \"__meta_beacond_balancer\":{}",
            url.authority(),
            JsonStr(&self.balancer)
        );
        let scheme = match url.scheme() {
            "http" | "ws" => Some("http"),
            "https" | "wss" => Some("https"),
            _ => None,
        };
        if let Some(scheme) = scheme {
            let _ = write!(line, ",\"__scheme__\":\"{scheme}\"");
        }
        for (name, value) in &self.labels {
            let _ = write!(line, ",{}:{}", JsonStr(name), JsonStr(value));
        }
        line.push_str("}}");
        line
    }

    /// What stands before the servers.
    fn head(&self, body: &str) -> String {
        let (balancer, service) = (&self.balancer, JsonStr(&self.service));
        match self.format {
            Format::Nginx | Format::Hosts => {
                let generation = Layout::generation(format!("{body}\n").as_bytes());
                format!(
                    "# The members of {balancer}. {SIGNED}\n\
                     # generation {generation}\n"
                )
            }
            Format::Prometheus => format!("{}\n", self.list().begins),
            Format::Envoy => {
                let version = Layout::generation(body.as_bytes());
                format!(
                    "{}\"{version}\",\"resources\":[{{\"@type\":\"type.googleapis.com/envoy.config.endpoint.v3.\
                     ClusterLoadAssignment\",\"cluster_name\":{service},\"endpoints\":[{{\"lb_endpoints\":[\n",
                    self.list().begins
                )
            }
            Format::Traefik => {
                format!("{}{service}:{{\"loadBalancer\":{{\"servers\":[\n", self.list().begins)
            }
            Format::Json => format!("{}{},\"members\":[\n", self.list().begins, JsonStr(balancer)),
            Format::Lines => String::new(),
        }
    }

    /// How the lines hang together.
    fn list(&self) -> &'static List {
        match self.format {
            Format::Nginx | Format::Hosts => &list::COMMENTED,
            Format::Lines => &list::PLAIN,
            Format::Prometheus => &list::PROMETHEUS,
            Format::Envoy => &list::ENVOY,
            Format::Traefik => &list::TRAEFIK,
            Format::Json => &list::JSON,
        }
    }

    /// Reads one server's line: `None` if it is none, `Some(None)` if it stands for no server.
    fn server(&self, line: &str) -> Option<Option<(Url, Shown)>> {
        let (url, weight) = match self.format {
            Format::Nginx if line == FILLER => return Some(None),
            Format::Nginx => {
                let mut words = line.strip_prefix("server ")?.strip_suffix(';')?.split_ascii_whitespace();
                let url = bare(words.next()?)?;
                let weight = words.try_fold(1, |weight, word| match word.strip_prefix("weight=") {
                    Some(digits) => digits.parse().ok(),
                    None if word == "down" => Some(0),
                    None => Some(weight),
                })?;
                (url, weight)
            }
            Format::Hosts => {
                let ip = line.split_ascii_whitespace().next()?.parse().ok()?;
                (Url::from_ip(BARE, ip, NO_PORT), 1)
            }
            Format::Lines => {
                let (url, weight) = line.split_once(' ')?;
                (parse(url)?, weight.parse().ok()?)
            }
            Format::Prometheus => {
                let url = parse(list::text(line, "\"__meta_beacond_url\":\"")?)?;
                (url, list::text(line, "\"__meta_beacond_weight\":\"")?.parse().ok()?)
            }
            Format::Envoy => {
                let ip = list::text(line, "\"address\":\"")?.parse().ok()?;
                let port = list::number(line, "\"port_value\":").filter(|port| *port != 0)?;
                let weight = list::number(line, "\"load_balancing_weight\":")?;
                if list::text(line, "\"health_status\":\"")? == "DRAINING" {
                    return Some(Some((Url::from_ip(BARE, ip, port), Shown::Draining)));
                }
                (Url::from_ip(BARE, ip, port), weight)
            }
            Format::Traefik => {
                let url = parse(list::text(line, "\"url\":\"")?)?;
                (url, list::number(line, "\"weight\":").unwrap_or(1))
            }
            Format::Json => {
                let url = parse(list::text(line, "\"url\":\"")?)?;
                if list::text(line, "\"state\":\"")? == "draining" {
                    return Some(Some((url, Shown::Draining)));
                }
                (url, list::number(line, "\"weight\":")?)
            }
        };
        Some(Some((url, Shown::Up(weight))))
    }
}

/// A file in one of the formats is read without a fault, and what was read is written and read again as the same.
pub fn fuzz_rendered(data: &[u8]) {
    let Some((&first, file)) = data.split_first() else { return };
    let format = [
        Format::Nginx,
        Format::Prometheus,
        Format::Envoy,
        Format::Traefik,
        Format::Hosts,
        Format::Json,
        Format::Lines,
    ][usize::from(first) % 7];
    let layout = Layout {
        format,
        balancer: "web".to_owned(),
        service: "web".to_owned(),
        labels: vec![("zone".to_owned(), "a\"b".to_owned())],
        options: "max_fails=1".to_owned(),
        tls: false,
    };
    let Some(servers) = layout.read(file) else { return };
    let written = layout.render(&servers);
    let again = layout.read(&written).expect("what was written is ours");
    assert!(again.len() <= servers.len(), "servers out of nothing");
    for (url, shown) in again.iter() {
        let before = servers.get(url);
        let weightless = matches!((before, shown), (Some(Shown::Up(0)), Shown::Draining));
        assert!(before == Some(shown) || weightless, "{url}: {before:?} became {shown:?}");
    }
    assert_eq!(layout.render(&again), written, "the second time differs");
}

/// `addr:port` as a url.
fn bare(authority: &str) -> Option<Url> {
    let url = parse(&format!("{BARE}://{authority}"))?;
    matches!(url.host(), Host::Ip(_)).then_some(url)
}

fn parse(url: &str) -> Option<Url> {
    Url::parse(url.as_bytes()).ok()
}

/// The host without brackets.
fn bare_host(url: &Url) -> String {
    match url.host() {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.to_owned(),
    }
}

/// Whose file it is.
const SIGNED: &str = "Written by beacond, which overwrites changes.";
/// An upstream of nothing is refused by nginx; of this it answers 502.
const FILLER: &str = "server 127.0.0.1:1 down;";
/// The scheme of servers that are known by their address alone.
const BARE: &str = "tcp";
/// The port of servers that are known by their IP alone.
const NO_PORT: u16 = 1;
