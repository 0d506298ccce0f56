//! An HTTP/1.1 client in the loop: one request at a time to one server, over a connection that is kept while the server
//! lets it be.
//!
//! The owner is a service; it forwards what comes in for the keys it gave, and gets an [`Outcome`] back. Every step has
//! a deadline. A kept connection that turns out to be closed is replaced once without a word, for the server has not
//! seen the request. What a request means, and when to ask again, is the owner's affair; messages are those of
//! [`crate::http1`].

use crate::http1::{Asked, BadRequest, Error, HttpUrl, Progress, Reader, Request, Response};
use crate::reactor::bank::{connect_tcp, plain};
use crate::reactor::{Cx, Done, Job, Key, Registration};
use crate::secret::Login;
use crate::wheel::TimerId;
use mio::Interest;
use mio::net::TcpStream;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use zeroize::Zeroizing;

/// The bounds of every exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How long it may take to connect, each address anew.
    pub connect: Duration,
    /// How long the whole answer may take from then on.
    pub answer: Duration,
    /// The most bytes of an answer's body.
    pub body: usize,
}

/// What came of a call.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing yet; the client waits for an event.
    Pending,
    /// The answer is whole.
    Answer(Response),
    /// There is none; one line that says why.
    Failed(String),
}

/// A client of one server.
#[derive(Debug)]
pub struct HttpClient {
    host: String,
    port: u16,
    limits: Limits,
    key: Key,
    /// Who asks, where the server wants to know.
    login: Option<Login>,
    /// Addresses of the host that are still to be tried, the next one last.
    addresses: Vec<SocketAddr>,
    /// The connection; while nothing is under way, one that is kept.
    connection: Option<Connection>,
    exchange: Option<Exchange>,
    timer: Option<TimerId>,
    looking_up: bool,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    registration: Registration,
    established: bool,
    /// It has served an exchange: the server may have closed it since.
    used: bool,
}

#[derive(Debug)]
struct Exchange {
    request: Zeroizing<Vec<u8>>,
    sent: usize,
    asked: Asked,
    reader: Reader,
    /// The status is all that is wanted of the answer.
    brief: bool,
    /// A byte of the answer has come.
    answered: bool,
}

impl HttpClient {
    /// A client of the server that `url` names. Its source, timer and job have `key`, among the owner's own.
    #[must_use]
    pub fn new(url: &HttpUrl, limits: Limits, key: Key) -> HttpClient {
        HttpClient {
            host: url.host.clone(),
            port: url.port,
            limits,
            key,
            login: None,
            addresses: Vec::new(),
            connection: None,
            exchange: None,
            timer: None,
            looking_up: false,
        }
    }

    /// The same, with a user and a password in every request.
    #[must_use]
    pub fn with_login(self, login: Option<Login>) -> HttpClient {
        HttpClient { login, ..self }
    }

