//! A session through an upstream proxy: HTTP CONNECT (RFC 9110 section 9.3.6), on [`crate::http1`].
//!
//! ```text
//! CONNECT www.example.com:443 HTTP/1.1\r\n          HTTP/1.1 200 Connection established\r\n
//! Host: www.example.com:443\r\n                     \r\n
//! x-session-key: c0000207\r\n                       (the tunnel: the client's first flight goes in)
//! \r\n
//! ```
//!
//! [`Template`] is what the options say of the headers, [`Facts`] what a session fills in, [`Answer`] what the upstream
//! says. What came from a client cannot end a line: such a request is not made. Nothing here connects or waits.

use crate::bytes::to_hex;
use crate::http1::{Asked, BadRequest, Error, Progress, Reader, Request, check_header};
use crate::url;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What a session, and this host, put into the fields of a header. What there is none of is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts<'a> {
    /// The client; an IPv4 address may be written as an IPv6 one.
    pub client: SocketAddr,
    /// The name in the ClientHello.
    pub sni: Option<&'a str>,
    /// The name in the PROXY header.
    pub authority: Option<&'a str>,
    /// This host's name.
    pub hostname: &'a str,
    /// This host's country.
    pub country: &'a str,
}

/// The headers of a request, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Template(pub Vec<Header>);

/// One header, `Name: value` with fields such as `{client_ip}` in the value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    name: String,
    value: Vec<Part>,
}

/// The answer to a request, while it comes.
#[derive(Debug)]
pub struct Answer(Reader);

/// What the upstream answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The tunnel is open: of the piece given last, this many bytes belong to the answer, the others to the client.
    Open {
        /// How many.
        used: usize,
    },
    /// Any status but 200.
    Refused(u16),
    /// No answer, or none that can be understood.
    Bad(Error),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    ClientIp,
    ClientIpHex,
    ClientPort,
    Sni,
    Authority,
    Hostname,
    Country,
}

impl<'a> Facts<'a> {
    /// The host that the client wants, as it was sent, and the port: those of the PROXY header's authority, else the name
    /// of the ClientHello; `port` where none is told.
    #[must_use]
    pub fn wanted(&self, port: u16) -> Option<(&'a str, u16)> {
        let told = self.authority.or(self.sni)?;
        let split = told.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
        Some(split.and_then(|(host, digits)| Some((host, read_port(digits)?))).unwrap_or((told, port)))
    }
}

impl Header {
    /// Reads `Name: value`.
    ///
    /// # Errors
    /// What is wanted instead, in words that end an error line.
    pub fn parse(line: &str) -> Result<Header, String> {
        let wanted = || "a header such as 'X-Client: {client_ip}'".to_owned();
        let (name, value) = line.split_once(':').ok_or_else(wanted)?;
        let header = Header { name: name.trim_end().to_owned(), value: parts(value.trim())? };
        match check_header(&header.name, value.trim()) {
            Ok(()) => Ok(header),
            Err(BadRequest::HeaderName) => {
                Err(format!("{}; Host, Connection and lengths are beacond's own", wanted()))
            }
            Err(_) => Err(format!("{}, without control characters", wanted())),
        }
    }

    /// Whether both have the same name, in any case.
    #[must_use]
    pub fn is_named_as(&self, other: &Header) -> bool {
        self.name.eq_ignore_ascii_case(&other.name)
    }

    fn fill(&self, facts: &Facts<'_>) -> String {
        let mut out = String::new();
        for part in &self.value {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(field) => field.fill(facts, &mut out),
            }
        }
        out
    }
}

/// As it is written in an option's value.
impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        self.value.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Field(field) => write!(f, "{{{}}}", field.name()),
        })
    }
}

