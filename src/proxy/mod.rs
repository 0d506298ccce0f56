//! The built-in TCP proxy.
//!
//! - What a session's first bytes say: [`ppv2`] reads and writes the header by which a proxy in front, or behind, is
//!   told who the client is; [`hello`] finds in a TLS ClientHello where the client wants to go; [`flight`] puts the two
//!   together; [`dump`] keeps those that were refused.
//! - Where it goes: [`access`] says who may in, [`routes`] where to, [`verdict`] asks somebody else, [`balance`] picks
//!   the member, [`tunnel`] goes through an HTTP proxy, [`upstreams`] knows the addresses of names.
//! - How it goes on: [`pair`] is the life of two joined connections, [`splice`] lends pipes, [`end`] names the ends,
//!   [`ledger`] keeps the accounts.
//! - Its options are in [`role`], their values in [`settings`] and [`rules`]; `service` and the files it names hold the
//!   sockets.

pub mod access;
pub mod balance;
mod dial;
mod door;
pub mod dump;
pub mod end;
pub mod env;
mod ending;
pub mod flight;
pub mod header;
pub mod hello;
pub mod ledger;
mod opening;
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
