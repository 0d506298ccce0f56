//! The HTTP client in a real loop, against servers that are well behaved, slow, silent, gone, or not servers of HTTP.
#![expect(clippy::unwrap_used, reason = "a test ends where its world is not as it must be")]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests are the other side of the sockets"
)]

use beacond::http_client::{HttpClient, Limits, Outcome};
use beacond::http1::{HttpUrl, Request};
use beacond::reactor::{Cx, Done, Key, LogPipe, Plan, Planned, Reactor, Ready, Service};
use beacond::secret::Login;
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const CLIENT: Key = Key(1);
const GIVE_UP: Key = Key(2);
const NEXT: Key = Key(3);
const PATIENCE: Duration = Duration::from_secs(20);

/// Status, body, and whether the connection may be kept; or why there is no answer.
type Came = Result<(u16, String, bool), String>;

/// Asks once for each body; a pause comes before every question but the first.
struct Owner {
    client: HttpClient,
    url: HttpUrl,
    bodies: Vec<Option<Vec<u8>>>,
    pause: Duration,
    brief: bool,
    came: Rc<RefCell<Vec<Came>>>,
    closed: Rc<RefCell<usize>>,
}

impl Owner {
    fn ask(&mut self, cx: &mut Cx<'_>) {
        if self.bodies.is_empty() {
            return cx.shut_down();
        }
        let body = self.bodies.remove(0);
        let request = Request {
            method: if body.is_some() { "POST" } else { "GET" },
            target: &self.url.target,
            host: &self.url.authority,
            headers: &[("X-Test", "yes")],
            body: body.as_deref(),
            close: false,
        };
        let outcome = match self.brief {
            true => self.client.ask_status(&request, cx),
            false => self.client.ask(&request, cx),
        };
        self.heed(outcome.unwrap(), cx);
    }

    fn heed(&mut self, outcome: Outcome, cx: &mut Cx<'_>) {
        let came = match outcome {
            Outcome::Pending => return,
            Outcome::Answer(answer) => {
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                Ok((answer.status, body, answer.keep_alive))
            }
            Outcome::Failed(why) => Err(why),
        };
        self.came.borrow_mut().push(came);
        assert!(!self.client.is_busy());
        // Events come late, or for nothing: a kept connection does not suffer from that.
        cx.again(CLIENT);
        cx.arm(NEXT, cx.now.mono.after(self.pause));
    }
}

impl Service for Owner {
    fn name(&self) -> String {
        "owner".to_owned()
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        cx.arm(GIVE_UP, cx.now.mono.after(PATIENCE));
        self.ask(cx);
        Ok(())
    }

    fn ready(&mut self, key: Key, _: Ready, cx: &mut Cx<'_>) {
        assert_eq!(key, CLIENT);
        let (busy, connected) = (self.client.is_busy(), self.client.is_connected());
        let outcome = self.client.ready(cx);
        if !busy && connected && !self.client.is_connected() {
            *self.closed.borrow_mut() += 1;
        }
        self.heed(outcome, cx);
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        assert!(key != GIVE_UP, "waited in vain; came: {:?}", self.came.borrow());
        if key == NEXT {
            return self.ask(cx);
        }
        let outcome = self.client.timer(cx);
        self.heed(outcome, cx);
    }

    fn done(&mut self, key: Key, result: Done, cx: &mut Cx<'_>) {
        assert_eq!(key, CLIENT);
        let outcome = self.client.done(result, cx);
        self.heed(outcome, cx);
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.client.close(cx);
    }
}

const LIMITS: Limits =
    Limits { connect: Duration::from_millis(300), answer: Duration::from_millis(300), body: 100 };

/// What is asked, and how.
struct Questions {
    url: String,
    bodies: Vec<Option<Vec<u8>>>,
    pause: Duration,
    brief: bool,
    login: Option<Login>,
}

impl Questions {
    fn gets(url: &str, count: usize) -> Questions {
        let bodies = vec![None; count];
        Questions { url: url.to_owned(), bodies, pause: Duration::ZERO, brief: false, login: None }
    }

    /// What came of each, and how many kept connections the server closed in between.
    fn run(self) -> (Vec<Came>, usize) {
        let url = HttpUrl::parse(&self.url).unwrap();
        let (came, closed) = (Rc::default(), Rc::default());
        let owner = Owner {
            client: HttpClient::new(&url, LIMITS, CLIENT).with_login(self.login),
            url,
            bodies: self.bodies,
            pause: self.pause,
            brief: self.brief,
            came: Rc::clone(&came),
            closed: Rc::clone(&closed),
        };
        let planned = Planned { service: Box::new(owner), fingerprint: String::new() };
        let mut reactor = Reactor::new(LogPipe::default(), Box::new(|| Ok(Plan::default()))).unwrap();
        reactor.start(Plan { services: vec![planned], ..Plan::default() }).unwrap();
        reactor.run().unwrap();
        (came.take(), closed.take())
    }
}

