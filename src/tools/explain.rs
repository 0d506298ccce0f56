//! The tool `explain`: what each proxy of a configuration would do with a session, by which rule, and why. Asks the
//! same functions that the proxy asks; touches no network.

use crate::config::argv::Source;
use crate::config::plan::plan;
use crate::config::values::{self, HostPort};
use crate::config::{Config, Error, Section, Shown};
use crate::proxy::access::Access;
use crate::proxy::hello::{Alpn, Name};
use crate::proxy::routes::{Asked, Route, Routes, Target, Why, name_of};
use crate::proxy::settings::{self, Settings};
use std::fmt::{self, Write as _};
use std::io::Write;
use std::net::IpAddr;

/// Reads the configuration and explains every proxy in it.
///
/// # Errors
/// The first thing that is wrong, and a configuration without a proxy; then nothing is written.
pub fn run(own: &Section, source: &Source, host: &str, out: &mut dyn Write) -> Result<(), Error> {
    let session = Session::read(own)?;
    let config = Config::load(source, host)?;
    let plan = plan(&config.roles)?;
    let mut text = String::new();
    for (section, address) in config.roles.iter().zip(&plan.addresses) {
        if section.role().name == "proxy" {
            let separator = if text.is_empty() { "" } else { "\n" };
            text.push_str(separator);
            let proxy = Proxy::read(section, address.as_ref())?;
            // Writing to a text cannot fail.
            let _ = proxy.explain(&session, &mut text);
        }
    }
    if text.is_empty() {
        let place = match source {
            Source::File { path, .. } => format!("{}: ", Shown(path)),
            Source::Words { .. } => String::new(),
        };
        return Err(Error::world(format!("{place}no proxy section: there is nothing to explain")));
    }
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::output(&e))
}

/// What is known about the session.
struct Session {
    sni: Option<Name>,
    alpn: Alpn,
    authority: Option<String>,
    from: Option<IpAddr>,
}

impl Session {
    fn read(own: &Section) -> Result<Session, Error> {
        let protocols = own.all("alpn", values::text)?;
        let alpn = Alpn::of(protocols.iter().map(String::as_bytes));
        Ok(Session {
            sni: own.get("sni", |text| {
                let plain = text.is_ascii().then(|| Name::new(text));
                plain.ok_or_else(|| "a server name in ASCII, as clients send it".to_owned())
            })?,
            alpn: alpn.ok_or_else(|| own.wrong("alpn", "protocols of 1 to 255 bytes"))?,
            authority: own.get("authority", values::text)?,
            from: own.get("from", |text| {
                text.parse().map_err(|_| "an IP address such as 192.0.2.7 or 2001:db8::7".to_owned())
            })?,
        })
    }

    /// What a proxy comes to know of it.
    fn known_to(&self, settings: &Settings) -> Session {
        Session {
            sni: self.sni.clone().filter(|_| settings.sniff),
            alpn: if settings.sniff { self.alpn.clone() } else { Alpn::default() },
            authority: self.authority.clone().filter(|_| settings.accept_proxy),
            from: self.from,
        }
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            sni: self.sni.as_ref().and_then(Name::route),
            authority: self.authority.as_deref(),
            alpn: &self.alpn,
        }
    }
}

/// A proxy section, read as a start reads it.
struct Proxy<'a> {
    section: &'a Section,
    address: Option<&'a HostPort>,
    routes: Routes,
    access: Access,
    settings: Settings,
}

impl Proxy<'_> {
    fn read<'a>(section: &'a Section, address: Option<&'a HostPort>) -> Result<Proxy<'a>, Error> {
        let routes = settings::routes(section)?;
        let settings = Settings::from_section(section, &routes)?;
        Ok(Proxy { section, address, access: settings::access(section)?, routes, settings })
    }

    fn explain(&self, session: &Session, out: &mut String) -> fmt::Result {
        write!(out, "[proxy]  ({})", self.section.at())?;
        match self.address {
            Some(address) => writeln!(out, "  listens at {address}")?,
            None => writeln!(out)?,
        }
        let verdict = session.from.map(|ip| (ip, self.access.judge(ip)));
        if let Some((ip, verdict)) = verdict {
            line(out, "from", &format_args!("{ip}: {verdict}"))?;
        }
        self.note(session, out)?;
        let known = session.known_to(&self.settings);
        let chosen = self.routes.choose(&known.asked());
        match chosen {
            Some((_, route, why)) => line(out, "route", &format_args!("{}: {why}", Placed(route)))?,
            None => line(out, "route", &"none matches, and there is no default")?,
        }
        if let Some(auth) = &self.settings.auth {
            let path = auth.path.display();
            line(out, "auth", &format_args!("unix:{path} is asked, and may name another target"))?;
        }
        match self.refusal(verdict.is_some_and(|(_, v)| !v.passes()), &known, chosen) {
            Some(reason) => line(out, "refused", &reason),
            None => chosen.map_or(Ok(()), |(_, route, _)| line(out, "target", &route.target)),
        }
    }

    /// Says why the proxy would not know, or not use, what the session says.
    fn note(&self, session: &Session, out: &mut String) -> fmt::Result {
        const NO_HELLO: &str = "not read: there is no --sniff, and no route that needs it";
        let (hello, header) = (self.settings.sniff, self.settings.accept_proxy);
        match &session.sni {
            Some(_) if !hello => line(out, "sni", &NO_HELLO)?,
            Some(name) if name.route().is_none() => {
                let sent = Shown(name.sent());
                line(out, "sni", &format_args!("{sent}: no host name, so no route can match it"))?;
            }
            _ => {}
        }
        if session.alpn != Alpn::default() && !hello {
            line(out, "alpn", &NO_HELLO)?;
        }
        match &session.authority {
            Some(_) if !header => line(out, "authority", &"not read: there is no --accept-proxy"),
            Some(text) if name_of(text).is_none() => {
                let text = Shown(text);
                line(out, "authority", &format_args!("{text}: no host name, so no route can match it"))
            }
            _ => Ok(()),
        }
    }

    /// The reason with which the session would end, in the order in which the proxy finds them.
    fn refusal(&self, denied: bool, known: &Session, chosen: Option<(usize, &Route, Why)>) -> Option<String> {
        if denied {
            return Some("denied".to_owned());
        }
        if self.settings.require_sni && known.sni.is_none() {
            return Some(format!("no-sni: {}", self.section.place_of("require-sni")));
        }
        match chosen {
            None => Some("no-route".to_owned()),
            Some((_, route, _)) if route.target == Target::Reject => Some("rejected".to_owned()),
            Some(_) => None,
        }
    }
}

/// A route with its place.
struct Placed<'a>(&'a Route);

impl fmt::Display for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.0.place)
    }
}

fn line(out: &mut String, what: &str, text: &dyn fmt::Display) -> fmt::Result {
    writeln!(out, "  {what:<10} {text}")
}
