//! The options of the role `proxy`. What they come to is in [`super::settings`].

use crate::options::{Opt, Role, Story, Table};

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "proxy",
    story: Story::Found,
    table: Table::Reads,
    summary: "take connections and pass them on to a balancer's members",
    about: "A TCP proxy: each connection is passed on to a member of a balancer, to a fixed host, or through an HTTP \
            proxy, by the server name or protocol of its TLS hello, by the host that a PROXY header names, or all the \
            same way. TLS is looked at, never ended: no key is needed and no byte is changed.\n\n\
            Routes are compared by strength, not in their order: a server name, the longest wildcard over it, the \
            authority of a PROXY header or the longest wildcard over that, the first of the client's protocols that a \
            route names, default. What nothing matches is closed. beacond explain says which route a session would take, and why.",
    options: OPTIONS,
};

/// A row with one value.
const fn one(name: &'static str, arg: &'static str, default: &'static str, help: &'static str) -> Opt {
    Opt { name, arg, repeat: false, default, help }
}

/// A row whose option may be repeated.
const fn many(name: &'static str, arg: &'static str, help: &'static str) -> Opt {
    Opt { name, arg, repeat: true, default: "", help }
}

/// A row of an option that stands alone.
const fn flag(name: &'static str, help: &'static str) -> Opt {
    one(name, "", "", help)
}

