//! The tool `check`: everything a start does to a configuration, short of touching the network.

use crate::config::argv::Source;
use crate::config::{Config, Error, Origin};
use std::io::{self, Write};

/// Judges a whole configuration as a start does, values and files, and says what is most likely not meant.
pub type Judge = dyn Fn(&Config) -> Result<Vec<String>, Error>;

/// Reads the configuration and has it judged. Writes warnings, every value in effect when `show`
/// is asked for, and `ok`.
///
/// # Errors
/// The first thing that is wrong; then nothing is written.
pub fn run(source: &Source, show: bool, host: &str, judge: &Judge, out: &mut dyn Write) -> Result<(), Error> {
    let config = Config::load(source, host)?;
    let warnings = judge(&config)?;
    let mut print = || -> io::Result<()> {
        if show {
            write_values(&config, out)?;
        }
        for warning in &warnings {
            writeln!(out, "warning: {warning}")?;
        }
        writeln!(out, "ok")?;
        out.flush()
    };
    print().map_err(|e| Error::world(format!("standard output: {e}")))
}

/// Every value in effect, in the order of the table, as a line of a file would say it, and its origin. A file that
/// holds secrets is named, not shown.
fn write_values(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    for section in std::iter::once(&config.global).chain(&config.roles) {
        if !section.role().name.is_empty() {
            writeln!(out, "\n[{}]  ({})", section.role().name, section.at())?;
        }
        for opt in section.role().options {
            for value in section.values().iter().filter(|v| v.opt.name == opt.name) {
                let text = [opt.name, &value.text].join(" ");
                let origin = match &value.origin {
                    Origin::Default => "default".to_owned(),
                    given => given.to_string(),
                };
                writeln!(out, "{}  ({origin})", text.trim_end())?;
            }
        }
    }
    writeln!(out)
}
