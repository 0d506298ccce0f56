//! A session relays, its time is up, or it ends: its connections are closed as its end asks, and it leaves its line.

use super::end::End;
use super::pair::{Over, Side};
use super::relay::Pumped;
use super::service::{LISTENER, Part, Proxy, RETURNS, key};
use super::session::{Line, Session, Stage, Tag};
use super::settings::OnEnd;
use crate::clock::Mono;
use crate::members::State;
use crate::reactor::Cx;
use crate::reactor::bank::reset_on_close;
use crate::stats::Counter;

impl Proxy {
    /// Lets bytes flow, as far as they do now.
    pub(super) fn relay(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(session) = self.sessions.get_mut(at).filter(|session| session.stage == Stage::Relay) else {
            return;
        };
        let alone = session.is_alone();
        let (pumped, moved) = session.pump(&mut self.means, cx.scratch);
        if moved || !alone && session.is_alone() {
            session.active = cx.now.mono;
        }
        match pumped {
            Pumped::Idle => {}
            Pumped::Busy => cx.again(key(at, Part::Run)),
            Pumped::Over(Over::Clean) => return self.end(at, End::Done, None, cx),
            Pumped::Over(Over::Reset(Side::Client)) => return self.end(at, End::ClientReset, None, cx),
            Pumped::Over(Over::Reset(Side::Server)) => return self.end(at, End::ServerReset, None, cx),
        }
        self.watch(at, cx);
    }

    /// The client went away before it was connected to anything.
    pub(super) fn client_gone(&mut self, at: usize, cx: &mut Cx<'_>) {
        let error = self.sessions.get(at).and_then(|s| s.client.stream.take_error().ok().flatten());
        // Without one it may yet be waiting for an answer.
        if error.is_some() {
            self.end(at, End::ClientGone, None, cx);
        }
    }

    /// A session's timer went off, or something about its deadline changed.
    pub(super) fn session_timer(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        let now = cx.now.mono;
        let settings = &self.rules.settings;
        let late = now >= session.deadline;
        match session.stage {
            Stage::Flight if late => return self.hello_late(at, cx),
            Stage::Auth if late => return self.unanswered(at, "no answer in time", cx),
            Stage::Auth if session.early.as_ref().is_some_and(|early| now >= early.ask_again) => {
                return self.ask(at, cx);
            }
            Stage::Resolve if late => {
                return self.end(at, End::ResolveFailed, Some("no answer in time".to_owned()), cx);
            }
            Stage::Connect if late => return self.connect_late(at, cx),
            Stage::Answer if late => {
                return self.end(at, End::UpstreamBad, Some("no answer in time".to_owned()), cx);
            }
            Stage::Relay if late => {
                let member = session.facts.member;
                let left =
                    member.is_some_and(|member| self.pools.state(member, cx.shared) == Some(State::Left));
                return self.end(at, if left { End::Left } else { End::Evicted }, None, cx);
            }
            Stage::Relay if now >= session.silent_until(settings) => {
                let end = if session.pair.is_half_closed() { End::HalfIdle } else { End::Idle };
                return self.end(at, end, None, cx);
            }
            _ => {}
        }
        self.watch(at, cx);
    }

    /// A first flight has not become whole.
    fn hello_late(&mut self, at: usize, cx: &mut Cx<'_>) {
        let (quiet, timeout) = (self.rules.settings.server_first, self.rules.settings.hello_timeout);
        let Some(session) = self.sessions.get_mut(at) else { return };
        let silent = session.early.as_ref().is_some_and(|early| early.flight.may_be_silent());
        let last = session.facts.opened.after(timeout);
        if quiet.is_some() && silent {
            // The server is to speak first.
            self.at_hello -= 1;
            return self.arrived(at, cx);
        }
        if cx.now.mono < last {
            session.deadline = last;
            return self.watch(at, cx);
        }
        self.end(at, End::HelloTimeout, None, cx);
    }

    /// A member that was left out is back, and nothing but the clock has told.
    pub(super) fn returned(&mut self, cx: &mut Cx<'_>) {
        self.returns = None;
        self.pools.show(cx.shared, cx.now.mono);
        self.watch_returns(cx);
    }

