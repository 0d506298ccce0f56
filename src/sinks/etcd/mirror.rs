//! What etcd has under some prefixes, kept up by asking only for what changed since.
//!
//! A range with `min_mod_revision` brings the keys that changed, and in any case their number: when the number is not
//! the one we come to, something was deleted, and everything is read anew. So a quiet etcd answers in a few hundred
//! bytes however many members there are. Pure.

use super::wire::{Call, Fault, Op, Row, Txn, cluster, ranges, revision, txn};
use crate::sorted::Sorted;
use serde_json::Value;

/// The rows under some prefixes.
#[derive(Debug)]
pub struct Mirror {
    prefixes: Vec<String>,
    rows: Sorted<String, Row>,
    /// Of each prefix, how many keys there are that are no text.
    unread: Vec<usize>,
    /// Everything has been read; what comes then is what changed.
    whole: bool,
    /// The store's revision at the last look, and its cluster: by these another store is told, however long we were away.
    seen: Option<i64>,
    cluster: Option<String>,
}

/// What a look came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// All is as it was.
    Same,
    /// Rows have changed.
    Changed,
    /// Something is gone, and everything must be read: ask again.
    Again,
    /// Another store answers than the one we knew, restored from a copy or made anew: ask again.
    Other,
}

impl Mirror {
    /// Nothing read yet.
    #[must_use]
    pub fn new(prefixes: Vec<String>) -> Mirror {
        let unread = vec![0; prefixes.len()];
        Mirror { prefixes, rows: Sorted::default(), unread, whole: false, seen: None, cluster: None }
    }

    /// What to ask.
    #[must_use]
    pub fn ask(&self) -> Call {
        let since = self.seen.filter(|_| self.whole).map_or(0, |seen| seen.saturating_add(1));
        let then = self.prefixes.iter().map(|prefix| Op::Range(prefix.clone(), since)).collect();
        txn(&Txn { then, ..Txn::default() })
    }

    /// Takes the answer in.
    ///
    /// # Errors
    /// It is none.
    pub fn take(&mut self, reply: &Value) -> Result<Look, Fault> {
        let found = ranges(reply, self.prefixes.len())?;
        let now = revision(reply);
        if self.seen.is_some_and(|seen| now < seen || cluster(reply) != self.cluster.as_deref()) {
            self.forget();
            self.seen = None;
            return Ok(Look::Other);
        }
        self.seen = Some(now);
        if !self.whole {
            self.fill(reply, found);
            return self.bounded().map(|()| Look::Changed);
        }
        let same = found.iter().all(|range| range.rows.is_empty());
        let counts: Vec<usize> = found.iter().map(|range| range.count).collect();
        self.rows.extend(found.into_iter().flat_map(|range| range.rows));
        self.bounded()?;
        let kept = (0..).zip(&self.prefixes).map(|(n, prefix)| self.count(prefix) + self.unread(n));
        if !kept.eq(counts) {
            self.forget();
            return Ok(Look::Again);
        }
        Ok(if same { Look::Same } else { Look::Changed })
    }

    /// The next look reads everything.
    pub fn forget(&mut self) {
        self.whole = false;
    }

    /// The row of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Row> {
        self.rows.get(key)
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = (&String, &Row)> {
        self.rows.iter()
    }

    fn fill(&mut self, reply: &Value, found: Vec<super::wire::Range>) {
        self.whole = true;
        self.cluster = cluster(reply).map(str::to_owned);
        self.unread = found.iter().map(|range| range.count.saturating_sub(range.rows.len())).collect();
        self.rows = found.into_iter().flat_map(|range| range.rows).collect();
    }

    /// What comes bit by bit is not to come to more than one answer may bring.
    fn bounded(&mut self) -> Result<(), Fault> {
        let size = |(key, row): (&String, &Row)| key.len() + row.value.len() + size_of::<(String, Row)>();
        if self.rows.iter().map(size).sum::<usize>() <= MOST {
            return Ok(());
        }
        self.forget();
        self.rows = Sorted::default();
        let prefixes = self.prefixes.join(" and ");
        Err(Fault { code: 0, text: format!("etcd has more under {prefixes} than there is room for") })
    }

