//! What a proxy says of the sessions it carries: plain values, and how `status --sessions` shows them. Whoever has the
//! values fills them in; nothing here counts anything.

use crate::bytes::{Escaped, JsonStr};
use crate::show::{OrNull, Size, Span, table};
use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::SocketAddr;

/// The most members, and the most sessions, of one report; the others are counted.
pub const ROWS: usize = 1000;

/// What went through something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Sessions that go through it now.
    pub open: u64,
    /// Sessions that ever did, those included.
    pub total: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

/// A proxy.
#[derive(Clone, Debug)]
pub struct Proxy<'a> {
    /// Where it takes connections.
    pub listen: SocketAddr,
    /// Sessions that it has now.
    pub open: u64,
    /// How many of them are at each stage, in the order of a session's life.
    pub stages: &'a [(&'a str, u64)],
    /// Its routes, in the order of their strength.
    pub routes: Vec<Route<'a>>,
    members: Vec<Member<'a>>,
    members_left_out: u64,
    sessions: Vec<Session<'a>>,
    sessions_left_out: u64,
}

/// A route.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// What it matches.
    pub route: Cow<'a, str>,
    /// Where it leads.
    pub target: Cow<'a, str>,
    /// What went there.
    pub traffic: Traffic,
}

/// A member that sessions were, or can be, led to.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Its url.
    pub url: Cow<'a, str>,
    /// What went there.
    pub traffic: Traffic,
    /// Connections that it refused or did not answer.
    pub failures: u64,
    /// For how many seconds it is passed over still, if it is.
    pub ejected_s: Option<u64>,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Session<'a> {
    /// Its number, as in the log.
    pub id: u64,
    /// Seconds since it was accepted.
    pub age_s: u64,
    /// How far it has come.
    pub stage: &'a str,
    /// The client.
    pub src: SocketAddr,
    /// The name that the client asked for. Untrusted.
    pub sni: Option<Cow<'a, str>>,
    /// The route that it took.
    pub route: Option<Cow<'a, str>>,
    /// The member that it was led to.
    pub member: Option<Cow<'a, str>>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

impl<'a> Proxy<'a> {
    /// A proxy that listens at `listen` and has `open` sessions; the rest is to be filled in.
    #[must_use]
    pub fn new(listen: SocketAddr, open: u64, stages: &'a [(&'a str, u64)]) -> Proxy<'a> {
        Proxy {
            listen,
            open,
            stages,
            routes: Vec::new(),
            members: Vec::new(),
            members_left_out: 0,
            sessions: Vec::new(),
            sessions_left_out: 0,
        }
    }

    /// Adds a member, or counts it once there are [`ROWS`] of them.
    pub fn member(&mut self, member: impl FnOnce() -> Member<'a>) {
        add(&mut self.members, &mut self.members_left_out, member);
    }

    /// Adds a session, or counts it once there are [`ROWS`] of them.
    pub fn session(&mut self, session: impl FnOnce() -> Session<'a>) {
        add(&mut self.sessions, &mut self.sessions_left_out, session);
    }

    /// Appends it as one JSON object.
    pub fn json(&self, out: &mut String) {
        // A String takes everything.
        let _ = self.write_json(out);
    }

    /// Appends it as tables for people.
    pub fn text(&self, out: &mut String) {
        let _ = self.write_text(out);
    }

    fn write_json(&self, out: &mut String) -> fmt::Result {
        write!(out, "{{\"listen\":\"{}\",\"open\":{},\"stages\":{{", self.listen, self.open)?;
        list(out, self.stages, |out, (stage, count)| write!(out, "{}:{count}", JsonStr(stage)))?;
        out.push_str("},\"routes\":[");
        list(out, &self.routes, |out, route| {
            write!(out, "{{\"route\":{},\"target\":{},", JsonStr(&route.route), JsonStr(&route.target))?;
            write!(out, "{}}}", InJson(&route.traffic))
        })?;
        out.push_str("],\"members\":[");
        list(out, &self.members, |out, member| {
            write!(out, "{{\"url\":{},{},", JsonStr(&member.url), InJson(&member.traffic))?;
            write!(out, "\"failures\":{},\"ejected_s\":{}}}", member.failures, OrNull(member.ejected_s))
        })?;
        write!(out, "],\"members_left_out\":{},\"sessions\":[", self.members_left_out)?;
        list(out, &self.sessions, |out, session| session.write_json(out))?;
        write!(out, "],\"sessions_left_out\":{}}}", self.sessions_left_out)
    }

    fn write_text(&self, out: &mut String) -> fmt::Result {
        write!(out, "proxy {}: {} open", self.listen, self.open)?;
        for (stage, count) in self.stages.iter().filter(|(_, count)| *count > 0) {
            write!(out, ", {count} {stage}")?;
        }
        out.push('\n');
        let rows: Vec<Vec<String>> = self.routes.iter().map(Route::row).collect();
        table(out, &["ROUTE", "TARGET", "OPEN", "TOTAL", "IN", "OUT"], &rows)?;
        let rows: Vec<Vec<String>> = self.members.iter().map(Member::row).collect();
        table(out, &["MEMBER", "OPEN", "TOTAL", "IN", "OUT", "FAILURES", "EJECTED"], &rows)?;
        more(out, self.members_left_out, "members")?;
        let rows: Vec<Vec<String>> = self.sessions.iter().map(Session::row).collect();
        let head = ["SESSION", "AGE", "STAGE", "CLIENT", "SNI", "ROUTE", "MEMBER", "IN", "OUT"];
        table(out, &head, &rows)?;
        more(out, self.sessions_left_out, "sessions")
    }
}

