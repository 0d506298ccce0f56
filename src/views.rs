//! What each sink has made of each member: its state there and the last error. Written by that sink alone, read by
//! `status`. Nothing here decides; a view that nobody wrote is absent.
//!
//! Views stand in a plain table by member slot, and carry the member's generation: once a member is forgotten, its
//! views are found by nobody and the next tenant of the slot overwrites them. So a view left behind does no harm.

use crate::members::{BalancerId, MemberId};

/// How a member stands with one sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ViewState {
    /// It takes traffic.
    Up,
    /// It is there and waits for its first passed check.
    Checking,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It takes no traffic.
    Down,
    /// The operator has taken it out of service there, and that wins.
    Operator,
    /// The sink cannot take it; the error says why.
    Refused,
}

impl ViewState {
    /// The word for it in `status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ViewState::Up => "up",
            ViewState::Checking => "checking",
            ViewState::Draining => "draining",
            ViewState::Down => "down",
            ViewState::Operator => "operator",
            ViewState::Refused => "refused",
        }
    }
}

/// One view, as it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View<'a> {
    /// How the member stands.
    pub state: ViewState,
    /// The last error, until the sink takes it back.
    pub error: Option<&'a str>,
}

/// Names a sink. An id is never given out twice in the life of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SinkId(u32);

/// All views of all sinks.
#[derive(Debug, Default)]
pub struct Views {
    /// By id. A removed sink leaves its place empty.
    sinks: Vec<Option<Sink>>,
}

#[derive(Debug)]
struct Sink {
    name: Box<str>,
    balancer: BalancerId,
    /// By member slot.
    views: Vec<Option<Entry>>,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    state: ViewState,
    error: Option<Box<str>>,
}

impl Views {
    /// No sinks.
    #[must_use]
    pub fn new() -> Views {
        Views::default()
    }

    /// The sink of this name (`haproxy:web`) on this balancer; entered if it is new, with its views if it is not.
    ///
    /// # Panics
    /// After 2^32 sinks.
    pub fn sink(&mut self, name: &str, balancer: BalancerId) -> SinkId {
        let known =
            self.entered().find(|(_, s)| *s.name == *name && s.balancer == balancer).map(|(id, _)| id);
        known.unwrap_or_else(|| {
            let id = SinkId(u32::try_from(self.sinks.len()).expect("fewer than 2^32 sinks"));
            self.sinks.push(Some(Sink { name: name.into(), balancer, views: Vec::new() }));
            id
        })
    }

    /// The same, without views and under an id of its own: whoever had it under this name can neither write nor remove it.
    pub fn take(&mut self, name: &str, balancer: BalancerId) -> SinkId {
        let before = self.sink(name, balancer);
        self.remove(before);
        self.sink(name, balancer)
    }

    /// Removes a sink and its views.
    pub fn remove(&mut self, sink: SinkId) {
        if let Some(place) = self.sinks.get_mut(sink.0 as usize) {
            *place = None;
        }
    }

    /// Writes a view. True if it differs from what was there. Only a new error text allocates.
    pub fn set(&mut self, sink: SinkId, member: MemberId, state: ViewState, error: Option<&str>) -> bool {
        let before = self.get(sink, member);
        if before == Some(View { state, error }) {
            return false;
        }
        let Some(sink) = self.sinks.get_mut(sink.0 as usize).and_then(Option::as_mut) else { return false };
        let place = member.index as usize;
        if sink.views.len() <= place {
            sink.views.resize_with(place + 1, || None);
        }
        let error = error.map(Box::from);
        sink.views[place] = Some(Entry { generation: member.generation, state, error });
        true
    }

    /// Takes a view back: the sink has nothing of this member any more.
    pub fn clear(&mut self, sink: SinkId, member: MemberId) {
        if self.get(sink, member).is_some()
            && let Some(sink) = self.sinks.get_mut(sink.0 as usize).and_then(Option::as_mut)
        {
            sink.views[member.index as usize] = None;
        }
    }