impl Template {
    /// Reads a file of headers, one a line; blank lines and those that start with `#` are skipped.
    ///
    /// # Errors
    /// The number of the first bad line, from 1, its text, and what is wanted instead.
    pub fn parse(text: &str) -> Result<Template, (usize, &str, String)> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|(number, line)| Header::parse(line).map_err(|wanted| (number, line, wanted)))
            .collect::<Result<_, _>>()
            .map(Template)
    }

    /// Appends the request for a tunnel to `host`, a name or an IP address, and `port`; on an error `out` is as it was.
    ///
    /// # Errors
    /// The first part that must not be sent: a host that is none, port 0, a value with a control byte.
    pub fn request(
        &self,
        host: &str,
        port: u16,
        facts: &Facts<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), BadRequest> {
        if port == 0 {
            return Err(BadRequest::Target);
        }
        let target = format!("{}:{port}", written_host(host).ok_or(BadRequest::Host)?);
        let values: Vec<String> = self.0.iter().map(|header| header.fill(facts)).collect();
        let headers: Vec<(&str, &str)> = self
            .0
            .iter()
            .zip(&values)
            .map(|(header, value)| (header.name.as_str(), value.as_str()))
            .collect();
        let request = Request {
            method: "CONNECT",
            target: &target,
            host: &target,
            headers: &headers,
            body: None,
            close: false,
        };
        request.write(out)
    }
}

impl Answer {
    /// Nothing has come yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "one for each request, never by default")]
    pub fn new() -> Answer {
        Answer(Reader::new(Asked::Connect, 0))
    }

    /// Takes the next bytes; `None` while there is no whole head. Give it no more after an outcome.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<Outcome> {
        let fed = self.0.feed(bytes);
        match (fed, self.0.status()) {
            (Ok(Progress::Done { response, used }), _) if response.status == 200 => {
                Some(Outcome::Open { used })
            }
            (Ok(Progress::Done { response, .. }), _) => Some(Outcome::Refused(response.status)),
            // What comes behind the head of a refusal, and whether it is right, matters no more.
            (_, Some(status)) => Some(Outcome::Refused(status)),
            (Err(e), None) => Some(Outcome::Bad(e)),
            (Ok(Progress::More), None) => None,
        }
    }

    /// The connection has ended before an outcome.
    #[must_use]
    pub fn end(self) -> Outcome {
        match self.0.end() {
            Ok(response) => Outcome::Refused(response.status),
            Err(e) => Outcome::Bad(e),
        }
    }
}

impl Field {
    const ALL: [Field; 7] = [
        Field::ClientIp,
        Field::ClientIpHex,
        Field::ClientPort,
        Field::Sni,
        Field::Authority,
        Field::Hostname,
        Field::Country,
    ];

    fn name(self) -> &'static str {
        match self {
            Field::ClientIp => "client_ip",
            Field::ClientIpHex => "client_ip_hex",
            Field::ClientPort => "client_port",
            Field::Sni => "sni",
            Field::Authority => "authority",
            Field::Hostname => "hostname",
            Field::Country => "country",
        }
    }

    fn fill(self, facts: &Facts<'_>, out: &mut String) {
        let ip = facts.client.ip().to_canonical();
        match self {
            Field::ClientIp => write!(out, "{ip}").expect("writing to a String cannot fail"),
            Field::ClientIpHex => out.push_str(&match ip {
                IpAddr::V4(ip) => to_hex(&ip.octets()),
                IpAddr::V6(ip) => to_hex(&ip.octets()),
            }),
            Field::ClientPort => {
                write!(out, "{}", facts.client.port()).expect("writing to a String cannot fail");
            }
            Field::Sni => out.push_str(facts.sni.unwrap_or_default()),
            Field::Authority => out.push_str(facts.authority.unwrap_or_default()),
            Field::Hostname => out.push_str(facts.hostname),
            Field::Country => out.push_str(facts.country),
        }
    }
}

