//! The role `proxy`: what a session's first bytes say, and what is decided by them.
//!
//! [`ppv2`] reads and writes the header by which a proxy in front, or behind, is told who the client is; [`hello`] finds
//! in a TLS ClientHello where the client wants to go. [`routes`] and [`access`] decide, [`balance`] picks a member.
//! [`role`] has the rows of its options, [`settings`] what they come to, [`mod@env`] those that the environment gives.

pub mod access;
pub mod balance;
pub mod env;
pub mod header;
pub mod hello;
pub mod ppv2;
pub mod role;
pub mod routes;
pub mod settings;

pub use role::ROLE;
