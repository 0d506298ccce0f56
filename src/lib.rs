//! beacond: machines make themselves known, and reachable.
#![forbid(unsafe_code)]

pub mod beacon;
pub mod bytes;
pub mod clock;
pub mod config;
pub mod http1;
pub mod options;
pub mod sinks;
pub mod stats;
pub mod members;
pub mod state_text;
pub mod stats;
pub mod views;
pub mod wheel;
pub mod secret;
pub mod tools;
pub mod url;
pub mod help;
pub mod options;
pub mod sinks;
pub mod tools;
pub mod sinks;
