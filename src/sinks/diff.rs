//! What is wanted against what is there: the ordered changes that lead from one to the other.
//!
//! One function for all sinks. A row sink (HAProxy, Apache) applies the first changes and reads back; a set
//! sink (a rendered file) writes everything anew when the list is not empty. Pure: no clock, so whoever fills
//! in [`Have`] has already decided what "drained" and "removable" mean for its balancer. Nothing here knows a
//! balancer's words, and nothing here trusts that a change it once asked for has happened.

use crate::sorted::{Sorted, sort};

/// What the member table wants of one server.
///
/// In this order they win over each other where several members share a server, the last over all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Goal {
    /// It fell silent: out at once.
    Out,
    /// It said goodbye: no new connections, then out.
    Drain,
    /// It is to serve with this weight (0 to 256; 0 takes no new connections).
    Up(u16),
}

/// Where a server is, as read from the balancer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// In rotation, as far as we decide: the balancer's own health checks may still think otherwise.
    Up,
    /// Held back by us until its first check has passed; nothing to do but wait.
    Checking,
    /// Held back by us, and free to be enabled at any time.
    Draining,
    /// Out of rotation, by us.
    Down,
    /// Out of rotation by somebody else, who wins.
    Operator,
}

/// One server as the balancer has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Have {
    /// Where it is.
    pub level: Level,
    /// Its weight now; compared only while [`Level::Up`].
    pub weight: u16,
    /// Ours to take away: we added it, or found it at our first look. Decides about servers that nobody
    /// wants.
    pub owned: bool,
    /// A drain is over: nothing is running there any more, or it was given time enough.
    pub drained: bool,
    /// It may be taken away for good: it is ours, out of rotation, and nothing holds on to it.
    pub removable: bool,
}

/// One kind of change. In this order they are applied: capacity comes before it goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// The balancer has no such server: make it, with this weight.
    Add(u16),
    /// It is there but out of rotation: bring it back, with this weight.
    Enable(u16),
    /// It serves with another weight.
    Weight(u16),
    /// No new connections from now on.
    Drain,
    /// Out of rotation.
    Disable,
    /// Away for good.
    Remove,
}

/// One change to one server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Change<K> {
    /// What to do.
    pub step: Step,
    /// To which server.
    pub key: K,
}

/// The changes that lead from `have` to `want`, ordered by step, then by key; none when there is nothing to
/// do.
///
/// Servers that nobody wants are left alone until `settled`: a table that has only just started does not know
/// yet who lives. Applying every change and reading again never yields more than one further change for a
/// server at a time, and none in the end.
#[must_use]
pub fn diff<K: Ord + Clone>(want: &Sorted<K, Goal>, have: &Sorted<K, Have>, settled: bool) -> Vec<Change<K>> {
    let missing =
        want.iter().filter(|(key, _)| !have.contains_key(key)).filter_map(|(key, &goal)| match goal {
            Goal::Up(weight) => Some(Change { step: Step::Add(weight), key: key.clone() }),
            Goal::Drain | Goal::Out => None,
        });
    let present = have.iter().filter_map(|(key, have)| {
        let step = match want.get(key) {
            Some(&goal) => towards(goal, have),
            None if settled && have.owned => towards(Goal::Drain, have),
            None => None,
        };
        step.map(|step| Change { step, key: key.clone() })
    });
    let mut changes: Vec<Change<K>> = missing.chain(present).collect();
    sort(&mut changes, Ord::cmp);
    changes
}

