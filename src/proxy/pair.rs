//! The life of two joined connections: which way bytes may flow, how ends and resets pass on, and when all is over.
//!
//! ```text
//!           ┌──────────── bytes held ───────────┐
//!  client ──┤ Open ─ end read ─► Ending ─ all written, end passed on ─► Ended ├──► server
//!         ◄─┤                    (and the same the other way round)           ├───
//! ```
//!
//! - A side that ends its stream is not done: what it is still owed goes on until the other ends, too (half-close).
//! - A side that resets its connection before that cut something off, and the other must not take it for an end: it gets
//!   what had come by then, and is reset. A reset *after* a clean end cuts nothing off: the other still gets all that was sent, and the end. What it
//!   still sends is read and thrown away, for to close a connection with unread bytes would reset it.
//! - Nothing is read for a side that cannot take it: what may be held is one read's worth a way.
//!
//! The caller does the input and output that [`Pair::next`] asks for, by copying or by splicing, and tells what came of
//! it. Nothing here knows a socket, a buffer or a clock.

/// One of the two connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The one that was accepted.
    Client,
    /// The one that was made for it.
    Server,
}

impl Side {
    /// The connection it is joined to.
    #[must_use]
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    /// Its place where there is one for each side.
    #[must_use]
    pub fn at(self) -> usize {
        match self {
            Side::Client => 0,
            Side::Server => 1,
        }
    }
}

/// What the caller is to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Read from this side, and write what came to the other as far as that takes it.
    Read(Side),
    /// Write to this side what is held for it.
    Write(Side),
    /// Read from this side and throw away what comes.
    Discard(Side),
    /// End the stream towards this side: all that it is owed has been written.
    Shut(Side),
    /// Nothing until an event.
    Wait,
    /// Nothing any more: close both.
    Over(Over),
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// Both streams ended and all bytes were passed on.
    Clean,
    /// This side was reset: the other is to be reset as well.
    Reset(Side),
}

/// Two joined connections.
#[derive(Clone, Debug)]
pub struct Pair {
    client: Leg,
    server: Leg,
    /// Whose stream is looked at first, so that neither way starves the other.
    first: Side,
}

/// One connection, and the stream that it sends.
#[derive(Clone, Debug, Default)]
struct Leg {
    readable: bool,
    writable: bool,
    /// The peer is known to have ended its stream: no event will tell it again.
    end_comes: bool,
    /// Its stream has or had a mark, of urgent data: what stops there says nothing of what is behind.
    marked: bool,
    phase: Phase,
    /// It was reset: what has come of its stream is passed on, and then the reset.
    cut: bool,
    /// Nobody takes its stream any more.
    void: bool,
    /// Bytes read from it and not yet written to the other.
    held: usize,
    /// Bytes of its stream that the other took.
    passed: u64,
}

/// How far a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    #[default]
    Open,
    /// Its end has been read, and not yet passed on.
    Ending,
    /// Its end has been passed on.
    Ended,
}

impl Pair {
    /// Two connections of which nothing is known yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "one for each session, never by default")]
    pub fn new() -> Pair {
        Pair { client: Leg::default(), server: Leg::default(), first: Side::Client }
    }

    /// Another connection takes the place of one that never stood.
    pub fn renew(&mut self, side: Side) {
        let held = self.leg(side).held;
        *self.leg_mut(side) = Leg { held, ..Leg::default() };
    }

    /// `count` bytes are owed to the other that were not read from `side` just now: its first flight, or what is to
    /// stand in front of it.
    pub fn owe(&mut self, side: Side, count: usize) {
        self.leg_mut(side).held += count;
    }

    /// What can be done on a side, by an event: it can be read, it can be written, the end of its stream has come.
    pub fn event(&mut self, side: Side, readable: bool, writable: bool, ended: bool) {
        let leg = self.leg_mut(side);
        leg.readable |= readable;
        leg.writable |= writable;
        leg.end_comes |= ended;
    }

