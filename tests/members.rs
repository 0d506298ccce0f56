//! The member table, told as stories: one test for each promise. And the reference receiver's own sequences.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use beacond::clock::{Mono, Now};
use beacond::members::{
    Announce, BalancerId, DeafReason, Event, Facts, Heard, Member, MemberId, Members, Policy, Reason,
    Silence, State, What, WhenDeaf, Writer,
};
use beacond::state_text::decode;
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);
const SKEW: Duration = Duration::from_secs(30);
const A: &[u8] = b"http://10.0.0.1:80";
const B: &[u8] = b"http://10.0.0.2:80";
const C: &[u8] = b"http://10.0.0.3:80";

fn policy() -> Policy {
    Policy {
        max_members: 256,
        forget: Duration::from_secs(3600),
        keep_last: false,
        when_deaf: WhenDeaf::Hold,
        timeout: TIMEOUT,
        max_skew: SKEW,
    }
}

/// One balancer and a clock. Timestamps are the wall clock's, which runs with the other.
struct Bench {
    members: Members,
    b: BalancerId,
    now: Mono,
    said: Vec<String>,
}

const EPOCH: i64 = 1_780_646_570_000_000;
const START: Mono = Mono(1 << 40);

impl Bench {
    fn new(policy: Policy) -> Bench {
        let mut members = Members::new([7, 8]);
        let b = members.balancer("web", policy, START);
        Bench { members, b, now: START, said: Vec::new() }
    }

    fn wall(&self) -> Now {
        let unix_us = EPOCH + i64::try_from(self.now.0 - START.0).unwrap();
        Now { mono: self.now, unix_us }
    }

    fn says(&mut self, url: &[u8]) -> Heard {
        self.tell(&Announce { url, ts: self.wall().unix_us, timeout: TIMEOUT, ..Announce::default() })
    }

    fn tell(&mut self, a: &Announce<'_>) -> Heard {
        let heard = self.members.announce(self.b, a, self.now);
        self.members.invariants().unwrap();
        heard
    }

    fn leaves(&mut self, url: &[u8]) -> Heard {
        let heard = self.members.leave(self.b, url, self.wall().unix_us, self.now);
        self.members.invariants().unwrap();
        heard
    }

    /// Lets time pass, waking up only when the table asks for it. Returns what it said.
    fn pass(&mut self, d: Duration) -> Vec<String> {
        let end = self.now.after(d);
        while let Some(next) = self.members.next_deadline().filter(|next| *next <= end) {
            assert!(next >= self.now || self.members.next_deadline().is_some());
            self.now = self.now.max(next);
            self.expire();
        }
        self.now = end;
        self.expire();
        std::mem::take(&mut self.said)
    }

    fn expire(&mut self) {
        let said = &mut self.said;
        self.members.expire(self.now, &mut |event| said.push(word(&event)));
        self.members.invariants().unwrap();
    }

    fn secs(&mut self, s: u64) -> Vec<String> {
        self.pass(Duration::from_secs(s))
    }

    fn state(&self, url: &[u8]) -> Option<State> {
        let id = self.members.lookup(self.b, url)?;
        self.members.get(self.b, id).map(Member::state)
    }

    fn revision(&self) -> u64 {
        self.members.revision(self.b)
    }

    /// A new process that finds the state file of this one.
    fn restart(&self, after: Duration) -> Bench {
        let saved = decode(&self.members.snapshot(self.wall())).unwrap();
        let policy = *self.members.policy(self.b).unwrap();
        let mut next = Bench::new(policy);
        next.now = START.after(Duration::from_micros(self.now.0 - START.0)).after(after);
        let now = next.wall();
        // Another origin of the monotonic clock; the wall clock goes on.
        let mut members = Members::new([9, 9]);
        next.b = members.balancer("web", policy, now.mono);
        members.restore(saved, now, &mut |_, url| Some(url.to_vec()));
        members.invariants().unwrap();
        next.members = members;
        next
    }
}

fn word(event: &Event<'_>) -> String {
    assert_eq!(event.name, "web");
    let last = |url: &[u8]| char::from(url[url.len() - 4]);
    match event.what {
        What::Evicted { url, .. } => format!("evicted {}", last(url)),
        What::Forgotten { url, .. } => format!("forgotten {}", last(url)),
        What::Deaf { reason, up, .. } => format!("deaf {reason:?} {up}"),
        What::HearsAgain { .. } => "hears".into(),
        What::KeptLast { url, .. } => format!("kept {}", last(url)),
    }
}

fn id(heard: Heard) -> MemberId {
    match heard {
        Heard::Added(id, _) | Heard::Refreshed(id, _) | Heard::Revived(id, _) | Heard::Left(id) => id,
        other => panic!("{other:?} names nobody"),
    }
}

