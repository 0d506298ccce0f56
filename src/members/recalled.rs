//! Replay marks of urls that are not in the table, as other receivers or an earlier run remember them. Each is kept
//! until it guards nothing any more. Who may have how many is the balancer's to say.

use super::member::NO_MARK;
use crate::clock::Mono;
use crate::sorted::Sorted;

/// Marks by url, each with the time until which it counts.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    marks: Sorted<Box<[u8]>, (i64, Mono)>,
}

impl Recalled {
    /// Remembers a mark, or raises the one there is. When there are `most`, those that have run out make room; if none
    /// has, a new url is left out.
    pub fn note(&mut self, url: &[u8], mark: i64, until: Mono, most: usize, now: Mono) {
        if self.marks.len() >= most {
            let live = |(mark, until): &(i64, Mono)| (now < *until).then_some((*mark, *until));
            let kept = self.marks.iter().filter_map(|(url, entry)| Some((url.clone(), live(entry)?)));
            self.marks = kept.collect();
        }
        if self.marks.len() < most || self.marks.contains_key(url) {
            let before = self.marks.get(url).map_or(NO_MARK, |(mark, _)| *mark);
            self.marks.insert(url.into(), (mark.max(before), until));
        }
    }

    /// The mark of a url; [`NO_MARK`] if there is none that counts.
    pub fn mark(&self, url: &[u8], now: Mono) -> i64 {
        self.marks.get(url).filter(|(_, until)| now < *until).map_or(NO_MARK, |(mark, _)| *mark)
    }

    /// The url is in the table now, which keeps its mark.
    pub fn forget(&mut self, url: &[u8]) {
        self.marks.remove(url);
    }
}
