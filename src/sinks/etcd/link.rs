//! The way to etcd: one request at a time, to the next endpoint when one fails, with a token where one is needed.
//!
//! Requests are such that doing one twice does no harm, so one that failed at an endpoint is put to the others before it
//! is given up. What is asked, and when to ask again after a failure, is the owner's affair.

use super::wire::{self, Call};
use crate::http_client::{HttpClient, Limits, Outcome};
use crate::http1::{HttpUrl, Request, Response};
use crate::reactor::{Cx, Done, Key};
use crate::secret::Login;
use std::time::Duration;
use zeroize::Zeroizing;

/// A way to one etcd cluster.
pub struct Link {
    endpoints: Vec<HttpUrl>,
    /// The endpoint that is asked.
    at: usize,
    client: HttpClient,
    login: Option<Login>,
    token: Option<Zeroizing<String>>,
    /// etcd has said that nobody needs to say who they are.
    open: bool,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    call: Call,
    /// Endpoints that have failed it.
    failed: usize,
    /// A token was fetched for it.
    fetched: bool,
    asking: Asking,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    Token,
    Call,
}

/// Status and body, or why there are none.
pub type Reply = Result<(u16, Vec<u8>), String>;

impl Link {
    /// A way to the `endpoints`, of which there is at least one. Its source, timer and job have [`LINK`], among the
    /// owner's own.
    #[must_use]
    pub fn new(endpoints: Vec<HttpUrl>, login: Option<Login>) -> Link {
        let client = client(endpoints.first());
        Link { endpoints, at: 0, client, login, token: None, open: false, under_way: None }
    }

    /// Whether a call is under way: ask nothing before it has ended.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Sends a call.
    pub fn ask(&mut self, call: Call, cx: &mut Cx<'_>) -> Option<Reply> {
        self.under_way = Some(UnderWay { call, failed: 0, fetched: false, asking: Asking::Call });
        self.send(cx)
    }

    /// Its source is ready.
    pub fn ready(&mut self, cx: &mut Cx<'_>) -> Option<Reply> {
        let outcome = self.client.ready(cx);
        self.go_on(outcome, cx)
    }

    /// Its timer is due.
    pub fn timer(&mut self, cx: &mut Cx<'_>) -> Option<Reply> {
        let outcome = self.client.timer(cx);
        self.go_on(outcome, cx)
    }

    /// Its job is done.
    pub fn done(&mut self, result: Done, cx: &mut Cx<'_>) -> Option<Reply> {
        let outcome = self.client.done(result, cx);
        self.go_on(outcome, cx)
    }

    /// Gives up what is under way.
    pub fn close(&mut self, cx: &mut Cx<'_>) {
        self.under_way = None;
        self.client.close(cx);
    }

    /// Sends what is under way, or first asks for the token that it needs.
    fn send(&mut self, cx: &mut Cx<'_>) -> Option<Reply> {
        let (endpoint, under_way) = (self.endpoints.get(self.at)?, self.under_way.as_mut()?);
        let bare = self.login.as_ref().filter(|_| self.token.is_none() && !self.open);
        let login = bare.map(|login| wire::authenticate(login.user(), login.password()));
        let (path, body) = match &login {
            Some(body) => ("/v3/auth/authenticate", body.as_str()),
            None => (under_way.call.path, under_way.call.body.as_str()),
        };
        under_way.asking = if login.is_some() { Asking::Token } else { Asking::Call };
        under_way.fetched |= login.is_some();
        log::trace!(target: "etcd", "{}: asks {path}", endpoint.authority);
        let token = self.token.as_ref().map(|token| ("Authorization", token.as_str()));
        let headers: Vec<(&str, &str)> = token.into_iter().collect();
        let request = Request {
            method: "POST",
            target: path,
            host: &endpoint.authority,
            headers: &headers,
            body: Some(body.as_bytes()),
            close: false,
        };
        let outcome = self.client.ask(&request, cx).unwrap_or_else(|bad| Outcome::Failed(bad.to_string()));
        self.go_on(outcome, cx)
    }

    fn go_on(&mut self, outcome: Outcome, cx: &mut Cx<'_>) -> Option<Reply> {
        let under_way = self.under_way.as_mut()?;
        match outcome {
            Outcome::Pending => None,
            Outcome::Failed(why) => self.next_endpoint(&why, cx),
            // It is there, and knows that it cannot help: no leader, or on its way down.
            Outcome::Answer(Response { status: status @ 502..=504, .. }) => {
                self.next_endpoint(&format!("answers with status {status}"), cx)
            }
            Outcome::Answer(response) if under_way.asking == Asking::Token => {
                self.authenticated(&response, cx)
            }
            Outcome::Answer(response) if !under_way.fetched && self.wants_token(&response) => {
                (self.token, self.open) = (None, false);
                self.send(cx)
            }
            Outcome::Answer(response) => {
                self.under_way = None;
                Some(Ok((response.status, response.body)))
            }
        }
    }

    /// Whether etcd wants to be told who asks, once more or at last.
    fn wants_token(&self, response: &Response) -> bool {
        let fault = || wire::reply(response.status, &response.body).err();
        // Users or roles have changed since a token was signed: that is said like any other fault of a request.
        self.login.is_some()
            && response.status != 200
            && fault().is_some_and(|fault| matches!(fault.code, wire::WHO | wire::INVALID))
    }

    fn authenticated(&mut self, response: &Response, cx: &mut Cx<'_>) -> Option<Reply> {
        match wire::reply(response.status, &response.body) {
            Ok(reply) if wire::token(&reply).is_some() => {
                self.token = wire::token(&reply).map(|token| Zeroizing::new(token.to_owned()));
                self.send(cx)
            }
            Err(fault) if fault.code == wire::EXISTS => {
                self.open = true;
                self.send(cx)
            }
            Ok(_) => self.give_up("etcd gives no token".to_owned()),
            Err(fault) => self.give_up(fault.text),
        }
    }

    fn next_endpoint(&mut self, why: &str, cx: &mut Cx<'_>) -> Option<Reply> {
        let under_way = self.under_way.as_mut()?;
        under_way.failed += 1;
        let tried_all = under_way.failed >= self.endpoints.len();
        let authority = self.endpoints.get(self.at).map_or("", |endpoint| endpoint.authority.as_str());
        let why = format!("etcd at {authority}: {why}");
        self.client.close(cx);
        self.at = (self.at + 1) % self.endpoints.len();
        self.client = client(self.endpoints.get(self.at));
        // A token of one server's making is the others' too; one that was restarted knows none, and says so.
        if tried_all { self.give_up(why) } else { self.send(cx) }
    }

    fn give_up(&mut self, why: String) -> Option<Reply> {
        self.under_way = None;
        Some(Err(why))
    }
}

fn client(endpoint: Option<&HttpUrl>) -> HttpClient {
    let nowhere = HttpUrl { host: String::new(), port: 0, authority: String::new(), target: String::new() };
    HttpClient::new(endpoint.unwrap_or(&nowhere), LIMITS, LINK)
}

/// The link's key among its owner's.
pub const LINK: Key = Key(0);

const LIMITS: Limits =
    Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(2), body: 16 << 20 };
