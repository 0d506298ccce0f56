//! Lists of one item a line, plain or in a frame of JSON: how the lines hang together, and how to read parts of one.

/// What stands around the items and between them.
#[derive(Debug)]
pub struct List {
    /// How the first line begins; the rest of it depends on the names in it. Empty: there is no such line.
    pub begins: &'static str,
    /// Between two items.
    pub between: &'static str,
    /// The last line; empty: there is no such line.
    pub tail: &'static str,
    /// How an item begins.
    item: &'static str,
    /// Whether lines that begin with `#` say nothing.
    comments: bool,
}

/// Lines, and comments among them.
pub const COMMENTED: List = List { begins: "", between: "\n", tail: "", item: "", comments: true };
/// Lines and nothing else.
pub const PLAIN: List = List { begins: "", between: "\n", tail: "", item: "", comments: false };
/// An array of target groups.
pub const PROMETHEUS: List =
    List { begins: "[", between: ",\n", tail: "]\n", item: "{\"targets\":[\"", comments: false };
/// A `DiscoveryResponse` with one resource.
pub const ENVOY: List = List {
    begins: "{\"version_info\":",
    between: ",\n",
    tail: "]}]}]}\n",
    item: "{\"health_status\":",
    comments: false,
};
/// A dynamic configuration with one service.
pub const TRAEFIK: List = List {
    begins: "{\"http\":{\"services\":{",
    between: ",\n",
    tail: "]}}}}}\n",
    item: "{\"url\":",
    comments: false,
};
/// Our own.
pub const JSON: List =
    List { begins: "{\"balancer\":", between: ",\n", tail: "]}\n", item: "{\"url\":", comments: false };

impl List {
    /// The lines of items; `None` if `text` is no such list.
    #[must_use]
    pub fn lines<'a>(&self, text: &'a str) -> Option<impl Iterator<Item = &'a str>> {
        let comments = self.comments;
        let said = |line: &&str| !(line.is_empty() || comments && line.starts_with('#'));
        let mut lines: Vec<&str> = text.lines().map(str::trim).filter(said).collect();
        if !self.begins.is_empty() && !lines.is_empty() {
            let last = lines.pop().filter(|_| !lines.is_empty())?;
            let framed = lines.remove(0).starts_with(self.begins) && last == self.tail.trim_end();
            framed.then_some(())?;
        }
        let last = lines.len().saturating_sub(1);
        for (nth, line) in lines.iter_mut().enumerate() {
            let comma = self.between.trim_end();
            if nth < last {
                *line = line.strip_suffix(comma)?;
            }
            line.starts_with(self.item).then_some(())?;
        }
        Some(lines.into_iter())
    }
}

/// What stands behind the first `key` up to the next quote.
#[must_use]
pub fn text<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(key)?;
    rest.split_once('"').map(|(text, _)| text)
}

/// The number behind the first `key`.
#[must_use]
pub fn number(line: &str, key: &str) -> Option<u16> {
    let (_, rest) = line.split_once(key)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}
