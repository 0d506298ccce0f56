//! beacond: machines make themselves known, and reachable.
#![forbid(unsafe_code)]

pub mod beacon;
pub mod bytes;
pub mod clock;
pub mod secret;
pub mod tools;
pub mod url;
