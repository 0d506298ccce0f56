//! The options of the whole process.

use super::section::Section;
use super::{Error, values};
use log::LevelFilter;
use std::path::PathBuf;

/// The global options as values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Global {
    /// How much is logged.
    pub log_level: LevelFilter,
    /// Whether log lines begin with the time.
    pub log_stamp: bool,
    /// The control socket, where one was asked for.
    pub control: Option<PathBuf>,
    /// The state file.
    pub state: Option<PathBuf>,
    /// The user to become.
    pub user: Option<String>,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
}

impl Global {
    /// The values of the global section.
    ///
    /// # Errors
    /// The first value that is wrong.
    pub fn from_section(section: &Section) -> Result<Global, Error> {
        let path = |name| section.get(name, |text| Ok(PathBuf::from(text)));
        Ok(Global {
            log_level: section.need("log-level", values::level)?,
            log_stamp: section.flag("log-stamp"),
            control: section.get("control", values::socket_path)?,
            state: path("state")?,
            user: section.get("user", values::text)?,
            pid_file: path("pid-file")?,
        })
    }
}
