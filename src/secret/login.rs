//! A user and a password for a server that asks for them: the text of the file they stand in, and what HTTP's basic
//! authentication makes of them (RFC 7617). Wiped when dropped, and never shown. Pure; [`super::file`] opens the file.

use std::fmt;
use zeroize::Zeroizing;

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// `user:password`.
    pair: Zeroizing<String>,
    user_len: usize,
}

/// Why the text of a file is no login; its words say what is wanted, and show nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadLogin;

impl fmt::Display for BadLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("want one line user:password, of printable UTF-8")
    }
}

impl Login {
    /// Reads the text of a file: one line `user:password`, beside lines that are blank or begin with `#`. Every byte of
    /// it counts, but for a carriage return at its end.
    ///
    /// # Errors
    /// It is anything else.
    pub fn parse(text: &[u8]) -> Result<Login, BadLogin> {
        let counts = |line: &&[u8]| !line.starts_with(b"#") && !line.iter().all(u8::is_ascii_whitespace);
        let mut lines = text.split(|&b| b == b'\n').filter(counts);
        let (Some(line), None) = (lines.next(), lines.next()) else { return Err(BadLogin) };
        let line = str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| BadLogin)?;
        match line.find(':') {
            Some(user_len) if user_len > 0 && !line.contains(char::is_control) => {
                Ok(Login { pair: Zeroizing::new(line.to_owned()), user_len })
            }
            _ => Err(BadLogin),
        }
    }

    /// Who.
    #[must_use]
    pub fn user(&self) -> &str {
        self.pair.get(..self.user_len).unwrap_or_default()
    }

    /// With what.
    #[must_use]
    pub fn password(&self) -> &str {
        self.pair.get(self.user_len + 1..).unwrap_or_default()
    }

    /// The value of `Authorization` for basic authentication.
    #[must_use]
    pub fn basic(&self) -> Zeroizing<String> {
        // Room for all of it from the start: a text that grows leaves copies behind.
        let mut text =
            Zeroizing::new(String::with_capacity("Basic ".len() + self.pair.len().div_ceil(3) * 4));
        text.push_str("Basic ");
        for group in self.pair.as_bytes().chunks(3) {
            let bits =
                (0..3).fold(0, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or_default()));
            for digit in 0..4 {
                let value = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap_or_default();
                text.push(if digit > group.len() { '=' } else { char::from(BASE64[value]) });
            }
        }
        text
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

/// RFC 4648 section 4.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_a_login() {
        let login = Login::parse(b"# for the manager\n\nAladdin:open sesame\r\n").unwrap();
        assert_eq!((login.user(), login.password()), ("Aladdin", "open sesame"));
        // RFC 7617 section 2, and base64(1) for the other lengths.
        assert_eq!(*login.basic(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(*Login::parse(b"u:p").unwrap().basic(), "Basic dTpw");
        assert_eq!(*Login::parse(b"u:pa").unwrap().basic(), "Basic dTpwYQ==");
        assert_eq!(*Login::parse(b"u:p:a").unwrap().basic(), "Basic dTpwOmE=");
        assert_eq!(*Login::parse("u:\u{bf}?>~\u{ff}".as_bytes()).unwrap().basic(), "Basic dTrCvz8+fsO/");
        assert_eq!(format!("{login:?}"), "Login(..)");
    }

    #[test]
    fn anything_else_is_none() {
        for bad in ["", "# a:b", "user", ":pass", "a:b\nc:d", "a:b\rc", "a:\u{7f}", "a:b\0"] {
            assert_eq!(Login::parse(bad.as_bytes()), Err(BadLogin), "{bad:?}");
        }
        assert_eq!(Login::parse(b"a:\xff"), Err(BadLogin));
    }
}