/// The next step of one server that exists.
fn towards(goal: Goal, have: &Have) -> Option<Step> {
    match (goal, have.level) {
        (_, Level::Operator) | (Goal::Up(_), Level::Checking) => None,
        (Goal::Up(weight), Level::Up) => (weight != have.weight).then_some(Step::Weight(weight)),
        (Goal::Up(weight), Level::Draining | Level::Down) => Some(Step::Enable(weight)),
        (Goal::Drain, Level::Up) => Some(Step::Drain),
        (Goal::Drain, Level::Checking | Level::Draining) => have.drained.then_some(Step::Disable),
        (Goal::Out, Level::Up | Level::Checking | Level::Draining) => Some(Step::Disable),
        (Goal::Drain | Goal::Out, Level::Down) => have.removable.then_some(Step::Remove),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UP: Have = Have { level: Level::Up, weight: 1, owned: true, drained: true, removable: true };

    fn one(want: Option<Goal>, have: Option<Have>, settled: bool) -> Option<Step> {
        let want = want.map(|goal| (7, goal)).into_iter().collect();
        let have = have.map(|have| (7, have)).into_iter().collect();
        let changes = diff(&want, &have, settled);
        assert!(changes.len() <= 1);
        changes.first().map(|change| change.step)
    }

    #[test]
    fn each_pair_of_want_and_have() {
        let at = |level| Some(Have { level, ..UP });
        let busy = |level| Some(Have { level, drained: false, removable: false, ..UP });
        let rows = [
            (Some(Goal::Up(5)), None, Some(Step::Add(5))),
            (Some(Goal::Up(1)), at(Level::Up), None),
            (Some(Goal::Up(5)), at(Level::Up), Some(Step::Weight(5))),
            (Some(Goal::Up(5)), at(Level::Checking), None),
            (Some(Goal::Up(5)), at(Level::Draining), Some(Step::Enable(5))),
            (Some(Goal::Up(5)), at(Level::Down), Some(Step::Enable(5))),
            (Some(Goal::Up(5)), at(Level::Operator), None),
            (Some(Goal::Drain), None, None),
            (Some(Goal::Drain), at(Level::Up), Some(Step::Drain)),
            (Some(Goal::Drain), busy(Level::Draining), None),
            (Some(Goal::Drain), at(Level::Draining), Some(Step::Disable)),
            (Some(Goal::Drain), busy(Level::Down), None),
            (Some(Goal::Drain), at(Level::Down), Some(Step::Remove)),
            (Some(Goal::Drain), at(Level::Operator), None),
            (Some(Goal::Out), None, None),
            (Some(Goal::Out), busy(Level::Up), Some(Step::Disable)),
            (Some(Goal::Out), busy(Level::Draining), Some(Step::Disable)),
            (Some(Goal::Out), busy(Level::Down), None),
            (Some(Goal::Out), at(Level::Down), Some(Step::Remove)),
            (Some(Goal::Out), at(Level::Operator), None),
            (None, at(Level::Up), Some(Step::Drain)),
            (None, at(Level::Operator), None),
        ];
        for (want, have, step) in rows {
            assert_eq!(one(want, have, true), step, "{want:?} {have:?}");
        }
        assert_eq!(one(None, Some(UP), false), None, "ignorance is not absence");
        assert_eq!(one(None, Some(Have { owned: false, ..UP }), true), None, "not ours");
    }

    #[test]
    fn capacity_comes_before_it_goes() {
        let goals = [(1, Goal::Out), (2, Goal::Up(1)), (3, Goal::Up(9)), (4, Goal::Up(1))];
        let servers = [(1, UP), (3, UP), (4, Have { level: Level::Down, ..UP })];
        let (want, have) = (goals.into_iter().collect(), servers.into_iter().collect());
        let steps: Vec<Step> = diff(&want, &have, true).into_iter().map(|change| change.step).collect();
        assert_eq!(steps, [Step::Add(1), Step::Enable(1), Step::Weight(9), Step::Disable]);
    }

    /// A balancer that does as it is told.
    fn obey(change: Change<u8>, have: &mut Sorted<u8, Have>) {
        let level = match change.step {
            Step::Add(_) => Level::Checking,
            Step::Enable(_) | Step::Weight(_) => Level::Up,
            Step::Drain => Level::Draining,
            Step::Disable => Level::Down,
            Step::Remove => {
                have.remove(&change.key).expect("only what is there is removed");
                return;
            }
        };
        if !have.contains_key(&change.key) {
            have.insert(change.key, UP);
        }
        let row = have.get_mut(&change.key).expect("just inserted");
        row.level = level;
        if let Step::Add(weight) | Step::Enable(weight) | Step::Weight(weight) = change.step {
            row.weight = weight;
        }
    }

    fn goal() -> impl Strategy<Value = Goal> {
        prop_oneof![(0u16..3).prop_map(Goal::Up), Just(Goal::Drain), Just(Goal::Out)]
    }

    fn have() -> impl Strategy<Value = Have> {
        let level = prop::sample::select(vec![
            Level::Up,
            Level::Checking,
            Level::Draining,
            Level::Down,
            Level::Operator,
        ]);
        (level, 0u16..3, any::<bool>()).prop_map(|(level, weight, owned)| Have { level, weight, owned, ..UP })
    }

    proptest! {
        #[test]
        fn an_obedient_balancer_arrives(
            want in prop::collection::vec((0u8..8, goal()), 0..8),
            have in prop::collection::vec((0u8..8, have()), 0..8),
        ) {
            let want = Sorted::from_iter(want);
            let mut have = Sorted::from_iter(have);
            let before = have.clone();
            for _ in 0..5 {
                for change in diff(&want, &have, true) {
                    obey(change, &mut have);
                }
                // Every first check passes in between.
                let checking = have.iter_mut().filter(|(_, row)| row.level == Level::Checking);
                checking.for_each(|(_, row)| row.level = Level::Draining);
            }
            prop_assert!(diff(&want, &have, true).is_empty());
            for (key, goal) in want.iter() {
                match (goal, have.get(key)) {
                    (Goal::Up(_), Some(row)) if row.level == Level::Operator => {}
                    (Goal::Up(weight), Some(row)) => {
                        prop_assert_eq!((row.level, row.weight), (Level::Up, *weight));
                    }
                    (Goal::Up(_), None) => prop_assert!(false, "wanted and missing"),
                    (_, None) => {}
                    (_, Some(row)) => prop_assert_eq!(row.level, Level::Operator),
                }
            }
            for (key, &(mut row)) in before.iter() {
                if row.level == Level::Checking {
                    row.level = Level::Draining;
                }
                if row.level == Level::Operator || !row.owned && !want.contains_key(key) {
                    prop_assert_eq!(have.get(key), Some(&row), "not ours to touch");
                }
            }
        }
    }
}
