//! The decisions about one file that follows a balancer: when it is written, and what must happen then.
//!
//! A look is: read the file, compare its servers with what is wanted, write it anew where they differ, read it again.
//! What follows a write is a chain of steps: a test, a reload, a proof that the reload took; where the test fails the old
//! file comes back. What once passed all steps is kept in a copy beside the file, so that a chain that was broken off,
//! by a crash or a failure, is begun again until it is whole, and a start with nothing new does nothing. Pure: the
//! service reads, writes and runs; it brings back what came of it.

mod decide;
mod steps;

use super::layout::{Layout, Servers, Shown};
use crate::clock::Mono;
use crate::sinks::trouble::News;
use crate::sinks::{Want, back_off};
use crate::url::Url;
use crate::views::ViewState;
use std::time::Duration;

/// When something is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Between two looks when nothing happens.
    pub every: Duration,
    /// From the first change until it is written: others join it.
    pub coalesce: Duration,
    /// Between two reloads, or two writes where there is no reload.
    pub min_gap: Duration,
}

/// What belongs to writing the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ways {
    /// A second file is written, which says the generation.
    pub generation: bool,
    /// It is tested.
    pub test: bool,
    /// Somebody is told.
    pub reload: bool,
    /// And asked whether it took.
    pub verify: bool,
}

/// One of the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The file itself.
    File,
    /// What last passed all steps.
    Good,
    /// What says the generation.
    Generation,
}

/// What the machine wants done; [`Machine::came`] is owed for all but `Wait`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Todo {
    /// Read this one.
    Read(Part),
    /// Replace this one.
    Write(Part, Vec<u8>),
    /// Have the file tested.
    Test,
    /// Have it loaded.
    Reload,
    /// Find out whether this generation was loaded.
    Verify(String),
    /// Nothing before that time (a change of the table aside).
    Wait(Mono),
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Came {
    /// The file is what it was when it was last read.
    Same,
    /// The file's bytes; `None`: there is none.
    Bytes(Option<Vec<u8>>),
    /// It is done.
    Done,
    /// It is not, and why.
    Failed(String),
}

/// One file, as we write it.
#[derive(Debug)]
pub struct Machine {
    layout: Layout,
    ways: Ways,
    pace: Pace,
    phase: Phase,
    /// When to look although nothing happened.
    look_at: Mono,
    /// When to look because something did.
    change_at: Option<Mono>,
    /// No reload before that.
    gap_until: Mono,
    /// What we know of the file; `None`: nothing yet.
    seen: Option<Seen>,
    /// The copy; the outer `None`: not read yet.
    good: Option<Option<Vec<u8>>>,
    generation: Option<String>,
    /// The servers of the file that went through all steps.
    taken: Servers,
    /// The file has not gone through all steps.
    owed: bool,
    /// It must be rendered whatever its servers.
    stale: bool,
    /// It was written and not read since.
    unread: bool,
    /// It was put back, and what says the generation was not yet.
    put_back: bool,
    /// What it was before it was written, or at the first look, as long as there is no copy.
    before: Option<Vec<u8>>,
    trouble: Option<Trouble>,
    warned_until: Mono,
    news: Vec<News>,
    views_moved: bool,
}

/// The file at the last look, or as we wrote it since.
#[derive(Debug)]
struct Seen {
    bytes: Option<Vec<u8>>,
    servers: Servers,
    /// It is a file of ours. What is not is left alone.
    ours: bool,
}

#[derive(Debug)]
enum Phase {
    /// Until the next look.
    Idle,
    /// This comes next.
    Next(Todo),
    /// The file did not pass: this comes back.
    Restore(Vec<u8>),
    /// The file was read; `written`: just after it was written.
    Looked { written: bool },
    /// This is under way.
    Asked(Asked),
}

/// What is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Asked {
    Read { written: bool },
    ReadGood,
    Write { new: Vec<u8>, back: bool },
    WriteGood(Vec<u8>),
    WriteGeneration { back: bool },
    Test,
    Reload,
    Verify,
}

/// Something does not work.
#[derive(Debug)]
struct Trouble {
    text: String,
    repeats: u32,
}

