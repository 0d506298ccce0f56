//! Sinks: what follows a balancer's members, each in its own server's language.

#[cfg(feature = "exec")]
pub mod exec;
#[cfg(feature = "haproxy")]
pub mod haproxy;
