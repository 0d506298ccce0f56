//! Commands that do one thing and end.

pub mod check;
pub mod completions;
