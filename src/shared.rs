//! What rooms share: members, what sinks think of them, counters, taps. Belongs to the loop, lent through `Cx`.
//!
//! Here too is what the program says when time alone changed the table; what messages changed is said by who heard
//! them. A further field needs two rooms that read it.

use crate::bytes::Printable;
use crate::clock::{Mono, Seconds};
use crate::members::{Event, Members, What};
use crate::stats::{Counter, Stats};
use crate::taps::Taps;
use crate::views::Views;

/// The nouns that several services read or write.
pub struct Shared {
    /// All balancers and their members.
    pub members: Members,
    /// What each sink made of each member.
    pub views: Views,
    /// Counters.
    pub stats: Stats,
    /// Who watches sessions, and what there is to tell them.
    pub taps: Taps,
    /// When the process started.
    pub started: Mono,
    /// The table's count of changes when the services were last told.
    told: u64,
}

impl Shared {
    /// Empty; `seed` keys the table's hashes.
    #[must_use]
    pub fn new(seed: [u64; 2], now: Mono) -> Shared {
        Shared {
            members: Members::new(seed),
            views: Views::default(),
            stats: Stats::default(),
            taps: Taps::default(),
            started: now,
            told: 0,
        }
    }

    /// Lets the table do what is due.
    pub fn expire(&mut self, now: Mono) {
        let Shared { members, stats, .. } = self;
        members.expire(now, &mut |event| {
            stats.add(counter(&event));
            log(&event);
        });
    }

    /// Whether a balancer's members changed since the last call.
    pub fn take_moved(&mut self) -> bool {
        let now = self.members.changes().membership;
        std::mem::replace(&mut self.told, now) != now
    }
}

fn counter(event: &Event<'_>) -> Counter {
    match event.what {
        What::Evicted { .. } => Counter::MemberEvicted,
        What::Forgotten { .. } => Counter::MemberForgotten,
        What::Deaf { .. } => Counter::MemberDeaf,
        What::HearsAgain { .. } => Counter::MemberHearsAgain,
        What::KeptLast { .. } => Counter::MemberKeptLast,
    }
}

fn log(event: &Event<'_>) {
    let name = event.name;
    match event.what {
        What::Evicted { url, silent, .. } => log::info!(
            target: "members",
            "evicted backend {} from balancer://{name}: silent for {:.1} s",
            Printable(url),
            Seconds(silent)
        ),
        What::Forgotten { url, .. } => {
            log::info!(target: "members", "forgot backend {} of balancer://{name}", Printable(url));
        }
        What::Deaf { reason, silent, up } => log::error!(
            target: "members",
            "balancer://{name} is deaf: nothing valid heard for {:.1} s while {up} members are up ({}); evictions are \
             held",
            Seconds(silent),
            reason.text()
        ),
        What::HearsAgain { deaf_for } => log::info!(
            target: "members",
            "balancer://{name} hears again after {:.1} s; its members have one timeout to announce themselves",
            Seconds(deaf_for)
        ),
        What::KeptLast { url, silent, .. } => log::warn!(
            target: "members",
            "kept backend {} of balancer://{name}, the last one up, though silent for {:.1} s",
            Printable(url),
            Seconds(silent)
        ),
    }
}
