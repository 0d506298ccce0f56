//! Chains of steps that go wrong in ways that no real nginx shows on demand.

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

    /// Lets the machine work until it rests; then `true` if it was a reload that came just before.
    fn run(&mut self, machine: &mut Machine, want: &Want<Url>, mut after_reload: impl FnMut() -> Want<Url>) {
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
