//! Looking into a running daemon, and telling it things: the report, the control socket, and its client.

pub mod client;
pub mod connection;
pub mod control;
pub mod request;
pub mod status;
