//! What is said to HAProxy: names of our servers, their numbers, and the lines of the runtime API.
//!
//! Follows HAProxy's management guide, around what 2.6 really does: a number is always given (without one
//! `balance random` loses servers), a port too, never the word `enabled` (the server would look up and get
//! nothing). Nothing from the network reaches a line but addresses and integers. Pure text.
//!
//! How we mark what is ours: a server that *we* hold back, in drain or maint, has weight 0. The weight
//! survives both, so after a restart of ours a held server with another weight is known to be the operator's
//! doing. To keep that true at every moment, weight 0 comes before drain or maint, and after `ready` comes
//! the weight.

use std::net::{IpAddr, SocketAddr};

/// Where our servers live in HAProxy, and how they are made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// The backend's name.
    pub backend: String,
    /// How the names of our servers begin.
    pub prefix: String,
    /// Words for the end of `add server`.
    pub options: String,
}

impl Site {
    /// The name of the server for `addr`: `b-10.0.0.5:8080`. HAProxy takes no brackets in names, so IPv6 goes
    /// bare, `b-2001:db8::1:8080`; the last colon is before the port.
    #[must_use]
    pub fn name(&self, addr: SocketAddr) -> String {
        format!("{}{}:{}", self.prefix, addr.ip(), addr.port())
    }

    /// The address that a name of ours stands for; `None` for any name we would not have given.
    #[must_use]
    pub fn addr(&self, name: &str) -> Option<SocketAddr> {
        let (ip, port) = name.strip_prefix(self.prefix.as_str())?.rsplit_once(':')?;
        let addr = SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?);
        (self.name(addr) == name).then_some(addr)
    }

    /// Whether new servers have health checks.
    #[must_use]
    pub fn checks(&self) -> bool {
        self.has_option("check")
    }

    /// Whether `word` is among the options for new servers.
    #[must_use]
    pub fn has_option(&self, word: &str) -> bool {
        self.options.split_ascii_whitespace().any(|have| have == word)
    }

    /// Asks who HAProxy is.
    #[must_use]
    pub fn ask(&self) -> String {
        "show info".to_owned()
    }

    /// Reads everything about the backend.
    #[must_use]
    pub fn read(&self) -> String {
        format!("show info;show servers state {0};show servers conn {0}", self.backend)
    }

    /// Makes a server that serves at once.
    #[must_use]
    pub fn add_ready(&self, addr: SocketAddr, id: u32, weight: u16) -> String {
        let health =
            if self.checks() { format!(";enable health {}", self.path(addr)) } else { String::new() };
        format!("{}{health};{}", self.add(addr, id), self.ready(addr, weight))
    }

    /// Makes a server that is checked, but gets nothing yet: HAProxy believes in a new server until its first
    /// check has failed.
    #[must_use]
    pub fn add_checked(&self, addr: SocketAddr, id: u32) -> String {
        format!("{};{}", self.add(addr, id), self.check(addr))
    }

    /// Has a server checked that is there already, without giving it connections.
    #[must_use]
    pub fn check(&self, addr: SocketAddr) -> String {
        format!("enable health {0};set server {0} weight 0;set server {0} state drain", self.path(addr))
    }

    /// Into rotation.
    #[must_use]
    pub fn ready(&self, addr: SocketAddr, weight: u16) -> String {
        format!("set server {0} state ready;set server {0} weight {weight}", self.path(addr))
    }

    /// Another weight while in rotation.
    #[must_use]
    pub fn weight(&self, addr: SocketAddr, weight: u16) -> String {
        format!("set server {} weight {weight}", self.path(addr))
    }

    /// No new connections.
    #[must_use]
    pub fn drain(&self, addr: SocketAddr) -> String {
        format!("set server {0} weight 0;set server {0} state drain", self.path(addr))
    }

    /// Out of rotation.
    #[must_use]
    pub fn disable(&self, addr: SocketAddr) -> String {
        format!("set server {0} weight 0;set server {0} state maint", self.path(addr))
    }

    /// Away for good. HAProxy itself refuses unless the server is in maint.
    #[must_use]
    pub fn remove(&self, addr: SocketAddr) -> String {
        format!("del server {}", self.path(addr))
    }

    /// Made, and in maint: weight 0 among its options, so that it counts as held by us should the rest of the
    /// line get lost.
    fn add(&self, addr: SocketAddr, id: u32) -> String {
        let (path, options) = (self.path(addr), self.options.as_str());
        let blank = if options.is_empty() { "" } else { " " };
        format!("add server {path} {addr} id {id}{blank}{options} weight 0")
    }

    fn path(&self, addr: SocketAddr) -> String {
        format!("{}/{}", self.backend, self.name(addr))
    }
}