fn facts(heard: Heard) -> Facts {
    match heard {
        Heard::Added(_, facts) | Heard::Refreshed(_, facts) | Heard::Revived(_, facts) => facts,
        other => panic!("{other:?} has no facts"),
    }
}

#[test]
fn silence_strictly_longer_than_the_timeout_evicts() {
    let mut t = Bench::new(policy());
    t.pass(Duration::from_micros(777));
    assert!(matches!(t.says(A), Heard::Added(..)));
    assert_eq!(t.pass(TIMEOUT), [""; 0], "exactly the timeout is not longer");
    assert_eq!(t.state(A), Some(State::Up));
    assert_eq!(t.pass(Duration::from_millis(1)), ["evicted 1"]);
    assert_eq!(t.state(A), Some(State::Down));
    assert!(matches!(t.says(A), Heard::Revived(..)));
    assert_eq!(t.state(A), Some(State::Up));
}

#[test]
fn a_refresh_moves_the_deadline_but_no_timer_and_no_revision() {
    let mut t = Bench::new(policy());
    t.says(A);
    let (deadline, revision) = (t.members.next_deadline(), t.revision());
    for _ in 0..5 {
        assert_eq!(t.secs(5), [""; 0]);
        assert!(matches!(t.says(A), Heard::Refreshed(..)));
        assert_eq!((t.members.next_deadline(), t.revision()), (deadline, revision));
    }
    assert_eq!(t.secs(30), [""; 0]);
    assert_eq!(t.secs(1), ["evicted 1"]);
}

#[test]
fn a_member_due_but_not_yet_judged_is_saved_by_a_late_announcement() {
    let mut t = Bench::new(policy());
    t.says(A);
    t.now = t.now.after(Duration::from_secs(31));
    assert!(matches!(t.says(A), Heard::Refreshed(..)));
    assert_eq!(t.secs(1), [""; 0]);
}

#[test]
fn each_announcement_carries_its_listeners_timeout() {
    let mut t = Bench::new(policy());
    t.says(A);
    t.secs(1);
    let ts = t.wall().unix_us;
    t.tell(&Announce { url: A, ts, timeout: Duration::from_secs(2), ..Announce::default() });
    assert_eq!(t.secs(2), [""; 0]);
    assert_eq!(t.pass(Duration::from_millis(1)), ["evicted 1"], "a shorter one counts at once");
    t.tell(&Announce { url: A, ts: ts + 1, timeout: Duration::ZERO, ..Announce::default() });
    assert_eq!(t.secs(100_000), [""; 0], "zero is never");
    assert_eq!(t.members.next_deadline(), None);
    t.tell(&Announce { url: A, ts: ts + 2, timeout: TIMEOUT, ..Announce::default() });
    assert_eq!(t.secs(31), ["evicted 1"]);
}

#[test]
fn one_mark_serves_announcements_and_goodbyes() {
    let mut t = Bench::new(policy());
    let ts = t.wall().unix_us;
    let say = |t: &mut Bench, ts| t.tell(&Announce { url: A, ts, timeout: TIMEOUT, ..Announce::default() });
    say(&mut t, ts);
    assert_eq!(say(&mut t, ts), Heard::Dropped(Reason::ReplayedTs));
    assert_eq!(t.members.leave(t.b, A, ts, t.now), Heard::Dropped(Reason::ReplayedTs));
    assert!(matches!(t.members.leave(t.b, A, ts + 5, t.now), Heard::Left(_)));
    assert_eq!(t.state(A), Some(State::Left));
    for late in [ts + 1, ts + 5] {
        assert_eq!(say(&mut t, late), Heard::Dropped(Reason::ReplayedTs), "said before the goodbye");
    }
    assert_eq!(t.members.leave(t.b, A, ts + 7, t.now), Heard::Ignored, "left already");
    assert_eq!(say(&mut t, ts + 6), Heard::Dropped(Reason::ReplayedTs), "and still the mark has moved");
    assert!(matches!(say(&mut t, ts + 8), Heard::Revived(..)));
    assert_eq!(t.members.leave(t.b, B, ts, t.now), Heard::Ignored, "nobody knows it");
    assert!(t.members.lookup(t.b, B).is_none());
}

#[test]
fn unauthenticated_announcements_check_no_mark_and_leave_none() {
    let mut t = Bench::new(policy());
    let open = Announce { url: A, replay_check: false, timeout: TIMEOUT, ..Announce::default() };
    for ts in [9, 9, 3, i64::MAX] {
        let member = id(t.tell(&Announce { ts, ..open }));
        assert_eq!(t.members.get(t.b, member).unwrap().mark(), None);
    }
    assert!(matches!(t.says(A), Heard::Refreshed(..)), "a stranger's timestamp does not lock a signer out");
}

