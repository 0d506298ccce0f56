//! The reports about a running daemon, for people and as JSON: the state of everything, from what is shared, and what
//! services say of the sessions they carry. Changes nothing.

use crate::bytes::{JsonStr, Printable};
use crate::clock::{Mono, Seconds};
use crate::members::{BalancerId, Member, MemberId};
use crate::reactor::Form;
use crate::shared::Shared;
use crate::show::{OrNull, Span, table};
use crate::sorted::sort;
use std::fmt::{self, Write};

/// The state of everything at one moment.
pub struct Report<'a> {
    shared: &'a Shared,
    now: Mono,
}

impl<'a> Report<'a> {
    /// The state at `now`.
    #[must_use]
    pub fn new(shared: &'a Shared, now: Mono) -> Report<'a> {
        Report { shared, now }
    }

    /// As JSON, on one line: what `beacond status --json` prints.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = String::new();
        // A String takes everything.
        let _ = self.write_json(&mut out);
        out
    }

    /// As a table for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = self.write_text(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) -> fmt::Result {
        let uptime = self.now.since(self.shared.started).as_secs();
        write!(
            out,
            "{{\"version\":{},\"uptime_s\":{uptime},\"balancers\":{{",
            JsonStr(env!("CARGO_PKG_VERSION"))
        )?;
        let mut comma = "";
        for (id, name) in self.shared.members.balancers() {
            let deaf = self.shared.members.deafness(id).map(|d| self.now.since(d.since).as_secs());
            write!(out, "{comma}{}:{{\"deaf_since_s\":{},\"members\":[", JsonStr(name), OrNull(deaf))?;
            comma = "";
            for (member_id, member) in self.sorted(id) {
                out.push_str(comma);
                self.member_json(out, id, member_id, member)?;
                comma = ",";
            }
            out.push_str("]}");
            comma = ",";
        }
        out.push_str("},\"counters\":{");
        comma = "";
        for (name, count) in self.shared.stats.iter() {
            write!(out, "{comma}{}:{count}", JsonStr(name))?;
            comma = ",";
        }
        out.push_str("}}\n");
        Ok(())
    }

    fn member_json(
        &self,
        out: &mut String,
        balancer: BalancerId,
        id: MemberId,
        member: &Member,
    ) -> fmt::Result {
        let every = member.every().map(Seconds);
        write!(
            out,
            "{{\"url\":{},\"state\":\"{}\",\"weight\":{},\"age_s\":{},\"interval_s\":{},\"from\":\"{}\",\"host\":{},\
             \"pid\":{},\"key\":{},\"sinks\":{{",
            JsonStr(&member.url_text()),
            member.state().name(),
            member.weight(),
            self.now.since(member.last_seen()).as_secs(),
            OrNull(every),
            member.from(),
            JsonStr(&String::from_utf8_lossy(member.host())),
            member.pid(),
            member.key(),
        )?;
        let mut comma = "";
        for (sink, view) in self.shared.views.of(balancer, id) {
            let error = view.error.map(JsonStr);
            write!(
                out,
                "{comma}{}:{{\"state\":\"{}\",\"error\":{}}}",
                JsonStr(sink),
                view.state.name(),
                OrNull(error)
            )?;
            comma = ",";
        }
        out.push_str("}}");
        Ok(())
    }

    fn write_text(&self, out: &mut String) -> fmt::Result {
        let uptime = self.now.since(self.shared.started).as_secs();
        writeln!(out, "beacond {}, up {}", env!("CARGO_PKG_VERSION"), Span(uptime))?;
        for (id, name) in self.shared.members.balancers() {
            let (up, all) = (self.shared.members.up(id), self.shared.members.count(id));
            write!(out, "\nbalancer://{name}: {up} of {all} up")?;
            if let Some(deaf) = self.shared.members.deafness(id) {
                write!(
                    out,
                    "; DEAF for {} ({})",
                    Span(self.now.since(deaf.since).as_secs()),
                    deaf.reason.text()
                )?;
            }
            out.push('\n');
            let rows: Vec<Vec<String>> =
                self.sorted(id).map(|(mid, member)| self.row(id, mid, member)).collect();
            table(out, &["URL", "STATE", "WEIGHT", "SEEN", "FROM", "HOST", "SINKS"], &rows)?;
        }
        let dropped: Vec<_> = self
            .shared
            .stats
            .iter()
            .filter(|(name, count)| name.starts_with("beacon.drop.") && *count > 0)
            .collect();
        if !dropped.is_empty() {
            out.push_str("\ndropped:");
            for (name, count) in dropped {
                write!(out, " {} {count}", name.trim_start_matches("beacon.drop."))?;
            }
            out.push('\n');
        }
        Ok(())
    }

    fn row(&self, balancer: BalancerId, id: MemberId, member: &Member) -> Vec<String> {
        let sinks: Vec<String> = self
            .shared
            .views
            .of(balancer, id)
            .map(|(sink, view)| match view.error {
                Some(error) => format!("{sink} {} ({error})", view.state.name()),
                None => format!("{sink} {}", view.state.name()),
            })
            .collect();
        vec![
            member.url_text().into_owned(),
            member.state().name().to_owned(),
            member.weight().to_string(),
            Span(self.now.since(member.last_seen()).as_secs()).to_string(),
            member.from().ip().to_string(),
            Printable(member.host()).to_string(),
            sinks.join(", "),
        ]
    }

    /// A balancer's members by url, so that two reports can be compared by eye.
    fn sorted(&self, balancer: BalancerId) -> impl Iterator<Item = (MemberId, &'a Member)> + use<'a> {
        let mut members: Vec<_> = self.shared.members.members(balancer).collect();
        sort(&mut members, |(_, a), (_, b)| a.url().cmp(b.url()));
        members.into_iter()
    }
}

