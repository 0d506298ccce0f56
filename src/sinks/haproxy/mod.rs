//! The sink `haproxy`: an unmodified HAProxy follows a balancer's members through its runtime API.

pub mod commands;
pub mod machine;
pub mod notes;
pub mod replies;

use crate::options::{Opt, Role, Story, Table};

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "haproxy",
    story: Story::Found,
    table: Table::Reads,
    summary: "make a backend of HAProxy follow the members",
    about: "Adds, enables, drains, disables and removes servers of one HAProxy backend through the runtime API \
            (stats socket PATH level admin), so that they match the members of a balancer. After every change, and \
            at every interval, it reads back what HAProxy has; a restarted or reloaded HAProxy is filled again. \
            Servers it did not add are left alone, and an operator's maintenance wins. HAProxy 2.6 or later.",
    options: &[
        Opt {
            name: "socket",
            arg: "PATH|HOST:PORT",
            repeat: false,
            default: "",
            help: "HAProxy's runtime API: the path of its stats socket, or an address and port. Required.",
        },
        Opt {
            name: "backend",
            arg: "NAME",
            repeat: false,
            default: "",
            help: "The backend whose servers follow the members. It must use dynamic load balancing, such as \
                   roundrobin or leastconn. Required.",
        },
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer whose members are followed. A leading balancer:// is dropped.",
        },
        Opt {
            name: "prefix",
            arg: "TEXT",
            repeat: false,
            default: "b-",
            help: "What the names of our servers begin with, as in b-10.0.0.5:8080. Other servers of the backend are \
                   never touched.",
        },
        Opt {
            name: "server-options",
            arg: "TEXT",
            repeat: false,
            default: "check inter 2s rise 1 fall 2 pool-max-conn 50 pool-purge-delay 5s",
            help: "What is appended to add server. With check a new server takes traffic once its first check has \
                   passed. The pool is bounded because idle connections keep a server from being deleted.",
        },
        Opt {
            name: "every",
            arg: "TIME",
            repeat: false,
            default: "5",
            help: "How often HAProxy's servers are read back and compared when nothing has changed, at least 100ms.",
        },
        Opt {
            name: "grace",
            arg: "TIME",
            repeat: false,
            default: "30",
            help: "How long a member that said goodbye may finish its requests before its server is removed.",
        },
    ],
};
