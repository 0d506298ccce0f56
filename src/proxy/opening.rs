//! A first flight is whole: who is it, may it in, and where does it go?
//!
//! In this order: `--deny` and `--allow`, the source's count, `--require-sni`, the program behind `--auth`, the route.

use super::dump::Kind;
use super::end::End;
use super::ppv2::Origin;
use super::relay::retry;
use super::routes::{Asked, Target};
use super::service::{Part, Proxy, key};
use super::session::{Hook, Session, Stage, Tag};
use super::verdict::{Question, Reader, Verdict};
use crate::bytes::HexDump;
use crate::clock::Mono;
use crate::reactor::Cx;
use crate::reactor::bank::{connect_unix, plain};
use mio::Interest;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

impl Proxy {
    /// The first flight is whole, or none is awaited.
    pub(super) fn arrived(&mut self, at: usize, cx: &mut Cx<'_>) {
        let rules = Rc::clone(&self.rules);
        let Some(session) = self.sessions.get_mut(at) else { return };
        session.stage = Stage::Auth;
        session.learn();
        session.facts.hello_at = Some(cx.now.mono);
        session.tell_opening(cx);
        let facts = &mut session.facts;
        if !rules.access.judge(facts.src.ip()).passes() {
            return self.end(at, End::Denied, None, cx);
        }
        facts.counted = self.sources.enter(facts.src.ip());
        if !facts.counted {
            return self.end(at, End::SourceLimit, None, cx);
        }
        if rules.settings.require_sni {
            let hello = session.early.as_ref().and_then(|early| early.flight.hello());
            let end = match hello.map(|hello| hello.name.is_some()) {
                None => Some(End::NotTls),
                Some(false) => Some(End::NoSni),
                Some(true) => None,
            };
            if let Some(end) = end {
                self.keep_dump(at, Kind::Hello, cx);
                return self.end(at, end, None, cx);
            }
        }
        if let Some(auth) = &rules.settings.auth {
            session.deadline = cx.now.mono.after(auth.timeout);
        }
        self.ask(at, cx);
    }

    /// Chooses the route, and goes.
    fn route(&mut self, at: usize, cx: &mut Cx<'_>) {
        let rules = Rc::clone(&self.rules);
        let Some(session) = self.sessions.get_mut(at) else { return };
        let hello = session.early.as_ref().and_then(|early| early.flight.hello());
        let asked = Asked {
            sni: hello.and_then(|hello| hello.name.as_ref()).and_then(|name| name.route()),
            authority: session.facts.authority.as_deref(),
            alpn: &session.facts.alpn,
        };
        let Some((number, route, _)) = rules.routes.choose(&asked) else {
            self.keep_dump(at, Kind::Hello, cx);
            return self.end(at, End::NoRoute, None, cx);
        };
        session.facts.route = self.rows.get(number).copied();
        session.trace(cx, &format_args!("route {route}"));
        if let Some(row) = session.facts.route {
            self.ledger.opened(row);
        }
        self.go(at, route.target.clone(), cx);
    }

    /// Asks the program behind `--auth`, if there is one, unless it has answered the same of late.
    pub(super) fn ask(&mut self, at: usize, cx: &mut Cx<'_>) {
        let rules = Rc::clone(&self.rules);
        let Some(auth) = &rules.settings.auth else { return self.route(at, cx) };
        let Some(session) = self.sessions.get_mut(at) else { return };
        let mut line = Vec::new();
        let known = session.with_question(|question| {
            question.write(&mut line).map(|()| self.answers.get(question, cx.now.mono).cloned())
        });
        match known {
            // Not even --auth-fail-open lets it pass: with too long a question nobody would ever be asked.
            Err(unaskable) => return self.end(at, End::AuthFailed, Some(unaskable.to_string()), cx),
            Ok(Some(verdict)) => return self.obey(at, verdict, cx),
            Ok(None) => {}
        }
        let mut stream = match connect_unix(&auth.path) {
            Ok(stream) => stream,
            // More sessions ask at once than may wait there.
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let Some(early) = &mut session.early else { return };
                early.ask_again = cx.now.mono.after(crowd_leaves(cx.random()));
                return self.watch(at, cx);
            }
            Err(e) => return self.unanswered(at, &plain(&e), cx),
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registration = match cx.register(&mut stream, key(at, Part::Hook), interest) {
            Ok(registration) => registration,
            Err(e) => return self.unanswered(at, &plain(&e), cx),
        };
        if let Some(early) = &mut session.early {
            early.ask_again = Mono::NEVER;
            early.hook = Some(Hook { stream, registration, line: (line, 0), reader: Reader::default() });
        }
        self.watch(at, cx);
        self.hook_ready(at, cx);
    }

    /// The program can be written to, or has answered.
    pub(super) fn hook_ready(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        let Some(hook) = session.early.as_mut().and_then(|early| early.hook.as_mut()) else { return };
        match hook.talk() {
            None => {}
            Some(Ok(verdict)) => {
                session.with_question(|question| self.answers.put(question, verdict.clone(), cx.now.mono));
                self.obey(at, verdict, cx);
            }
            Some(Err(why)) => self.unanswered(at, &why, cx),
        }
    }

