//! The headers that are sent to an HTTP proxy, as options and files say them: `Name: value`. What stands in braces in
//! a value is replaced elsewhere.

use crate::http1::check_header;

/// A header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Its name, a token.
    pub name: String,
    /// Its value, without blanks at the edges and without control characters.
    pub value: String,
}

impl Header {
    /// Reads `Name: value`.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<Header, String> {
        let (name, value) =
            text.split_once(':').ok_or_else(|| "a header such as x-region: north".to_owned())?;
        let (name, value) = (name.trim(), value.trim());
        check_header(name, value).map_err(|bad| match name {
            "" => "a name before the colon".to_owned(),
            _ => format!("a header that may be sent (this one has a {bad})"),
        })?;
        Ok(Header { name: name.to_owned(), value: value.to_owned() })
    }

    /// Whether both have the same name, in any case.
    #[must_use]
    pub fn is_named_as(&self, other: &Header) -> bool {
        self.name.eq_ignore_ascii_case(&other.name)
    }
}

/// Reads a file of headers, one a line; blank lines and lines that begin with `#` are skipped.
///
/// # Errors
/// The number of the first wrong line, from 1, with its text and what is wanted there.
pub fn read_lines(text: &str) -> Result<Vec<Header>, (usize, &str, String)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(n, line)| Header::parse(line).map_err(|wanted| (n, line, wanted))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.to_owned() };
        assert_eq!(Header::parse("X-Region :  {country}: b "), Ok(header("X-Region", "{country}: b")));
        assert_eq!(Header::parse("x:"), Ok(header("x", "")));
        for (text, wanted) in [
            ("x", "a header such as"),
            (": y", "a name before the colon"),
            ("x y: z", "a header that may be sent (this one has a bad header name)"),
            ("Host: z", "a header that may be sent (this one has a bad header name)"),
            ("content-length: 1", "a header that may be sent (this one has a bad header name)"),
            ("x: a\rb", "a header that may be sent (this one has a bad header value)"),
        ] {
            let said = Header::parse(text).unwrap_err();
            assert!(said.starts_with(wanted), "{text}: {said}");
        }
        let (a, b) = (header("a", "1"), header("B", "2"));
        assert_eq!(read_lines("# x\n a: 1\r\n\n  # y\nB:2"), Ok(vec![a, b]));
        let (line, text, _) = read_lines("a: 1\n\nb\nc").unwrap_err();
        assert_eq!((line, text), (3, "b"));
        assert!(header("a", "").is_named_as(&header("A", "1")));
    }
}
