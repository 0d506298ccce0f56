//! The sink `exec`: a command of the operator's is run for each change of a balancer's members.
//!
//! Here: its options and what they come to. `deliveries` knows what the command must be told, [`service`] runs it.

mod deliveries;
pub mod service;

use crate::config::plan::Ground;
use crate::config::{Error, Section, values};
use crate::options::{Opt, Role, Story, Table};
use crate::reactor::Planned;
use std::time::Duration;

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "exec",
    story: Story::Found,
    table: Table::Reads,
    summary: "run a command for each change of the members",
    about: "Runs a command for each change, one at a time and with the latest state of the member; after a start every \
            member that is up is delivered again. The command finds BEACOND_EVENT (up, down, left or forgotten), \
            BEACOND_BALANCER, BEACOND_URL, BEACOND_HOST, BEACOND_PORT and BEACOND_WEIGHT in its environment, and all \
            members that are up on its standard input, one URL and weight a line. BEACOND_SETTLED is 1 once that list \
            is complete, one timeout after the start; before that, and with a timeout of 0, a member that is missing \
            may only not have been heard yet. What ends with another status than 0 is delivered again, first after \
            1 s and then ever more slowly up to once a minute. Standard error goes to the log, 20 lines of a run at \
            most; standard output goes nowhere. In status it is exec: and the program's name; of several sections that \
            run one program for one balancer, all but the first have a number behind that, as in exec:sh@2.",
    options: &[
        Opt {
            name: "command",
            arg: "COMMAND",
            repeat: false,
            default: "",
            help: "The command, split on blanks; \"...\" keeps blanks together. No shell reads it. Required.",
        },
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer whose members are followed. A leading balancer:// is dropped.",
        },
        Opt {
            name: "exec-timeout",
            arg: "TIME",
            repeat: false,
            default: "30",
            help: "Kill the command, and every process it started in its group, after this long; at least 100ms. The \
                   change is delivered again later.",
        },
    ],
};

/// What a section comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What the sink is known by: the program, and a number if there is more than one of it for the balancer.
    pub name: String,
    /// The balancer whose members are followed.
    pub balancer: String,
    /// When a run is killed.
    pub timeout: Duration,
}

/// Reads the section: a sink ready to start.
///
/// # Errors
/// The first option that is wrong.
pub fn plan(section: &Section, ground: &mut Ground<'_>) -> Result<Planned, Error> {
    let command = section.need("command", values::command)?;
    let mut name = values::program(&command).to_owned();
    if let Some(nth) = ground.twin.filter(|nth| *nth > 1) {
        name.push_str(&format!("@{nth}"));
    }
    let config = Config {
        command,
        name,
        balancer: section.need("balancer", values::balancer_name)?,
        timeout: section.need("exec-timeout", values::duration_from(Duration::from_millis(100)))?,
    };
    Ok(Planned { service: Box::new(service::Exec::new(config)), fingerprint: section.fingerprint() })
}