#[test]
fn revisions_move_with_what_readers_see() {
    let mut t = Bench::new(policy());
    let mut last = t.revision();
    let mut moved = |t: &Bench| std::mem::replace(&mut last, t.revision()) != t.revision();
    let (mut before, changes) = (t.members.changes(), |t: &Bench| t.members.changes());
    t.says(A);
    assert!(moved(&t), "added");
    t.secs(1);
    t.says(A);
    assert!(!moved(&t), "refreshed");
    assert!(changes(&t).marks > before.marks);
    before = changes(&t);
    t.secs(1);
    let ts = t.wall().unix_us;
    let heavier = Announce { url: A, ts, timeout: TIMEOUT, weight: 7, ..Announce::default() };
    assert_eq!(facts(t.tell(&heavier)).reweighted, Some(1));
    assert!(moved(&t) && changes(&t).membership > before.membership, "weight");
    t.secs(31);
    assert!(moved(&t), "down");
    t.says(A);
    assert!(moved(&t), "up");
    t.secs(1);
    t.leaves(A);
    assert!(moved(&t), "left");
    t.secs(4000);
    assert!(moved(&t) && t.members.count(t.b) == 0, "forgotten");
}

#[test]
fn dead_members_are_forgotten_but_never_within_twice_the_skew() {
    let mut t = Bench::new(Policy { forget: Duration::from_secs(100), ..policy() });
    let member = id(t.says(A));
    t.secs(31);
    assert_eq!(t.secs(98), [""; 0]);
    assert_eq!(t.secs(2), ["forgotten 1"]);
    assert!(t.members.get(t.b, member).is_none());
    let next = id(t.says(A));
    assert_ne!(next, member, "the old id stays stale");

    let mut t = Bench::new(Policy { forget: Duration::ZERO, ..policy() });
    t.says(A);
    t.leaves(A);
    let ts = t.wall().unix_us;
    t.secs(59);
    t.members.leave(t.b, A, ts + 1, t.now);
    assert_eq!(t.secs(60), [""; 0], "a goodbye that moves the mark keeps its place as long again");
    assert_eq!(t.pass(Duration::from_millis(2)), ["forgotten 1"]);
}

#[test]
fn a_full_table_yields_the_longest_dead_and_nobody_else() {
    let mut t = Bench::new(Policy { max_members: 2, ..policy() });
    t.says(A);
    t.says(B);
    assert_eq!(t.says(C), Heard::Dropped(Reason::TableFull));
    assert!(matches!(t.says(B), Heard::Dropped(Reason::ReplayedTs)), "who is known is not turned away");
    t.secs(1);
    t.leaves(A);
    t.secs(1);
    t.leaves(B);
    t.secs(58);
    assert_eq!(t.says(C), Heard::Dropped(Reason::TableFull), "its mark still guards");
    t.pass(Duration::from_millis(1001));
    let heard = t.says(C);
    assert!(matches!(heard, Heard::Added(..)) && facts(heard).made_room);
    assert_eq!((t.state(A), t.state(B)), (None, Some(State::Left)), "the one dead longest");
}

#[test]
fn a_deaf_receiver_evicts_nobody() {
    let mut t = Bench::new(policy());
    t.says(A);
    t.secs(3);
    t.says(B);
    assert_eq!(t.secs(500), ["deaf Nothing 2"], "said once");
    assert_eq!(t.members.next_deadline(), None, "and waits without waking");
    assert_eq!((t.state(A), t.state(B)), (Some(State::Up), Some(State::Up)));
    let deaf = t.members.deafness(t.b).unwrap();
    assert_eq!(t.now.since(deaf.last_heard), Duration::from_secs(500));
    t.says(B);
    assert_eq!(t.members.deafness(t.b), None);
    assert_eq!(t.pass(TIMEOUT), ["hears"], "one full timeout for who was held");
    assert_eq!(t.pass(Duration::from_millis(1)), ["deaf Nothing 2"], "deaf anew");
    let mut said = Vec::new();
    for _ in 0..31 {
        t.says(B);
        said.extend(t.secs(1));
    }
    assert_eq!(said, ["hears", "evicted 1"], "while another is heard, silence is death again");
}

#[test]
fn one_heard_member_tells_death_from_deafness() {
    let mut t = Bench::new(policy());
    t.says(A);
    let mut said = Vec::new();
    for _ in 0..7 {
        t.says(B);
        said.extend(t.secs(5));
    }
    assert_eq!(said, ["evicted 1"]);
    assert_eq!(t.secs(60), ["evicted 2"], "alone, nothing can be told: the deadline counts");
}

#[test]
fn a_heartbeat_without_url_and_a_goodbye_show_that_we_hear() {
    for goodbye in [false, true] {
        let mut t = Bench::new(policy());
        t.says(A);
        t.says(B);
        t.says(C);
        t.secs(20);
        if goodbye {
            t.leaves(C);
        } else {
            t.members.heartbeat(t.b, t.now);
        }
        let said = t.secs(11);
        assert!(said.contains(&"evicted 1".into()) && said.contains(&"evicted 2".into()), "{said:?}");
    }
}

