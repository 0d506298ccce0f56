//! beacond: machines make themselves known, and reachable.
//!
//! The map of the house. A layer knows those below it only; no service names another.
//!
//! ```text
//!  main ──► daemon, assembly, config, tools                 what was asked for, and the one list of services
//!    services   beacon::{listen, announce}  sinks  proxy  state  admin     ──► reactor, own state, own wire, shared
//!    state      members  wheel  gate  diff  haproxy::machine  proxy::{pair, routes, balance}    in: (now, input);
//!               out: values. No I/O, no clock
//!    wire       beacon::wire  haproxy::replies  http1  proxy::{ppv2, hello}  state_text    bytes to values and back
//!    reactor    the loop, sockets, timers, the helper threads, signals: the only place with clocks and poll
//! ```
//!
//! One datagram's way: `reactor::udp` receives it, `beacon::gate` verifies and admits it, `members` notes it; if that
//! changed a level, the loop tells the sinks, and each compares what the table wants with what its balancer has.
//!
//! One connection's way: `proxy::door` accepts it and `proxy::flight` reads what it says first; `opening` lets it in and
//! finds its route, `dial` the member; from then on `pair` says which way bytes may flow, and `relay` moves them.
#![forbid(unsafe_code)]

pub mod admin;
pub mod assembly;
pub mod beacon;
pub mod bytes;
pub mod cidr;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod help;
pub mod http1;
pub mod http_client;
pub mod logging;
pub mod man;
pub mod members;
pub mod options;
pub mod process;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod reactor;
pub mod secret;
pub mod shared;
pub mod show;
pub mod sinks;
pub mod sorted;
pub mod state;
pub mod state_text;
pub mod stats;
pub mod taps;
pub mod tools;
pub mod url;
pub mod views;
pub mod wheel;
