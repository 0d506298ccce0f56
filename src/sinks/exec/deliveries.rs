//! What the command has been told about each member, and what it must be told next. Pure: processes, clocks and the
//! member table are the service's.
//!
//! A level per member, never a queue of events: the table's latest state is compared with the last one the command
//! accepted (exit status 0), and where they differ a delivery is due. One delivery is under way at a time. From its
//! start until it succeeds, what the command believes of that member is unknown, so that after a failure the member
//! is delivered again whatever it has become since: at least once, and always the latest.

use crate::clock::Mono;
use crate::sorted::Sorted;
use std::time::Duration;

/// What a command is told about a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It takes traffic, with the weight given.
    Up,
    /// It fell silent.
    Down,
    /// It said goodbye.
    Left,
    /// It is no longer in the table.
    Forgotten,
}

impl Event {
    /// The word in `BEACOND_EVENT`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Event::Up => "up",
            Event::Down => "down",
            Event::Left => "left",
            Event::Forgotten => "forgotten",
        }
    }
}

/// A member's state, as the table has it or as the command was told.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// Which of the four.
    pub event: Event,
    /// The member's weight; it makes a difference only while the member is up.
    pub weight: u16,
}

impl PartialEq for Level {
    fn eq(&self, other: &Level) -> bool {
        self.event == other.event && (self.event != Event::Up || self.weight == other.weight)
    }
}

/// One run of the command.
#[derive(Clone, PartialEq, Debug)]
pub struct Delivery {
    /// The member's url.
    pub url: String,
    /// What to tell.
    pub level: Level,
}

/// What to do now.
#[derive(Clone, PartialEq, Debug)]
pub enum Next {
    /// Run the command; [`Deliveries::finished`] is owed.
    Run(Delivery),
    /// Nothing before this time: a delivery that failed waits for its next attempt.
    Wait(Mono),
    /// Nothing until members change or the command under way ends.
    Idle,
}

/// All members of one balancer, as one command knows them.
#[derive(Debug, Default)]
pub struct Deliveries {
    members: Sorted<String, Entry>,
    running: Option<Delivery>,
    /// The delivery under way went to a command that is not ours any more.
    outdated: bool,
    /// Counts what became due, to deliver in that order.
    turn: u64,
    /// Counts the looks at the table, to notice who is missing from the latest.
    look: u64,
}

#[derive(Debug)]
struct Entry {
    wanted: Level,
    /// What the command last accepted; `None`: nothing yet, or an attempt since then has not succeeded.
    told: Option<Level>,
    /// When it became due, in [`Deliveries::turn`]s.
    turn: u64,
    failures: u32,
    not_before: Mono,
    /// Why the last attempt failed, until one succeeds.
    error: Option<String>,
    look: u64,
}

impl Entry {
    fn is_due(&self) -> bool {
        self.told != Some(self.wanted)
    }
}

