//! The built-in TCP proxy.
//!
//! - What a session's first bytes say: [`ppv2`] reads and writes the header by which a proxy in front, or behind, is
//!   told who the client is; [`hello`] finds in a TLS ClientHello where the client wants to go; [`flight`] puts the two
//!   together; [`dump`] keeps those that were refused.
//! - Where it goes: [`access`] says who may in, [`routes`] where to, [`verdict`] asks somebody else, [`balance`] picks
//!   the member, [`tunnel`] goes through an HTTP proxy, [`upstreams`] knows the addresses of names.
//! - How it goes on: [`pair`] is the life of two joined connections, [`splice`] lends pipes, [`end`] names the ends,
//!   [`ledger`] keeps the accounts.
//! - Its options are in `role`, their values in [`settings`] and `rules`; `service` and the files it names hold the
//!   sockets.

pub mod access;
pub mod balance;
mod dial;
mod door;
pub mod dump;
pub mod end;
mod ending;
pub mod env;
pub mod flight;
pub mod hello;
pub mod ledger;
pub mod limits;
mod opening;
mod overview;
pub mod pair;
mod pools;
pub mod ppv2;
mod relay;
pub mod report;
mod role;
pub mod routes;
mod rules;
mod service;
mod session;
pub mod settings;
pub mod splice;
pub mod tunnel;
pub mod upstreams;
pub mod verdict;

pub use role::ROLE;

use crate::config::plan::Ground;
use crate::config::{Error, Section, host_name};
use crate::reactor::Planned;
use rules::Rules;
use settings::Settings;
use tunnel::Template;

/// Reads the section and its file of headers: a proxy ready to start.
///
/// # Errors
/// The first option or file that is wrong.
pub fn plan(section: &Section, ground: &mut Ground<'_>) -> Result<Planned, Error> {
    let routes = settings::routes(section)?;
    let settings = Settings::from_section(section, &routes)?;
    settings::check_dump_folder(section, &settings)?;
    let address = ground.address.ok_or_else(|| section.wrong("listen", "an address with a port"))?;
    let headers = Template(settings.headers.clone());
    // The bytes of the file of headers count as the section's own.
    let fingerprint = format!("{}{headers:?}", section.fingerprint());
    let rules = Rules {
        access: settings::access(section)?,
        hostname: host_name(),
        proxies: ground.alike,
        settings,
        routes,
        headers,
    };
    Ok(Planned { service: Box::new(service::Proxy::new(address, rules)), fingerprint })
}