#[test]
fn deafness_has_a_reason() {
    let told = |drops: &[Silence]| {
        let mut t = Bench::new(policy());
        t.says(A);
        t.says(B);
        drops.iter().for_each(|why| t.members.unheard(t.b, *why));
        t.secs(31);
        t.members.deafness(t.b).unwrap().reason
    };
    assert_eq!(told(&[]), DeafReason::Nothing);
    assert_eq!(told(&[Silence::Stale, Silence::Stale]), DeafReason::AllStale);
    assert_eq!(told(&[Silence::BadMac]), DeafReason::AllBadMac);
    assert_eq!(told(&[Silence::BadMac, Silence::Stale]), DeafReason::Mixed);
}

#[test]
fn replays_do_not_pass_for_hearing() {
    let mut t = Bench::new(policy());
    let ts = t.wall().unix_us;
    t.says(A);
    t.says(B);
    let mut said = Vec::new();
    for _ in 0..40 {
        said.extend(t.secs(1));
        assert!(matches!(
            t.tell(&Announce { url: A, ts, timeout: TIMEOUT, ..Announce::default() }),
            Heard::Dropped(Reason::ReplayedTs)
        ));
    }
    assert_eq!(said, ["deaf Mixed 2"]);
}

#[test]
fn when_deaf_evict_and_hold_for_a_time() {
    let mut t = Bench::new(Policy { when_deaf: WhenDeaf::Evict, ..policy() });
    t.says(A);
    t.says(B);
    assert_eq!(t.secs(31), ["evicted 1", "evicted 2"]);

    let limit = Duration::from_secs(100);
    let mut t = Bench::new(Policy { when_deaf: WhenDeaf::HoldFor(limit), ..policy() });
    t.says(A);
    t.says(B);
    assert_eq!(t.secs(130), ["deaf Nothing 2"]);
    assert_eq!(t.secs(1), ["evicted 1", "evicted 2"]);

    let mut t = Bench::new(policy());
    t.says(A);
    t.says(B);
    t.secs(60);
    t.members.balancer("web", Policy { when_deaf: WhenDeaf::Evict, ..policy() }, t.now);
    assert_eq!(t.secs(0), ["evicted 1", "evicted 2"], "a new policy judges those who are held");
}

#[test]
fn hearing_again_gives_everybody_a_full_timeout_even_under_a_bound() {
    let mut t = Bench::new(Policy { when_deaf: WhenDeaf::HoldFor(Duration::from_secs(1000)), ..policy() });
    t.says(A);
    t.secs(4);
    t.says(B);
    t.secs(27);
    assert!(t.members.deafness(t.b).is_some());
    t.says(C);
    let mut said = t.pass(Duration::ZERO);
    for _ in 0..31 {
        t.says(C);
        said.extend(t.secs(1));
    }
    assert_eq!(said, ["hears", "evicted 1", "evicted 2"], "B was unheard as much as A was");
}

#[test]
fn keep_last_spares_one_until_another_comes_up() {
    let mut t = Bench::new(Policy { keep_last: true, when_deaf: WhenDeaf::Evict, ..policy() });
    t.says(A);
    t.secs(1);
    t.says(B);
    assert_eq!(t.secs(300), ["evicted 1", "kept 2"]);
    assert_eq!((t.state(B), t.members.up(t.b)), (Some(State::Up), 1));
    t.says(C);
    assert_eq!(t.secs(0), ["evicted 2"], "there is another now");
    assert_eq!(t.secs(300), ["kept 3"]);
    t.says(C);
    assert_eq!(t.secs(31), ["kept 3"], "heard in between: a new silence");
    assert!(matches!(t.leaves(C), Heard::Left(_)), "a goodbye is no eviction");
    assert_eq!(t.members.up(t.b), 0);
}

#[test]
fn two_sources_for_one_url_are_noticed_once() {
    let mut t = Bench::new(policy());
    let mut ts = t.wall().unix_us;
    let mut from = |t: &mut Bench, from: &str, pid| {
        ts += 1;
        let from = from.parse().unwrap();
        facts(t.tell(&Announce { url: A, ts, timeout: TIMEOUT, from, pid, ..Announce::default() }))
            .second_source
    };
    assert_eq!(from(&mut t, "10.0.0.1:9", 1), None);
    assert_eq!(from(&mut t, "10.0.0.1:10", 2), None, "another port, another process: a restart");
    assert_eq!(from(&mut t, "[fd00::1]:10", 2), None, "one process over both families");
    assert_eq!(from(&mut t, "10.0.0.1:9", 2), None);
    assert_eq!(from(&mut t, "10.0.0.9:9", 2), Some(IpAddr::from([10, 0, 0, 1])));
    assert_eq!(from(&mut t, "10.0.0.1:9", 2), None, "once is enough");
}

