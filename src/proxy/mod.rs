//! The built-in TCP proxy: what a session's first bytes say.
//!
//! [`ppv2`] reads and writes the header by which a proxy in front, or behind, is told who the client is; [`hello`] finds
//! in a TLS ClientHello where the client wants to go; [`report`] shows what a proxy carries.

pub mod hello;
pub mod ppv2;
pub mod report;
