//! The role `announce`: makes a backend known to the receivers it names.

use crate::options::{Opt, Role, Story, Table};

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "announce",
    story: Story::Found,
    table: Table::Neither,
    summary: "announce this backend to its load balancer",
    about: "Sends a signed announcement to every receiver at once and then at every interval, and says goodbye when \
            it is stopped. With --check it announces only while the backend is healthy.",
    options: &[
        Opt {
            name: "address",
            arg: "ADDR",
            repeat: true,
            default: "",
            help: "A receiver, [scheme://]host[:port]; the scheme is ignored, the port is 5555 when left out, IPv6 \
                   stands in brackets. Each receiver gets every announcement. A name that does not resolve is tried \
                   again later.",
        },
        Opt {
            name: "advertise",
            arg: "URL",
            repeat: false,
            default: "",
            help: "The backend's URL, scheme://host:port. Without a host, as http://:8080, the source address used \
                   towards each receiver is filled in. Without the option a heartbeat is sent that makes nobody a \
                   member.",
        },
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer meant. When it is given, a beacond that listens for another balancer drops the \
                   announcement, so that one secret may serve two of them. A leading balancer:// is dropped.",
        },
        Opt {
            name: "secret-file",
            arg: "FILE",
            repeat: false,
            default: "",
            help: "The secrets, one a line; the first signs. Only this process's user, or a group of it, may be able \
                   to read the file.",
        },
        Opt {
            name: "sign",
            arg: "first|all",
            repeat: false,
            default: "first",
            help: "Sign with the first secret, or send one datagram for each secret: for a rotation towards receivers \
                   that know only one.",
        },
        Opt {
            name: "weak-secret",
            arg: "",
            repeat: false,
            default: "",
            help: "Accept a secret shorter than 22 characters, although a recorded datagram lets anybody guess such a \
                   secret offline, at millions of tries a second.",
        },
        Opt {
            name: "unauthenticated",
            arg: "",
            repeat: false,
            default: "",
            help: "Send unsigned announcements: for a laboratory.",
        },
        Opt {
            name: "interval",
            arg: "TIME",
            repeat: false,
            default: "5",
            help: "How often to announce, at least 100ms. The receiver's timeout should be three intervals or more.",
        },
        Opt {
            name: "no-jitter",
            arg: "",
            repeat: false,
            default: "",
            help: "Send exactly on the interval. Otherwise each gap varies by up to a tenth, so that many senders do \
                   not fall into step.",
        },
        Opt {
            name: "weight",
            arg: "N",
            repeat: false,
            default: "1",
            help: "The share of traffic asked for, 0 to 256, relative to the other members; 0 takes no new traffic.",
        },
        Opt {
            name: "resolve-interval",
            arg: "TIME",
            repeat: false,
            default: "60",
            help: "How often the receivers' names are looked up again, at least 1s.",
        },
        Opt {
            name: "host",
            arg: "NAME",
            repeat: false,
            default: "{hostname}",
            help: "The name this host gives itself in announcements; it is shown in status and logs only.",
        },
        Opt {
            name: "check",
            arg: "tcp:HOST:PORT|http:URL|exec:COMMAND",
            repeat: false,
            default: "",
            help: "Announce only while this check of the backend passes: a connection is accepted, a GET is answered \
                   with 2xx or 3xx, or a command ends with status 0.",
        },
        Opt {
            name: "check-interval",
            arg: "TIME",
            repeat: false,
            default: "2",
            help: "How often to check, at least 100ms.",
        },
        Opt {
            name: "check-timeout",
            arg: "TIME",
            repeat: false,
            default: "1",
            help: "A check that takes longer than this has failed.",
        },
        Opt {
            name: "rise",
            arg: "N",
            repeat: false,
            default: "2",
            help: "How many checks in a row must pass before the backend counts as healthy.",
        },
        Opt {
            name: "fall",
            arg: "N",
            repeat: false,
            default: "3",
            help: "How many checks in a row must fail before the backend counts as unhealthy.",
        },
        Opt {
            name: "leave-on-fail",
            arg: "",
            repeat: false,
            default: "",
            help: "Say goodbye when the check fails, instead of falling silent and being evicted by the timeout.",
        },
        Opt {
            name: "schemes",
            arg: "LIST",
            repeat: false,
            default: "http https",
            help: "The URL schemes that may be advertised, separated by blanks. Receivers admit by rules of their \
                   own; the same check is made here, so that a mistake shows where it is made.",
        },
        Opt {
            name: "allow-names",
            arg: "",
            repeat: false,
            default: "",
            help: "Advertise a URL with a host name, where every receiver allows names.",
        },
        Opt {
            name: "allow",
            arg: "CIDR[:PORT[-PORT]]",
            repeat: true,
            default: "",
            help: "Advertise only these addresses and ports; needed for an address that receivers refuse by default, \
                   such as loopback.",
        },
    ],
};
