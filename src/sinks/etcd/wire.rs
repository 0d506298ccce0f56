//! etcd's language: the JSON of its v3 HTTP gateway (api reference `v3`, seen on 3.4).
//!
//! ```text
//! POST /v3/kv/txn                                          HTTP/1.1 200 OK
//! {"success":[{"requestRange":{"key":"L2I=",               {"header":{"revision":"5",..},"succeeded":true,"responses":
//!                              "range_end":"L2M="}}]}       [{"response_range":{"kvs":[{"key":"L2IvMQ==",..}],"count":"1"}}]}
//! ```
//!
//! Keys and values stand in base64, whole numbers as strings, and what is zero or empty is left out. Requests are
//! written with the writer of JSON strings, replies read as `serde_json` values. Nothing here decides or sends.

use super::base64::{decode, encode};
use crate::bytes::{JsonStr, Printable, is_bulky_json};
use serde_json::Value;
use std::fmt::Write;

/// One request: always a POST.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// The path.
    pub path: &'static str,
    /// The body. Never a password: that is asked for by [`authenticate`].
    pub body: String,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Read every key that begins with this, changed at or after this revision; 0 for all. How many there are is said
    /// in any case.
    Range(String, i64),
    /// Set a key, held by a lease.
    Put(String, String, i64),
    /// Delete a key.
    Delete(String),
    /// A transaction in the transaction.
    Txn(Txn),
}

/// A transaction: what is done if a comparison holds, and what if not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    /// Without one, it holds.
    pub compare: Option<Compare>,
    /// If it holds.
    pub then: Vec<Op>,
    /// If not.
    pub otherwise: Vec<Op>,
}

/// A comparison. One of the value is false where the key is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// There is no such key.
    Missing(String),
    /// The key's value sorts before this.
    Less(String, String),
    /// The key's value sorts after this.
    Greater(String, String),
}

/// Asks for a lease of this number, for so many seconds.
#[must_use]
pub fn grant(lease: i64, ttl: u32) -> Call {
    Call { path: "/v3/lease/grant", body: format!("{{\"ID\":\"{lease}\",\"TTL\":\"{ttl}\"}}") }
}

/// Ends a lease, and every key that it holds.
#[must_use]
pub fn revoke(lease: i64) -> Call {
    Call { path: "/v3/lease/revoke", body: format!("{{\"ID\":\"{lease}\"}}") }
}

/// Keeps leases alive: one object a line, and a line for each in the answer, as far as etcd has read.
#[must_use]
pub fn keep(leases: impl Iterator<Item = i64>) -> Call {
    let body = leases.fold(String::new(), |mut body, lease| {
        let _ = writeln!(body, "{{\"ID\":\"{lease}\"}}");
        body
    });
    Call { path: "/v3/lease/keepalive", body }
}

/// A transaction.
#[must_use]
pub fn txn(txn: &Txn) -> Call {
    let mut body = String::new();
    write_txn(txn, &mut body);
    Call { path: "/v3/kv/txn", body }
}

/// The body of `/v3/auth/authenticate`.
#[must_use]
pub fn authenticate(user: &str, password: &str) -> zeroize::Zeroizing<String> {
    // Room for all of it from the start, escapes included: a text that grows leaves copies behind.
    let mut body = zeroize::Zeroizing::new(String::with_capacity(64 + 6 * (user.len() + password.len())));
    let _ = write!(body, "{{\"name\":{},\"password\":{}}}", JsonStr(user), JsonStr(password));
    body
}

fn write_txn(txn: &Txn, out: &mut String) {
    out.push('{');
    if let Some(compare) = &txn.compare {
        let (key, words) = match compare {
            Compare::Missing(key) => {
                (key, "\"target\":\"CREATE\",\"result\":\"EQUAL\",\"create_revision\":\"0\"".to_owned())
            }
            Compare::Less(key, value) => (key, compare_value("LESS", value)),
            Compare::Greater(key, value) => (key, compare_value("GREATER", value)),
        };
        let _ = write!(out, "\"compare\":[{{\"key\":\"{}\",{words}}}],", encode(key.as_bytes()));
    }
    write_ops("success", &txn.then, out);
    out.push(',');
    write_ops("failure", &txn.otherwise, out);
    out.push('}');
}

fn compare_value(result: &str, value: &str) -> String {
    format!("\"target\":\"VALUE\",\"result\":\"{result}\",\"value\":\"{}\"", encode(value.as_bytes()))
}