/// The text and the fields of a value. Every `{` begins a field, so that a misspelt one is not sent as it is.
fn parts(value: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = value;
    while let Some((text, field)) = rest.split_once('{') {
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        let known = field
            .split_once('}')
            .and_then(|(name, after)| Some((Field::ALL.into_iter().find(|f| f.name() == name)?, after)));
        let (field, after) = known.ok_or_else(|| {
            let names = Field::ALL.map(|field| format!("{{{}}}", field.name()));
            format!("behind each '{{' one of the fields {}", names.join(" "))
        })?;
        parts.push(Part::Field(field));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// `host` as a target has it: a name in lower case and without a final dot, an IPv6 address in brackets.
fn written_host(host: &str) -> Option<String> {
    let bare = host.strip_prefix('[').map_or(Some(host), |rest| rest.strip_suffix(']'))?;
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => Some(bracketed(ip)),
        _ if bare.len() < host.len() => None,
        Ok(IpAddr::V4(ip)) => Some(ip.to_string()),
        Err(_) => url::host_name(host.strip_suffix('.').unwrap_or(host)),
    }
}

fn bracketed(ip: Ipv6Addr) -> String {
    format!("[{ip}]")
}

fn read_port(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts<'a>(client: &str, sni: Option<&'a str>, authority: Option<&'a str>) -> Facts<'a> {
        Facts { client: client.parse().unwrap(), sni, authority, hostname: "edge-7", country: "DE" }
    }

    fn template(lines: &[&str]) -> Template {
        Template(lines.iter().map(|line| Header::parse(line).unwrap()).collect())
    }

    fn request(template: &Template, host: &str, port: u16, facts: &Facts<'_>) -> Result<String, BadRequest> {
        let mut out = b"kept".to_vec();
        let result = template.request(host, port, facts, &mut out);
        assert!(out.starts_with(b"kept") && (result.is_ok() || out == b"kept"));
        result.map(|()| String::from_utf8(out[4..].to_vec()).unwrap())
    }

    #[test]
    fn a_request_with_every_field() {
        let all = template(&[
            "X-Region-Key: {country}",
            "x-session-key:{client_ip_hex}",
            "X-Client: [{client_ip}]:{client_port} ({sni}/{authority}) via {hostname}}",
            "X-Plain: a: b",
            "X-Empty:",
        ]);
        let facts = facts("192.0.2.7:5123", Some("a.example"), Some("b.example"));
        assert_eq!(
            request(&all, "b.example", 443, &facts).unwrap(),
            "CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\nX-Region-Key: DE\r\n\
             x-session-key: c0000207\r\nX-Client: [192.0.2.7]:5123 (a.example/b.example) via edge-7}\r\n\
             X-Plain: a: b\r\nX-Empty: \r\n\r\n"
        );
        assert_eq!(
            all.0[2].to_string(),
            "X-Client: [{client_ip}]:{client_port} ({sni}/{authority}) via {hostname}}"
        );
        assert_eq!(Header::parse(&all.0[2].to_string()).as_ref(), Ok(&all.0[2]));
        let none = Template::default();
        assert_eq!(request(&none, "a", 1, &facts).unwrap(), "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    }

    #[test]
    fn addresses_in_hex() {
        let hex = template(&["X: {client_ip_hex} {client_ip}"]);
        for (client, value) in [
            ("10.0.0.255:1", "0a0000ff 10.0.0.255"),
            ("[::ffff:10.0.0.255]:1", "0a0000ff 10.0.0.255"),
            ("[2001:db8::1]:1", "20010db8000000000000000000000001 2001:db8::1"),
        ] {
            let text = request(&hex, "a", 1, &facts(client, None, None)).unwrap();
            assert!(text.contains(&format!("\r\nX: {value}\r\n")), "{text}");
        }
    }

    #[test]
    fn hosts() {
        let facts = facts("10.0.0.1:1", None, None);
        for (host, written) in [
            ("WWW.Example.COM.", "www.example.com"),
            ("a_b", "a_b"),
            ("10.0.0.1", "10.0.0.1"),
            ("2001:DB8::1", "[2001:db8::1]"),
            ("[::1]", "[::1]"),
        ] {
            let text = request(&Template::default(), host, 65535, &facts).unwrap();
            assert_eq!(text, format!("CONNECT {written}:65535 HTTP/1.1\r\nHost: {written}:65535\r\n\r\n"));
        }
        let long = "a.".repeat(127) + "b";
        for host in [
            "",
            ".",
            "a b",
            "a:1",
            "*.a",
            "a/b",
            "u@a",
            "[a]",
            "[10.0.0.1]",
            "[::1",
            "::1]",
            "fe80::1%eth0",
            "127.1",
            "0x7f000001",
            "a\r\nX: y",
            "a\n",
            "a\0",
            "\u{e9}.example",
            "a..b",
            &long,
        ] {
            assert_eq!(request(&Template::default(), host, 1, &facts), Err(BadRequest::Host), "{host:?}");
        }
        assert_eq!(request(&Template::default(), "a", 0, &facts), Err(BadRequest::Target));
    }

    #[test]
    fn a_name_from_outside_cannot_add_a_line() {
        let echo = template(&["X-Sni: {sni}", "X-Authority: {authority}"]);
        for bad in ["a\r\nX-Admin: 1", "a\nb", "a\rb", "a\0b", "a\u{7f}", "\r\n\r\nGET / HTTP/1.1"] {
            let (sni, authority) =
                (facts("10.0.0.1:1", Some(bad), None), facts("10.0.0.1:1", None, Some(bad)));
            assert_eq!(request(&echo, "a", 1, &sni), Err(BadRequest::HeaderValue), "{bad:?}");
            assert_eq!(request(&echo, "a", 1, &authority), Err(BadRequest::HeaderValue), "{bad:?}");
            assert_eq!(request(&echo, bad, 1, &facts("10.0.0.1:1", None, None)), Err(BadRequest::Host));
        }
    }

    #[test]
    fn the_host_that_is_wanted() {
        let wanted = |sni, authority| facts("10.0.0.1:1", sni, authority).wanted(443);
        assert_eq!(wanted(None, None), None);
        assert_eq!(wanted(Some("a"), None), Some(("a", 443)));
        assert_eq!(wanted(Some("a"), Some("b")), Some(("b", 443)));
        assert_eq!(wanted(None, Some("b:8443")), Some(("b", 8443)));
        assert_eq!(wanted(None, Some("[::1]:8443")), Some(("[::1]", 8443)));
        for whole in ["::1", "2001:db8::8443", "[::1]", "b:", "b:x", "b:+1", "b:65536"] {
            assert_eq!(wanted(None, Some(whole)), Some((whole, 443)));
        }
    }

    #[test]
    fn headers_that_are_refused() {
        let list = "{client_ip} {client_ip_hex} {client_port} {sni} {authority} {hostname} {country}";
        for line in
            ["X: {client-ip}", "X: {client_ip", "X: {}", "X: {Sni}", "X: {{sni}}", "X: a{", "X: { sni }"]
        {
            let wanted = Header::parse(line).unwrap_err();
            assert!(wanted.ends_with(list), "{line}: {wanted}");
        }
        for line in
            ["", "X", "X y", ": v", "X Y: v", "Host: v", "content-length: 1", "Transfer-Encoding: chunked"]
        {
            let wanted = Header::parse(line).unwrap_err();
            assert!(wanted.starts_with("a header such as 'X-Client: {client_ip}'"), "{line}: {wanted}");
        }
        assert!(Header::parse("X: a\0b").unwrap_err().ends_with("without control characters"));
        assert!(Header::parse("X: {sni}\r\nY: z").is_err());
    }

    #[test]
    fn a_file_of_headers() {
        let text = "# ours\r\n\r\n  X-Region: {country}\r\nX-Key: {client_ip_hex}\n";
        assert_eq!(Template::parse(text), Ok(template(&["X-Region: {country}", "X-Key: {client_ip_hex}"])));
        assert_eq!(Template::parse(""), Ok(Template::default()));
        let (line, _, wanted) = Template::parse("X: a\n\nY: {no}\nZ").unwrap_err();
        assert!(line == 3 && wanted.contains("{sni}"));
    }

    /// What `stream` in these pieces, then its end, comes to; `used` counts from the first byte.
    fn outcome<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
        let (mut answer, mut taken) = (Answer::new(), 0);
        for piece in pieces {
            match answer.feed(piece) {
                None => taken += piece.len(),
                Some(Outcome::Open { used }) => return Outcome::Open { used: taken + used },
                Some(other) => return other,
            }
        }
        answer.end()
    }

    #[test]
    fn answers_cut_anywhere() {
        let ok = "HTTP/1.1 200 Connection established\r\n";
        for (text, expected) in [
            (format!("{ok}\r\n"), Outcome::Open { used: ok.len() + 2 }),
            (format!("{ok}\r\n\x16\x03\x03 hello"), Outcome::Open { used: ok.len() + 2 }),
            (format!("{ok}Content-Length: 5\r\n\r\nhello"), Outcome::Open { used: ok.len() + 21 }),
            (
                format!("{ok}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                Outcome::Open { used: ok.len() + 30 },
            ),
            (format!("HTTP/1.1 100 Go\r\n\r\n{ok}\r\nx"), Outcome::Open { used: ok.len() + 21 }),
            ("HTTP/1.0 200\n\nx".to_owned(), Outcome::Open { used: 14 }),
            ("HTTP/1.1 204 No Content\r\n\r\nx".to_owned(), Outcome::Refused(204)),
            ("HTTP/1.1 101 Up\r\n\r\nx".to_owned(), Outcome::Refused(101)),
            ("HTTP/1.1 407 No\r\nContent-Length: 5\r\n\r\nhello".to_owned(), Outcome::Refused(407)),
            ("HTTP/1.1 403 No\r\n\r\n".to_owned(), Outcome::Refused(403)),
            ("HTTP/1.1 502 No\r\nContent-Length: 1, 2\r\n\r\n".to_owned(), Outcome::Refused(502)),
            (ok.to_owned(), Outcome::Bad(Error::CutShort)),
            (String::new(), Outcome::Bad(Error::NoResponse)),
            ("SSH-2.0-OpenSSH\r\n".to_owned(), Outcome::Bad(Error::BadHead)),
            (format!("{ok}{}", "X: y\r\n".repeat(3000)), Outcome::Bad(Error::HeadTooLong)),
        ] {
            let stream = text.as_bytes();
            assert_eq!(outcome(std::iter::once(stream)), expected, "{text}");
            assert_eq!(outcome(stream.chunks(1)), expected, "{text}");
            for cut in 0..stream.len().min(200) {
                let (one, two) = stream.split_at(cut);
                assert_eq!(outcome([one, two].into_iter()), expected, "{text} at {cut}");
            }
        }
    }

    proptest! {
        /// Whatever is written is read back as exactly that one request by another parser.
        #[test]
        fn a_request_reads_back(host in "[a-z.:\\[\\]0-9\r\n -]{0,9}", port: u16, sni in proptest::option::of("\\PC{0,9}|[ -~\r\n\t]{0,9}"),
                                authority in proptest::option::of("[ -~\r\n]{0,9}"), client: std::net::IpAddr) {
            let all = template(&["X-A: {client_ip}:{client_port} {sni}", "X-B: {authority}{country}"]);
            let facts = Facts { client: (client, port).into(), sni: sni.as_deref(), authority: authority.as_deref(), hostname: "h", country: "" };
            if let Ok(text) = request(&all, &host, port, &facts) {
                let mut slots = [httparse::EMPTY_HEADER; 5];
                let mut read = httparse::Request::new(&mut slots);
                prop_assert_eq!(read.parse(text.as_bytes()), Ok(httparse::Status::Complete(text.len())));
                prop_assert_eq!(read.method, Some("CONNECT"));
                prop_assert_eq!(read.headers.len(), 3);
                prop_assert_eq!(read.path.map(str::as_bytes), Some(read.headers[0].value));
                let (_, after) = read.path.unwrap().rsplit_once(':').unwrap();
                prop_assert_eq!(after, port.to_string());
            }
        }
    }
}
