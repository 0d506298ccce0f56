//! The sink `exec`: a command of the operator's is run for each change of a balancer's members.

mod deliveries;

use crate::options::{Opt, Role, Story, Table};

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "exec",
    story: Story::Found,
    table: Table::Reads,
    summary: "run a command for each change of the members",
    about: "Runs a command for each change, one at a time and with the latest state of the member; after a start every \
            member that is up is delivered again. The command finds BEACOND_EVENT (up, down, left or forgotten), \
            BEACOND_BALANCER, BEACOND_URL, BEACOND_HOST, BEACOND_PORT and BEACOND_WEIGHT in its environment, and all \
            members that are up on its standard input, one URL and weight a line.",
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