    /// Sees to it that the next return is noticed.
    pub(super) fn watch_returns(&mut self, cx: &mut Cx<'_>) {
        if let Some(due) = self.pools.take_due() {
            cx.rearm(&mut self.returns, RETURNS, due);
        }
    }

    /// Members may have gone, or returned: their sessions end when the options say so.
    pub(super) fn judge_members(&mut self, cx: &mut Cx<'_>) {
        for at in self.all() {
            self.judge(at, cx);
        }
    }

    /// The member of a session may have gone, or returned: the session ends when the options say so.
    pub(super) fn judge(&mut self, at: usize, cx: &mut Cx<'_>) {
        let settings = &self.rules.settings;
        let Some(session) = self.sessions.get_mut(at).filter(|session| session.stage == Stage::Relay) else {
            return;
        };
        let Some(member) = session.facts.member else { return };
        let on_end = match self.pools.state(member, cx.shared) {
            Some(State::Up) => OnEnd::Keep,
            Some(State::Down) => settings.on_evict,
            Some(State::Left) => settings.on_leave,
            // Forgotten: what was decided when it went holds.
            None => return,
        };
        let deadline = match on_end {
            OnEnd::Keep => Mono::NEVER,
            OnEnd::Cut => cx.now.mono,
            OnEnd::Drain(time) => session.deadline.min(cx.now.mono.after(time)),
        };
        if deadline != std::mem::replace(&mut session.deadline, deadline) {
            self.session_timer(at, cx);
        }
    }

    /// Ends a session.
    pub(super) fn end(&mut self, at: usize, end: End, why: Option<String>, cx: &mut Cx<'_>) {
        self.hang_up(at, cx);
        let Some(mut session) = self.sessions.try_remove(at) else { return };
        if session.stage == Stage::Flight {
            self.at_hello -= 1;
            session.learn();
            session.tell_opening(cx);
        }
        session.facts.why = why.map(Into::into).or(session.facts.why.take());
        if let Some((timer, _)) = session.timer.take() {
            cx.cancel(timer);
        }
        self.account(&session, end, cx);
        self.tell(&session, end, cx);
        session.let_go(&mut self.means);
        let (client, server) = session.legs();
        if matches!(end, End::ServerReset | End::Evicted | End::Left | End::Drained) {
            reset_on_close(&client.stream);
        }
        cx.forget(client.registration);
        if let Some(server) = server {
            if matches!(end, End::ClientReset | End::Evicted | End::Left | End::Drained) {
                reset_on_close(&server.stream);
            }
            cx.forget(server.registration);
        }
        if std::mem::take(&mut self.full) {
            cx.again(LISTENER);
        }
    }

    /// Ends all sessions: their time is up.
    pub(super) fn end_all(&mut self, cx: &mut Cx<'_>) {
        for at in self.all() {
            self.end(at, End::Drained, None, cx);
        }
    }

    fn account(&mut self, session: &Session, end: End, cx: &mut Cx<'_>) {
        let bytes = session.bytes();
        if session.facts.counted {
            self.sources.leave(session.facts.src.ip());
        }
        if let Some(member) = session.facts.member {
            self.pools.closed(member, bytes);
        }
        if let Some(row) = session.facts.route {
            self.ledger.closed(row, bytes);
        }
        let stats = &mut cx.shared.stats;
        stats.add(end.counter());
        stats.add_many(Counter::ProxyBytesIn, bytes.0);
        stats.add_many(Counter::ProxyBytesOut, bytes.1);
    }

    /// Its line in the access log; without one a line for what went wrong, not too often.
    fn tell(&mut self, session: &Session, end: End, cx: &mut Cx<'_>) {
        let row = session.facts.route.and_then(|row| self.ledger.row(row));
        let route = row.map(|row| (row.matches.as_str(), row.target.as_str()));
        let line = Line { session, end, listen: self.address, route, now: cx.now.mono };
        let tag = Tag(session.id);
        if self.rules.settings.access_log {
            log::info!(target: "access", "{tag} {line}");
        } else if end.is_ordinary() {
            log::debug!(target: "access", "{tag} {line}");
        } else if let Some(times) = self.gates.ended.pass(cx.now.mono) {
            log::warn!(target: "proxy", "{times} session(s) ended early (last: {tag} {line})");
        }
        if session.facts.traced {
            cx.shared.taps.line(session.id, &line);
            cx.shared.taps.end(session.id);
        }
    }
}
