//! The tool `check`: everything a start does to a configuration, short of touching the network.

use crate::config::argv::Source;
use crate::config::plan::{Plan, plan};
use crate::config::values::HostPort;
use crate::config::{Config, Error, Origin, Section};
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
    let plan = plan(&config.roles)?;
    let mut print = || -> io::Result<()> {
        if show {
            write_values(&config, &plan, out)?;
        }
        for warning in &warnings {
            writeln!(out, "warning: {warning}")?;
        }
        writeln!(out, "ok")?;
        out.flush()
    };
    print().map_err(|e| Error::output(&e))
}

/// Every value in effect, in the order of the table, as a line of a file would say it, and its origin. A file that
/// holds secrets is named, not shown.
fn write_values(config: &Config, plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    write_section(&config.global, None, &Origin::Default, out)?;
    let addresses = plan.addresses.iter().zip(&plan.lenders);
    for (section, (address, lender)) in config.roles.iter().zip(addresses) {
        writeln!(out, "\n[{}]  ({})", section.role().name, section.at())?;
        write_section(section, address.as_ref(), lender.as_ref().unwrap_or(&Origin::Default), out)?;
    }
    writeln!(out)
}

/// `address`: where the section listens, completed by what it leaves out; `lender`: where that comes from if it says
/// nothing itself.
fn write_section(
    section: &Section,
    address: Option<&HostPort>,
    lender: &Origin,
    out: &mut dyn Write,
) -> io::Result<()> {
    for opt in section.role().options {
        if let ("listen", Some(address)) = (opt.name, address) {
            let given = section.values().iter().find(|v| v.opt.name == opt.name);
            let origin = given.map_or(lender, |v| &v.origin);
            write_value(opt.name, &address.to_string(), origin, out)?;
            continue;
        }
        for value in section.values().iter().filter(|v| v.opt.name == opt.name) {
            write_value(opt.name, &value.text, &value.origin, out)?;
        }
    }
    Ok(())
}

fn write_value(name: &str, text: &str, origin: &Origin, out: &mut dyn Write) -> io::Result<()> {
    let line = [name, text].join(" ");
    match origin {
        Origin::Default => writeln!(out, "{}  (default)", line.trim_end()),
        given => writeln!(out, "{}  ({given})", line.trim_end()),
    }
}
