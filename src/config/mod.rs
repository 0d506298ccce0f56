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
pub mod env;
pub mod file;
pub mod global;
pub mod grammar;
pub mod plan;
mod print;
mod section;
pub mod values;

pub use section::{Builder, Given, Section};

use crate::options;
use std::rc::Rc;
use std::{fmt, io};

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
    /// In the environment: the variables, and whether they are set.
    Env(&'static str),
    /// Nowhere: it is the option's default.
    Default,
}

impl Origin {
    /// Whether it was written as an option, so that it wins over what was not.
    #[must_use]
    pub fn is_written(&self) -> bool {
        matches!(self, Origin::Argv { .. } | Origin::File { .. })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Argv { word } => write!(f, "argument {word}"),
            Origin::File { path, line } => write!(f, "{}:{line}", Shown(path)),
            Origin::Env(variables) => f.write_str(variables),
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
    /// same one in the file. A section that asks for it has its defaults from the environment.
    ///
    /// # Errors
    /// A file that cannot be read or whose text is wrong; a variable that is wrong.
    pub fn load(source: &argv::Source, host: &str) -> Result<Config, Error> {
        let (global, mut roles) = match source {
            argv::Source::Words { global, roles } => (global.clone(), roles.clone()),
            argv::Source::File { global, path } => {
                let (below, roles) = file::load(path, host)?;
                (global.over(below), roles)
            }
        };
        for section in &mut roles {
            let name = section.role().name;
            let environment = options::environments().iter().find(|(role, _)| *role == name);
            if let Some((_, environment)) = environment.filter(|_| section.flag("env")) {
                let lookup = |name: &str| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
                let written = section.values().iter().filter(|v| v.origin.is_written());
                let written: Vec<_> = written.map(|v| (v.opt.name, v.text.as_str())).collect();
                let values = environment(&written, &lookup).map_err(Error::text)?;
                *section = section.with_env(values, host);
            }
        }
        Ok(Config { global, roles })
    }
}

/// This host's name: what `{hostname}` stands for.
#[must_use]
pub fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
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

    /// Standard output took no more. Whoever has read enough of it wants to hear no more either: no message, and
    /// status 0.
    #[must_use]
    pub fn output(e: &io::Error) -> Error {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Error { status: 0, message: String::new() },
            _ => Error::world(format!("standard output: {e}")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Shows text that somebody typed on one line of a message: control characters escaped, cut when it is long, and
/// without the login of a url, for messages end up in logs.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 120;
        let text = match self.0.rsplit_once('@') {
            Some((login, rest)) if login.contains(':') => {
                f.write_str("...@")?;
                rest
            }
            _ => self.0,
        };
        for c in text.chars().take(LONGEST) {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        if text.chars().nth(LONGEST).is_some() { f.write_str("...") } else { Ok(()) }
    }
}
