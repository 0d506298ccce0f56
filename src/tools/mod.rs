//! Commands that do one thing and end. Each is a function of plain arguments; the command line is read elsewhere.

pub mod decode;
pub mod keygen;
//! Commands that do one thing and end.

pub mod check;
pub mod completions;