impl Deliveries {
    /// Takes in the table's members as they are now; who is missing has been forgotten by it. Returns how many
    /// members had to be given up because [`MAX_FORGOTTEN`] of them wait for a command that never succeeds.
    pub fn observe<'a>(&mut self, members: impl Iterator<Item = (&'a str, Level)>) -> usize {
        self.look += 1;
        let mut newcomers = Vec::new();
        for (url, level) in members {
            match self.members.get_mut(url) {
                Some(entry) => {
                    entry.look = self.look;
                    self.turn = want(entry, level, self.turn);
                }
                None => {
                    // A member first seen silent or gone is no news: the command never heard of it from us.
                    let told = (level.event != Event::Up).then_some(level);
                    self.turn += 1;
                    let (turn, look) = (self.turn, self.look);
                    let entry = Entry {
                        wanted: level,
                        told,
                        turn,
                        failures: 0,
                        not_before: Mono::ZERO,
                        error: None,
                        look,
                    };
                    newcomers.push((url.to_owned(), entry));
                }
            }
        }
        self.members.extend(newcomers);
        let missing = self.members.iter_mut().filter(|(_, e)| e.look != self.look);
        let mut forgotten = 0_usize;
        for (_, entry) in missing {
            forgotten += 1;
            self.turn = want(entry, Level { event: Event::Forgotten, ..entry.wanted }, self.turn);
        }
        let excess = forgotten.saturating_sub(MAX_FORGOTTEN);
        for _ in 0..excess {
            self.give_up_oldest();
        }
        excess
    }

    /// What to do at `now`. After [`Next::Run`] that delivery is under way.
    pub fn next(&mut self, now: Mono) -> Next {
        if self.running.is_some() {
            return Next::Idle;
        }
        let due = || self.members.iter().filter(|(_, e)| e.is_due());
        let first = due().filter(|(_, e)| e.not_before <= now).min_by_key(|(_, e)| e.turn);
        let Some(url) = first.map(|(url, _)| url.clone()) else {
            return due().map(|(_, e)| e.not_before).min().map_or(Next::Idle, Next::Wait);
        };
        let entry = self.members.get_mut(&url).expect("a url of this map");
        entry.told = None;
        let delivery = Delivery { url, level: entry.wanted };
        self.running = Some(delivery.clone());
        Next::Run(delivery)
    }

    /// The delivery under way ended, well or with an error for `status`. Returns when it is tried again if it failed;
    /// `random` spreads that.
    pub fn finished(&mut self, result: Result<(), String>, now: Mono, random: u64) -> Option<Mono> {
        let Delivery { url, level } = self.running.take()?;
        let outdated = std::mem::take(&mut self.outdated);
        let entry = self.members.get_mut(&url)?;
        match result {
            Ok(()) => {
                entry.told = (!outdated).then_some(level);
                entry.failures = 0;
                entry.not_before = Mono::ZERO;
                entry.error = None;
                if level.event == Event::Forgotten && !entry.is_due() {
                    self.members.remove(&url);
                }
                None
            }
            // Another state or another command: neither need wait for the failure of what it replaced.
            Err(_) if outdated || level != entry.wanted => Some(now),
            Err(error) => {
                entry.error = Some(error);
                entry.not_before = now.after(back_off(entry.failures, random));
                entry.failures = entry.failures.saturating_add(1);
                // Behind what else is due, so that one member's failures do not starve the others.
                self.turn += 1;
                entry.turn = self.turn;
                Some(entry.not_before)
            }
        }
    }

    /// Has every member that is up delivered again, as after a start: the command may be another one now.
    pub fn restart(&mut self) {
        self.outdated = self.running.is_some();
        for (_, entry) in self.members.iter_mut().filter(|(_, e)| e.wanted.event == Event::Up) {
            entry.told = None;
            entry.not_before = Mono::ZERO;
            entry.failures = 0;
        }
    }

    /// The delivery under way.
    #[must_use]
    pub fn running(&self) -> Option<&Delivery> {
        self.running.as_ref()
    }

    /// What the command last accepted about `url`, if it believes that still, and why it did not accept the latest.
    #[must_use]
    pub fn told(&self, url: &str) -> (Option<Level>, Option<&str>) {
        self.members.get(url).map_or((None, None), |e| (e.told, e.error.as_deref()))
    }

    /// The members that are up, by url, with their weights.
    pub fn up(&self) -> impl Iterator<Item = (&str, u16)> {
        let up = self.members.iter().filter(|(_, e)| e.wanted.event == Event::Up);
        up.map(|(url, e)| (url.as_str(), e.wanted.weight))
    }

    fn give_up_oldest(&mut self) {
        let running = self.running.as_ref().map(|d| d.url.as_str());
        let forgotten = self
            .members
            .iter()
            .filter(|(url, e)| e.wanted.event == Event::Forgotten && Some(url.as_str()) != running);
        if let Some(url) = forgotten.min_by_key(|(_, e)| e.turn).map(|(url, _)| url.clone()) {
            self.members.remove(&url);
        }
    }
}

/// Sets what `entry` must become; a change is tried at once, whatever failed before. Returns the turn count.
fn want(entry: &mut Entry, level: Level, turn: u64) -> u64 {
    if entry.wanted == level {
        return turn;
    }
    let was_due = entry.is_due();
    entry.wanted = level;
    entry.failures = 0;
    entry.not_before = Mono::ZERO;
    if was_due {
        return turn;
    }
    entry.turn = turn + 1;
    entry.turn
}

/// 1 s, doubled with every failure up to 60 s, and up to a quarter of it more or less.
fn back_off(failures: u32, random: u64) -> Duration {
    let whole = (FIRST_RETRY_MS << failures.min(6)).min(LAST_RETRY_MS);
    Duration::from_millis(whole * 3 / 4 + whole / 2 * (random % 1001) / 1000)
}