    fn unread(&self, n: usize) -> usize {
        self.unread.get(n).copied().unwrap_or_default()
    }

    fn count(&self, prefix: &str) -> usize {
        self.rows.iter().filter(|(key, _)| key.starts_with(prefix)).count()
    }
}

/// The most bytes that are kept of what is under the prefixes.
const MOST: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::super::base64::encode;
    use super::*;
    use std::fmt::Write;

    fn answer(cluster: u32, revision: i64, keys: &[&str], count: usize) -> Value {
        let rows = keys.iter().fold(String::new(), |mut rows, key| {
            let comma = if rows.is_empty() { "" } else { "," };
            let _ = write!(rows, "{comma}{{\"key\":\"{}\",\"value\":\"eA==\"}}", encode(key.as_bytes()));
            rows
        });
        let text = format!(
            "{{\"header\":{{\"cluster_id\":\"{cluster}\",\"revision\":\"{revision}\"}},\"responses\":[{{\"response_range\":{{\"kvs\":[{rows}],\"count\":\"{count}\"}}}}]}}"
        );
        serde_json::from_str(&text).unwrap()
    }

    fn keys(mirror: &Mirror) -> Vec<&str> {
        mirror.rows().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn changes_are_taken_in_and_losses_noticed() {
        let mut mirror = Mirror::new(vec!["/b/".to_owned()]);
        let whole = mirror.ask();
        assert_eq!(mirror.take(&answer(1, 5, &["/b/1", "/b/2"], 2)), Ok(Look::Changed));
        assert!(mirror.ask().body.contains("\"min_mod_revision\":\"6\""));
        assert_eq!(mirror.take(&answer(1, 5, &[], 2)), Ok(Look::Same));
        assert_eq!(mirror.take(&answer(1, 7, &["/b/3"], 3)), Ok(Look::Changed));
        assert_eq!(keys(&mirror), ["/b/1", "/b/2", "/b/3"]);
        assert_eq!(mirror.take(&answer(1, 8, &[], 2)), Ok(Look::Again), "one is gone");
        assert_eq!(mirror.ask(), whole);
        assert_eq!(mirror.take(&answer(1, 8, &["/b/1", "/b/3"], 2)), Ok(Look::Changed));
        assert_eq!(keys(&mirror), ["/b/1", "/b/3"]);
        assert_eq!(mirror.take(&answer(1, 10, &["/b/4"], 2)), Ok(Look::Again), "one came, one went");
    }

    #[test]
    fn what_grows_bit_by_bit_has_a_bound() {
        let mut mirror = Mirror::new(vec!["/b/".to_owned()]);
        mirror.take(&answer(1, 5, &[], 0)).unwrap();
        let more = |n: usize| format!("/b/{n:04}{}", "x".repeat(1 << 20));
        let full =
            (1..40).find_map(|n| mirror.take(&answer(1, 5, &[&more(n)], n)).err().map(|fault| (n, fault)));
        let (n, fault) = full.expect("there is a bound");
        assert!((14..=16).contains(&n) && fault.text.contains("more under /b/"), "{n}: {}", fault.text);
        assert_eq!(mirror.rows().count(), 0);
        assert_eq!(mirror.take(&answer(1, 5, &["/b/1"], 1)), Ok(Look::Changed), "and then read anew");
    }

    #[test]
    fn another_store_is_read_anew() {
        for other in [answer(1, 4, &[], 1), answer(2, 9, &[], 1)] {
            let mut mirror = Mirror::new(vec!["/b/".to_owned()]);
            mirror.take(&answer(1, 5, &["/b/1"], 1)).unwrap();
            assert_eq!(mirror.take(&other), Ok(Look::Other));
            assert_eq!(mirror.take(&other), Ok(Look::Changed), "now it is the one we know");
            // While everything is still to be read, too: it was away.
            let mut mirror = Mirror::new(vec!["/b/".to_owned()]);
            mirror.take(&answer(1, 5, &["/b/1"], 1)).unwrap();
            mirror.forget();
            assert_eq!(mirror.take(&other), Ok(Look::Other));
        }
    }
}
