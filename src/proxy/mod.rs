//! The built-in TCP proxy: what a session's first bytes say, where it goes, and the two legs between which bytes flow.
//!
//! [`ppv2`] reads and writes the header by which a proxy in front, or behind, is told who the client is.

pub mod ppv2;
