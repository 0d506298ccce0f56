//! The environment of the proxy that this one may stand in for: its variables, as defaults of options.
//!
//! | variable | if it is not set | option |
//! | --- | --- | --- |
//! | `ENVOY_IP`, `ENVOY_PORT` | `127.0.0.1`, `8000` | `listen` |
//! | `ENVOY_UPSTREAM` | `localhost:10000` | `route default=connect:` |
//! | `ENVOY_COUNTRY` | `US` | `country` |
//! | `ENVOY_HEADERS` | | `header`, each of its lines or parts between `\|` |
//! | `ENVOY_REGION_KEY` | `x-region-key` | `header`, with the country as value |
//! | `ENVOY_SESSION_KEY` | `x-session-key` | `header`, with the client's address in hex as value |
//! | `ENVOY_ACCEPTORS` | | `accept-batch` |
//!
//! What is written wins: any route or balancer over the upstream, a header over those of its name. A variable that is
//! set to nothing is not set. Most values are judged where the option's own are. Nothing here reads the environment.

use super::tunnel::Header;
use crate::config::env::{FromEnv, Lookup};
use crate::config::values::{self, HostPort};
use std::net::IpAddr;

/// What the environment gives to a section in which `written` stands: names of options and their values.
///
/// # Errors
/// Names the variable that is wrong, and what is wanted.
pub fn defaults(written: &[(&str, &str)], lookup: &Lookup<'_>) -> Result<Vec<FromEnv>, String> {
    let env = Env { written, lookup };
    let mut values = Vec::new();
    if !env.has("listen") {
        values.push(env.listen()?);
    }
    if !env.has("route") && !env.has("balancer") {
        let (upstream, variables) = env.or("ENVOY_UPSTREAM", "ENVOY_UPSTREAM, not set", "localhost:10000");
        values.push(FromEnv { option: "route", text: format!("default=connect:{upstream}"), variables });
    }
    let headers = env.var("ENVOY_HEADERS").unwrap_or_default();
    let parts = headers.split(['\n', '|']).map(str::trim).filter(|part| !part.is_empty());
    values.extend(parts.filter_map(|part| env.header(part.to_owned(), "ENVOY_HEADERS")));
    for (set, unset, name, value) in [
        ("ENVOY_REGION_KEY", "ENVOY_REGION_KEY, not set", "x-region-key", "{country}"),
        ("ENVOY_SESSION_KEY", "ENVOY_SESSION_KEY, not set", "x-session-key", "{client_ip_hex}"),
    ] {
        let (name, variables) = env.or(set, unset, name);
        values.extend(env.header(format!("{name}: {value}"), variables));
    }
    if !env.has("country") {
        let (text, variables) = env.or("ENVOY_COUNTRY", "ENVOY_COUNTRY, not set", "US");
        values.push(FromEnv { option: "country", text: text.to_ascii_uppercase(), variables });
    }
    if let Some(text) = env.var("ENVOY_ACCEPTORS").filter(|_| !env.has("accept-batch")) {
        values.push(FromEnv { option: "accept-batch", text, variables: "ENVOY_ACCEPTORS" });
    }
    Ok(values)
}

/// The environment, and what it is for.
struct Env<'a> {
    written: &'a [(&'a str, &'a str)],
    lookup: &'a Lookup<'a>,
}

impl Env<'_> {
    fn has(&self, option: &str) -> bool {
        self.written.iter().any(|(name, _)| *name == option)
    }

    fn var(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A variable's value with its name, or what it stands for with a word that says so.
    fn or(&self, set: &'static str, unset: &'static str, default: &str) -> (String, &'static str) {
        self.var(set).map_or_else(|| (default.to_owned(), unset), |value| (value, set))
    }

    fn listen(&self) -> Result<FromEnv, String> {
        let (ip, port) = (self.var("ENVOY_IP"), self.var("ENVOY_PORT"));
        let variables = match (&ip, &port) {
            (Some(_), Some(_)) => "ENVOY_IP and ENVOY_PORT",
            (Some(_), None) => "ENVOY_IP",
            (None, Some(_)) => "ENVOY_PORT",
            (None, None) => "ENVOY_IP and ENVOY_PORT, not set",
        };
        let host = ip.map_or_else(|| Ok("127.0.0.1".to_owned()), |text| host(&text));
        let port = port.map_or(Ok(8000), |text| {
            values::port(&text).map_err(|wanted| format!("ENVOY_PORT: '{}': wanted {wanted}", shown(&text)))
        });
        let at = HostPort { host: Some(host?), port: Some(port?) };
        Ok(FromEnv { option: "listen", text: at.to_string(), variables })
    }

    /// A header, unless one of its name is written.
    fn header(&self, text: String, variables: &'static str) -> Option<FromEnv> {
        let named = |text: &str| Header::parse(text).ok();
        let own = named(&text);
        let mut written = self.written.iter().filter(|(name, _)| *name == "header");
        let replaced = written.any(|(_, other)| {
            own.as_ref().zip(named(other)).is_some_and(|(own, other)| own.is_named_as(&other))
        });
        (!replaced).then_some(FromEnv { option: "header", text, variables })
    }
}

