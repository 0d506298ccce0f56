//! Where announcements go: the receivers as configured, the addresses their names have now, and a socket for each.
//!
//! Each address has a socket connected to it. So the kernel picks the source address, which `--advertise http://:8080`
//! announces, and reports a receiver that is not there.

use super::super::admission::{Admission, Advertise};
use crate::config::values::HostPort;
use crate::reactor::bank::{connect_udp, plain};
use crate::reactor::udp;
use crate::sorted::sort;
use crate::url::Url;
use mio::net::UdpSocket;
use std::io::ErrorKind;
use std::net::SocketAddr;

/// The most addresses of one name that are announced to.
const ADDRESSES: usize = 16;

/// A receiver as configured.
#[derive(Debug)]
pub struct Receiver {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether its name is being looked up.
    pub resolving: bool,
    routes: Vec<Route>,
    /// The last lookup failed; said once.
    unresolved: bool,
}

/// One address of a receiver.
#[derive(Debug)]
pub struct Route {
    to: SocketAddr,
    socket: Option<UdpSocket>,
    /// What is announced there: with the source address filled in, where that was asked for.
    url: Option<Url>,
    state: State,
}

/// What was last said about a route, so that each change is said once.
#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    New,
    Sending,
    Failing(String),
}

impl Receiver {
    /// A receiver whose addresses are not known yet.
    #[must_use]
    pub fn new(at: &HostPort) -> Receiver {
        Receiver {
            host: at.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: at.port.unwrap_or(super::PORT),
            resolving: false,
            routes: Vec::new(),
            unresolved: false,
        }
    }

    /// The address, where the configuration has one instead of a name.
    #[must_use]
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// Takes over what its name resolves to; routes that stay keep their sockets. Whether there is a new one.
    pub fn resolved(&mut self, mut found: Vec<SocketAddr>) -> bool {
        self.unresolved = false;
        sort(&mut found, Ord::cmp);
        found.dedup();
        found.truncate(ADDRESSES);
        self.routes.retain(|route| found.contains(&route.to));
        let known = self.routes.len();
        for to in found {
            if !self.routes.iter().any(|route| route.to == to) {
                self.routes.push(Route { to, socket: None, url: None, state: State::New });
            }
        }
        self.routes.len() > known
    }

    /// Notes that its name does not resolve; addresses known so far stay in use.
    pub fn unresolved(&mut self, why: &str) {
        if !std::mem::replace(&mut self.unresolved, true) {
            log::warn!(target: "announce", "cannot resolve {}: {why}; trying again", self.host);
        }
    }

    /// Lets go of all sockets: the next sending asks the kernel anew for a way, and for our address on it.
    pub fn reroute(&mut self) {
        for route in &mut self.routes {
            route.socket = None;
        }
    }

    /// Its addresses.
    pub fn routes(&mut self) -> impl Iterator<Item = &mut Route> {
        self.routes.iter_mut()
    }
}

impl Route {
    /// Sends what `compose` makes of the url to announce here; nothing if the url cannot be announced.
    pub fn send(
        &mut self,
        advertise: Option<&Advertise>,
        admission: &Admission,
        compose: &mut dyn FnMut(Option<&Url>) -> Vec<Vec<u8>>,
    ) {
        if let Err(why) = self.connect(advertise, admission) {
            return self.note(State::Failing(why));
        }
        let Some(socket) = &self.socket else { return };
        let datagrams = compose(self.url.as_ref());
        let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
        let (sent, mut error) = udp::send_all(socket, &slices);
        let refused =
            |e: &Option<std::io::Error>| e.as_ref().is_some_and(|e| e.kind() == ErrorKind::ConnectionRefused);
        let was_refused = refused(&error);
        if was_refused {
            // That was the answer to the datagram before; this one has not been sent yet.
            error = udp::send_all(socket, &slices[sent..]).1;
        }
        match error {
            None if was_refused => self.note(State::Failing("refused: nothing listens there".to_owned())),
            None => self.note(State::Sending),
            Some(e) => {
                self.socket = None;
                self.note(State::Failing(plain(&e)));
            }
        }
    }

    fn connect(&mut self, advertise: Option<&Advertise>, admission: &Admission) -> Result<(), String> {
        if self.socket.is_some() {
            return Ok(());
        }
        let socket = connect_udp(self.to).map_err(|e| plain(&e))?;
        if let Some(advertise) = advertise {
            let source = socket.local_addr().map_err(|e| plain(&e))?.ip();
            let url = advertise.url(source);
            admission.check(&url).map_err(|why| format!("{} is not announced: {why}", url.text()))?;
            self.url = Some(url);
        }
        self.socket = Some(socket);
        Ok(())
    }

    fn note(&mut self, state: State) {
        if self.state == state {
            return;
        }
        let (to, url) = (self.to, self.url.as_ref().map_or("a heartbeat", Url::text));
        match (&state, &self.state) {
            (State::Failing(why), _) => log::warn!(target: "announce", "cannot announce to {to}: {why}"),
            (_, State::Failing(_)) => log::info!(target: "announce", "announcing {url} to {to} again"),
            _ => log::info!(target: "announce", "announcing {url} to {to}"),
        }
        self.state = state;
    }
}
