//! Which member of a balancer a session goes to. [`how`] is what the option says.

pub mod how;

pub use how::{Balance, HashKey};