#[test]
fn an_interval_too_long_for_the_timeout_is_noticed_once() {
    let mut t = Bench::new(policy());
    let mut ts = t.wall().unix_us;
    let mut every = |t: &mut Bench, url, every, timeout| {
        ts += 1;
        let every = Some(Duration::from_secs(every));
        facts(t.tell(&Announce { url, ts, timeout, every, ..Announce::default() })).slow
    };
    assert!(!every(&mut t, A, 10, TIMEOUT));
    assert!(!every(&mut t, A, 60, Duration::ZERO), "never evicted");
    assert!(every(&mut t, A, 11, TIMEOUT));
    assert!(!every(&mut t, B, 11, TIMEOUT));
}

#[test]
fn settled_after_one_full_timeout() {
    let t = Bench::new(policy());
    let at = START.after(TIMEOUT);
    assert_eq!(t.members.settles_at(t.b), Some(at));
    assert!(!t.members.settled(t.b, Mono(at.0 - 1)) && t.members.settled(t.b, at));
    let t = Bench::new(Policy { timeout: Duration::ZERO, ..policy() });
    assert!(!t.members.settled(t.b, Mono::NEVER));
}

#[test]
fn noise_alone_settles_nothing() {
    // After a restart with a wrong secret everything is dropped: that nobody is known is our fault, not their absence.
    let mut t = Bench::new(policy());
    let later = t.members.settles_at(t.b).unwrap();
    t.members.unheard(t.b, Silence::BadMac);
    assert!(!t.members.settled(t.b, later));
    t.members.heartbeat(t.b, later);
    assert!(t.members.settled(t.b, later));
}

#[test]
fn a_restart_keeps_members_marks_and_the_dead() {
    let mut t = Bench::new(Policy { when_deaf: WhenDeaf::Evict, ..policy() });
    let from = "10.0.0.1:4711".parse().unwrap();
    let ts = t.wall().unix_us;
    let told = Announce {
        url: A,
        ts,
        timeout: TIMEOUT,
        every: Some(Duration::from_secs(5)),
        weight: 3,
        from,
        host: b"web 1%",
        pid: 77,
        ..Announce::default()
    };
    t.tell(&told);
    t.says(B);
    t.secs(10);
    t.leaves(B);
    t.secs(10);
    let mut t = t.restart(Duration::from_secs(3600));
    let a = t.members.get(t.b, t.members.lookup(t.b, A).unwrap()).unwrap();
    let seen = (a.state(), a.weight(), a.every(), a.from(), a.host(), a.pid(), a.mark());
    assert_eq!(seen, (State::Up, 3, told.every, from, &b"web 1%"[..], 77, Some(ts)));
    assert_eq!(t.now.since(a.last_seen()), Duration::from_secs(3620));
    assert_eq!(t.state(B), Some(State::Left));
    assert!(matches!(t.tell(&told), Heard::Dropped(Reason::ReplayedTs)));
    assert_eq!(t.pass(TIMEOUT), ["forgotten 2"], "nobody is evicted within one timeout, the dead stay dead");
    assert_eq!(t.secs(1), ["evicted 1"]);
}

#[test]
fn a_restart_that_hears_nothing_is_deaf_too() {
    let mut t = Bench::new(policy());
    t.says(A);
    t.says(B);
    let mut t = t.restart(Duration::from_secs(100));
    assert_eq!(t.secs(500), ["deaf Nothing 2"]);
}

#[test]
fn restored_urls_pass_admission_and_meet_at_the_highest_mark() {
    let text = b"beacond state 1\nsaved 1780646570000000\n\
        member web HTTP://h/ up 1 100 1780646560000000 - - 10.0.0.1:1 1 -\n\
        member web http://h:80 down 1 300 1780646550000000 1780646555000000 - 10.0.0.1:1 1 -\n\
        member web ftp://x up 1 1 1 - - 10.0.0.1:1 1 -\n\
        member gone http://h up 1 1 1 - - 10.0.0.1:1 1 -\n\
        member web future down 1 9 9999999999999999 9999999999999999 - 10.0.0.1:1 1 -\n\
        member web past left 1 9 -9223372036854775808 - - 10.0.0.1:1 1 -\n\
        end 6\n";
    let saved = decode(text).unwrap();
    let mut reversed = saved.clone();
    reversed.rows.reverse();
    for saved in [saved, reversed] {
        let mut t = Bench::new(policy());
        let done = t.members.restore(saved, t.wall(), &mut |balancer, url| {
            assert_eq!(balancer, "web");
            match url {
                b"HTTP://h/" | b"http://h:80" => Some(A.to_vec()),
                b"ftp://x" => None,
                other => Some(other.to_vec()),
            }
        });
        assert_eq!((done.members, done.up, done.refused, done.strangers, done.no_room), (3, 1, 1, 1, 0));
        t.members.invariants().unwrap();
        let get = |url: &[u8]| t.members.get(t.b, t.members.lookup(t.b, url).unwrap()).unwrap();
        assert_eq!((get(A).state(), get(A).mark()), (State::Up, Some(300)));
        assert_eq!(t.now.since(get(A).last_seen()), Duration::from_secs(10));
        assert_eq!(get(b"future").dead_since(), Some(t.now), "not in the future");
        assert_eq!(get(b"past").last_seen(), Mono::ZERO, "not before the clock began");
    }
}