impl Machine {
    /// A machine that has seen nothing yet; its first [`Machine::next`] reads.
    #[must_use]
    pub fn new(layout: Layout, ways: Ways, pace: Pace) -> Machine {
        Machine {
            layout,
            ways,
            pace,
            phase: Phase::Idle,
            look_at: Mono::ZERO,
            change_at: None,
            gap_until: Mono::ZERO,
            seen: None,
            good: None,
            generation: None,
            taken: Servers::default(),
            owed: false,
            stale: true,
            unread: false,
            put_back: false,
            before: None,
            trouble: None,
            warned_until: Mono::ZERO,
            news: Vec::new(),
            views_moved: true,
        }
    }

    /// Goes on with another configuration for the same file. What was under way is forgotten.
    #[must_use]
    pub fn reconfigured(self, layout: Layout, ways: Ways, pace: Pace) -> Machine {
        let fresh = Machine::new(layout, ways, pace);
        let same = fresh.layout.format == self.layout.format;
        if !same {
            return fresh;
        }
        let Machine { seen, good, taken, owed, gap_until, before, .. } = self;
        Machine { seen, good, taken, owed, gap_until, before, ..fresh }
    }

    /// The table has changed: looks soon, unless something is wrong.
    pub fn members_changed(&mut self, now: Mono) {
        self.change_at.get_or_insert(now.after(self.pace.coalesce));
    }

