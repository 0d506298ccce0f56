//! Commands that do one thing and end. Each is a function of plain arguments; the command line is read elsewhere.

pub mod check;
pub mod completions;
pub mod decode;
#[cfg(all(feature = "announce", feature = "listen", feature = "proxy"))]
pub mod demo;
#[cfg(feature = "proxy")]
pub mod explain;
pub mod keygen;
pub mod rows;
pub mod status;
pub mod trace;
