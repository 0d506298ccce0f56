//! The fields of a header or trailer section, in the order they came.

/// Header fields: names as sent, compared without case; values without the blanks around them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// Adds a field at the end.
    pub(super) fn push(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// The value of the first field called `name`, in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// The values of all fields called `name`, in any case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// The elements of the comma-separated list that all fields called `name` make together (RFC 9110 section
    /// 5.6.1), without blanks; empty elements are left out.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name).flat_map(|v| v.split(|&b| b == b',')).map(<[u8]>::trim_ascii).filter(|e| !e.is_empty())
    }

    /// Whether the list called `name` has `element`, in any case.
    #[must_use]
    pub fn lists(&self, name: &str, element: &str) -> bool {
        self.list(name).any(|e| e.eq_ignore_ascii_case(element.as_bytes()))
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_slice()))
    }

    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_case_and_lists_join() {
        let mut headers = Headers::default();
        headers.push("Connection", b"Keep-Alive, ,");
        headers.push("Host", b"a");
        headers.push("connection", b" close ");
        assert_eq!(headers.get("CONNECTION"), Some(&b"Keep-Alive, ,"[..]));
        assert_eq!(headers.list("connection").collect::<Vec<_>>(), [&b"Keep-Alive"[..], b"close"]);
        assert!(headers.lists("connection", "keep-alive") && headers.lists("Connection", "CLOSE"));
        assert!(!headers.lists("connection", "upgrade") && headers.get("etag").is_none());
    }
}
