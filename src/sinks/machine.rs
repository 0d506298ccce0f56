//! What a sink behind HTTP decides with, as [`super::http`] sees it: questions out, answers in. Pure.

use super::trouble::News;
use super::{Refused, Want};
use crate::clock::Mono;
use crate::http1::Response;
use crate::url::Url;
use crate::views::ViewState;

/// What decides about one balancer behind HTTP. It knows its servers by text.
pub trait Machine: 'static {
    /// How the balancer would call the server that a member's url leads to.
    ///
    /// # Errors
    /// It cannot take such a member.
    fn place(&self, url: &Url) -> Result<String, Refused>;

    /// What to do now.
    fn next(&mut self, want: &Want<String>, now: Mono) -> Todo;

    /// The answer to the question asked last. `random` spreads out the retries of several machines.
    fn answered(&mut self, answer: &Response, now: Mono, random: u64);

    /// There is no answer, and why.
    fn failed(&mut self, why: &str, now: Mono, random: u64);

    /// The table has changed.
    fn members_changed(&mut self, now: Mono);

    /// The server closed a connection that was kept: it may have been restarted.
    fn closed(&mut self, now: Mono);

    /// What has happened since the last call, for the log.
    fn news(&mut self) -> Vec<News>;

    /// Where a server stood at the last look, and what is wrong with it.
    fn view(&self, key: &str) -> (ViewState, Option<&str>);

    /// Whether [`Machine::view`] may have changed since this was last asked.
    fn views_moved(&mut self) -> bool;

    /// At a reload: goes on with what `old`, which drove the same server, remembers, if that is about the same things.
    fn inherit(&mut self, old: Self);
}

/// What a machine wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Todo {
    /// Ask this; then [`Machine::answered`] or [`Machine::failed`].
    Ask(Ask),
    /// Nothing before that time (a change of the table aside).
    Wait(Mono),
}

/// A question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// `GET`, `POST`, ...
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
    /// What is sent along.
    pub body: Option<String>,
}

/// Why a status is no answer.
#[must_use]
pub fn status_text(status: u16) -> String {
    match status {
        401 => "status 401: it wants a user and a password, or others: see auth-file".to_owned(),
        _ => format!("status {status}"),
    }
}
