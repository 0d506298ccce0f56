//! The `beacond` program: which of its commands to run, and how it ends.

use beacond::admin::request::{Request, trace_count, trace_time};
use beacond::cidr::Cidr;
use beacond::config::argv::{Invocation, Operand, Source, invocation};
use beacond::config::values;
use beacond::config::{Error, Section, host_name};
use beacond::taps::{self, Filter};
#[cfg(all(feature = "announce", feature = "listen", feature = "proxy"))]
use beacond::tools::demo;
use beacond::tools::{check, completions, decode, keygen, status, trace};
use beacond::{daemon, help};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let host = host_name();
    let words = std::env::args_os().skip(1);
    match invocation(words, &host).and_then(|what| obey(what, &host)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.status > 0 {
                eprintln!("beacond: {error}");
            }
            ExitCode::from(error.status)
        }
    }
}

fn obey(what: Invocation, host: &str) -> Result<(), Error> {
    match what {
        Invocation::Overview => print(&help::overview()),
        Invocation::Version => print(concat!("beacond ", env!("CARGO_PKG_VERSION"), "\n")),
        Invocation::Help(topic) => print(&help::topic(topic.as_deref())?),
        Invocation::Run(source) => daemon::run(source, host),
        Invocation::Study(tool, section, source) => study(tool.role.name, &section, &source, host),
        #[cfg(all(feature = "announce", feature = "listen", feature = "proxy"))]
        Invocation::Tool(tool, section, operands) if tool.role.name == "demo" => {
            none("demo", &operands)?;
            let level = section.need("log-level", values::level)?;
            demo::run(level, &|source| daemon::run(source, host), Box::new(io::stdout()))
        }
        Invocation::Tool(tool, section, operands) => self::tool(tool.role.name, &section, &operands),
    }
}

/// Looks into a configuration: the tool's own options, where the roles are, this host's name, and where to answer.
type Study = fn(&Section, &Source, &str, &mut dyn Write) -> Result<(), Error>;

/// The tools that do.
const STUDIES: &[(&str, Study)] = &[
    ("check", |own, source, host, out| check::run(source, own.flag("show"), host, &daemon::judge, out)),
    #[cfg(feature = "proxy")]
    ("explain", beacond::tools::explain::run),
];

fn study(name: &str, own: &Section, source: &Source, host: &str) -> Result<(), Error> {
    let known = STUDIES.iter().find(|(known, _)| *known == name);
    let (_, study) = known.ok_or_else(|| Error::text(format!("{name}: no such tool")))?;
    study(own, source, host, &mut io::stdout().lock())
}

fn tool(name: &str, section: &Section, operands: &[Operand]) -> Result<(), Error> {
    let control = || section.need("control", values::socket_path);
    match name {
        "completions" => print(&completions::script(only(name, "bash or zsh", operands)?)?),
        "decode" => decode(section, only(name, &decode::wanted(), operands)?),
        "keygen" => keygen(section, only(name, "secret or member", operands)?),
        "status" => {
            none(name, operands)?;
            let request = Request::Status { sessions: section.flag("sessions"), json: section.flag("json") };
            status::status(&control()?, &request, section.flag("watch"), &mut io::stdout().lock())
        }
        "reload" => {
            none(name, operands)?;
            status::command(&control()?, &Request::Reload, &mut io::stdout().lock())
        }
        "log" => {
            let wanted = "error, warn, info, debug or trace";
            let text = only(name, wanted, operands)?;
            let level = values::level(text)
                .map_err(|wanted| Error::text(format!("log: '{text}': wanted {wanted}")))?;
            let time = section.get("for", values::duration)?;
            status::command(&control()?, &Request::Log { level, time }, &mut io::stdout().lock())
        }
        "trace" => {
            none(name, operands)?;
            let filter =
                Filter { sni: section.get("sni", taps::sni)?, from: section.get("from", Cidr::parse)? };
            let (count, time) = (section.need("count", trace_count)?, section.need("for", trace_time)?);
            let request = Request::Trace { filter, count, time };
            trace::trace(&control()?, &request, &mut io::stdout().lock())
        }
        _ => Err(Error::text(format!("{name}: no such tool"))),
    }
}

fn decode(section: &Section, kind: &str) -> Result<(), Error> {
    let mut judge = decode::judge(kind, section)?;
    decode::run(io::stdin().lock(), io::stdout().lock(), &mut judge)
}

fn keygen(section: &Section, what: &str) -> Result<(), Error> {
    let key = match what {
        "secret" => keygen::fresh_secret(),
        "member" => {
            let master = section.need("master", |path| Ok(PathBuf::from(path)))?;
            let balancer = section.need("balancer", values::balancer_name)?;
            let url = section.need("url", values::text)?;
            keygen::member_passphrase(&master, section.flag("weak-secret"), &balancer, &url)
        }
        other => return Err(Error::text(format!("keygen: '{other}': wanted secret or member"))),
    };
    print(&format!("{}\n", *key?))
}

fn only<'a>(tool: &str, wanted: &str, operands: &'a [Operand]) -> Result<&'a str, Error> {
    match operands {
        [one] => Ok(&one.text),
        [] => Err(Error::text(format!("{tool}: wanted {wanted}"))),
        [_, more, ..] => {
            Err(Error::text(format!("argument {}: '{}': wanted nothing more", more.word, more.text)))
        }
    }
}

fn none(tool: &str, operands: &[Operand]) -> Result<(), Error> {
    match operands {
        [] => Ok(()),
        [more, ..] => {
            Err(Error::text(format!("argument {}: '{}': {tool} takes no operand", more.word, more.text)))
        }
    }
}

fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::output(&e))
}
