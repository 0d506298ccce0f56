//! `beacond keygen`: a good secret, and the passphrase of one member where members have keys of their own.

use crate::config::{Error, Shown};
use crate::secret::file;
use crate::url::Url;
use std::path::Path;
use zeroize::Zeroizing;

/// Prints as 43 characters; 256 bits, which nobody guesses.
const SECRET_LEN: usize = 32;

/// A fresh secret from the system's random source, as one line of text without its end.
///
/// # Errors
/// Where the system has no random source.
pub fn fresh_secret() -> Result<Zeroizing<String>, Error> {
    let mut random = Zeroizing::new([0; SECRET_LEN]);
    getrandom::fill(&mut *random)
        .map_err(|e| Error { status: 1, message: format!("no random bytes from the system: {e}") })?;
    Ok(secret_text(&random))
}

/// The passphrase with which the backend at `url` signs for itself: what goes into its secret file, and what a receiver
/// of `balancer` derives from the first secret of the same `master` file.
///
/// # Errors
/// A master file that cannot be loaded, an empty balancer name, or a url that is none.
pub fn member_passphrase(
    master: &Path,
    weak: bool,
    balancer: &str,
    url: &str,
) -> Result<Zeroizing<String>, Error> {
    let wrong = |message: String| Error { status: 2, message };
    let secrets = file::load(master, weak)?;
    let balancer = balancer.strip_prefix("balancer://").unwrap_or(balancer);
    if balancer.is_empty() {
        return Err(wrong("--balancer is empty: want the balancer's name".to_owned()));
    }
    let url = Url::parse(url.as_bytes()).map_err(|bad| {
        wrong(format!("--url '{}' {bad}: want a url such as http://10.0.0.5:8080", Shown(url)))
    })?;
    let first = secrets.list.first().expect("a loaded file holds at least one secret");
    let passphrase = first.member_passphrase(balancer, url.text());
    Ok(Zeroizing::new(String::from_utf8_lossy(passphrase.bytes()).into_owned()))
}

/// Base64 for urls without padding (RFC 4648 section 5): no character that a shell, a config file or httpd would mind.
fn secret_text(random: &[u8; SECRET_LEN]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(SECRET_LEN * 4 / 3 + 1));
    for group in random.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for digit in 0..=group.len() {
            text.push(base64_digit(bits >> (18 - 6 * digit) & 63));
        }
    }
    text
}

fn base64_digit(value: u32) -> char {
    let from = |first: char, offset: u32| char::from_u32(u32::from(first) + offset).unwrap_or(first);
    match value {
        0..26 => from('A', value),
        26..52 => from('a', value - 26),
        52..62 => from('0', value - 52),
        62 => '-',
        _ => '_',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{self, Secret};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn base64_without_padding() {
        assert_eq!(*secret_text(&[0; 32]), "A".repeat(43));
        let counted: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 8 + 7).unwrap());
        // python3 -c 'import base64; print(base64.urlsafe_b64encode(bytes(range(7, 256, 8))))'
        assert_eq!(*secret_text(&counted), "Bw8XHycvNz9HT1dfZ293f4ePl5-nr7e_x8_X3-fv9_8");
        assert_eq!(*secret_text(&[255; 32]), format!("{}8", "_".repeat(42)));
    }

    #[test]
    fn a_fresh_secret_is_strong_and_new() {
        let (one, two) = (fresh_secret().unwrap(), fresh_secret().unwrap());
        assert_ne!(one, two);
        assert_eq!(secret::parse(one.as_bytes(), false).unwrap().warnings, []);
    }

    #[test]
    fn a_members_passphrase_is_that_of_its_canonical_url() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master");
        std::fs::write(&path, "a master key of good length\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let expected =
            Secret::new(b"a master key of good length").member_passphrase("web", "http://10.0.0.5:80");
        for url in ["http://10.0.0.5:80", "HTTP://10.0.0.5/"] {
            let text = member_passphrase(&path, false, "balancer://web", url).unwrap();
            assert_eq!(text.as_bytes(), expected.bytes());
        }
        for (balancer, url) in [("", "http://10.0.0.5"), ("web", "10.0.0.5")] {
            assert_eq!(member_passphrase(&path, false, balancer, url).unwrap_err().status, 2);
        }
        assert_eq!(
            member_passphrase(&dir.path().join("x"), false, "web", "http://10.0.0.5").unwrap_err().status,
            1
        );
    }
}