fn write_ops(name: &str, ops: &[Op], out: &mut String) {
    let _ = write!(out, "\"{name}\":[");
    for (n, op) in ops.iter().enumerate() {
        out.push_str(if n == 0 { "{" } else { ",{" });
        match op {
            Op::Range(prefix, since) => {
                let (key, end) = (encode(prefix.as_bytes()), encode(&prefix_end(prefix)));
                let _ = write!(
                    out,
                    "\"requestRange\":{{\"key\":\"{key}\",\"range_end\":\"{end}\",\"min_mod_revision\":\"{since}\"}}"
                );
            }
            Op::Put(key, value, lease) => {
                let (key, value) = (encode(key.as_bytes()), encode(value.as_bytes()));
                let _ = write!(
                    out,
                    "\"requestPut\":{{\"key\":\"{key}\",\"value\":\"{value}\",\"lease\":\"{lease}\"}}"
                );
            }
            Op::Delete(key) => {
                let _ = write!(out, "\"requestDeleteRange\":{{\"key\":\"{}\"}}", encode(key.as_bytes()));
            }
            Op::Txn(txn) => {
                out.push_str("\"requestTxn\":");
                write_txn(txn, out);
            }
        }
        out.push('}');
    }
    out.push(']');
}

/// The end of the range of all keys that begin with `prefix`, which is ASCII and so has a successor.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// What etcd says instead of doing what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// A code of gRPC, 0 where there is none: 5 no such lease, 9 it exists, 16 no valid token.
    pub code: i64,
    /// One line for a log.
    pub text: String,
}

impl Fault {
    fn odd(what: &str) -> Fault {
        Fault { code: 0, text: format!("etcd's answer is not understood: {what}") }
    }
}

/// Something is wrong with the request, such as that it lacks a token, or has one from before users or roles changed.
pub const INVALID: i64 = 3;
/// There is no such lease.
pub const NO_LEASE: i64 = 5;
/// There is such a lease already; or, of [`authenticate`], nobody needs to say who they are.
pub const EXISTS: i64 = 9;
/// Nobody is anybody until they have said who they are, again.
pub const WHO: i64 = 16;

/// A reply, if it is none that says no.
///
/// # Errors
/// Another status than 200, or no JSON.
pub fn reply(status: u16, body: &[u8]) -> Result<Value, Fault> {
    if is_bulky_json(body) {
        return Err(Fault::odd("more than there is room for"));
    }
    let value: Result<Value, _> = serde_json::from_slice(body);
    match value {
        Ok(value) if status == 200 && value.get("error").is_none() => Ok(value),
        Ok(value) => Err(fault(status, &value)),
        Err(_) if status == 200 => Err(Fault::odd("no JSON")),
        Err(_) => Err(Fault { code: 0, text: format!("etcd answers with status {status}") }),
    }
}

/// In a stream the words stand one level down, under other names.
fn fault(status: u16, value: &Value) -> Fault {
    let inner = value.get("error").filter(|error| error.is_object()).unwrap_or(value);
    let code = ["code", "grpc_code"].iter().find_map(|name| inner.get(*name).and_then(Value::as_i64));
    let said = inner.get("message").or(inner.get("error")).and_then(Value::as_str);
    let text = match said {
        Some(said) => {
            let said = said.strip_prefix("etcdserver: ").unwrap_or(said);
            let cut: String = said.chars().take(EXCERPT).collect();
            format!("etcd says: {}", Printable(cut.as_bytes()))
        }
        None => format!("etcd answers with status {status}"),
    };
    Fault { code: code.unwrap_or_default(), text }
}

/// The revision of the store that answered.
#[must_use]
pub fn revision(reply: &Value) -> i64 {
    reply.get("header").and_then(|header| whole(header.get("revision"))).unwrap_or_default()
}

/// Which cluster answered.
#[must_use]
pub fn cluster(reply: &Value) -> Option<&str> {
    reply.get("header")?.get("cluster_id")?.as_str()
}

/// The token that says who we are, if it can stand in a header.
#[must_use]
pub fn token(reply: &Value) -> Option<&str> {
    let fits = |token: &&str| (1..=LONGEST_TOKEN).contains(&token.len());
    reply.get("token")?.as_str().filter(fits).filter(|token| token.bytes().all(|b| b.is_ascii_graphic()))
}

/// The seconds that a lease was granted for.
///
/// # Errors
/// None are said.
pub fn granted(reply: &Value) -> Result<u32, Fault> {
    ttl(reply).ok_or_else(|| Fault::odd("a lease without a time"))
}

