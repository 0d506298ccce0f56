//! The text of a configuration file.
//!
//! ```text
//! log-level  debug               options before the first section are global
//! [listen]                       opens a section; the same role again is another service
//! timeout    30                  a long option without dashes, its value: the rest of the line
//! keep-last                      a flag stands alone
//! # as first character: a comment; nothing is quoted or escaped
//! include conf.d/*.conf
//! ```
//!
//! An included file goes on where the `include` stands, in the same section, until its first `[role]`; what it opens
//! ends with it. Nothing here reads a file: who does hands over its bytes and follows its includes.

use super::section::{Builder, Section, nearest};
use super::{Error, Origin, Shown};
use crate::options::{self, GLOBAL, TOOLS};
use std::rc::Rc;

/// Sections that are being read: file after file, line after line.
pub struct Assembly {
    host: String,
    global: Builder,
    roles: Vec<Builder>,
}

/// Where lines go: to the global options, or to the section of this number.
pub type Inside = Option<usize>;

/// What follows an include: told the glob, where it stands and the section it stands in.
pub type Follow<'a> = dyn FnMut(&mut Assembly, &str, Origin, Inside) -> Result<(), Error> + 'a;

/// What a line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line<'a> {
    Role(&'a str),
    Option(&'a str, Option<&'a str>),
    Include(&'a str),
}

impl Assembly {
    /// Nothing read yet; `host` is what `{hostname}` stands for.
    #[must_use]
    pub fn new(host: &str) -> Assembly {
        let global = Builder::new(&GLOBAL, Origin::Default, host);
        Assembly { host: host.to_owned(), global, roles: Vec::new() }
    }

    /// Reads one file's bytes, whose first lines belong `inside` a section.
    ///
    /// # Errors
    /// The first line that is wrong, and whatever `follow` returns.
    pub fn file(
        &mut self,
        path: &Rc<str>,
        bytes: &[u8],
        mut inside: Inside,
        follow: &mut Follow<'_>,
    ) -> Result<(), Error> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes); // a byte order mark
        for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let at = Origin::File { path: Rc::clone(path), line: number + 1 };
            let Ok(line) = std::str::from_utf8(line) else {
                return Err(Error::text(format!("{at}: wanted UTF-8 text")));
            };
            match read_line(line).map_err(|wrong| Error::text(format!("{at}: {wrong}")))? {
                None => {}
                Some(Line::Role(name)) => inside = Some(self.open(name, at)?),
                Some(Line::Option(name, value)) => self.section(inside).add(name, value, at)?,
                Some(Line::Include(glob)) => follow(self, glob, at, inside)?,
            }
        }
        Ok(())
    }

    /// The global options and the sections in the order in which they were opened.
    #[must_use]
    pub fn finish(self) -> (Section, Vec<Section>) {
        (self.global.finish(), self.roles.into_iter().map(Builder::finish).collect())
    }

    fn open(&mut self, name: &str, at: Origin) -> Result<usize, Error> {
        let role = options::role(name).ok_or_else(|| {
            Error::text(format!("{at}: [{}]: unknown role{}", Shown(name), role_hint(name)))
        })?;
        self.roles.push(Builder::new(role, at, &self.host));
        Ok(self.roles.len() - 1)
    }

    fn section(&mut self, inside: Inside) -> &mut Builder {
        inside.and_then(|number| self.roles.get_mut(number)).unwrap_or(&mut self.global)
    }
}

/// What to say behind an unknown role.
#[must_use]
pub(super) fn role_hint(name: &str) -> String {
    let roles = || options::roles().iter().map(|r| r.name);
    match nearest(name, roles().chain(TOOLS.iter().map(|t| t.role.name))) {
        Some(name) => format!(": did you mean {name}?"),
        None => format!(": wanted one of {}", roles().collect::<Vec<_>>().join(", ")),
    }
}

