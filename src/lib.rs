//! beacond: machines make themselves known, and reachable.
#![forbid(unsafe_code)]

pub mod bytes;
pub mod clock;
pub mod wheel;