/// What became of each lease that was to be kept: its number, and its seconds unless it has run out.
///
/// # Errors
/// A line that is something else.
pub fn kept(status: u16, body: &[u8]) -> Result<Vec<(i64, Option<u32>)>, Fault> {
    if status != 200 {
        return Err(reply(status, body).err().unwrap_or_else(|| Fault::odd("no leases")));
    }
    let lines = body.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    let one = |line: &[u8]| {
        let value = reply(status, line)?;
        let result = value.get("result").ok_or_else(|| Fault::odd("no result"))?;
        let lease = whole(result.get("ID")).ok_or_else(|| Fault::odd("a lease without a number"))?;
        Ok((lease, ttl(result)))
    };
    lines.take(MOST_KEPT).map(one).collect()
}

/// What one range brought.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// The keys that changed since the revision asked for.
    pub rows: Vec<(String, Row)>,
    /// How many keys there are in all.
    pub count: usize,
}

/// A key's value, and what holds it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// The value.
    pub value: Vec<u8>,
    /// The lease that holds it, 0 for none.
    pub lease: i64,
}

/// What the ranges of a transaction brought, in order. Keys that are no text are counted and left out: not ours.
///
/// # Errors
/// Something else than `expected` ranges.
pub fn ranges(reply: &Value, expected: usize) -> Result<Vec<Range>, Fault> {
    let responses = reply.get("responses").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let found: Option<Vec<Range>> = responses.iter().map(|one| range(one.get("response_range")?)).collect();
    found.filter(|ranges| ranges.len() == expected).ok_or_else(|| Fault::odd("not the ranges asked for"))
}

fn range(value: &Value) -> Option<Range> {
    let mut range = Range {
        rows: Vec::new(),
        count: usize::try_from(value.get("count").map_or(Some(0), |count| whole(Some(count)))?).ok()?,
    };
    for kv in value.get("kvs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
        let bytes = |name: &str| kv.get(name).map_or(Some(Vec::new()), |text| decode(text.as_str()?));
        let (key, value) = (bytes("key")?, bytes("value")?);
        let lease = kv.get("lease").map_or(Some(0), |lease| whole(Some(lease)))?;
        if let Ok(key) = String::from_utf8(key) {
            range.rows.push((key, Row { value, lease }));
        }
    }
    Some(range)
}

/// For each transaction in a transaction: whether anything was done in it, on whichever level.
///
/// # Errors
/// Something else than `expected` of them.
pub fn outcomes(reply: &Value, expected: usize) -> Result<Vec<bool>, Fault> {
    let responses = reply.get("responses").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let found: Option<Vec<bool>> = responses.iter().map(|one| Some(did(one.get("response_txn")?))).collect();
    found.filter(|all| all.len() == expected).ok_or_else(|| Fault::odd("not the transactions asked for"))
}

fn did(txn: &Value) -> bool {
    let inner = txn.get("responses").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    inner.iter().any(|one| one.get("response_txn").is_none_or(did))
}

fn ttl(value: &Value) -> Option<u32> {
    whole(value.get("TTL")).and_then(|ttl| u32::try_from(ttl).ok()).filter(|ttl| *ttl > 0)
}

