//! Tokens of the little XML that balancer-manager writes (XML 1.0 without comments, document types, CDATA and
//! processing instructions beyond the first). Borrowed from the text; names lose their namespace prefix.

/// One token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Token<'a> {
    /// An element begins.
    Open(&'a str),
    /// An element ends.
    Close(&'a str),
    /// Text between two tags, with its entities.
    Text(&'a str),
}

/// What is left of a text.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    rest: &'a str,
    /// An element that ends where it begins.
    closes: Option<&'a str>,
}

impl<'a> Tokens<'a> {
    /// Tokens of `text` behind its XML declaration; `None` if that does not end.
    #[must_use]
    pub fn new(text: &'a str) -> Option<Tokens<'a>> {
        let text = text.trim_ascii_start();
        let rest = match text.strip_prefix("<?") {
            Some(declaration) => declaration.split_once("?>")?.1,
            None => text,
        };
        Some(Tokens { rest, closes: None })
    }

    /// The next token, `Some(None)` at the end; `None` where there is no token.
    pub fn take(&mut self) -> Option<Option<Token<'a>>> {
        if let Some(element) = self.closes.take() {
            return Some(Some(Token::Close(element)));
        }
        let Some(tag) = self.rest.strip_prefix('<') else {
            if self.rest.is_empty() {
                return Some(None);
            }
            let (text, rest) = self.rest.split_at(self.rest.find('<').unwrap_or(self.rest.len()));
            self.rest = rest;
            return Some(Some(Token::Text(text)));
        };
        if let Some(close) = tag.strip_prefix('/') {
            let (element, rest) = close.split_once('>')?;
            self.rest = rest;
            return Some(Some(Token::Close(name(element.trim_ascii_end())?)));
        }
        let end = end_of_tag(tag)?;
        let inner = tag.get(..end)?;
        self.rest = tag.get(end + 1..)?;
        let (inner, empty) = inner.strip_suffix('/').map_or((inner, false), |inner| (inner, true));
        let element = name(inner.split_ascii_whitespace().next()?)?;
        // Blanks before a name make it no tag.
        if inner.starts_with(|c: char| c.is_ascii_whitespace()) {
            return None;
        }
        self.closes = empty.then_some(element);
        Some(Some(Token::Open(element)))
    }
}

/// Where the `>` is that is not within quotes.
fn end_of_tag(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, b) in tag.bytes().enumerate() {
        match (quote, b) {
            (None, b'>') => return Some(at),
            (None, b'<') => return None,
            (None, b'"' | b'\'') => quote = Some(b),
            (Some(open), b) if open == b => quote = None,
            _ => {}
        }
    }
    None
}

/// A name without its prefix.
fn name(text: &str) -> Option<&str> {
    let local = text.split_once(':').map_or(text, |(_, local)| local);
    let fine = !local.is_empty() && local.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    fine.then_some(local)
}

/// Text with its entities replaced; `None` for one that XML does not have by itself.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('&');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, rest) = part.split_once(';')?;
        out.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = entity.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        out.push_str(rest);
    }
    Some(out)
}
