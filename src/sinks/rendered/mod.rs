//! What sinks share that render all members into one file: nginx's include and the formats of [`layout`].
//!
//! Here: what their options come to. [`machine`] decides when the file is written and what follows; [`layout`] says what
//! is in it; [`service`] reads, writes, runs commands and asks, each off the loop or with a deadline.

mod hangup;
pub mod layout;
mod list;
pub mod machine;
mod run;
pub mod service;

use crate::http1::HttpUrl;
use crate::reactor::Care;
use layout::Layout;
use machine::{Pace, Ways};
use std::path::{Path, PathBuf};

/// What the options come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The role's name, also that of its log lines.
    pub role: &'static str,
    /// The balancer's name.
    pub balancer: String,
    /// The file.
    pub file: PathBuf,
    /// How it is written.
    pub layout: Layout,
    /// The care that it is written with.
    pub care: Care,
    /// When.
    pub pace: Pace,
    /// Where the generation is written, if it is.
    pub generation: Option<PathBuf>,
    /// What tests it.
    pub test: Option<Vec<String>>,
    /// What has it loaded.
    pub reload: Option<Reload>,
    /// Where the generation is read back.
    pub verify: Option<HttpUrl>,
}

/// How somebody is told of a new file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reload {
    /// By this command.
    Command(Vec<String>),
    /// By HUP to the process whose number is in this file.
    Hangup(PathBuf),
}

impl Config {
    /// What the sink is called in logs and in `status`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}:{}", self.role, self.file.display())
    }

    /// What belongs to writing the file.
    #[must_use]
    pub fn ways(&self) -> Ways {
        Ways {
            generation: self.generation.is_some(),
            test: self.test.is_some(),
            reload: self.reload.is_some(),
            verify: self.verify.is_some(),
        }
    }

    /// The copy of what last passed all steps: a dot keeps it from who reads every file of the folder.
    #[must_use]
    pub fn good(&self) -> PathBuf {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.file.with_file_name(format!(".{name}.good"))
    }
}

/// The path of a file to write: it has a name, and no blank ends.
///
/// # Errors
/// What is wanted.
pub fn path(value: &str) -> Result<PathBuf, String> {
    let path = Path::new(value);
    let named = path.file_name().is_some() && !value.ends_with('/');
    if named && path.is_absolute() { Ok(path.to_owned()) } else { Err("the full path of a file".to_owned()) }
}
