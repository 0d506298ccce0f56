//! The built-in TCP proxy: what a session's first bytes say.
//!
//! [`ppv2`] reads and writes the header by which a proxy in front, or behind, is told who the client is; [`hello`] finds
//! in a TLS ClientHello where the client wants to go.

pub mod end;
pub mod flight;
pub mod hello;
pub mod pair;
pub mod ppv2;
pub mod splice;
