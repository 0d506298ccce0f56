//! Beacons: signed datagrams by which backends announce themselves to a load balancer, as Apache httpd's
//! mod_proxy_beacon defined them.

#[cfg(feature = "announce")]
pub mod announce;
#[cfg(feature = "announce")]
pub mod health;
#[cfg(feature = "listen")]
pub mod listen;