#[test]
fn a_restored_member_that_is_here_already_keeps_its_state_and_the_highest_mark() {
    let mut t = Bench::new(policy());
    t.says(A);
    t.says(B);
    t.secs(1);
    t.leaves(B);
    let saved = decode(&t.members.snapshot(t.wall())).unwrap();
    let mut members = Members::new([1, 1]);
    let b = members.balancer("web", policy(), t.now);
    let early = Announce { url: A, ts: 5, timeout: TIMEOUT, ..Announce::default() };
    let _ = members.announce(b, &early, t.now);
    // Twenty seconds later: whoever comes from the file has a full timeout from then.
    let late = Now { mono: t.now.after(Duration::from_secs(20)), ..t.wall() };
    let done = members.restore(saved, late, &mut |_, url| Some(url.to_vec()));
    assert_eq!((done.members, done.up, members.count(b)), (2, 0, 2));
    let a = members.get(b, members.lookup(b, A).unwrap()).unwrap();
    assert_eq!((a.state(), a.mark()), (State::Up, Some(t.wall().unix_us - 1_000_000)));
    members.expire(late.mono.after(TIMEOUT), &mut |event| panic!("{event:?}"));
    assert_eq!(members.up(b), 1);
    members.invariants().unwrap();
}

#[test]
fn what_does_not_fit_after_a_restart_is_the_longest_dead() {
    let mut t = Bench::new(policy());
    for url in [A, B, C] {
        t.secs(1);
        t.says(url);
    }
    t.secs(1);
    t.leaves(A);
    t.secs(1);
    t.leaves(B);
    let saved = decode(&t.members.snapshot(t.wall())).unwrap();
    let mut members = Members::new([1, 1]);
    let b = members.balancer("web", Policy { max_members: 2, ..policy() }, t.now);
    let done = members.restore(saved, t.wall(), &mut |_, url| Some(url.to_vec()));
    assert_eq!((done.members, done.up, done.no_room), (2, 1, 1));
    assert!([B, C].iter().all(|url| members.lookup(b, url).is_some()));
}

#[test]
fn a_removed_balancer_is_gone_with_its_timers() {
    let mut t = Bench::new(policy());
    t.says(A);
    let before = t.members.changes().membership;
    t.members.remove(t.b);
    assert!(t.members.changes().membership > before);
    assert_eq!((t.members.next_deadline(), t.members.count(t.b), t.members.find("web")), (None, 0, None));
    assert_eq!(t.says(A), Heard::Ignored);
    let again = t.members.balancer("web", policy(), t.now);
    assert_ne!(again, t.b);
}

/// The reference receiver's own sequences, with the signed timestamps read from the text. A balancer that is full
/// concerns the sink: there, `added` in the log is the sink's success, so only what the table decides is compared.
#[test]
fn the_references_sequences() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/beacon.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for sequence in vectors["sequences"].as_array().unwrap() {
        run_sequence(sequence);
    }
}

fn run_sequence(sequence: &Value) {
    let name = sequence["name"].as_str().unwrap();
    let steps = sequence["steps"].as_array().unwrap();
    let timeout = Duration::from_micros(sequence["evict_us"].as_u64().unwrap());
    let mut t = Bench::new(Policy { when_deaf: WhenDeaf::Evict, timeout, ..policy() });
    let start = steps[0]["at_us"].as_u64().unwrap();
    let (mut evicted, mut wanted_evicted) = (Vec::new(), Vec::new());
    for step in steps {
        t.now = START.after(Duration::from_micros(step["at_us"].as_u64().unwrap() - start));
        let mut events = Vec::new();
        for datagram in step["datagrams_hex"].as_array().unwrap() {
            let text = beacond::bytes::from_hex(datagram.as_str().unwrap()).unwrap();
            deliver(&mut t, &text, sequence["secret_hex"].is_string(), timeout, &mut events);
        }
        t.members.expire(t.now, &mut |event| match event.what {
            What::Evicted { url, .. } => {
                evicted.push((String::from_utf8_lossy(url).into_owned(), event_time(t.now)));
            }
            other => panic!("{name}: {other:?}"),
        });
        let mut wanted = Vec::new();
        for event in step["events"].as_array().unwrap().iter().map(|e| e.as_str().unwrap()) {
            match event.strip_prefix("evicted ") {
                Some(url) => wanted_evicted.push((url.to_owned(), event_time(t.now))),
                None => wanted.push(event.to_owned()),
            }
        }
        if sequence["capacity"] == 1 {
            let of_sink = |e: &String| e.contains("10.0.0.2") || e.contains("balancer add failed");
            events.retain(|e| !of_sink(e));
            wanted.retain(|e| !of_sink(e));
            evicted.retain(|(url, _)| !of_sink(url));
        }
        assert_eq!(events, wanted, "{name} at {}", step["at_us"]);
    }
    // The reference sweeps once a second; we are exact, so up to a second sooner.
    assert_eq!(evicted.len(), wanted_evicted.len(), "{name}: {evicted:?}");
    for ((url, at), (wanted, then)) in evicted.iter().zip(&wanted_evicted) {
        assert!(
            url == wanted && at <= then && *then - *at <= Duration::from_secs(1),
            "{name}: {url} at {at:?}"
        );
    }
}