fn ask(server: SocketAddr, count: usize) -> Vec<Came> {
    Questions::gets(&format!("http://{server}/x"), count).run().0
}

/// A server. `answers` is asked with the number of the connection and of the request on it; `None` closes. What was
/// asked is told, with the number of the connection.
fn server(
    answers: impl Fn(usize, usize) -> Option<String> + Send + 'static,
) -> (SocketAddr, mpsc::Receiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in 0.. {
            let (mut stream, _) = listener.accept().unwrap();
            for request in 0.. {
                let Some(question) = question(&mut stream) else { break };
                let _ = tell.send((connection, question));
                let Some(answer) = answers(connection, request) else { break };
                // In two pieces, for good measure.
                let (first, rest) = answer.split_at(answer.len() / 2);
                let _ = stream.write_all(first.as_bytes());
                let _ = stream.flush();
                let _ = stream.write_all(rest.as_bytes());
            }
        }
    });
    (address, asked)
}

/// One request, its body included; `None` once the other side has hung up.
fn question(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut byte = [0; 1];
    let length = |text: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix("Content-Length: "));
        line.map_or(0, |n| n.parse::<usize>().unwrap())
    };
    while text.split_once("\r\n\r\n").is_none_or(|(head, body)| body.len() < length(head)) {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(char::from(byte[0]));
    }
    Some(text)
}

fn sized(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn one_connection_serves_many_requests() {
    let (address, asked) = server(|_, n| Some(sized(&n.to_string())));
    let mut questions = Questions::gets(&format!("http://{address}/a?b=c"), 3);
    questions.pause = Duration::from_millis(5);
    questions.bodies[1] = Some(b"what".to_vec());
    let (came, _) = questions.run();
    assert_eq!(came, [0, 1, 2].map(|n| Ok((200, n.to_string(), true))));
    let asked: Vec<_> = asked.try_iter().collect();
    let head = |method: &str| format!("{method} /a?b=c HTTP/1.1\r\nHost: {address}\r\nX-Test: yes\r\n");
    assert_eq!(asked[0], (0, format!("{}\r\n", head("GET"))));
    assert_eq!(asked[1], (0, format!("{}Content-Length: 4\r\n\r\nwhat", head("POST"))));
    assert_eq!(asked[2], (0, format!("{}\r\n", head("GET"))));
}

#[test]
fn a_kept_connection_that_is_gone_is_replaced_once() {
    // The first connection is closed at its second request, without an answer.
    let (address, asked) = server(|connection, n| (connection > 0 || n == 0).then(|| sized("fine")));
    let came = ask(address, 3);
    assert_eq!(came, vec![Ok((200, "fine".to_owned(), true)); 3]);
    let connections: Vec<_> = asked.try_iter().map(|(connection, _)| connection).collect();
    assert_eq!(connections, [0, 0, 1, 1], "asked again on another");

    // Every connection after it, too: a server that answers nobody is not asked for ever.
    let (address, asked) = server(|connection, n| (connection == 0 && n == 0).then(|| sized("fine")));
    let came = ask(address, 2);
    assert_eq!(came[1], Err("closed without a response".to_owned()));
    assert_eq!(asked.try_iter().count(), 3);
}

#[test]
fn the_owner_can_see_that_a_kept_connection_was_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            question(&mut stream);
            stream.write_all(sized("fine").as_bytes()).unwrap();
            // It closes at once, without having said so.
        }
    });
    let questions =
        Questions { pause: Duration::from_millis(50), ..Questions::gets(&format!("http://{address}"), 2) };
    let (came, closed) = questions.run();
    assert_eq!(came, vec![Ok((200, "fine".to_owned(), true)); 2]);
    assert!(closed >= 1);
}

