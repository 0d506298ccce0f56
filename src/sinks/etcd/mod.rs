//! etcd.

pub mod base64;
pub mod layout;
pub mod mirror;
pub mod wire;
