//! The machine of rendered files against a model of a disk and of the program that reads the file, on virtual time: a
//! disk that fails, is full, forgets and is edited by others; tests that fail; reloads that fail, do nothing and say
//! otherwise, or take long; restarts of either side in the middle of anything.
//!
//! Whatever happened, once it stops happening the file says what the table wants, the program has loaded it, and then
//! nothing more is written. On the way: reloads keep their distance, only what was tested is loaded, a file that failed
//! its test is taken back, and who is not known to be gone stays. A failing run prints its seed:
//! `SEED=n cargo test --test sim_rendered`.
#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use beacond::clock::Mono;
use beacond::sinks::Want;
use beacond::sinks::diff::Goal;
use beacond::sinks::rendered::layout::{Format, Layout, Servers, Shown};
use beacond::sinks::rendered::machine::{Came, Machine, Pace, Part, Todo, Ways};
use beacond::sorted::Sorted;
use beacond::url::Url;
use beacond::views::ViewState;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const PACE: Pace =
    Pace { every: SECOND, coalesce: Duration::from_millis(200), min_gap: Duration::from_secs(5) };
const NGINX: Ways = Ways { generation: true, test: true, reload: true, verify: true };
const UNVERIFIED: Ways = Ways { generation: false, test: true, reload: true, verify: false };
const PLAIN: Ways = Ways { generation: false, test: false, reload: false, verify: false };
/// From a start until the table knows who is gone.
const SETTLES: Duration = Duration::from_secs(30);

#[test]
fn it_converges_and_then_rests() {
    for seed in seeds(60) {
        for (format, ways) in [(Format::Nginx, NGINX), (Format::Nginx, UNVERIFIED), (Format::Envoy, PLAIN)] {
            let mut world = World::new(seed, format, ways);
            world.storm(Duration::from_secs(300));
            world.calm(Duration::from_secs(200));
            world.assert_converged();
            let writes = world.writes;
            world.calm(Duration::from_secs(600));
            assert_eq!(world.writes, writes, "seed {seed}: written in a steady state");
            world.assert_converged();
        }
    }
}

#[test]
fn a_stream_of_changes_is_neither_lost_nor_a_storm_of_reloads() {
    for seed in seeds(10) {
        let mut world = World::new(seed, Format::Nginx, UNVERIFIED);
        let start = world.now;
        while world.now < start.after(100 * SECOND) {
            world.change_a_member();
            world.run(Duration::from_millis(50));
        }
        assert!((15..=21).contains(&world.reloads), "seed {seed}: {} reloads in 100 s", world.reloads);
        world.calm(Duration::from_secs(60));
        world.assert_converged();
    }
}

#[test]
fn a_first_change_is_written_after_the_coalescing_and_not_later() {
    let mut world = World::new(1, Format::Nginx, UNVERIFIED);
    world.calm(20 * SECOND);
    let start = world.now;
    world.want.servers = Sorted::from_iter([(url(1), Goal::Up(1))]);
    world.machine.members_changed(world.now);
    world.run(Duration::from_millis(190));
    assert!(!world.text().contains("127.0.1.1"));
    world.run(Duration::from_millis(100));
    assert!(world.text().contains("127.0.1.1"), "{:?}", world.now.since(start));
    assert_eq!(world.machine.view(&url(1)).0, ViewState::Up);
}

#[test]
fn two_with_different_tables_on_one_file_do_not_storm() {
    let mut worlds = [World::new(1, Format::Lines, PLAIN), World::new(2, Format::Lines, PLAIN)];
    for (n, world) in worlds.iter_mut().enumerate() {
        world.want.settled = true;
        world.want.servers = Sorted::from_iter([(url(n), Goal::Up(1))]);
    }
    let mut writes = 0;
    for _ in 0..6000 {
        for n in 0..2 {
            let file = worlds[1 - n].disk.file.clone();
            worlds[n].disk.touched |= worlds[n].disk.file != file;
            worlds[n].disk.file = file;
            worlds[n].run(Duration::from_millis(50));
        }
        writes = worlds[0].writes + worlds[1].writes;
    }
    assert!((2..=700).contains(&writes), "{writes} writes in 300 s");
}

