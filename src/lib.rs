//! beacond: machines make themselves known, and reachable.
#![forbid(unsafe_code)]

pub mod bytes;
pub mod clock;
pub mod members;
pub mod state_text;
pub mod stats;
pub mod views;
pub mod wheel;