/// A free number for the server called `name`.
///
/// It follows from the name, so that consistent hashing sends a client to the same server after a refill, and
/// from each of several HAProxies. 20 bits: its consistent hash multiplies the number by 4,096 in 32 bits and
/// would not see more. The low ones are left to the servers of the configuration file.
#[must_use]
pub fn free_id(name: &str, taken: impl Fn(u32) -> bool) -> u32 {
    // FNV-1a.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let first = (hash ^ hash >> 20) % ID_SPAN;
    let ids = (0..ID_SPAN).map(|step| ID_LEAST + (first + step) % ID_SPAN);
    let mut free = ids.filter(|&id| !taken(id));
    free.next().unwrap_or(ID_LEAST)
}

const ID_LEAST: u32 = 1_024;
const ID_SPAN: u32 = (1 << 20) - ID_LEAST;

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        let options = "check inter 2s rise 1 fall 2 pool-max-conn 50 pool-purge-delay 5s".to_owned();
        Site { backend: "web".to_owned(), prefix: "b-".to_owned(), options }
    }

    #[test]
    fn names_and_back() {
        let site = site();
        for (addr, name) in [
            ("10.0.0.5:8080", "b-10.0.0.5:8080"),
            ("[::1]:80", "b-::1:80"),
            ("[2001:db8::5]:443", "b-2001:db8::5:443"),
        ] {
            let addr = addr.parse().unwrap();
            assert_eq!(site.name(addr), name);
            assert_eq!(site.addr(name), Some(addr));
        }
        for foreign in [
            "",
            "b-",
            "fixed1",
            "b-web:80",
            "b-10.0.0.5",
            "b-10.0.0.5:080",
            "b-::0001:80",
            "b-[::1]:80",
            "c-1.2.3.4:5",
        ] {
            assert_eq!(site.addr(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn lines() {
        let site = site();
        let addr = "10.0.0.5:80".parse().unwrap();
        assert_eq!(
            site.add_checked(addr, 77),
            "add server web/b-10.0.0.5:80 10.0.0.5:80 id 77 check inter 2s rise 1 fall 2 pool-max-conn 50 \
             pool-purge-delay 5s weight 0;enable health web/b-10.0.0.5:80;set server web/b-10.0.0.5:80 weight 0;\
             set server web/b-10.0.0.5:80 state drain"
        );
        let plain = Site { options: String::new(), ..site };
        assert_eq!(
            plain.add_ready("[::1]:80".parse().unwrap(), 5, 3),
            "add server web/b-::1:80 [::1]:80 id 5 weight 0;set server web/b-::1:80 state ready;set server web/b-::1:80 weight 3"
        );
        assert_eq!(
            plain.disable(addr),
            "set server web/b-10.0.0.5:80 weight 0;set server web/b-10.0.0.5:80 state maint"
        );
    }

    #[test]
    fn numbers_are_free_stable_and_spread() {
        let id = free_id("b-10.0.0.5:8080", |_| false);
        assert_eq!(id, free_id("b-10.0.0.5:8080", |other| other == id + 1));
        assert_eq!(id + 1, free_id("b-10.0.0.5:8080", |other| other == id));
        let ids: std::collections::BTreeSet<u32> =
            (0..256).map(|n| free_id(&format!("b-10.0.0.{n}:80"), |_| false)).collect();
        assert!(ids.len() >= 254 && ids.iter().all(|id| (ID_LEAST..1 << 20).contains(id)), "{}", ids.len());
    }
}