    /// Whether an exchange is under way: ask nothing before it has ended.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.exchange.is_some()
    }

    /// Whether there is a connection, or one is being made. One that was kept and is gone after [`HttpClient::ready`]
    /// was closed by the server, which may have been restarted.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Sends a request. One that is under way is given up.
    ///
    /// # Errors
    /// The request cannot be sent by anybody.
    pub fn ask(&mut self, request: &Request<'_>, cx: &mut Cx<'_>) -> Result<Outcome, BadRequest> {
        self.begin(request, false, cx)
    }

    /// Sends a request of whose answer nothing matters but the status: the rest is neither read nor waited for.
    ///
    /// # Errors
    /// The request cannot be sent by anybody.
    pub fn ask_status(&mut self, request: &Request<'_>, cx: &mut Cx<'_>) -> Result<Outcome, BadRequest> {
        self.begin(request, true, cx)
    }

    fn begin(&mut self, request: &Request<'_>, brief: bool, cx: &mut Cx<'_>) -> Result<Outcome, BadRequest> {
        let basic = self.login.as_ref().map(Login::basic);
        let mut headers = request.headers.to_vec();
        headers.extend(basic.as_ref().map(|basic| ("Authorization", basic.as_str())));
        let request = Request { headers: &headers, ..*request };
        // Room for all of it from the start: bytes that grow leave copies behind, and the password is in them.
        let named = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
        let around = request.target.len() + request.host.len() + request.method.len() + 128;
        let length = around + named + request.body.map_or(0, <[u8]>::len);
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        request.write(&mut bytes)?;
        if self.exchange.is_some() {
            self.close(cx);
        }
        let asked = if request.method == "HEAD" { Asked::Head } else { Asked::Body };
        let reader = Reader::new(asked, self.limits.body);
        self.exchange = Some(Exchange { request: bytes, sent: 0, asked, reader, brief, answered: false });
        if self.connection.is_some() {
            self.wait(self.limits.answer, cx);
            return Ok(self.proceed(cx));
        }
        Ok(self.find(cx))
    }

    /// Its source is ready.
    pub fn ready(&mut self, cx: &mut Cx<'_>) -> Outcome {
        if self.exchange.is_none() {
            // The server closed a connection that was kept, or says what nobody asked for; unless this is about bytes
            // that were read with those before them: an answer in two pieces is two events.
            let peeked = self.connection.as_ref().map(|connection| connection.stream.peek(&mut [0]));
            if !matches!(peeked, Some(Err(e)) if e.kind() == io::ErrorKind::WouldBlock) {
                self.hang_up(cx);
            }
            return Outcome::Pending;
        }
        self.proceed(cx)
    }

    /// Its timer is due.
    pub fn timer(&mut self, cx: &mut Cx<'_>) -> Outcome {
        self.timer = None;
        if self.exchange.is_none() {
            return Outcome::Pending;
        }
        if self.connection.as_ref().is_some_and(|connection| connection.established) {
            return self.fail("no answer in time".to_owned(), cx);
        }
        self.hang_up(cx);
        self.connect("cannot be reached in time".to_owned(), cx)
    }

    /// Its job is done.
    pub fn done(&mut self, result: Done, cx: &mut Cx<'_>) -> Outcome {
        let Done::Resolved(result) = result else { return Outcome::Pending };
        let wanted = std::mem::take(&mut self.looking_up) && self.exchange.is_some();
        match result {
            _ if !wanted => Outcome::Pending,
            Ok(found) => {
                self.addresses = found.into_iter().rev().collect();
                self.connect("no address".to_owned(), cx)
            }
            Err(e) => self.fail(format!("cannot resolve {}: {}", self.host, plain(&e)), cx),
        }
    }

    /// Gives up what is under way, and the connection.
    pub fn close(&mut self, cx: &mut Cx<'_>) {
        self.exchange = None;
        self.hang_up(cx);
        self.stop_waiting(cx);
    }

    /// Finds the server's addresses.
    fn find(&mut self, cx: &mut Cx<'_>) -> Outcome {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            self.addresses = vec![SocketAddr::new(ip, self.port)];
            return self.connect("no address".to_owned(), cx);
        }
        // A look-up that an earlier exchange gave up waiting for serves this one.
        if !self.looking_up {
            let job = Job::Resolve { host: self.host.clone(), port: self.port };
            if cx.offload(self.key, job).is_err() {
                return self.fail("the resolver is busy".to_owned(), cx);
            }
            self.looking_up = true;
        }
        Outcome::Pending
    }

    /// Tries the next address; `why` the last one failed is said where there is none.
    fn connect(&mut self, mut why: String, cx: &mut Cx<'_>) -> Outcome {
        while let Some(address) = self.addresses.pop() {
            let both = Interest::READABLE | Interest::WRITABLE;
            let opened = connect_tcp(address).and_then(|mut stream| {
                let registration = cx.register(&mut stream, self.key, both)?;
                Ok(Connection { stream, registration, established: false, used: false })
            });
            match opened {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.wait(self.limits.connect, cx);
                    return Outcome::Pending;
                }
                Err(e) => why = plain(&e),
            }
        }
        self.fail(why, cx)
    }

    /// Goes on as far as the connection lets it.
    fn proceed(&mut self, cx: &mut Cx<'_>) -> Outcome {
        let (Some(connection), Some(exchange)) = (&mut self.connection, &mut self.exchange) else {
            return Outcome::Pending;
        };
        if !connection.established {
            match connection.stream.take_error() {
                Ok(None) if connection.stream.peer_addr().is_err() => return Outcome::Pending,
                Ok(None) => connection.established = true,
                Ok(Some(e)) | Err(e) => {
                    self.hang_up(cx);
                    return self.connect(plain(&e), cx);
                }
            }
            self.wait(self.limits.answer, cx);
            return self.proceed(cx);
        }
        match exchange.talk(&mut connection.stream, cx.scratch) {
            Ok(None) => Outcome::Pending,
            Ok(Some(response)) => {
                connection.used = true;
                if !response.keep_alive {
                    self.hang_up(cx);
                }
                self.exchange = None;
                self.stop_waiting(cx);
                Outcome::Answer(response)
            }
            Err(_) if connection.used && !exchange.answered => self.once_more(cx),
            Err(why) => self.fail(why, cx),
        }
    }

    /// The server had closed the kept connection: the same request over a new one.
    fn once_more(&mut self, cx: &mut Cx<'_>) -> Outcome {
        self.hang_up(cx);
        if let Some(exchange) = &mut self.exchange {
            exchange.sent = 0;
            exchange.reader = Reader::new(exchange.asked, self.limits.body);
        }
        self.find(cx)
    }

    fn fail(&mut self, why: String, cx: &mut Cx<'_>) -> Outcome {
        self.close(cx);
        Outcome::Failed(why)
    }

    fn hang_up(&mut self, cx: &mut Cx<'_>) {
        if let Some(connection) = self.connection.take() {
            cx.forget(connection.registration);
        }
    }

    fn wait(&mut self, time: Duration, cx: &mut Cx<'_>) {
        self.stop_waiting(cx);
        self.timer = Some(cx.arm(self.key, cx.now.mono.after(time)));
    }

    fn stop_waiting(&mut self, cx: &mut Cx<'_>) {
        if let Some(timer) = self.timer.take() {
            cx.cancel(timer);
        }
    }
}