impl Traffic {
    fn cells(&self) -> [String; 4] {
        let size = |bytes| Size(bytes).to_string();
        [self.open.to_string(), self.total.to_string(), size(self.bytes_in), size(self.bytes_out)]
    }
}

impl Route<'_> {
    fn row(&self) -> Vec<String> {
        let names = [escaped(&self.route), escaped(&self.target)];
        names.into_iter().chain(self.traffic.cells()).collect()
    }
}

impl Member<'_> {
    fn row(&self) -> Vec<String> {
        let ejected = self.ejected_s.map_or("-".to_owned(), |s| Span(s).to_string());
        let ends = [self.failures.to_string(), ejected];
        [escaped(&self.url)].into_iter().chain(self.traffic.cells()).chain(ends).collect()
    }
}

impl Session<'_> {
    fn write_json(&self, out: &mut String) -> fmt::Result {
        let text = |text: &'_ Option<Cow<'_, str>>| OrNull(text.as_deref().map(JsonStr)).to_string();
        write!(
            out,
            "{{\"id\":\"{:08x}\",\"age_s\":{},\"stage\":{},\"src\":\"{}\",\"sni\":{},\"route\":{},\"member\":{},\
             \"bytes_in\":{},\"bytes_out\":{}}}",
            self.id,
            self.age_s,
            JsonStr(self.stage),
            self.src,
            text(&self.sni),
            text(&self.route),
            text(&self.member),
            self.bytes_in,
            self.bytes_out,
        )
    }

    fn row(&self) -> Vec<String> {
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().map_or("-".to_owned(), escaped);
        vec![
            format!("{{{:08x}}}", self.id),
            Span(self.age_s).to_string(),
            self.stage.to_owned(),
            self.src.to_string(),
            text(&self.sni),
            text(&self.route),
            text(&self.member),
            Size(self.bytes_in).to_string(),
            Size(self.bytes_out).to_string(),
        ]
    }
}

/// The fields of an object.
struct InJson<'a>(&'a Traffic);

impl fmt::Display for InJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Traffic { open, total, bytes_in, bytes_out } = self.0;
        write!(f, "\"open\":{open},\"total\":{total},\"bytes_in\":{bytes_in},\"bytes_out\":{bytes_out}")
    }
}

fn add<T>(rows: &mut Vec<T>, left_out: &mut u64, row: impl FnOnce() -> T) {
    if rows.len() < ROWS { rows.push(row()) } else { *left_out += 1 }
}

/// The items of a JSON list or object.
fn list<T>(
    out: &mut String,
    items: &[T],
    mut write: impl FnMut(&mut String, &T) -> fmt::Result,
) -> fmt::Result {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        write(out, item)?;
    }
    Ok(())
}

fn more(out: &mut String, count: u64, what: &str) -> fmt::Result {
    if count > 0 { writeln!(out, "… {count} more {what}") } else { Ok(()) }
}

