//! What `status --sessions` shows of a running proxy: the values, from where they are kept.

use super::report::{Member, Proxy as Report, Route, Session as Row, Traffic};
use super::service::Proxy;
use super::session::Stage;
use crate::clock::{Mono, Now};
use crate::members::MemberId;
use crate::reactor::Form;
use crate::shared::Shared;
use crate::sorted::Sorted;
use std::borrow::Cow;

impl Proxy {
    /// Appends the report.
    pub(super) fn overview(&self, form: Form, now: Now, shared: &Shared, out: &mut String) {
        let mut stages = Stage::ALL.map(|stage| (stage.word(), 0));
        // What sessions that are still open have moved, by route and by member.
        let mut routes: Sorted<usize, (u64, u64)> = Sorted::default();
        let mut members: Sorted<(usize, MemberId), (u64, u64)> = Sorted::default();
        for (_, session) in &self.sessions {
            stages[session.stage as usize].1 += 1;
            if let Some(route) = session.facts.route {
                add(routes.or_default(route), session.bytes());
            }
            if let Some(member) = session.facts.member {
                add(members.or_default(member), session.bytes());
            }
        }
        let mut report = Report::new(self.listens_at(), whole(self.sessions.len()), &stages);
        report.routes = self
            .ledger
            .rows()
            .map(|(at, row)| Route {
                route: Cow::Borrowed(row.matches.as_str()),
                target: Cow::Borrowed(row.target.as_str()),
                traffic: with(row.traffic, routes.get(&at)),
            })
            .collect();
        for (pool, row) in self.pools.rows(now.mono) {
            report.member(|| Member {
                url: self
                    .pools
                    .url((pool, row.id), shared)
                    .map_or_else(|| row.addr.to_string().into(), Cow::Owned),
                traffic: with(
                    Traffic {
                        open: row.open,
                        total: row.total,
                        bytes_in: row.bytes_in,
                        bytes_out: row.bytes_out,
                    },
                    members.get(&(pool, row.id)),
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
}

/// Adds the bytes of a session.
fn add(sum: &mut (u64, u64), (bytes_in, bytes_out): (u64, u64)) {
    sum.0 = sum.0.saturating_add(bytes_in);
    sum.1 = sum.1.saturating_add(bytes_out);
}

/// What went through something, with what its open sessions have moved.
fn with(traffic: Traffic, open: Option<&(u64, u64)>) -> Traffic {
    let mut bytes = (traffic.bytes_in, traffic.bytes_out);
    add(&mut bytes, open.copied().unwrap_or_default());
    Traffic { bytes_in: bytes.0, bytes_out: bytes.1, ..traffic }
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