/// Bytes of a report about sessions. Each service bounds its own part; this bounds how many parts there are.
const SESSIONS: usize = 8 << 20;

/// What is said where nobody has sessions.
pub const NO_SESSIONS: &str = "nothing here carries sessions";

/// What services say of their sessions, as one report.
#[must_use]
pub fn sessions(form: Form, told: &[String]) -> String {
    let mut room = SESSIONS;
    let fits = told.iter().position(|part| {
        let fits = part.len() <= room;
        room = room.saturating_sub(part.len());
        !fits
    });
    let (shown, rest) = told.split_at(fits.unwrap_or(told.len()));
    let left_out = rest.len();
    match form {
        Form::Json => {
            format!("{{\"proxies\":[{}],\"proxies_left_out\":{left_out}}}\n", shown.join(","))
        }
        Form::Text if told.is_empty() => format!("{NO_SESSIONS}\n"),
        Form::Text if left_out > 0 => format!("{}\n… {left_out} more\n", shown.join("\n")),
        Form::Text => shown.join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_one_report_of_limited_length() {
        let told = ["{\"a\":1}", "{\"b\":2}"].map(str::to_owned);
        let json = "{\"proxies\":[{\"a\":1},{\"b\":2}],\"proxies_left_out\":0}\n";
        assert_eq!(sessions(Form::Json, &told), json);
        assert_eq!(sessions(Form::Text, &["a\n".to_owned(), "b\n".to_owned()]), "a\n\nb\n");
        assert_eq!(sessions(Form::Json, &[]), "{\"proxies\":[],\"proxies_left_out\":0}\n");
        assert_eq!(sessions(Form::Text, &[]), "nothing here carries sessions\n");
        let big = vec!["x".repeat(SESSIONS / 3); 5];
        let report = sessions(Form::Text, &big);
        assert!(report.len() < SESSIONS + 100 && report.ends_with("x\n… 2 more\n"));
    }
}