fn event_time(now: Mono) -> Duration {
    now.since(START)
}

fn deliver(t: &mut Bench, text: &[u8], replay_check: bool, timeout: Duration, events: &mut Vec<String>) {
    let text = std::str::from_utf8(text).unwrap();
    let field = |key: &str| text.split(' ').find_map(|token| token.strip_prefix(key));
    let url = field("url=").unwrap();
    let ts = field("ts=").map_or(0, |ts| ts.parse().unwrap());
    let a = Announce { url: url.as_bytes(), ts, replay_check, timeout, ..Announce::default() };
    events.push("received".to_owned());
    match t.tell(&a) {
        Heard::Added(..) => events.push(format!("added {url}")),
        Heard::Revived(..) => events.push(format!("re-enabled {url}")),
        Heard::Dropped(reason) => events.push(format!("dropped: {}", reason.text())),
        _ => {}
    }
}

#[test]
fn the_references_table_limit() {
    let mut t = Bench::new(policy());
    for i in 0..256 {
        let url = format!("http://10.1.{}.{}:80", i / 256, i % 256);
        assert!(matches!(t.says(url.as_bytes()), Heard::Added(..)));
    }
    assert_eq!(t.says(b"http://10.1.1.0:80"), Heard::Dropped(Reason::TableFull));
    t.secs(1);
    assert!(matches!(t.says(b"http://10.1.0.0:80"), Heard::Refreshed(..)));
}

#[test]
fn a_mark_that_others_remember_keeps_replays_out() {
    let mut bench = Bench::new(policy());
    let now = bench.wall().unix_us;
    bench.members.recall(bench.b, A, now, bench.now);
    assert_eq!(
        bench.says(A),
        Heard::Dropped(Reason::ReplayedTs),
        "not newer than what was accepted elsewhere"
    );
    bench.pass(Duration::from_millis(1));
    assert!(matches!(bench.says(A), Heard::Added(..)));
    // Of a url that is known, its own mark moves.
    let later = bench.wall().unix_us + 5_000;
    bench.members.recall(bench.b, A, later, bench.now);
    bench.pass(Duration::from_millis(5));
    assert_eq!(bench.says(A), Heard::Dropped(Reason::ReplayedTs));
    bench.members.recall(bench.b, A, 0, bench.now);
    assert_eq!(bench.members.members(bench.b).next().unwrap().1.mark(), Some(later), "never back");
    // One from a clock that was wrong means nothing, as with our own.
    bench.members.recall(bench.b, B, now + 3_600_000_000, bench.now);
    assert!(matches!(bench.says(B), Heard::Added(..)));
}

#[test]
fn recalled_marks_are_bounded_and_end_with_their_use() {
    let mut bench = Bench::new(Policy { max_members: 2, ..policy() });
    let mark = bench.wall().unix_us;
    for url in [A, B, C] {
        bench.members.recall(bench.b, url, mark, bench.now);
    }
    assert_eq!(bench.says(A), Heard::Dropped(Reason::ReplayedTs));
    assert!(matches!(bench.says(C), Heard::Added(..)), "there was no place for it");
    bench.pass(SKEW * 2 + Duration::from_millis(1));
    bench.members.recall(bench.b, C, mark, bench.now);
    let old = Announce { url: A, ts: mark, timeout: TIMEOUT, ..Announce::default() };
    assert!(matches!(bench.tell(&old), Heard::Added(..)), "by now it is stale, and the gate's to drop");
}

#[test]
fn absence_means_nothing_until_long_after_the_source_is_back() {
    let mut bench = Bench::new(policy());
    bench.pass(TIMEOUT * 2);
    assert!(bench.members.settled(bench.b, bench.now));
    bench.members.cut_off(bench.b, bench.now);
    bench.pass(TIMEOUT * 3);
    assert!(!bench.members.settled(bench.b, bench.now), "it is away still");
    bench.members.cut_off(bench.b, bench.now);
    bench.members.reached(bench.b, bench.now);
    bench.pass(TIMEOUT - Duration::from_millis(1));
    assert!(!bench.members.settled(bench.b, bench.now), "it has just returned");
    bench.pass(Duration::from_millis(1));
    assert!(bench.members.settled(bench.b, bench.now));
}