    /// Nobody answered, or not in time, or not so that it could be understood.
    pub(super) fn unanswered(&mut self, at: usize, why: &str, cx: &mut Cx<'_>) {
        self.hang_up(at, cx);
        let open = self.rules.settings.auth.as_ref().is_some_and(|auth| auth.fail_open);
        if !open {
            return self.end(at, End::AuthFailed, Some(why.to_owned()), cx);
        }
        if self.gates.auth.pass(cx.now.mono).is_some() {
            log::warn!(target: "proxy", "no verdict from --auth ({why}); sessions pass without (--auth-fail-open)");
        }
        self.route(at, cx);
    }

    fn obey(&mut self, at: usize, verdict: Verdict<Target>, cx: &mut Cx<'_>) {
        self.hang_up(at, cx);
        match verdict {
            Verdict::Deny(reason) => self.end(at, End::AuthDenied, Some(reason), cx),
            Verdict::Allow(Some(target)) => {
                let row = self.ledger.aside("auth", &target.to_string());
                if let Some(session) = self.sessions.get_mut(at) {
                    session.facts.route = Some(row);
                    self.ledger.opened(row);
                }
                self.go(at, target, cx);
            }
            Verdict::Allow(None) => self.route(at, cx),
        }
    }

    /// Closes the connection to the program.
    pub(super) fn hang_up(&mut self, at: usize, cx: &mut Cx<'_>) {
        let early = self.sessions.get_mut(at).and_then(|session| session.early.as_mut());
        if let Some(hook) = early.and_then(|early| early.hook.take()) {
            cx.forget(hook.registration);
        }
    }
}

/// When to try again to ask a program that is asked by too many: spread, so that not all come back at once.
fn crowd_leaves(random: u64) -> Duration {
    Duration::from_micros(20_000 + random % 20_000)
}

impl Hook {
    /// Sends what is left of the question, and reads what has come of the answer; `None` while that is not whole.
    fn talk(&mut self) -> Option<Result<Verdict<Target>, String>> {
        let failed = |e: &std::io::Error| Some(Err(plain(e)));
        let (line, sent) = &mut self.line;
        while let Some(rest) = line.get(*sent..).filter(|rest| !rest.is_empty()) {
            match retry(|| self.stream.write(rest)) {
                Ok(count) => *sent += count,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return None,
                Err(e) => return failed(&e),
            }
        }
        let mut piece = [0; 512];
        loop {
            let answer = match retry(|| self.stream.read(&mut piece)) {
                Ok(0) => Some(std::mem::take(&mut self.reader).end(Target::parse)),
                Ok(count) => self.reader.feed(&piece[..count], Target::parse),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
                Err(e) => return failed(&e),
            };
            match answer {
                None => {}
                Some(answer) => return Some(answer.map_err(|error| error.to_string())),
            }
        }
    }
}

impl Session {
    /// Takes what its first flight says into what is known about it.
    pub(super) fn learn(&mut self) {
        let (facts, Some(early)) = (&mut self.facts, &self.early) else { return };
        if let Some(header) = early.flight.header() {
            if let Origin::Proxied { src, dst } = header.origin {
                let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
                facts.src = canonical(src);
                facts.dst = Some(canonical(dst));
            }
            facts.authority = header.tlvs.authority().map(Into::into);
        }
        if let Some(hello) = early.flight.hello() {
            facts.sni = hello.name.as_ref().map(|name| name.sent().into());
            facts.alpn = hello.alpn.clone();
        }
    }

    /// Shows its beginning to who wants to see it.
    pub(super) fn tell_opening(&mut self, cx: &mut Cx<'_>) {
        let taps = &mut cx.shared.taps;
        let src = self.facts.src;
        self.facts.traced = !taps.is_empty() && taps.follow(self.id, src.ip(), self.facts.sni.as_deref());
        self.trace(cx, &format_args!("from {src}, peer {}", self.facts.peer));
        let bytes = self.early.as_ref().map_or(&[][..], |early| early.flight.bytes());
        if bytes.is_empty() {
            return;
        }
        if self.facts.traced {
            cx.shared.taps.dump(self.id, &"first flight", bytes);
        }
        log::debug!(target: "proxy", "{} first flight\n{}", Tag(self.id), HexDump(bytes));
    }

    /// Puts the question about it to `ask`.
    fn with_question<T>(&self, ask: impl FnOnce(&Question<'_>) -> T) -> T {
        let facts = &self.facts;
        let alpn: Vec<&[u8]> = facts.alpn.iter().collect();
        let hello = self.early.as_ref().and_then(|early| early.flight.hello());
        ask(&Question {
            id: self.id,
            client: facts.src,
            peer: (facts.peer != facts.src).then_some(facts.peer),
            local: Some(self.destination()),
            sni: facts.sni.as_deref(),
            alpn: &alpn,
            authority: facts.authority.as_deref(),
            tls: hello.is_some(),
        })
    }

    /// Where the client connected to.
    pub(super) fn destination(&self) -> SocketAddr {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        self.facts.dst.unwrap_or_else(|| self.client.stream.local_addr().unwrap_or(unknown))
    }

    /// Tells those who trace it.
    pub(super) fn trace(&self, cx: &mut Cx<'_>, what: &dyn std::fmt::Display) {
        if self.facts.traced {
            cx.shared.taps.line(self.id, what);
        }
        log::debug!(target: "proxy", "{} {what}", Tag(self.id));
    }
}