#[test]
fn closed_when_the_server_says_so_or_says_too_much() {
    let bye = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    let (address, asked) = server(move |_, _| Some(bye.to_owned()));
    assert_eq!(ask(address, 2), vec![Ok((200, "hi".to_owned(), false)); 2]);
    assert_eq!(asked.try_iter().map(|(connection, _)| connection).collect::<Vec<_>>(), [0, 1]);
    // Until the end of the connection.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            question(&mut stream);
            stream.write_all(b"HTTP/1.0 404 No\r\n\r\nuntil the end").unwrap();
        }
    });
    assert_eq!(ask(address, 1), [Ok((404, "until the end".to_owned(), false))]);
    // More than the answer: the next answer would be a forgery.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            question(&mut stream);
            stream.write_all(format!("{}{}", sized("true"), sized("false")).as_bytes()).unwrap();
            question(&mut stream);
        }
    });
    assert_eq!(ask(address, 2), vec![Ok((200, "true".to_owned(), false)); 2]);
}

#[test]
fn chunks_and_trailers() {
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nEtag: \"x\"\r\n\r\n";
    let (address, asked) = server(move |_, _| Some(text.to_owned()));
    assert_eq!(ask(address, 2), vec![Ok((200, "abcde".to_owned(), true)); 2]);
    assert!(asked.try_iter().all(|(connection, _)| connection == 0));
}

#[test]
fn a_silent_or_slow_server_has_a_deadline() {
    let (address, asked) = server(|_, _| Some(String::new()));
    let start = Instant::now();
    assert_eq!(ask(address, 2), vec![Err("no answer in time".to_owned()); 2]);
    assert!((600..5_000).contains(&start.elapsed().as_millis()));
    assert_eq!(asked.try_iter().map(|(c, _)| c).collect::<Vec<_>>(), [0, 1], "no connection is kept of that");
    // Half an answer is none, and is not asked for again.
    let (address, asked) = server(|_, _| Some("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_owned()));
    assert_eq!(ask(address, 1), [Err("no answer in time".to_owned())]);
    assert_eq!(asked.try_iter().count(), 1);
}

#[test]
fn what_is_too_long_or_no_http_fails_at_once() {
    let start = Instant::now();
    for (answer, why) in [
        (sized(&"x".repeat(101)), "response body too long"),
        (
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n{}", "x".repeat(101)),
            "response body too long",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "not an HTTP/1.1 response"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx".to_owned(),
            "bad or conflicting response length",
        ),
    ] {
        let (address, asked) = server(move |_, _| Some(answer.clone()));
        assert_eq!(ask(address, 1), [Err(why.to_owned())]);
        assert_eq!(asked.try_iter().count(), 1, "{why}");
    }
    assert!(start.elapsed() < LIMITS.answer * 4);
}

#[test]
fn nobody_there_no_such_name_and_the_next_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(ask(gone, 2), vec![Err("Connection refused".to_owned()); 2]);
    let (came, _) = Questions::gets("http://name.invalid:80/", 1).run();
    assert!(came[0].as_ref().is_err_and(|why| why.starts_with("cannot resolve name.invalid: ")), "{came:?}");
    // Most often `localhost` is ::1 first, where nobody listens.
    let (address, _asked) = server(|_, _| Some(sized("here")));
    let (came, _) = Questions::gets(&format!("http://localhost:{}/", address.port()), 2).run();
    assert_eq!(came, vec![Ok((200, "here".to_owned(), true)); 2]);
}

#[test]
fn an_early_answer_counts_although_the_request_could_not_be_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (held, _holds) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 10];
            stream.read_exact(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").unwrap();
            // It stays open, and nobody reads the rest.
            let _ = held.send(stream);
        }
    });
    let mut questions = Questions::gets(&format!("http://{address}"), 1);
    questions.bodies = vec![Some(vec![b'x'; 16 << 20])];
    let (came, _) = questions.run();
    assert_eq!(came, [Ok((413, String::new(), false))]);
}

#[test]
fn of_a_brief_answer_only_the_status_is_read() {
    let (address, asked) =
        server(|_, _| Some("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\nendless".to_owned()));
    let start = Instant::now();
    let (came, _) = Questions { brief: true, ..Questions::gets(&format!("http://{address}"), 2) }.run();
    assert_eq!(came, vec![Ok((200, String::new(), false)); 2]);
    assert!(start.elapsed() < LIMITS.answer);
    assert_eq!(asked.try_iter().map(|(c, _)| c).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_login_goes_into_every_request() {
    let (address, asked) = server(|_, _| Some(sized("")));
    let login = Some(Login::parse(b"Aladdin:open sesame\n").unwrap());
    Questions { login, ..Questions::gets(&format!("http://{address}"), 2) }.run();
    let line = "\r\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";
    assert!(asked.try_iter().all(|(_, question)| question.contains(line)));
}