#[test]
fn a_store_that_is_away_keeps_its_members_and_no_others() {
    let mut bench = Bench::new(policy());
    let (store, receiver) = (Writer::new(1), Writer::new(2));
    let kept = Announce { url: A, replay_check: false, writer: store, ..Announce::default() };
    bench.tell(&kept);
    bench.says(B);
    assert!(bench.members.cut_off(bench.b, bench.now));
    for _ in 0..40 {
        assert!(!bench.members.cut_off(bench.b, bench.now), "each try fails again");
        bench.pass(Duration::from_secs(1));
        let ts = bench.wall().unix_us;
        bench.tell(&Announce { url: C, ts, timeout: TIMEOUT, writer: receiver, ..Announce::default() });
    }
    assert_eq!([A, B, C].map(|url| bench.state(url)), [Some(State::Up), Some(State::Down), Some(State::Up)]);
    assert_eq!(bench.members.deafness(bench.b).map(|deaf| deaf.reason), Some(DeafReason::Away));
    bench.members.reached(bench.b, bench.now);
    assert_eq!(bench.members.deafness(bench.b), None);
    assert_eq!(bench.pass(Duration::from_millis(1)), ["hears"]);
}

/// A reload: its listeners are others, and so may be their timeouts.
#[test]
fn a_new_timeout_reaches_those_that_are_silent_already() {
    for (before, after) in [(Duration::ZERO, TIMEOUT), (TIMEOUT * 100, TIMEOUT), (TIMEOUT, Duration::ZERO)] {
        let mut bench = Bench::new(Policy { timeout: before, ..policy() });
        let (old, new) = (Writer::new(1), Writer::new(2));
        for url in [A, B] {
            let ts = bench.wall().unix_us;
            bench.tell(&Announce { url, ts, timeout: before, writer: old, ..Announce::default() });
        }
        bench.pass(Duration::from_secs(20));
        bench.members.balancer("web", Policy { timeout: after, ..policy() }, bench.now);
        bench.members.release(bench.b, old, bench.now);
        bench.members.adopt(bench.b, new, after, &mut |_| true);
        bench.members.invariants().unwrap();
        // What was never to be evicted is silent from the change on, the others since they were heard.
        let left = TIMEOUT - Duration::from_secs(if before.is_zero() { 0 } else { 20 });
        for _ in 0..left.as_secs() {
            assert_eq!(bench.state(A), Some(State::Up));
            let ts = bench.wall().unix_us;
            bench.tell(&Announce { url: B, ts, timeout: after, writer: new, ..Announce::default() });
            bench.pass(Duration::from_secs(1));
        }
        bench.pass(Duration::from_millis(2));
        assert_eq!(bench.state(A), Some(if after.is_zero() { State::Up } else { State::Down }), "{before:?}");
    }
}

#[test]
fn who_ends_leaves_nobody_for_ever() {
    let mut bench = Bench::new(policy());
    let (store, other) = (Writer::new(1), Writer::new(2));
    bench.tell(&Announce { url: A, replay_check: false, writer: store, ..Announce::default() });
    bench.tell(&Announce { url: B, replay_check: false, writer: other, ..Announce::default() });
    bench.pass(TIMEOUT * 9);
    bench.members.release(bench.b, store, bench.now);
    bench.members.heartbeat(bench.b, bench.now);
    bench.pass(TIMEOUT - Duration::from_millis(1));
    bench.members.heartbeat(bench.b, bench.now);
    assert_eq!([A, B].map(|url| bench.state(url)), [Some(State::Up); 2]);
    bench.pass(Duration::from_millis(2));
    assert_eq!([A, B].map(|url| bench.state(url)), [Some(State::Down), Some(State::Up)]);
}

/// What one listener admitted, another has yet to admit: who is fenced in there must not speak for it.
#[test]
fn a_url_is_known_to_who_brought_it() {
    let mut bench = Bench::new(policy());
    let (one, other) = (Writer::new(1), Writer::new(2));
    bench.tell(&Announce { url: A, ts: 5, writer: one, ..Announce::default() });
    let knows = |bench: &Bench, writer| bench.members.knows(bench.b, A, writer);
    assert!(knows(&bench, one) && !knows(&bench, other) && !bench.members.knows(bench.b, B, one));
    bench.tell(&Announce { url: A, ts: 6, writer: other, ..Announce::default() });
    assert!(!knows(&bench, one) && knows(&bench, other));
    bench.members.release(bench.b, other, bench.now);
    bench.members.adopt(bench.b, one, TIMEOUT, &mut |member| member.url() != A);
    assert!(!knows(&bench, one) && !knows(&bench, other));
    bench.members.adopt(bench.b, one, TIMEOUT, &mut |_| true);
    assert!(knows(&bench, one));
}