impl Exchange {
    /// Sends what is left of the request and reads what has come; the answer once it is whole.
    fn talk(&mut self, stream: &mut TcpStream, scratch: &mut [u8]) -> Result<Option<Response>, String> {
        // Who answers and closes early makes the sending fail; then the answer counts, if there is one.
        let unsent = self.send(stream).err().map(|e| plain(&e));
        loop {
            let (fed, count) = match stream.read(scratch) {
                Ok(0) => return self.end(),
                Ok(count) => {
                    self.answered = true;
                    (self.reader.feed(scratch.get(..count).unwrap_or_default()), count)
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return unsent.map_or(Ok(None), Err),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(unsent.unwrap_or_else(|| plain(&e))),
            };
            if let (true, Some(status)) = (self.brief, self.reader.status()) {
                return Ok(Some(Response { status, ..Response::default() }));
            }
            match fed {
                Ok(Progress::More) => {}
                Ok(Progress::Done { mut response, used }) => {
                    // What comes behind it nobody asked for.
                    response.keep_alive &= used == count && self.sent == self.request.len() && !self.brief;
                    return Ok(Some(response));
                }
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    /// Sends as much of the request as the connection takes.
    fn send(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while let Some(rest) = self.request.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match stream.write(rest) {
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The server has closed.
    fn end(&mut self) -> Result<Option<Response>, String> {
        let reader = std::mem::replace(&mut self.reader, Reader::new(self.asked, 0));
        reader.end().map(Some).map_err(|e: Error| e.to_string())
    }
}
