//! Configuration: a section is a command line.
//!
//! ```text
//! [listen]                     beacond listen --timeout=20 + haproxy --backend=web --socket=/run/haproxy/admin.sock
//! timeout  20
//! [haproxy]
//! backend  web
//! socket   /run/haproxy/admin.sock
//! ```
//!
//! `section` holds one role's checked options, `values` their types. Options are judged by getopts, built from the
//! table of `crate::options`, one line or word at a time, so that an error names the very line. `grammar` and `file`
//! read files, `argv` reads command lines, `global` and `plan` say what they mean for the whole process. Nothing here
//! opens a socket.

pub mod argv;
pub mod file;
pub mod global;
pub mod grammar;
pub mod plan;
mod print;
mod section;
pub mod values;

pub use section::{Builder, Given, Section};

use std::fmt;
use std::rc::Rc;

/// Where something of the configuration was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// On the command line, as this word after the program's name, counted from 1.
    Argv {
        /// The word's number.
        word: usize,
    },
    /// In a file.
    File {
        /// The file's path as it was named.
        path: Rc<str>,
        /// The line, counted from 1.
        line: usize,
    },
    /// Nowhere: it is the option's default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Argv { word } => write!(f, "argument {word}"),
            Origin::File { path, line } => write!(f, "{}:{line}", Shown(path)),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The global options.
    pub global: Section,
    /// The roles, in the order in which they were written.
    pub roles: Vec<Section>,
}

impl Config {
    /// The configuration that the command line holds or names. A global option on the command line wins over the
    /// same one in the file.
    ///
    /// # Errors
    /// A file that cannot be read or whose text is wrong.
    pub fn load(source: &argv::Source, host: &str) -> Result<Config, Error> {
        match source {
            argv::Source::Words { global, roles } => {
                Ok(Config { global: global.clone(), roles: roles.clone() })
            }
            argv::Source::File { global, path } => {
                let (below, roles) = file::load(path, host)?;
                Ok(Config { global: global.over(below), roles })
            }
        }
    }
}

/// Why the configuration cannot be used: one line, and the status to exit with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// 2: the text of options or a file is wrong. 1: the world is wrong, as a file that is not there.
    pub status: u8,
    /// The one line to print, without the program's name in front.
    pub message: String,
}

impl Error {
    /// The text of options or of a file is wrong.
    #[must_use]
    pub fn text(message: impl Into<String>) -> Error {
        Error { status: 2, message: message.into() }
    }

    /// The text is right and the world is wrong.
    #[must_use]
    pub fn world(message: impl Into<String>) -> Error {
        Error { status: 1, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Shows text that somebody typed on one line of a message: control characters escaped, cut when it is long.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 120;
        for c in self.0.chars().take(LONGEST) {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        if self.0.chars().nth(LONGEST).is_some() { f.write_str("...") } else { Ok(()) }
    }
}
