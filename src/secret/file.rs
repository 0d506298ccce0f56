//! Opening secret files: who may read them is checked on the very file that is then read.

use super::{BadText, Login, MAX_FILE, Secrets, closed, parse};
use crate::config::{Error, Section};
use crate::reactor::bank::plain;
use nix::unistd::{getegid, getgroups};
use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Loads the secrets of a file for a process of our own groups.
///
/// # Errors
/// A file that is missing, open to others, or without a fit secret.
pub fn load(path: &Path, weak: bool) -> Result<Secrets, Error> {
    load_for(path, weak, &own_groups())
}

/// Loads the secrets of a file for a process that will be in `groups`, as after a change of user.
///
/// # Errors
/// A file that is missing, open to others, or without a fit secret.
pub fn load_for(path: &Path, weak: bool, groups: &[u32]) -> Result<Secrets, Error> {
    let text = read("secret file", path, groups)?;
    parse(&text, weak).map_err(|bad| wrong("secret file", path, 2, &bad))
}

/// Loads the user and password of a file for a process that will be in `groups`.
///
/// # Errors
/// A file that is missing, open to others, or has something else in it.
pub fn load_login(path: &Path, groups: &[u32]) -> Result<Login, Error> {
    let text = read("auth file", path, groups)?;
    if text.len() > MAX_FILE {
        return Err(wrong("auth file", path, 2, &BadText::TooLong));
    }
    Login::parse(&text).map_err(|bad| wrong("auth file", path, 2, &bad))
}

/// The login of the file that the option `name` of `section` names, if it was given; and a text that differs where the
/// login does and does not show it.
///
/// # Errors
/// A file that is missing, open to others, or has something else in it.
pub fn login(section: &Section, name: &str, groups: &[u32]) -> Result<(Option<Login>, String), Error> {
    let Some(path) = section.text(name) else { return Ok((None, String::new())) };
    let place = section.place_of(name);
    let login = load_login(Path::new(path), groups)
        .map_err(|e| Error { message: format!("{place}: {}", e.message), ..e })?;
    let mut hasher = DefaultHasher::new();
    (login.user(), login.password()).hash(&mut hasher);
    Ok((Some(login), format!("{:x}", hasher.finish())))
}

/// What is wrong with a file: `kind` is what it is called.
fn wrong(kind: &str, path: &Path, status: u8, what: &dyn fmt::Display) -> Error {
    Error { status, message: format!("{kind} {}: {what}", path.display()) }
}

/// The bytes of a file that nobody else can read, one more than [`MAX_FILE`] at most.
fn read(kind: &str, path: &Path, groups: &[u32]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let wrong = |status: u8, what: &dyn fmt::Display| wrong(kind, path, status, what);
    let world =
        |e: io::Error| wrong(if e.kind() == io::ErrorKind::PermissionDenied { 2 } else { 1 }, &plain(&e));
    let file = File::open(path).map_err(world)?;
    // Asked of the open file, so that it is the one that is read.
    let meta = file.metadata().map_err(world)?;
    if meta.is_dir() {
        return Err(wrong(1, &"is a folder: want a file"));
    }
    closed(meta.mode(), meta.gid(), groups).map_err(|exposed| wrong(2, &exposed))?;
    // Room for all of it from the start: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
    let limit = u64::try_from(MAX_FILE + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut text).map_err(world)?;
    Ok(text)
}

/// The groups this process is in.
#[must_use]
pub fn own_groups() -> Vec<u32> {
    let mut groups: Vec<u32> =
        getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect();
    groups.push(getegid().as_raw());
    groups
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    const GOOD: &str = "correct-horse-battery-staple";

    #[test]
    fn load_says_file_line_and_what_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let missing = load(&path, false).unwrap_err();
        assert_eq!(missing.status, 1);
        assert!(
            missing.message.starts_with(&format!("secret file {}: ", path.display())),
            "{}",
            missing.message
        );

        let mut file = File::create(&path).unwrap();
        writeln!(file, "# comment\n{GOOD}").unwrap();
        let mode = |bits| std::fs::set_permissions(&path, PermissionsExt::from_mode(bits)).unwrap();
        mode(0o644);
        let open = load(&path, false).unwrap_err();
        assert_eq!(open.status, 2);
        assert!(
            open.message.ends_with("readable or writable by everybody: want chmod o= on it"),
            "{}",
            open.message
        );
        mode(0o640);
        assert_eq!(load(&path, false).unwrap().list, [Secret::new(GOOD.as_bytes())]);
        assert_eq!(load_for(&path, false, &[]).unwrap_err().status, 2);
        mode(0o600);
        writeln!(file, "short").unwrap();
        let weak = load(&path, false).unwrap_err();
        assert_eq!((weak.status, weak.message.contains(": line 3: ")), (2, true), "{}", weak.message);
        assert_eq!(load(&path, true).unwrap().list.len(), 2);
        let folder = dir.path().display();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let said = format!("secret file {folder}: is a folder: want a file");
        assert_eq!(load(dir.path(), true).unwrap_err().message, said);
    }

    #[test]
    fn a_login_is_kept_as_closed_as_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("login");
        std::fs::write(&path, "admin:hush hush\n").unwrap();
        let mode = |bits| std::fs::set_permissions(&path, PermissionsExt::from_mode(bits)).unwrap();
        mode(0o604);
        let open = load_login(&path, &[]).unwrap_err();
        assert!(
            open.message.starts_with("auth file ") && open.message.contains("everybody"),
            "{}",
            open.message
        );
        mode(0o600);
        assert_eq!(load_login(&path, &[]).unwrap().password(), "hush hush");
        std::fs::write(&path, "hush\n").unwrap();
        let bad = load_login(&path, &[]).unwrap_err();
        assert!(bad.message.ends_with("printable UTF-8") && !bad.message.contains("hush"), "{}", bad.message);
        std::fs::write(&path, "u:p\n".repeat(MAX_FILE)).unwrap();
        assert!(load_login(&path, &[]).unwrap_err().message.contains("larger than"));
    }
}