#[derive(Default)]
struct Disk {
    file: Option<Vec<u8>>,
    good: Option<Vec<u8>>,
    generation: Option<Vec<u8>>,
    /// The file was touched since the machine last read it.
    touched: bool,
}

/// The program that reads the file.
#[derive(Default)]
struct Program {
    loaded: Option<Vec<u8>>,
    generation: Option<Vec<u8>>,
    /// Its configuration is broken elsewhere.
    broken: bool,
    /// It does not run.
    away: bool,
}

struct World {
    seed: u64,
    random: u64,
    now: Mono,
    started: Mono,
    layout: Layout,
    ways: Ways,
    machine: Machine,
    want: Want<Url>,
    disk: Disk,
    program: Program,
    stormy: bool,
    /// What the machine waits for, and when that comes.
    under_way: Option<(Mono, Todo)>,
    wakes: Mono,
    last_reload: Option<Mono>,
    /// The last thing tested, and whether it passed.
    tested: Option<(Vec<u8>, bool)>,
    writes: usize,
    reloads: usize,
}

impl World {
    fn new(seed: u64, format: Format, ways: Ways) -> World {
        let layout = Layout {
            format,
            balancer: "web".to_owned(),
            service: "web".to_owned(),
            labels: Vec::new(),
            options: String::new(),
            tls: false,
        };
        World {
            seed,
            random: seed,
            now: Mono(1_000_000),
            started: Mono(1_000_000),
            machine: Machine::new(layout.clone(), ways, PACE),
            layout,
            ways,
            want: Want::default(),
            disk: Disk { touched: true, ..Disk::default() },
            program: Program::default(),
            stormy: false,
            under_way: None,
            wakes: Mono::ZERO,
            last_reload: None,
            tested: None,
            writes: 0,
            reloads: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// One time in `n`, while it storms.
    fn mishap(&mut self, n: u64) -> bool {
        self.draw(n) == 0 && self.stormy
    }

    fn storm(&mut self, time: Duration) {
        self.stormy = true;
        let end = self.now.after(time);
        while self.now < end {
            match self.draw(30) {
                0..=9 => self.change_a_member(),
                10 => self.restart(),
                11 => self.edit(),
                12 => self.program.broken = !self.program.broken,
                13 => self.program.away = true,
                14 | 15 => self.start_program(),
                _ => {}
            }
            let pause = Duration::from_millis(self.draw(2000));
            self.run(pause);
        }
    }

    fn calm(&mut self, time: Duration) {
        self.stormy = false;
        self.program.broken = false;
        let end = self.now.after(time);
        while self.now < end {
            // A file that is nothing of ours is left alone by a fresh start, rightly, until somebody takes it away.
            if self.machine.view(&url(0)).1.is_some_and(|why| why.contains("did not write")) {
                (self.disk.file, self.disk.touched) = (None, true);
            }
            self.start_program();
            self.run(SECOND);
        }
    }

    /// It starts with what is on the disk, if that is not broken.
    fn start_program(&mut self) {
        let fine =
            !self.program.broken && self.disk.file.as_ref().is_some_and(|f| self.layout.read(f).is_some());
        if self.program.away && fine {
            let (loaded, generation) = (self.disk.file.clone(), self.disk.generation.clone());
            self.program = Program { loaded, generation, ..Program::default() };
        }
    }

    fn change_a_member(&mut self) {
        let (n, weight) = (usize::try_from(self.draw(8)).unwrap(), u16::try_from(self.draw(3)).unwrap());
        let goal =
            [Goal::Up(weight), Goal::Up(1), Goal::Drain, Goal::Out][usize::try_from(self.draw(4)).unwrap()];
        if self.draw(6) == 0 {
            self.want.servers.remove(&url(n));
        } else {
            self.want.servers.insert(url(n), goal);
        }
        self.machine.members_changed(self.now);
    }

    /// beacond is killed and started again; it knows nobody yet.
    fn restart(&mut self) {
        // What was asked of the disk may have been done all the same.
        if let Some((_, Todo::Write(part, bytes))) = self.under_way.take()
            && self.draw(2) == 0
        {
            self.write(part, bytes);
        }
        self.machine = Machine::new(self.layout.clone(), self.ways, PACE);
        self.want = Want::default();
        self.started = self.now;
        (self.last_reload, self.tested) = (None, None);
        (self.wakes, self.disk.touched) = (self.now, true);
    }

    /// Somebody else is at the file.
    fn edit(&mut self) {
        self.disk.file = match self.draw(4) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(b"nonsense {".to_vec()),
            _ => {
                let servers = [(url(9), Shown::Up(1)), (url(1), Shown::Up(2))];
                Some(self.layout.render(&Servers::from_iter(servers)))
            }
        };
        self.disk.touched = true;
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        loop {
            self.want.settled = self.now.since(self.started) >= SETTLES;
            // Members may have changed: it says anew how long it waits.
            if self.under_way.is_none() {
                self.ask();
            }
            let next = self.under_way.as_ref().map_or(self.wakes, |(at, _)| *at);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if let Some((_, todo)) = self.under_way.take() {
                let came = self.carry_out(todo);
                let random = self.draw(u64::MAX);
                self.machine.came(came, self.now, random);
                self.wakes = self.now;
            }
            self.machine.news();
        }
        self.now = end;
    }

    fn ask(&mut self) {
        match self.machine.next(&self.want, self.now) {
            Todo::Wait(at) => {
                assert!(at > self.now, "seed {}: waits for what is past", self.seed);
                self.wakes = at;
            }
            todo => {
                if let Some((bytes, false)) = &self.tested
                    && self.disk.file.as_ref() == Some(bytes)
                    && self.disk.good.as_ref().is_some_and(|good| good != bytes)
                    && self.program.loaded.as_ref().is_some_and(|loaded| loaded != bytes)
                    && !self.stormy
                    && !self.disk.touched
                {
                    let back = matches!(&todo, Todo::Write(Part::File, old) if old != bytes);
                    assert!(back, "seed {}: a file that failed stays: {todo:?}", self.seed);
                }
                if todo == Todo::Reload {
                    let gap = self.last_reload.replace(self.now).map(|last| self.now.since(last));
                    let far = gap.is_none_or(|gap| gap >= PACE.min_gap);
                    assert!(far, "seed {}: reloads {gap:?} apart", self.seed);
                }
                if let Todo::Write(part, bytes) = &todo {
                    self.keeps_who_may_live(*part, bytes);
                }
                self.tested = self.tested.take().filter(|(_, passed)| *passed);
                let delay = if self.mishap(10) { self.draw(3_000_000) } else { self.draw(2_000) };
                self.under_way = Some((self.now.after(Duration::from_micros(delay)), todo));
            }
        }
    }

    fn carry_out(&mut self, todo: Todo) -> Came {
        let failed = || Came::Failed("no".to_owned());
        match todo {
            Todo::Read(_) | Todo::Write(..) if self.mishap(12) => failed(),
            Todo::Read(Part::File) => {
                if !std::mem::take(&mut self.disk.touched) {
                    return Came::Same;
                }
                Came::Bytes(self.disk.file.clone())
            }
            Todo::Read(_) => Came::Bytes(self.disk.good.clone()),
            // A disk that says yes and does nothing.
            Todo::Write(Part::File, _) if self.mishap(20) => {
                self.disk.touched = true;
                Came::Done
            }
            Todo::Write(part, bytes) => {
                self.write(part, bytes);
                Came::Done
            }
            Todo::Test => {
                let file = self.disk.file.clone().unwrap_or_default();
                let passed = !self.program.broken && self.layout.read(&file).is_some() && !self.mishap(8);
                self.tested = Some((file, passed));
                if passed { Came::Done } else { failed() }
            }
            Todo::Reload => self.reload(),
            Todo::Verify(generation) => {
                let says = Some(Layout::generation_file(&generation));
                let right = !self.program.away && self.program.generation == says;
                if right { Came::Done } else { failed() }
            }
            Todo::Wait(_) => unreachable!("nothing to carry out"),
        }
    }

    fn reload(&mut self) -> Came {
        assert!(self.tested.as_ref().is_some_and(|(_, passed)| *passed), "seed {}: untested", self.seed);
        self.reloads += 1;
        if self.program.away || self.mishap(8) {
            return Came::Failed("no such process".to_owned());
        }
        // Without a proof, who says yes and does nothing cannot be found out.
        let lies = self.ways.verify && self.mishap(5);
        if !lies {
            self.program.loaded = self.disk.file.clone();
            self.program.generation = self.disk.generation.clone();
        }
        Came::Done
    }

    fn write(&mut self, part: Part, bytes: Vec<u8>) {
        self.writes += 1;
        match part {
            Part::File => (self.disk.file, self.disk.touched) = (Some(bytes), true),
            Part::Good => self.disk.good = Some(bytes),
            Part::Generation => self.disk.generation = Some(bytes),
        }
    }

    /// While the table does not know who is gone, nobody is dropped but whom it names.
    fn keeps_who_may_live(&self, part: Part, bytes: &[u8]) {
        let back = matches!(self.tested, Some((_, false)));
        if self.want.settled || part != Part::File || self.disk.touched || back {
            return;
        }
        let after = self.layout.read(bytes).unwrap();
        let before = self.disk.file.as_ref().and_then(|file| self.layout.read(file)).unwrap_or_default();
        for (server, _) in before.iter() {
            let named = self.want.servers.contains_key(server);
            assert!(
                named || after.contains_key(server),
                "seed {}: {server} is dropped in ignorance",
                self.seed
            );
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.disk.file.clone().unwrap_or_default()).unwrap()
    }

    fn assert_converged(&self) {
        let seed = self.seed;
        let shown = |(url, goal): (&Url, &Goal)| {
            let shown = match *goal {
                Goal::Up(weight) => Shown::Up(weight),
                Goal::Drain if self.layout.keeps_draining() => Shown::Draining,
                Goal::Drain | Goal::Out => return None,
            };
            Some((url.clone(), shown))
        };
        let all: Servers = self.want.servers.iter().filter_map(shown).collect();
        let lines = |file: &str| {
            file.lines()
                .filter(|l| !l.contains("DRAINING") && !l.contains("version_info"))
                .map(|l| l.trim_end_matches(',').to_owned())
                .filter(|l| !l.starts_with('#'))
                .collect::<Vec<_>>()
        };
        let wanted = String::from_utf8(self.layout.render(&all)).unwrap();
        assert_eq!(lines(&self.text()), lines(&wanted), "seed {seed}: the file");
        assert!(self.machine.view(&url(0)).1.is_none(), "seed {seed}: {:?}", self.machine.view(&url(0)));
        for (server, shown) in all.iter() {
            let (state, _) = self.machine.view(server);
            let fine = matches!(
                (shown, state),
                (Shown::Up(1..), ViewState::Up) | (_, ViewState::Draining | ViewState::Down)
            );
            assert!(fine, "seed {seed}: {server} {shown:?} is shown as {state:?}");
        }
        if self.ways.reload {
            assert_eq!(self.program.loaded, self.disk.file, "seed {seed}: loaded");
            assert_eq!(self.disk.good, self.disk.file, "seed {seed}: the copy");
        }
    }
}

fn url(n: usize) -> Url {
    Url::parse(format!("tcp://127.0.1.{n}:80").as_bytes()).unwrap()
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (10..10 + std::env::var("SEEDS").map_or(count, |many| many.parse().unwrap())).collect(),
    }
}