fn escaped(text: &str) -> String {
    Escaped(text.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [(&str, u64); 3] = [("hello", 1), ("connect", 0), ("relay", 1)];

    fn proxy() -> Proxy<'static> {
        let mut proxy = Proxy::new("0.0.0.0:443".parse().unwrap(), 2, &STAGES);
        let traffic = Traffic { open: 1, total: 12, bytes_in: 3000, bytes_out: 5 << 30 };
        let (route, target) = ("*.example.com".into(), "balancer:web".into());
        proxy.routes.push(Route { route, target, traffic });
        proxy.routes.push(Route {
            route: "default".into(),
            target: "reject".into(),
            traffic: Traffic::default(),
        });
        for (n, ejected_s) in [(1, None), (2, Some(70))] {
            let url = format!("http://10.0.0.{n}:80").into();
            proxy.member(|| Member { url, traffic, failures: n, ejected_s });
        }
        proxy.session(|| Session {
            id: 42,
            age_s: 61,
            stage: "relay",
            src: "[2001:db8::1]:5000".parse().unwrap(),
            sni: Some("a\n\"b".into()),
            route: Some("*.example.com".into()),
            member: Some("http://10.0.0.1:80".into()),
            bytes_in: 517,
            bytes_out: 2048,
        });
        let src = "192.0.2.1:1".parse().unwrap();
        let (sni, route, member) = (None, None, None);
        proxy.session(|| Session {
            id: 43,
            age_s: 0,
            stage: "hello",
            src,
            sni,
            route,
            member,
            bytes_in: 0,
            bytes_out: 0,
        });
        proxy
    }

    #[test]
    fn as_json() {
        let mut out = String::new();
        proxy().json(&mut out);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        let traffic = r#""open":1,"total":12,"bytes_in":3000,"bytes_out":5368709120"#;
        let wanted = format!(
            r#"{{"listen":"0.0.0.0:443","open":2,"stages":{{"hello":1,"connect":0,"relay":1}},"routes":[
            {{"route":"*.example.com","target":"balancer:web",{traffic}}},
            {{"route":"default","target":"reject","open":0,"total":0,"bytes_in":0,"bytes_out":0}}],"members":[
            {{"url":"http://10.0.0.1:80",{traffic},"failures":1,"ejected_s":null}},
            {{"url":"http://10.0.0.2:80",{traffic},"failures":2,"ejected_s":70}}],"members_left_out":0,"sessions":[
            {{"id":"0000002a","age_s":61,"stage":"relay","src":"[2001:db8::1]:5000","sni":"a\n\"b",
              "route":"*.example.com","member":"http://10.0.0.1:80","bytes_in":517,"bytes_out":2048}},
            {{"id":"0000002b","age_s":0,"stage":"hello","src":"192.0.2.1:1","sni":null,"route":null,"member":null,
              "bytes_in":0,"bytes_out":0}}],"sessions_left_out":0}}"#
        );
        assert_eq!(value, serde_json::from_str::<serde_json::Value>(&wanted).unwrap());
    }

    #[test]
    fn as_text() {
        let mut out = String::new();
        proxy().text(&mut out);
        let wanted = r#"proxy 0.0.0.0:443: 2 open, 1 hello, 1 relay
ROUTE          TARGET        OPEN  TOTAL  IN    OUT
*.example.com  balancer:web  1     12     2.9k  5.0g
default        reject        0     0      0     0
MEMBER              OPEN  TOTAL  IN    OUT   FAILURES  EJECTED
http://10.0.0.1:80  1     12     2.9k  5.0g  1         -
http://10.0.0.2:80  1     12     2.9k  5.0g  2         1m10s
SESSION     AGE    STAGE  CLIENT              SNI     ROUTE          MEMBER              IN   OUT
{0000002a}  1m01s  relay  [2001:db8::1]:5000  a%0A"b  *.example.com  http://10.0.0.1:80  517  2.0k
{0000002b}  0s     hello  192.0.2.1:1         -       -              -                   0    0
"#;
        assert_eq!(out, wanted);
    }

    #[test]
    fn more_rows_than_a_report_holds_are_counted() {
        let mut proxy = Proxy::new("0.0.0.0:443".parse().unwrap(), 0, &[]);
        let src = "192.0.2.1:1".parse().unwrap();
        for n in 0..1002u64 {
            let url = Cow::Borrowed("http://a:80");
            proxy.member(|| Member { url, traffic: Traffic::default(), failures: 0, ejected_s: None });
            proxy.session(|| {
                assert!(n < 1000, "not made in vain");
                Session {
                    id: n,
                    age_s: 0,
                    stage: "relay",
                    src,
                    sni: None,
                    route: None,
                    member: None,
                    bytes_in: 0,
                    bytes_out: 0,
                }
            });
        }
        let (mut json, mut text) = (String::new(), String::new());
        proxy.json(&mut json);
        proxy.text(&mut text);
        assert!(json.ends_with(r#"],"sessions_left_out":2}"#) && json.contains(r#""members_left_out":2,"#));
        assert!(text.contains("\n… 2 more members\nSESSION") && text.ends_with("\n… 2 more sessions\n"));
    }
}