/// The host of `ENVOY_IP`: an address without brackets, or a name.
fn host(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let named = values::addr(text).ok().filter(|at| at.port.is_none()).and_then(|at| at.host);
    named.ok_or_else(|| format!("ENVOY_IP: '{}': wanted an address such as 127.0.0.1 or ::1", shown(text)))
}

/// `text` on one line.
fn shown(text: &str) -> String {
    text.escape_debug().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the environment gives, as `option text  (variables)`.
    fn given(written: &[(&str, &str)], vars: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let lookup = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let values = defaults(written, &lookup)?;
        Ok(values.iter().map(|v| format!("{} {}  ({})", v.option, v.text, v.variables)).collect())
    }

    #[test]
    fn without_a_variable_it_is_the_originals_defaults() {
        let expected = [
            "listen 127.0.0.1:8000  (ENVOY_IP and ENVOY_PORT, not set)",
            "route default=connect:localhost:10000  (ENVOY_UPSTREAM, not set)",
            "header x-region-key: {country}  (ENVOY_REGION_KEY, not set)",
            "header x-session-key: {client_ip_hex}  (ENVOY_SESSION_KEY, not set)",
            "country US  (ENVOY_COUNTRY, not set)",
        ];
        assert_eq!(given(&[], &[]).unwrap(), expected);
        assert_eq!(given(&[], &[("ENVOY_PORT", " "), ("ENVOY_ACCEPTORS", "")]).unwrap(), expected);
    }

    #[test]
    fn each_variable_gives_its_option() {
        let vars = [
            ("ENVOY_IP", "2001:db8::1"),
            ("ENVOY_PORT", "9000"),
            ("ENVOY_UPSTREAM", "proxy.example:3128"),
            ("ENVOY_COUNTRY", "de"),
            ("ENVOY_HEADERS", "a: 1|b: 2\n\nc: 3\n"),
            ("ENVOY_REGION_KEY", "region"),
            ("ENVOY_SESSION_KEY", "session"),
            ("ENVOY_ACCEPTORS", "100"),
        ];
        assert_eq!(
            given(&[], &vars).unwrap(),
            [
                "listen [2001:db8::1]:9000  (ENVOY_IP and ENVOY_PORT)",
                "route default=connect:proxy.example:3128  (ENVOY_UPSTREAM)",
                "header a: 1  (ENVOY_HEADERS)",
                "header b: 2  (ENVOY_HEADERS)",
                "header c: 3  (ENVOY_HEADERS)",
                "header region: {country}  (ENVOY_REGION_KEY)",
                "header session: {client_ip_hex}  (ENVOY_SESSION_KEY)",
                "country DE  (ENVOY_COUNTRY)",
                "accept-batch 100  (ENVOY_ACCEPTORS)",
            ]
        );
        let written = [
            ("listen", ":1"),
            ("route", "a=reject"),
            ("header", "B: 5"),
            ("header", "Region: none"),
            ("country", "FR"),
            ("accept-batch", "1"),
        ];
        assert_eq!(
            given(&written, &vars).unwrap(),
            [
                "header a: 1  (ENVOY_HEADERS)",
                "header c: 3  (ENVOY_HEADERS)",
                "header session: {client_ip_hex}  (ENVOY_SESSION_KEY)"
            ]
        );
        let balanced = given(&[("balancer", "web"), ("listen", ":1")], &[]).unwrap();
        assert!(!balanced.iter().any(|line| line.starts_with("route")), "{balanced:?}");
    }

    #[test]
    fn an_address_that_is_wrong_names_its_variable() {
        for (name, value, message) in [
            ("ENVOY_PORT", "http", "ENVOY_PORT: 'http': wanted a port from 0 to 65535"),
            ("ENVOY_PORT", "65536", "ENVOY_PORT: '65536': wanted a port from 0 to 65535"),
            ("ENVOY_IP", "1.2.3", "ENVOY_IP: '1.2.3': wanted an address such as 127.0.0.1 or ::1"),
            ("ENVOY_IP", "a:1", "ENVOY_IP: 'a:1': wanted an address such as 127.0.0.1 or ::1"),
            ("ENVOY_IP", "a\nb", "ENVOY_IP: 'a\\nb': wanted an address such as 127.0.0.1 or ::1"),
        ] {
            assert_eq!(given(&[], &[(name, value)]), Err(message.to_owned()));
            assert!(given(&[("listen", ":1")], &[(name, value)]).is_ok());
        }
    }
}