    /// The stream of a side has a mark, at which reading stops though more may be there; or it may have one.
    pub fn marked(&mut self, side: Side) {
        self.leg_mut(side).marked = true;
    }

    /// What to do now. The same until the caller has told what came of it.
    #[must_use]
    pub fn next(&self) -> Step {
        match self.step_of(self.first) {
            Step::Wait if self.client.phase == Phase::Ended && self.server.phase == Phase::Ended => {
                Step::Over(Over::Clean)
            }
            Step::Wait => self.step_of(self.first.other()),
            step => step,
        }
    }

    /// `count` bytes came from a side that was asked for up to `wanted`; the other is now owed them.
    pub fn read(&mut self, side: Side, count: usize, wanted: usize) {
        let leg = self.leg_mut(side);
        if !leg.void {
            leg.held += count;
        }
        // What was asked for and did not come is not there: the next bytes make an event. The end makes none if its
        // event has been; what is behind a mark makes none either.
        leg.readable = count >= wanted || leg.end_comes || leg.marked;
        self.first = side.other();
    }

    /// There was nothing to read after all.
    pub fn drained(&mut self, side: Side) {
        if self.leg(side).cut {
            return self.ended(side);
        }
        self.leg_mut(side).readable = false;
    }

    /// The end of a side's stream was read.
    pub fn ended(&mut self, side: Side) {
        let leg = self.leg_mut(side);
        leg.readable = false;
        leg.phase = match leg.phase {
            Phase::Open if leg.void => Phase::Ended,
            Phase::Open => Phase::Ending,
            known => known,
        };
    }

    /// A side took `count` of the `wanted` bytes that were held for it.
    pub fn wrote(&mut self, side: Side, count: usize, wanted: usize) {
        let from = self.leg_mut(side.other());
        from.held = from.held.saturating_sub(count);
        from.passed += u64::try_from(count).unwrap_or(u64::MAX);
        if count < wanted {
            self.full(side);
        }
    }

    /// A side takes nothing for now.
    pub fn full(&mut self, side: Side) {
        self.leg_mut(side).writable = false;
    }

    /// The end was passed on to a side.
    pub fn shut(&mut self, side: Side) {
        self.leg_mut(side.other()).phase = Phase::Ended;
    }

    /// A side reset its connection, or it failed otherwise; `after_end` if its stream is known to have ended before,
    /// though that end may not have been read yet.
    pub fn reset(&mut self, side: Side, after_end: bool) {
        if self.leg(side).cut {
            return self.ended(side);
        }
        let leg = self.leg_mut(side);
        leg.end_comes = true;
        leg.readable |= leg.phase == Phase::Open;
        leg.cut = leg.phase == Phase::Open && !after_end;
        let other = self.leg_mut(side.other());
        other.void = true;
        other.held = 0;
        if other.phase == Phase::Ending {
            other.phase = Phase::Ended;
        }
    }

    /// Bytes that a side sent and the other took.
    #[must_use]
    pub fn passed(&self, from: Side) -> u64 {
        self.leg(from).passed
    }

    /// Bytes read from a side that the other has not taken yet.
    #[must_use]
    pub fn held(&self, from: Side) -> usize {
        self.leg(from).held
    }

    /// Whether there may be something to read from a side.
    #[must_use]
    pub fn has_news(&self, side: Side) -> bool {
        self.leg(side).readable
    }

    /// Whether a side is known to have ended its stream, read as far as that or not.
    #[must_use]
    pub fn end_comes(&self, side: Side) -> bool {
        self.leg(side).end_comes
    }

    /// Whether the stream of a side has or had a mark.
    #[must_use]
    pub fn is_marked(&self, side: Side) -> bool {
        self.leg(side).marked
    }

    /// Whether nobody takes a side's stream any more.
    #[must_use]
    pub fn is_void(&self, from: Side) -> bool {
        self.leg(from).void
    }

