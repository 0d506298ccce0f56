//! What `status --sessions` shows of a running proxy: the values, from where they are kept.

use super::report::{Member, Proxy as Report, Route, Session as Row, Traffic};
use super::service::Proxy;
use super::session::Stage;
use crate::clock::{Mono, Now};
use crate::reactor::Form;
use crate::shared::Shared;
use std::borrow::Cow;

impl Proxy {
    /// Appends the report.
    pub(super) fn overview(&self, form: Form, now: Now, shared: &Shared, out: &mut String) {
        let stages = Stage::ALL.map(|stage| {
            let count = self.sessions.iter().filter(|(_, session)| session.stage == stage).count();
            (stage.word(), whole(count))
        });
        let mut report = Report::new(self.listens_at(), whole(self.sessions.len()), &stages);
        report.routes = self
            .ledger
            .rows()
            .map(|(at, row)| Route {
                route: Cow::Borrowed(row.matches.as_str()),
                target: Cow::Borrowed(row.target.as_str()),
                traffic: self.with_open(row.traffic, |session| session.facts.route == Some(at)),
            })
            .collect();
        for (pool, row) in self.pools.rows(now.mono) {
            report.member(|| Member {
                url: self
                    .pools
                    .url((pool, row.id), shared)
                    .map_or_else(|| row.addr.to_string().into(), Cow::Owned),
                traffic: self.with_open(
                    Traffic {
                        open: row.open,
                        total: row.total,
                        bytes_in: row.bytes_in,
                        bytes_out: row.bytes_out,
                    },
                    |session| session.facts.member == Some((pool, row.id)),
                ),
                failures: row.failures,
                ejected_s: row.ejected_for.map(|time| time.as_secs()),
            });
        }
        for (_, session) in &self.sessions {
            report.session(|| self.row(session, now.mono));
        }
        match form {
            Form::Json => report.json(out),
            Form::Text => report.text(out),
        }
    }

    fn row<'a>(&'a self, session: &'a super::session::Session, now: Mono) -> Row<'a> {
        let facts = &session.facts;
        let (bytes_in, bytes_out) = session.bytes();
        let route = facts.route.and_then(|row| self.ledger.row(row));
        Row {
            id: session.id,
            age_s: now.since(facts.opened).as_secs(),
            stage: session.stage.word(),
            src: facts.src,
            sni: facts.sni.as_deref().map(Cow::Borrowed),
            route: route.map(|row| Cow::Borrowed(row.matches.as_str())),
            member: facts.server.map(|server| server.to_string().into()),
            bytes_in,
            bytes_out,
        }
    }

    /// Adds what sessions that are still open have moved.
    fn with_open(&self, mut traffic: Traffic, is_its: impl Fn(&super::session::Session) -> bool) -> Traffic {
        for (_, session) in self.sessions.iter().filter(|(_, session)| is_its(session)) {
            let (bytes_in, bytes_out) = session.bytes();
            traffic.bytes_in = traffic.bytes_in.saturating_add(bytes_in);
            traffic.bytes_out = traffic.bytes_out.saturating_add(bytes_out);
        }
        traffic
    }
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