const FIRST_RETRY_MS: u64 = 1_000;
const LAST_RETRY_MS: u64 = 60_000;

/// How many forgotten members may wait to be delivered. Members of the table are bounded by the table.
pub const MAX_FORGOTTEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const UP: Level = Level { event: Event::Up, weight: 1 };
    const DOWN: Level = Level { event: Event::Down, weight: 1 };
    const GONE: Level = Level { event: Event::Forgotten, weight: 1 };
    const HEAVY: Level = Level { event: Event::Up, weight: 9 };

    fn run(url: &str, level: Level) -> Next {
        Next::Run(Delivery { url: url.to_owned(), level })
    }

    fn see(d: &mut Deliveries, members: &[(&str, Level)]) {
        assert_eq!(d.observe(members.iter().copied()), 0);
    }

    #[test]
    fn every_change_once_one_at_a_time_in_order() {
        let mut d = Deliveries::default();
        assert_eq!(d.next(Mono(0)), Next::Idle);
        see(&mut d, &[("b", UP), ("a", UP), ("dead", DOWN)]);
        assert_eq!(d.next(Mono(0)), run("b", UP));
        assert_eq!(d.next(Mono(0)), Next::Idle, "one at a time");
        assert_eq!(d.finished(Ok(()), Mono(1), 0), None);
        assert_eq!(d.next(Mono(1)), run("a", UP));
        d.finished(Ok(()), Mono(2), 0);
        assert_eq!(d.next(Mono(2)), Next::Idle);
        see(&mut d, &[("b", HEAVY), ("a", DOWN)]);
        assert_eq!(d.up().collect::<Vec<_>>(), [("b", 9)]);
        assert_eq!(d.next(Mono(3)), run("b", HEAVY));
        d.finished(Ok(()), Mono(3), 0);
        assert_eq!(d.next(Mono(3)), run("a", DOWN));
        d.finished(Ok(()), Mono(3), 0);
        assert_eq!(d.next(Mono(3)), run("dead", GONE));
        d.finished(Ok(()), Mono(3), 0);
        see(&mut d, &[("b", HEAVY), ("a", Level { weight: 7, ..DOWN })]);
        assert_eq!(d.next(Mono(3)), Next::Idle, "the weight of a silent member says nothing");
        assert_eq!(d.members.len(), 2);
    }

    #[test]
    fn only_the_latest_state_is_delivered() {
        let mut d = Deliveries::default();
        see(&mut d, &[("a", UP)]);
        d.next(Mono(0));
        see(&mut d, &[("a", DOWN)]);
        see(&mut d, &[("a", HEAVY)]);
        d.finished(Ok(()), Mono(0), 0);
        assert_eq!(d.next(Mono(0)), run("a", HEAVY));
        d.finished(Ok(()), Mono(0), 0);
        see(&mut d, &[("a", DOWN)]);
        see(&mut d, &[("a", HEAVY)]);
        assert_eq!(d.next(Mono(0)), Next::Idle, "back to what the command knows");
    }

    #[test]
    fn a_failure_waits_and_a_newer_state_does_not() {
        let mut d = Deliveries::default();
        see(&mut d, &[("a", UP), ("b", UP)]);
        d.next(Mono(0));
        let again = d.finished(Err("no".to_owned()), Mono(0), 500).unwrap();
        assert_eq!(again, Mono(1_000_000));
        assert_eq!(d.told("a"), (None, Some("no")));
        assert_eq!(d.next(Mono(0)), run("b", UP), "the others go on");
        d.finished(Ok(()), Mono(0), 0);
        assert_eq!(d.next(Mono(0)), Next::Wait(again));
        assert_eq!(d.next(again), run("a", UP));
        assert_eq!(d.finished(Err("no".to_owned()), again, 500), Some(again.after(Duration::from_secs(2))));
        see(&mut d, &[("a", DOWN), ("b", UP)]);
        assert_eq!(d.next(again), run("a", DOWN));
        see(&mut d, &[("a", UP), ("b", UP)]);
        assert_eq!(d.finished(Err("no".to_owned()), again, 0), Some(again), "superseded");
        assert_eq!(d.next(again), run("a", UP), "a failed attempt may have done half of it");
    }

    #[test]
    fn a_restart_delivers_who_is_up_and_keeps_what_is_owed() {
        let mut d = Deliveries::default();
        see(&mut d, &[("a", UP), ("b", UP)]);
        for _ in 0..2 {
            d.next(Mono(0));
            d.finished(Ok(()), Mono(0), 0);
        }
        see(&mut d, &[("a", UP), ("b", DOWN)]);
        d.restart();
        assert_eq!(d.next(Mono(0)), run("a", UP));
        d.finished(Ok(()), Mono(0), 0);
        assert_eq!(d.next(Mono(0)), run("b", DOWN));
        d.restart();
        assert_eq!(d.finished(Ok(()), Mono(0), 0), None);
        assert_eq!(d.told("b"), (None, None), "the command that was told is another one");
        assert_eq!(d.next(Mono(0)), run("a", UP));
        d.finished(Ok(()), Mono(0), 0);
        assert_eq!(d.next(Mono(0)), run("b", DOWN));
        d.finished(Ok(()), Mono(0), 0);
        assert_eq!(d.told("b"), (Some(DOWN), None));
        assert_eq!(d.next(Mono(0)), Next::Idle);
    }

    #[test]
    fn what_is_owed_to_a_broken_command_is_bounded() {
        let mut d = Deliveries::default();
        let urls: Vec<String> = (0..MAX_FORGOTTEN + 9).map(|n| format!("u{n:05}")).collect();
        assert_eq!(d.observe(urls.iter().map(|u| (u.as_str(), UP))), 0);
        assert_eq!(d.next(Mono(0)), run("u00000", UP));
        assert_eq!(d.observe(std::iter::empty()), 9);
        assert_eq!(d.members.len(), MAX_FORGOTTEN);
        assert!(d.members.contains_key("u00000"), "the one under way stays");
        assert!(!d.members.contains_key("u00009") && d.members.contains_key("u00010"));
    }

    #[test]
    fn back_off_grows_and_ends() {
        let seconds: Vec<u64> = (0..9).map(|n| back_off(n, 500).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(back_off(0, 0), Duration::from_millis(750));
        assert_eq!(back_off(u32::MAX, 1000), Duration::from_secs(75));
    }

    proptest! {
        /// Whatever happens, once the table is quiet and the command works, the command's last word on every member
        /// is the table's, and it was told nothing that was not true at that moment.
        #[test]
        fn the_command_ends_up_knowing(steps in prop::collection::vec((0..5usize, 0..5u8, any::<bool>()), 0..80)) {
            let names = ["a", "b", "c", "d", "e"];
            let mut table: BTreeMap<&str, Level> = BTreeMap::new();
            let mut known: BTreeMap<String, Level> = BTreeMap::new();
            let mut d = Deliveries::default();
            let mut now = Mono(0);
            let look = |d: &mut Deliveries, table: &BTreeMap<&str, Level>| {
                assert_eq!(d.observe(table.iter().map(|(u, l)| (*u, *l))), 0);
            };
            for (who, what, works) in steps {
                match what {
                    0 => drop(table.remove(names[who])),
                    1 | 2 => drop(table.insert(names[who], if what == 1 { UP } else { HEAVY })),
                    3 => {
                        if let Some(level) = table.get_mut(names[who]) {
                            level.event = Event::Down;
                        }
                    }
                    _ => now = now.after(Duration::from_secs(30)),
                }
                if works {
                    look(&mut d, &table);
                }
                let running = d.running().cloned();
                if let Some(Delivery { url, level }) = running {
                    if works {
                        known.insert(url, level);
                    } else {
                        known.remove(&url);
                    }
                    let result = if works { Ok(()) } else { Err(String::new()) };
                    d.finished(result, now, u64::from(what));
                }
                look(&mut d, &table);
                if let Next::Run(delivery) = d.next(now) {
                    let truth = table.get(delivery.url.as_str()).copied();
                    prop_assert_eq!(delivery.level, truth.unwrap_or(GONE));
                }
            }
            for _ in 0..100 {
                now = now.after(Duration::from_secs(100));
                if let Some(Delivery { url, level }) = d.running().cloned() {
                    known.insert(url, level);
                    d.finished(Ok(()), now, 0);
                }
                d.next(now);
            }
            prop_assert!(d.running().is_none() && d.members.len() == table.len());
            for (url, level) in &table {
                if level.event == Event::Up {
                    prop_assert_eq!(known.get(*url), Some(level));
                } else if let Some(told) = known.get(*url) {
                    prop_assert_eq!(told, level);
                }
            }
        }
    }
}