fn read_line(line: &str) -> Result<Option<Line<'_>>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if let Some(rest) = line.strip_prefix('[') {
        return match rest.strip_suffix(']') {
            Some(name) => Ok(Some(Line::Role(name.trim()))),
            None => Err(format!("'{}': wanted [ROLE] alone on its line", Shown(line))),
        };
    }
    let (name, value) = match line.split_once([' ', '\t']) {
        Some((name, value)) => (name, Some(value.trim())),
        None => (line, None),
    };
    if let Some(bare) = name.strip_prefix("--") {
        return Err(format!("{}: wanted the option without dashes: {}", Shown(name), Shown(bare)));
    }
    if let Some((bare, _)) = name.split_once('=') {
        return Err(format!("{}: wanted a blank between option and value, not =", Shown(bare)));
    }
    match (name, value) {
        ("include", None) => Err("include: no value: wanted GLOB".to_owned()),
        ("include", Some(glob)) => Ok(Some(Line::Include(glob))),
        _ => Ok(Some(Line::Option(name, value))),
    }
}

/// Whether a file's name fits a pattern of letters, `*` (any letters, or none) and `?` (one letter). A leading dot must
/// be matched by a dot.
#[must_use]
pub fn glob_matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None; // the last `*`, and how far it reaches so far
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, reach)) => {
                    star = Some((at, reach + 1));
                    (p, n) = (at + 1, reach + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Any bytes as a file: read or refused with one line; and what was read means the same when it is written as a file
/// again, and as a command line.
///
/// # Panics
/// When that does not hold.
#[doc(hidden)]
pub fn fuzz_config(data: &[u8]) {
    let path: Rc<str> = Rc::from("fuzz.conf");
    let read = |data: &[u8]| {
        let mut assembly = Assembly::new("host-1");
        assembly.file(&path, data, None, &mut |_, _, at, _| Err(Error::text(format!("{at}: include"))))?;
        Ok(assembly.finish())
    };
    let (global, roles) = match read(data) {
        Ok(sections) => sections,
        Err(Error { status, message }) => {
            assert_eq!(status, 2, "{message}");
            assert!(!message.contains('\n') && message.starts_with("fuzz.conf:"), "{message:?}");
            return;
        }
    };
    let (again_global, again) =
        read(super::print::as_file(&global, &roles).as_bytes()).expect("a printed file is read");
    super::print::assert_same(&global, &roles, &again_global, &again);
    if roles.is_empty() {
        return;
    }
    let words = super::print::as_words(&global, &roles);
    let (argv_global, argv) =
        super::argv::sections(&words, "host-1").expect("a printed command line is read");
    super::print::assert_same(&global, &roles, &argv_global, &argv);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(read_line("  # x").unwrap(), None);
        assert_eq!(read_line("\t\r").unwrap(), None);
        assert_eq!(read_line(" [ listen ] \r").unwrap(), Some(Line::Role("listen")));
        assert_eq!(read_line("keep-last").unwrap(), Some(Line::Option("keep-last", None)));
        assert_eq!(read_line("a\t b  c # d ").unwrap(), Some(Line::Option("a", Some("b  c # d"))));
        assert_eq!(read_line("include  x/*.conf").unwrap(), Some(Line::Include("x/*.conf")));
        assert_eq!(read_line("[listen] # x").unwrap_err(), "'[listen] # x': wanted [ROLE] alone on its line");
        assert_eq!(
            read_line("--timeout 3").unwrap_err(),
            "--timeout: wanted the option without dashes: timeout"
        );
        assert_eq!(
            read_line("timeout=3").unwrap_err(),
            "timeout: wanted a blank between option and value, not ="
        );
        assert_eq!(read_line("include").unwrap_err(), "include: no value: wanted GLOB");
    }

    #[test]
    fn globs() {
        for (pattern, name) in [
            ("*", "a"),
            ("*.conf", "a.conf"),
            ("*.conf", "a.conf.conf"),
            ("a?c", "abc"),
            ("a*b*", "axxbyy"),
            (".*", ".x"),
            ("é?", "éa"),
            ("**", "x"),
        ] {
            assert!(glob_matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.conf", "a.conf~"),
            ("*.conf", ".conf"),
            ("?", ""),
            ("a?c", "ac"),
            ("*", ".x"),
            ("a*b", "axxbc"),
            ("", "a"),
        ] {
            assert!(!glob_matches(pattern, name), "{pattern} {name}");
        }
    }
}
