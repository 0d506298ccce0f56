//! How a sink follows a balancer: the table's levels, carried over when they change, and what the sink makes of each
//! member, carried back for `status`; and its news, carried to the log.
//!
//! A sink owns a [`Follow`] of the kind of server that its balancer knows. What is to be done about a difference is the
//! sink's own affair.

use super::diff::Goal;
use super::trouble::News;
use super::{Refused, Want};
use crate::members::{BalancerId, MemberId, State};
use crate::reactor::Cx;
use crate::url::Url;
use crate::views::{SinkId, ViewState};

/// A balancer's members as one sink needs them.
#[derive(Debug)]
pub struct Follow<K> {
    balancer: Option<BalancerId>,
    sink: Option<SinkId>,
    revision: u64,
    want: Want<K>,
    members: Vec<(MemberId, Result<K, Refused>)>,
}

impl<K> Default for Follow<K> {
    fn default() -> Follow<K> {
        Follow { balancer: None, sink: None, revision: 0, want: Want::default(), members: Vec::new() }
    }
}

impl<K: Ord + Clone> Follow<K> {
    /// What the table wants.
    #[must_use]
    pub fn want(&self) -> &Want<K> {
        &self.want
    }

    /// Whether the members have changed since the last [`Follow::refresh`].
    #[must_use]
    pub fn is_behind(&self, balancer: &str, cx: &Cx<'_>) -> bool {
        let found = cx.shared.members.find(balancer);
        found != self.balancer || found.is_some_and(|b| cx.shared.members.revision(b) != self.revision)
    }

    /// Takes over what the members of `balancer` have become; `place` says which server a url leads to. True if there
    /// was anything new. `sink` is the sink's name, as `haproxy:web`.
    pub fn refresh(
        &mut self,
        sink: &str,
        balancer: &str,
        place: impl Fn(&Url) -> Result<K, Refused>,
        cx: &mut Cx<'_>,
    ) -> bool {
        let behind = self.is_behind(balancer, cx);
        if behind {
            *self = match cx.shared.members.find(balancer) {
                Some(id) => Follow::of(id, sink, place, cx),
                None => Follow::default(),
            };
        }
        let settled = |b| cx.shared.members.settled(b, cx.now.mono);
        self.want.settled = self.balancer.is_some_and(settled);
        behind
    }

    /// Shows where every member stands.
    pub fn show<'a>(&self, view: impl Fn(&K) -> (ViewState, Option<&'a str>), cx: &mut Cx<'_>) {
        let Some(sink) = self.sink else { return };
        for (member, server) in &self.members {
            match server {
                Ok(server) => {
                    let (state, error) = view(server);
                    cx.shared.views.set(sink, *member, state, error);
                }
                Err(refused) => {
                    cx.shared.views.set(sink, *member, ViewState::Refused, Some(&refused.to_string()));
                }
            }
        }
    }

    /// Takes back what it showed.
    pub fn withdraw(&mut self, cx: &mut Cx<'_>) {
        if let Some(sink) = self.sink.take() {
            cx.shared.views.remove(sink);
        }
    }

    fn of(
        balancer: BalancerId,
        sink: &str,
        place: impl Fn(&Url) -> Result<K, Refused>,
        cx: &mut Cx<'_>,
    ) -> Follow<K> {
        let members = &cx.shared.members;
        let (mut goals, mut placed) = (Vec::new(), Vec::new());
        for (id, member) in members.members(balancer) {
            let Ok(url) = Url::parse(member.url()) else { continue };
            let server = place(&url);
            if let Ok(server) = &server {
                let goal = match member.state() {
                    State::Up => Goal::Up(member.weight()),
                    State::Left => Goal::Drain,
                    State::Down => Goal::Out,
                };
                goals.push((server.clone(), goal));
            }
            placed.push((id, server));
        }
        Follow {
            balancer: Some(balancer),
            revision: members.revision(balancer),
            sink: Some(cx.shared.views.sink(sink, balancer)),
            want: Want::of(goals),
            members: placed,
        }
    }
}

/// Puts a machine's news into the log of `role`, each with the sink's `name` before it.
pub fn log_news(role: &str, name: &str, news: Vec<News>) {
    for News { warn, text } in news {
        let level = if warn { log::Level::Warn } else { log::Level::Info };
        log::log!(target: role, level, "{name}: {text}");
    }
}