    /// Takes back every sink's view of a member that is forgotten. Nobody could find them any more; this gives the
    /// memory of their error texts back at once.
    pub fn forget(&mut self, balancer: BalancerId, member: MemberId) {
        let of_balancer: Vec<_> =
            self.entered().filter(|(_, s)| s.balancer == balancer).map(|(id, _)| id).collect();
        of_balancer.into_iter().for_each(|sink| self.clear(sink, member));
    }

    /// Reads a view.
    #[must_use]
    pub fn get(&self, sink: SinkId, member: MemberId) -> Option<View<'_>> {
        self.sinks.get(sink.0 as usize)?.as_ref()?.view(member)
    }

    /// What all sinks of a balancer say about a member, by sink name, in the order the sinks were entered.
    pub fn of(&self, balancer: BalancerId, member: MemberId) -> impl Iterator<Item = (&str, View<'_>)> {
        let sinks = self.entered().filter(move |(_, sink)| sink.balancer == balancer);
        sinks.filter_map(move |(_, sink)| Some((&*sink.name, sink.view(member)?)))
    }

    /// All sinks: id, name and balancer.
    pub fn sinks(&self) -> impl Iterator<Item = (SinkId, &str, BalancerId)> {
        self.entered().map(|(id, sink)| (id, &*sink.name, sink.balancer))
    }

    fn entered(&self) -> impl Iterator<Item = (SinkId, &Sink)> {
        (0u32..).zip(&self.sinks).filter_map(|(id, sink)| Some((SinkId(id), sink.as_ref()?)))
    }
}

impl Sink {
    fn view(&self, member: MemberId) -> Option<View<'_>> {
        let entry = self.views.get(member.index as usize)?.as_ref()?;
        let current = entry.generation == member.generation;
        current.then_some(View { state: entry.state, error: entry.error.as_deref() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;
    use crate::members::{Members, Policy, WhenDeaf};
    use std::time::Duration;

    fn two_balancers() -> (BalancerId, BalancerId) {
        let policy = Policy {
            max_members: 4,
            forget: Duration::ZERO,
            keep_last: false,
            when_deaf: WhenDeaf::Hold,
            timeout: Duration::ZERO,
            max_skew: Duration::from_secs(30),
        };
        let mut members = Members::new([0, 0]);
        (members.balancer("a", policy, Mono(0)), members.balancer("b", policy, Mono(0)))
    }

    fn member(index: u32, generation: u32) -> MemberId {
        MemberId { index, generation }
    }

    #[test]
    fn written_read_and_forgotten_with_the_member() {
        let (a, b) = two_balancers();
        let mut views = Views::new();
        let (web, run) = (views.sink("haproxy:web", a), views.sink("exec:run", a));
        let other = views.sink("haproxy:web", b);
        assert_ne!(web, other);
        assert_eq!(views.sink("haproxy:web", a), web);
        assert!(views.set(web, member(3, 0), ViewState::Refused, Some("host name")));
        assert!(!views.set(web, member(3, 0), ViewState::Refused, Some("host name")));
        assert!(views.set(run, member(3, 0), ViewState::Up, None));
        let shown: Vec<_> = views.of(a, member(3, 0)).collect();
        let refused = View { state: ViewState::Refused, error: Some("host name") };
        assert_eq!(
            shown,
            [("haproxy:web", refused), ("exec:run", View { state: ViewState::Up, error: None })]
        );
        assert_eq!(views.of(b, member(3, 0)).count(), 0);
        assert_eq!(views.get(web, member(3, 1)), None, "another member has the slot now");
        assert!(views.set(web, member(3, 1), ViewState::Checking, None));
        assert_eq!(views.get(web, member(3, 0)), None);
        views.forget(b, member(3, 1));
        assert!(views.get(web, member(3, 1)).is_some(), "that was another balancer's");
        views.forget(a, member(3, 1));
        assert_eq!(views.get(web, member(3, 1)), None);
        assert!(views.get(run, member(3, 0)).is_some());
        views.remove(run);
        assert_eq!(views.of(a, member(3, 0)).count(), 0);
        assert_eq!(
            views.sinks().map(|(_, name, on)| (name, on)).collect::<Vec<_>>(),
            [("haproxy:web", a), ("haproxy:web", b)]
        );
    }
}
