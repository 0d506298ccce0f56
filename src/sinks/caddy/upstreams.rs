//! The list of upstreams as Caddy's admin API has it: a JSON array of objects, of which we know the field `dial`.
//!
//! ```text
//! [{"dial":"10.0.0.5:8080"},{"dial":"web1.lan:80","max_requests":7}]          null where the handler has none
//! ```
//!
//! Entries that are not ours keep their place and every byte of their text: read as values and written again, a number
//! of many digits would come out as its neighbour, and a key given twice once. Caddy takes a list with any text as an address and
//! answers 200, so only what was a member's url is written.

use crate::bytes::is_bulky_json;
use crate::url::Url;
use serde_json::{Deserializer, Map, Value};

/// The upstreams of one handler.
#[derive(Clone, PartialEq, Debug)]
pub struct Upstreams {
    entries: Vec<Entry>,
    /// There is no list: the handler has none yet, and it must be made.
    pub missing: bool,
}

impl Upstreams {
    /// Reads the list. `None`: it is something else.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Upstreams> {
        if is_bulky_json(text) {
            return None;
        }
        let text = text.trim_ascii();
        if text == b"null" {
            return Some(Upstreams { entries: Vec::new(), missing: true });
        }
        let mut rest = text.strip_prefix(b"[")?.strip_suffix(b"]")?.trim_ascii();
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (entry, after) = Entry::take(rest)?;
            entries.push(entry);
            rest = match after.split_first() {
                Some((b',', next)) if !next.is_empty() => next.trim_ascii_start(),
                None => after,
                Some(_) => return None,
            };
        }
        Some(Upstreams { entries, missing: false })
    }

    /// The addresses of those entries that lead to one.
    pub fn dials(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| entry.dial.as_deref())
    }

    /// The list without the entries of `away`, and with those of `more` at its end, as JSON.
    #[must_use]
    pub fn changed(&self, away: &[&str], more: &[&str]) -> String {
        let stays = |entry: &&Entry| entry.dial.as_deref().is_none_or(|dial| !away.contains(&dial));
        let kept = self.entries.iter().filter(stays).map(|entry| entry.text.clone());
        let added = more.iter().map(|&dial| {
            Value::Object(Map::from_iter([("dial".to_owned(), Value::String(dial.to_owned()))])).to_string()
        });
        format!("[{}]", kept.chain(added).collect::<Vec<_>>().join(","))
    }
}

/// One upstream.
#[derive(Clone, PartialEq, Debug)]
struct Entry {
    text: String,
    /// Where it leads, in the form that members have: `host:port`, lower case.
    dial: Option<String>,
}

impl Entry {
    /// Takes the entry at the front of a list, and what follows it.
    fn take(list: &[u8]) -> Option<(Entry, &[u8])> {
        let mut values = Deserializer::from_slice(list).into_iter();
        let Some(Ok(Value::Object(fields))) = values.next() else { return None };
        let (text, after) = list.split_at(values.byte_offset());
        // Only what has a port: the scheme is not the handler's, and its own port must not be guessed.
        let dial = fields
            .get("dial")
            .and_then(Value::as_str)
            .and_then(|dial| Url::parse(format!("tcp://{dial}").as_bytes()).ok())
            .map(|url| url.authority().to_owned());
        let text = String::from_utf8(text.to_vec()).ok()?;
        Some((Entry { text, dial }, after.trim_ascii_start()))
    }
}

/// What went wrong, in Caddy's words: `{"error":"unknown object ID 'web'"}`.
#[must_use]
pub fn complaint(text: &[u8]) -> Option<String> {
    let text = Some(text).filter(|text| !is_bulky_json(text))?;
    let Ok(Value::Object(answer)) = serde_json::from_slice(text) else { return None };
    let said: String = answer.get("error")?.as_str()?.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(said)
}

/// Any bytes as an answer: no panic; an unchanged list is the same list.
#[doc(hidden)]
pub fn fuzz_caddy_upstreams(data: &[u8]) {
    let _ = complaint(data);
    if let Some(list) = Upstreams::read(data) {
        let again = Upstreams::read(list.changed(&[], &[]).as_bytes()).expect("what we write, we read");
        assert_eq!(again.entries, list.entries);
        let all: Vec<&str> = list.dials().collect();
        let emptied = Upstreams::read(list.changed(&all, &["10.0.0.5:80"]).as_bytes()).expect("so is this");
        assert_eq!(emptied.dials().collect::<Vec<_>>(), ["10.0.0.5:80"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_keeps_its_place_and_its_fields() {
        let text =
            br#"[{"dial":"10.0.0.1:80","max_requests":7},{"dial":"Web1.LAN:81"},{"dial":"unix//run/x"},
            {"dial":"{http.x}:80"},{"lookup_srv":"a.b"},{"dial":"[::1]:82"}]"#;
        let list = Upstreams::read(text).unwrap();
        assert_eq!(list.dials().collect::<Vec<_>>(), ["10.0.0.1:80", "web1.lan:81", "[::1]:82"]);
        assert_eq!(
            list.changed(&["web1.lan:81", "[::1]:82"], &["10.0.0.2:80"]),
            r#"[{"dial":"10.0.0.1:80","max_requests":7},{"dial":"unix//run/x"},{"dial":"{http.x}:80"},{"lookup_srv":"a.b"},{"dial":"10.0.0.2:80"}]"#
        );
    }

    /// Read as a number, these 68 digits are written as 8.88888888888889e67, which is another one.
    #[test]
    fn an_entry_is_written_as_it_was_read() {
        let odd = format!(r#"[{{"weight": {}7, "b":1, "a":1.50, "a":"\u00e9"}}]"#, "8".repeat(67));
        assert_eq!(Upstreams::read(odd.as_bytes()).unwrap().changed(&[], &[]), odd);
    }

    #[test]
    fn lists_and_other_things() {
        assert!(Upstreams::read(b"null\n").unwrap().missing);
        assert!(!Upstreams::read(b"[]").unwrap().missing);
        for bad in
            ["", "{}", "[1]", "[{}", "{}]", "[{},]", "[,{}]", "[{}{}]", "[{},{}]]", "[", "\"x\"", "<html>"]
        {
            assert_eq!(Upstreams::read(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(complaint(br#"{"error":"unknown object ID 'x'"}"#).unwrap(), "unknown object ID 'x'");
        assert_eq!(complaint(b"<html>"), None);
        let bulky = format!("[{}{{}}]", "{},".repeat(1 << 16));
        assert_eq!(Upstreams::read(bulky.as_bytes()), None, "{} bytes, and 40 MB read", bulky.len());
        assert_eq!(complaint(format!("{{\"error\":\"x\",\"y\":{bulky}}}").as_bytes()), None);
    }
}