/// A whole number, as a string or not.
fn whole(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

/// Nobody asks for as many leases at once as this.
const MOST_KEPT: usize = 1024;
/// A signed token has some hundred bytes.
const LONGEST_TOKEN: usize = 4096;
/// The longest text of etcd's that is shown.
const EXCERPT: usize = 160;

/// Any bytes as a reply: no panic, and what is read of a range is what is written into a request.
#[doc(hidden)]
pub fn fuzz_etcd_replies(data: &[u8]) {
    for status in [200, 404] {
        let _ = kept(status, data);
        match reply(status, data) {
            Err(fault) => assert!(fault.text.chars().count() < 4 * EXCERPT && !fault.text.contains('\n')),
            Ok(value) => {
                let _ = (revision(&value), cluster(&value), token(&value), granted(&value));
                for expected in 0..3 {
                    let _ = outcomes(&value, expected);
                    for range in ranges(&value, expected).into_iter().flatten() {
                        range.rows.iter().for_each(|(key, row)| read_back(key, row));
                    }
                }
            }
        }
    }
}

/// A row is understood again as another etcd would send it.
fn read_back(key: &str, row: &Row) {
    let (key64, value64) = (encode(key.as_bytes()), encode(&row.value));
    let text =
        format!("{{\"kvs\":[{{\"key\":\"{key64}\",\"value\":\"{value64}\",\"lease\":{}}}]}}", row.lease);
    let again: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(range(&again).map(|range| range.rows), Some(vec![(key.to_owned(), row.clone())]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/etcd_replies");
        std::fs::read(format!("{folder}/{name}")).unwrap()
    }

    fn good(name: &str) -> Value {
        reply(200, &seed(name)).unwrap()
    }

    #[test]
    fn requests_as_etcd_takes_them() {
        assert_eq!(grant(424_242, 6).body, r#"{"ID":"424242","TTL":"6"}"#);
        assert_eq!(keep([1, 2].into_iter()).body, "{\"ID\":\"1\"}\n{\"ID\":\"2\"}\n");
        assert_eq!(revoke(7).body, r#"{"ID":"7"}"#);
        let read = Txn { then: vec![Op::Range("/b/".to_owned(), 0)], ..Txn::default() };
        assert_eq!(
            txn(&read).body,
            r#"{"success":[{"requestRange":{"key":"L2Iv","range_end":"L2Iw","min_mod_revision":"0"}}],"failure":[]}"#
        );
        let put = Txn {
            compare: Some(Compare::Less("t".to_owned(), "06".to_owned())),
            then: vec![Op::Put("k".to_owned(), "v".to_owned(), 9), Op::Delete("d".to_owned())],
            otherwise: vec![Op::Txn(Txn {
                compare: Some(Compare::Missing("m".to_owned())),
                ..Txn::default()
            })],
        };
        let value: Value = serde_json::from_str(&txn(&put).body).unwrap();
        assert_eq!(value["compare"][0]["value"], "MDY=");
        assert_eq!(value["success"][0]["requestPut"]["lease"], "9");
        assert_eq!(value["failure"][0]["requestTxn"]["compare"][0]["create_revision"], "0");
        let body: Value = serde_json::from_str(&authenticate("ro\"ot", "h\\u\n")).unwrap();
        assert_eq!((&body["name"], &body["password"]), (&"ro\"ot".into(), &"h\\u\n".into()));
    }

    #[test]
    fn replies_of_etcd_3_4() {
        assert_eq!(granted(&good("grant")), Ok(6));
        assert_eq!(
            kept(200, &seed("keepalive")),
            Ok(vec![(424_242, Some(6)), (777, None)]),
            "777 has run out"
        );
        let look = ranges(&good("look"), 2).unwrap();
        assert_eq!((look[0].count, look[0].rows.len(), look[1].count), (1, 1, 0));
        let (key, row) = &look[0].rows[0];
        assert_eq!((key.as_str(), row.lease), ("/beacond/default/web/http://10.0.0.5:8080", 424_242));
        let unchanged = ranges(&good("look_unchanged"), 1).unwrap();
        assert_eq!((unchanged[0].count, unchanged[0].rows.len()), (1, 0));
        assert_eq!(outcomes(&good("txn_done"), 1), Ok(vec![true]));
        assert_eq!(outcomes(&good("txn_refused"), 1), Ok(vec![false]));
        assert!(
            token(&good("token")).is_some_and(|token| token.len() > 10) && token(&good("grant")).is_none()
        );
        for bad in ["", "a b", "a\r\nb", &"x".repeat(5_000)] {
            assert_eq!(token(&serde_json::json!({ "token": bad })), None, "{bad:.9}");
        }
        assert!(revision(&good("put")) > 1 && cluster(&good("put")).is_some());
        assert!(ranges(&good("grant"), 1).is_err() && outcomes(&good("look"), 2).is_err());
    }

    #[test]
    fn faults() {
        for (status, name, code, text) in [
            (412, "lease_exists", EXISTS, "etcd says: lease already exists"),
            (404, "lease_missing", NO_LEASE, "etcd says: requested lease not found"),
            (412, "no_auth", EXISTS, "etcd says: authentication is not enabled"),
            (400, "no_token", 3, "etcd says: user name is empty"),
        ] {
            assert_eq!(reply(status, &seed(name)), Err(Fault { code, text: text.to_owned() }), "{name}");
        }
        assert_eq!(reply(503, b"<html>").unwrap_err().text, "etcd answers with status 503");
        assert!(reply(200, b"<html>").unwrap_err().text.contains("not understood"));
        for filler in ["0,", "[],", "{},", "\"\",", "[[", "{\"\":"] {
            let bulky = format!("[{}0]", filler.repeat((8 << 16) + 9));
            assert!(reply(200, bulky.as_bytes()).unwrap_err().text.contains("room"), "{filler}");
        }
        let streamed = br#"{"error":{"grpc_code":16,"http_code":401,"message":"no"}}"#;
        assert_eq!(kept(200, streamed), Err(Fault { code: WHO, text: "etcd says: no".to_owned() }));
    }
}