    /// Whether one of the two streams has ended, and only what is left of the other is awaited.
    #[must_use]
    pub fn is_half_closed(&self) -> bool {
        let is_whole = |leg: &Leg| leg.phase == Phase::Open && !leg.cut;
        !is_whole(&self.client) || !is_whole(&self.server)
    }

    /// What there is to do about the stream of one side.
    fn step_of(&self, side: Side) -> Step {
        let (leg, to) = (self.leg(side), side.other());
        let can_write = self.leg(to).writable;
        match leg.phase {
            _ if leg.cut && (leg.void || leg.phase != Phase::Open && leg.held == 0) => {
                Step::Over(Over::Reset(side))
            }
            Phase::Open if leg.void && leg.readable => Step::Discard(side),
            _ if leg.void => Step::Wait,
            _ if leg.held > 0 && can_write => Step::Write(to),
            _ if leg.held > 0 => Step::Wait,
            Phase::Open if leg.readable && can_write => Step::Read(side),
            // Where the other has ended as well, to close both says as much.
            Phase::Ending if self.leg(to).phase == Phase::Ended => Step::Over(Over::Clean),
            Phase::Ending => Step::Shut(to),
            Phase::Open | Phase::Ended => Step::Wait,
        }
    }

    fn leg(&self, side: Side) -> &Leg {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    fn leg_mut(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// What a peer does.
    #[derive(Clone, Debug)]
    enum Act {
        Send(usize),
        Take(usize),
        End,
        /// Closes both ways: with bytes unread that is a reset, and bytes that come later are answered with one.
        Close,
        Reset,
    }

    /// A connection as a kernel keeps it, and the peer behind it.
    #[derive(Default)]
    struct Peer {
        script: VecDeque<Act>,
        /// Sent by it, not yet read by the proxy.
        inbox: VecDeque<u8>,
        sent: Vec<u8>,
        fin: bool,
        /// Written by the proxy, not yet taken by it.
        outbox: Vec<u8>,
        got: Vec<u8>,
        got_end: bool,
        /// It takes nothing any more.
        gone: bool,
        /// What the proxy holds for it.
        held: Vec<u8>,
        /// The proxy closed the connection; whether by a reset.
        closed: Option<bool>,
    }

    /// How much of what was written a kernel keeps.
    const ROOM: usize = 7;

    /// What an act lets the proxy know.
    #[derive(Default)]
    struct Told {
        readable: bool,
        writable: bool,
        ended: bool,
        reset: bool,
    }

    impl Peer {
        fn act(&mut self, act: &Act) -> Told {
            let mut told = Told::default();
            if self.gone {
                return told;
            }
            match act {
                Act::Send(count) if !self.fin => {
                    let bytes =
                        (self.sent.len()..self.sent.len() + count).map(|n| u8::try_from(n % 251).unwrap());
                    let bytes: Vec<u8> = bytes.collect();
                    self.sent.extend(&bytes);
                    self.inbox.extend(&bytes);
                    told.readable = *count > 0;
                }
                Act::Take(count) => {
                    told.writable = self.outbox.len() == ROOM && *count > 0;
                    let count = self.outbox.len().min(*count);
                    self.got.extend(self.outbox.drain(..count));
                }
                Act::End if !self.fin => self.fin(&mut told),
                Act::Close => {
                    self.gone = true;
                    if self.outbox.is_empty() && !self.fin {
                        self.fin(&mut told);
                    } else if !self.outbox.is_empty() {
                        told.reset = true;
                    }
                }
                Act::Reset => {
                    self.gone = true;
                    told.reset = true;
                }
                Act::Send(_) | Act::End => {}
            }
            told
        }

        fn fin(&mut self, told: &mut Told) {
            self.fin = true;
            (told.readable, told.ended) = (true, true);
        }
    }

    /// The proxy around a pair, on two model connections.
    struct Proxy {
        pair: Pair,
        peers: [Peer; 2],
        steps: usize,
    }

    impl Proxy {
        fn new(client: Vec<Act>, server: Vec<Act>) -> Proxy {
            let peer = |script: Vec<Act>| Peer { script: script.into(), ..Peer::default() };
            let mut pair = Pair::new();
            pair.event(Side::Client, false, true, false);
            pair.event(Side::Server, false, true, false);
            Proxy { pair, peers: [peer(client), peer(server)], steps: 0 }
        }

        fn peer(&mut self, side: Side) -> &mut Peer {
            &mut self.peers[side.at()]
        }

        /// The next act of a side; `false` when its script is done.
        fn act(&mut self, side: Side) -> bool {
            let Some(act) = self.peer(side).script.pop_front() else { return false };
            let told = self.peer(side).act(&act);
            self.pair.event(side, told.readable, told.writable, told.ended);
            if told.reset {
                let after_end = self.peer(side).fin;
                self.pair.reset(side, after_end);
            }
            self.pump();
            true
        }

        fn pump(&mut self) {
            loop {
                self.steps += 1;
                assert!(self.steps < 100_000, "it spins");
                match self.pair.next() {
                    Step::Wait => return,
                    Step::Read(side) | Step::Discard(side) => self.read(side),
                    Step::Write(side) => self.write(side),
                    Step::Shut(side) => {
                        assert!(!self.peer(side).got_end, "the end passed on twice");
                        self.peer(side).got_end = true;
                        self.pair.shut(side);
                    }
                    Step::Over(over) => {
                        for side in [Side::Client, Side::Server] {
                            let reset = over == Over::Reset(side.other());
                            let peer = self.peer(side);
                            peer.closed.get_or_insert(reset);
                            // To close a connection ends its stream.
                            peer.got_end |= over == Over::Clean && !peer.gone;
                        }
                        return;
                    }
                }
            }
        }

        fn read(&mut self, side: Side) {
            const WANTED: usize = 5;
            let void = self.pair.is_void(side);
            let peer = self.peer(side);
            let bytes: Vec<u8> = peer.inbox.drain(..peer.inbox.len().min(WANTED)).collect();
            if bytes.is_empty() {
                return match (peer.fin, peer.gone) {
                    (true, _) => self.pair.ended(side),
                    (false, true) => self.pair.reset(side, false),
                    (false, false) => self.pair.drained(side),
                };
            }
            self.pair.read(side, bytes.len(), WANTED);
            if !void {
                self.peer(side.other()).held.extend(bytes);
                if self.pair.leg(side.other()).writable {
                    self.write(side.other());
                }
            }
        }

        fn write(&mut self, side: Side) {
            let peer = self.peer(side);
            if peer.gone {
                peer.held.clear();
                let after_end = peer.fin;
                return self.pair.reset(side, after_end);
            }
            let wanted = peer.held.len();
            let count = wanted.min(ROOM - peer.outbox.len());
            peer.outbox.extend(peer.held.drain(..count));
            self.pair.wrote(side, count, wanted);
            assert!(self.pair.held(side.other()) <= 5, "more than one read is held");
        }

        /// What holds after every step.
        fn check(&mut self) {
            for side in [Side::Client, Side::Server] {
                let sent = self.peer(side.other()).sent.clone();
                let (fin, cut) = (self.peer(side.other()).fin, self.peer(side.other()).gone);
                let peer = self.peer(side);
                let come: Vec<u8> = [&peer.got[..], &peer.outbox[..]].concat();
                assert!(sent.starts_with(&come), "bytes are lost, doubled or out of order");
                if peer.got_end {
                    assert!(fin, "an end that nobody sent");
                    assert_eq!(come, sent, "an end before the bytes");
                }
                if peer.closed == Some(true) {
                    assert!(cut && !fin, "a reset although the other had ended cleanly, or was still there");
                    assert!(come == sent || peer.gone, "a reset before the bytes");
                }
            }
        }
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => (0usize..12).prop_map(Act::Send),
            6 => (0usize..12).prop_map(Act::Take),
            1 => Just(Act::End),
            1 => Just(Act::Close),
            1 => Just(Act::Reset),
        ]
    }

    fn gentle() -> impl Strategy<Value = Act> {
        prop_oneof![2 => (0usize..12).prop_map(Act::Send), 1 => (0usize..12).prop_map(Act::Take)]
    }

    fn script(of: impl Strategy<Value = Act>) -> impl Strategy<Value = Vec<Act>> {
        proptest::collection::vec(of, 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn bytes_ends_and_resets_pass_on(client in script(act()), server in script(act()), order in any::<u64>()) {
            let mut proxy = Proxy::new(client, server);
            for n in 0..64 {
                let side = if order >> n & 1 == 0 { Side::Client } else { Side::Server };
                proxy.act(side);
                proxy.check();
            }
        }

        #[test]
        fn peers_that_end_and_listen_get_everything(client in script(gentle()), server in script(gentle()),
                                                    order in any::<u64>()) {
            let mut proxy = Proxy::new([client, vec![Act::End]].concat(), [server, vec![Act::End]].concat());
            let mut n = 0;
            while n < 64 || proxy.peers.iter().any(|p| !p.script.is_empty()) {
                proxy.act(if order >> (n % 64) & 1 == 0 { Side::Client } else { Side::Server });
                proxy.act(if order >> (n % 63) & 1 == 0 { Side::Server } else { Side::Client });
                n += 1;
                prop_assume!(n < 1000);
            }
            for _ in 0..200 {
                for side in [Side::Client, Side::Server] {
                    proxy.peer(side).script.push_back(Act::Take(12));
                    proxy.act(side);
                    proxy.check();
                }
            }
            for (peer, other) in [(0, 1), (1, 0)] {
                let (peer, other) = (&proxy.peers[peer], &proxy.peers[other]);
                prop_assert_eq!(&peer.got, &other.sent);
                prop_assert!(peer.got_end && peer.closed == Some(false));
            }
        }

        /// A server that answered and closed, with bytes of the client unread: the answer arrives whole.
        #[test]
        fn an_answer_survives_the_reset_behind_it(answer in 1usize..60, upload in 1usize..60, takes in 1usize..9) {
            let client = [vec![Act::Send(upload), Act::Send(upload)], vec![Act::Take(takes); 200]].concat();
            let mut proxy = Proxy::new(client, vec![Act::Send(answer), Act::End, Act::Close]);
            proxy.act(Side::Client);
            while proxy.act(Side::Server) {}
            while proxy.act(Side::Client) {
                proxy.check();
            }
            let client = proxy.peer(Side::Client);
            prop_assert_eq!(client.got.len(), answer);
            prop_assert!(client.got_end && client.closed != Some(true));
        }
    }

    #[test]
    fn a_reset_passes_on_at_once_and_only_to_the_other() {
        let mut proxy = Proxy::new(vec![Act::Send(3)], vec![Act::Send(2), Act::Reset]);
        for side in [Side::Client, Side::Server, Side::Server] {
            proxy.act(side);
        }
        assert_eq!(
            (proxy.peer(Side::Client).closed, proxy.peer(Side::Server).closed),
            (Some(true), Some(false))
        );
    }

    #[test]
    fn what_was_read_before_is_owed_to_the_server() {
        let mut pair = Pair::new();
        pair.owe(Side::Client, 10);
        assert_eq!(pair.next(), Step::Wait);
        pair.event(Side::Client, true, true, true);
        pair.event(Side::Server, false, true, false);
        assert_eq!(pair.next(), Step::Write(Side::Server));
        pair.wrote(Side::Server, 4, 10);
        assert_eq!((pair.next(), pair.held(Side::Client)), (Step::Wait, 6));
        pair.event(Side::Server, false, true, false);
        pair.wrote(Side::Server, 6, 6);
        assert_eq!((pair.next(), pair.passed(Side::Client)), (Step::Read(Side::Client), 10));
        pair.ended(Side::Client);
        assert_eq!(pair.next(), Step::Shut(Side::Server));
        pair.shut(Side::Server);
        assert!(pair.is_half_closed());
        assert_eq!(pair.next(), Step::Wait);
    }
}