const OPTIONS: &[Opt] = &[
    one(
        "listen",
        "ADDR",
        "",
        "Where to take connections, [scheme://][host]:port; the scheme is ignored, IPv6 stands in brackets, and the \
         host is 0.0.0.0 if left out. Required, unless --env gives it.",
    ),
    one(
        "balancer",
        "NAME",
        "default",
        "The balancer to whose members connections go when there is no --route. A leading balancer:// is dropped.",
    ),
    many(
        "route",
        "MATCH=TARGET",
        "Where connections of one kind go. MATCH is a server name, *.NAME for all names under it, authority:NAME \
         (with accept-proxy; *. too), alpn:NAME or default; TARGET is balancer:NAME, HOST:PORT, connect:HOST:PORT \
         for an HTTP proxy, or reject. Once there is a route, only what one matches is passed on.",
    ),
    flag(
        "sniff",
        "Read the TLS hello of each connection before passing it on. Implied by a route for a server name or \
         protocol, and by --require-sni.",
    ),
    flag("require-sni", "Close connections whose first bytes are no TLS hello with a server name."),
    flag(
        "accept-proxy",
        "Wait for a PROXY header, version 1 or 2, before anything else, and believe what it says about the client. \
         A connection without one is closed: to guess would let anybody forge an address.",
    ),
    many(
        "accept-proxy-from",
        "CIDR",
        "Believe the PROXY headers of these neighbours only; whoever else connects is closed at once, as denied. \
         Without it everybody is believed, so that anybody who can connect can say to be anybody.",
    ),
    one(
        "hello-timeout",
        "TIME",
        "5",
        "How long PROXY header and hello together may take, at least 100ms. The PROXY specification asks for 3 \
         seconds or more: one lost packet and its repetition.",
    ),
    one(
        "hello-size",
        "SIZE",
        "16389",
        "How long a hello may be, from 512 to 64k; a longer one is closed. The default is one full TLS record with its header; real hellos \
         have some 2,000 bytes.",
    ),
    one(
        "server-first",
        "TIME",
        "",
        "Let a connection go on that has sent nothing for this long, as one without a hello: its protocol may be one \
         in which the server speaks first. At least 10ms and less than --hello-timeout. Off by default: \
         such a connection is closed at --hello-timeout.",
    ),
    many(
        "allow",
        "CIDR",
        "Take connections of these clients only; without it, of all. The client is whom the PROXY header names, else \
         who connected.",
    ),
    many("deny", "CIDR", "Take no connection of these clients, even where --allow names them."),
    one(
        "auth",
        "unix:PATH",
        "",
        "Ask at this socket about each session before it is passed on: one line of JSON out, allow [TARGET] or \
         deny REASON back. The client's bytes wait meanwhile.",
    ),
    one("auth-timeout", "TIME", "2", "How long an answer may take, at least 10ms. Later ones are failures."),
    one(
        "auth-cache",
        "TIME",
        "0",
        "How long an answer holds for further sessions that ask the same; 0 is not at all, so that a withdrawn \
         permission is withdrawn at once.",
    ),
    flag(
        "auth-fail-open",
        "Let a session pass, by the routes, for which there is no verdict: nobody answers, not in time, or not so \
         that it can be understood. Without it such a session is closed. A denial is always obeyed.",
    ),
    one(
        "max-sessions",
        "N",
        "",
        "How many sessions there may be at once; further connections wait in the kernel, --backlog of them. By \
         default, and at most, as many as the limit of open files has room for, two for each; the number is said \
         at start.",
    ),
    one(
        "max-sessions-per-source",
        "N",
        "0",
        "How many sessions one client may have: one IPv4 address, or an IPv6 network of 64 bits, which is what one \
         customer has. 0 is no limit: many clients may share one address.",
    ),
    one(
        "max-hello",
        "N",
        "1024",
        "How many sessions may be at their first bytes; when one more comes the oldest is closed. It bounds what \
         slow or silent clients can hold: 16 MiB with the default of --hello-size, and up to 64 MiB more with \
         --accept-proxy, for a header may have 64 KiB.",
    ),
    one(
        "balance",
        "HOW",
        "p2c",
        "How a member is picked: p2c, the less loaded of two taken by chance, which neither herds nor costs more with \
         many members; leastconn, the least loaded; roundrobin, one after the other by weight; hash, hash:sni or \
         hash:authority, always the same one for one source, server name or authority, while it has no more than \
         1.25 times its share of the sessions.",
    ),
    one(
        "slow-start",
        "TIME",
        "30",
        "Raise the share of a new or returned member to its full weight over this long, for its caches are cold; 0 \
         is at once. Those that are there first have it at once.",
    ),
    one(
        "connect-timeout",
        "TIME",
        "2",
        "How long a member may take to accept, at least 10ms; then the next one is tried, three at most. The default \
         has room for one lost packet, which the kernel repeats after 1 second.",
    ),
    one(
        "connect-deadline",
        "TIME",
        "5",
        "How long looking a name up, all tries to connect and an HTTP proxy's answer may take together, at least \
         --connect-timeout: people give up soon after.",
    ),
    one(
        "on-evict",
        "keep|drain:TIME|cut",
        "keep",
        "What becomes of the sessions of a member that is evicted: they go on, are cut after TIME, or at once. A \
         member that fell silent may be well and only its announcements lost, so they go on by default.",
    ),
    one("on-leave", "keep|drain:TIME|cut", "keep", "The same for a member that said goodbye."),
    one(
        "idle-timeout",
        "TIME",
        "10min",
        "End a session in which no byte has moved for this long; 0 is never. The default outlasts the keep-alive of \
         common clients and servers, which is mostly below 5 minutes.",
    ),
    one(
        "half-close-timeout",
        "TIME",
        "60",
        "The same once one side has ended its half; 0 is never. A late answer may take its time; a peer that has \
         gone away must not be waited for as long as one that lives.",
    ),
    one(
        "max-buffered",
        "SIZE",
        "64m",
        "How much memory the bytes of all sessions may take that one side sent and the other has not yet taken, at \
         least 256k. While it is reached each session reads no more than 4 KiB at a time.",
    ),
    flag(
        "no-splice",
        "Copy all bytes. Otherwise, on Linux, the kernel moves those of sessions in bulk without a copy (splice).",
    ),
    one(
        "send-proxy",
        "v1|v2",
        "",
        "Begin each connection that is made, to a member, a host or an HTTP proxy, with a PROXY header of this \
         version. Version 2 passes on authority, ALPN, unique id and TLS details of a header that came in; the server \
         name stands in for an authority that did not.",
    ),
    many(
        "header",
        "NAME: VALUE",
        "Send this header to the HTTP proxy of a connect: target. {client_ip}, {client_ip_hex}, {client_port}, \
         {sni}, {authority}, {hostname} and {country} in the value are replaced.",
    ),
    one(
        "header-file",
        "FILE",
        "",
        "More such headers, one a line, at most 64k of them; blank lines and lines that begin with # are skipped. \
         Of the same name, those of --header alone are sent.",
    ),
    one("country", "CC", "", "What {country} stands for: the two letters of the country this host is in."),
    one(
        "resolve-interval",
        "TIME",
        "60",
        "Look up the names of targets again this often, at least 1 second: most names have a time to live of a \
         minute or more.",
    ),
    one(
        "drain-timeout",
        "TIME",
        "15",
        "How long sessions may go on after SIGTERM, or after a reload that takes this section away; what is left then \
         is reset. 0 is not at all. Service managers mostly wait 90 seconds before they kill.",
    ),
    flag(
        "access-log",
        "Log each session at its end: one line, at level info. Without it those that end well are logged at debug, \
         and of the others at most one a second at warn.",
    ),
    one(
        "dump",
        "DIR",
        "",
        "Keep the first bytes of sessions refused for them, or that no route matches, as files in this folder, \
         which must exist; readable by this user alone, for beacond decode hello and decode proxy. Ten at once, \
         then one a second.",
    ),
    one(
        "dump-files",
        "N",
        "64",
        "How many such files there may be of each kind, hello and proxy, at most 65536; then the oldest is written \
         over. With the default they take 2 MiB a kind if each has the most that is kept, 16 KiB.",
    ),
    one(
        "accept-batch",
        "N",
        "64",
        "How many connections are taken in one go, at most 1024, before the bytes of others are moved.",
    ),
    one(
        "backlog",
        "N",
        "1024",
        "How many connections may wait in the kernel to be taken, at most 65535. Linux caps it at \
         net.core.somaxconn, 4096 by default.",
    ),
    flag(
        "env",
        "Take defaults from the environment: ENVOY_IP and ENVOY_PORT for --listen (127.0.0.1 and 8000), \
         ENVOY_UPSTREAM for --route default=connect: (localhost:10000), ENVOY_COUNTRY for --country (US), \
         ENVOY_ACCEPTORS for --accept-batch, and for --header ENVOY_HEADERS, lines or parts between |, and \
         ENVOY_REGION_KEY and ENVOY_SESSION_KEY, the names (x-region-key, x-session-key) under which {country} and \
         {client_ip_hex} are sent. An option that is written wins.",
    ),
];
