//! Commands that do one thing and end. Each is a function of plain arguments; the command line is read elsewhere.

pub mod decode;
pub mod keygen;
