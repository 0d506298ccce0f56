//! The built-in TCP proxy: what a session's first bytes say, who has a say in it, and how it goes on through another
//! proxy.
//!
//! [`ppv2`] reads and writes the header by which a proxy in front, or behind, is told who the client is; [`hello`] finds
//! in a TLS ClientHello where the client wants to go; [`dump`] keeps those of both that were refused. [`verdict`] asks
//! somebody else whether a session may go on, [`tunnel`] takes it through an HTTP proxy.

pub mod end;
pub mod flight;
pub mod dump;
pub mod hello;
pub mod pair;
pub mod ppv2;
pub mod splice;
pub mod tunnel;
pub mod verdict;