    /// What to do now.
    pub fn next(&mut self, want: &Want<Url>, now: Mono) -> Todo {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Idle) {
                Phase::Idle if now < self.wakes_at() => return Todo::Wait(self.wakes_at()),
                Phase::Idle if self.ways.reload && self.good.is_none() => {
                    self.phase = Phase::Next(Todo::Read(Part::Good));
                }
                Phase::Idle => self.phase = Phase::Next(Todo::Read(Part::File)),
                Phase::Next(todo) => return self.ask(todo, now),
                Phase::Restore(old) => {
                    self.phase = Phase::Asked(Asked::Write { new: old.clone(), back: true });
                    return Todo::Write(Part::File, old);
                }
                Phase::Looked { written } => {
                    if let Some(todo) = self.decide(want, written, now) {
                        return self.ask(todo, now);
                    }
                }
                asked @ Phase::Asked(_) => {
                    self.phase = asked;
                    return Todo::Wait(Mono::NEVER);
                }
            }
        }
    }

    /// Whether something is under way that should not be broken off.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// What is under way takes long; it goes on.
    pub fn late(&mut self, why: &str) {
        self.complain(why.to_owned());
    }

    /// What has happened since the last call, for the log.
    pub fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Where a server stands, and what is wrong.
    #[must_use]
    pub fn view(&self, server: &Url) -> (ViewState, Option<&str>) {
        let written = self.seen.as_ref().is_some_and(|seen| seen.servers.contains_key(server));
        let state = match self.taken.get(server) {
            Some(Shown::Up(1..)) => ViewState::Up,
            Some(_) => ViewState::Draining,
            None if written => ViewState::Checking,
            None => ViewState::Down,
        };
        (state, self.trouble.as_ref().map(|trouble| trouble.text.as_str()))
    }

    /// Whether [`Machine::view`] may have changed since this was last asked.
    pub fn views_moved(&mut self) -> bool {
        std::mem::take(&mut self.views_moved)
    }

    fn wakes_at(&self) -> Mono {
        match self.change_at {
            // Nor is it looked in between: that would end the coalescing.
            Some(at) if self.trouble.is_none() => at.max(self.gap_until),
            _ => self.look_at,
        }
    }

    fn tell(&mut self, text: String) {
        self.news.push(News { warn: false, text });
    }

    /// Something is wrong: says so, once for each text.
    fn complain(&mut self, text: String) -> u32 {
        let repeats = self.trouble.as_ref().map_or(0, |trouble| trouble.repeats.saturating_add(1));
        if self.trouble.as_ref().is_none_or(|trouble| trouble.text != text) {
            self.news.push(News { warn: true, text: text.clone() });
            self.views_moved = true;
        }
        self.trouble = Some(Trouble { text, repeats });
        repeats
    }

    /// Something failed: looks again later, ever later.
    fn fail(&mut self, text: &str, now: Mono, random: u64) {
        let repeats = self.complain(text.to_owned());
        self.look_at = now.after(back_off(repeats, random));
        self.phase = Phase::Idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::diff::Goal;
    use crate::sinks::rendered::layout::Format;

    /// A disk and an nginx.
    #[derive(Default)]
    struct World {
        file: Option<Vec<u8>>,
        good: Option<Vec<u8>>,
        refuses: bool,
        now: u64,
        reloads: u32,
        writes: u32,
    }

    impl World {
        fn now(&self) -> Mono {
            Mono::ZERO.after(Duration::from_millis(self.now))
        }

        /// Lets the machine work until it rests; after a reload the table is as `after_reload` says.
        fn run(
            &mut self,
            machine: &mut Machine,
            want: &Want<Url>,
            mut after_reload: impl FnMut() -> Want<Url>,
        ) {
            let mut want = want.clone();
            for _ in 0..100 {
                let came = match machine.next(&want, self.now()) {
                    Todo::Wait(_) => return,
                    Todo::Read(Part::Good) => Came::Bytes(self.good.clone()),
                    Todo::Read(_) => Came::Bytes(self.file.clone()),
                    Todo::Write(part, bytes) => {
                        self.writes += 1;
                        *(if part == Part::Good { &mut self.good } else { &mut self.file }) = Some(bytes);
                        Came::Done
                    }
                    Todo::Test if self.refuses => Came::Failed("no".to_owned()),
                    Todo::Reload => {
                        self.reloads += 1;
                        want = after_reload();
                        machine.members_changed(self.now());
                        Came::Done
                    }
                    Todo::Test | Todo::Verify(_) => Came::Done,
                };
                machine.came(came, self.now(), 0);
            }
            panic!("it never rests");
        }
    }

    fn layout() -> Layout {
        Layout {
            format: Format::Nginx,
            balancer: "web".to_owned(),
            service: "web".to_owned(),
            labels: Vec::new(),
            options: String::new(),
            tls: false,
        }
    }

    fn machine() -> Machine {
        let ways = Ways { test: true, reload: true, ..Ways::default() };
        let pace = Pace {
            every: Duration::from_secs(5),
            coalesce: Duration::from_millis(200),
            min_gap: Duration::from_secs(5),
        };
        Machine::new(layout(), ways, pace)
    }

    fn server(last: u16) -> Url {
        Url::parse(format!("tcp://10.0.0.1:{last}").as_bytes()).unwrap()
    }

    fn want(last: u16, settled: bool) -> Want<Url> {
        Want { settled, ..Want::of(vec![(server(last), Goal::Up(1))]) }
    }

    fn text(bytes: Option<&Vec<u8>>) -> &str {
        bytes.and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    #[test]
    fn members_that_never_stand_still_leave_no_old_copy() {
        let (mut world, mut machine) = (World::default(), machine());
        for round in 1..9 {
            world.run(&mut machine, &want(round, true), || want(round + 1, true));
            assert_eq!(u32::from(round), world.reloads);
            assert_eq!(world.good, world.file, "round {round}");
            assert!(text(world.good.as_ref()).contains(&format!("10.0.0.1:{round};")), "round {round}");
            assert_eq!(machine.view(&server(round)).0, ViewState::Up, "round {round}");
            world.now += 5_000;
        }
    }

    #[test]
    fn a_file_without_a_copy_is_not_emptied_by_a_test_that_fails() {
        let (mut world, mut machine) = (World { refuses: true, ..World::default() }, machine());
        let file = layout().render(&[(server(7), Shown::Up(1))].into_iter().collect());
        world.file = Some(file.clone());
        for _ in 0..5 {
            world.run(&mut machine, &want(8, false), || panic!("no reload"));
            assert_eq!(text(world.file.as_ref()), text(Some(&file)));
            world.now += 40_000;
        }
    }

    #[test]
    fn a_file_that_is_lost_while_we_are_away_comes_back_as_it_was() {
        let (mut world, mut machine) = (World::default(), machine());
        let file = layout().render(&[(server(7), Shown::Up(1))].into_iter().collect());
        world.good = Some(file.clone());
        world.run(&mut machine, &Want::default(), Want::default);
        assert_eq!(text(world.file.as_ref()), text(Some(&file)));
    }

    #[test]
    fn nothing_is_written_where_nothing_changes() {
        let (mut world, mut machine) = (World::default(), machine());
        for _ in 0..20 {
            world.run(&mut machine, &want(7, true), || want(7, true));
            world.now += 5_000;
        }
        assert_eq!((world.writes, world.reloads), (2, 1), "the file and the copy");
    }
}
