//! Sections written back, as a file's text and as a command line: the other half of the property that both are the
//! same thing. Only values that were given are written.

use super::section::Section;
use std::fmt::Write;

/// The sections as the text of a file.
#[must_use]
pub fn as_file(global: &Section, roles: &[Section]) -> String {
    let mut out = String::new();
    for section in std::iter::once(global).chain(roles) {
        if !section.role().name.is_empty() {
            let _ = writeln!(out, "[{}]", section.role().name);
        }
        for value in section.values().iter().filter(|v| v.origin.is_written()) {
            let _ = writeln!(out, "{} {}", value.opt.name, value.text);
        }
    }
    out
}

/// The sections as the words of a command line.
#[must_use]
pub fn as_words(global: &Section, roles: &[Section]) -> Vec<String> {
    let mut words = Vec::new();
    for (number, section) in std::iter::once(global).chain(roles).enumerate() {
        if number > 1 {
            words.push("+".to_owned());
        }
        if number > 0 {
            words.push(section.role().name.to_owned());
        }
        for value in section.values().iter().filter(|v| v.origin.is_written()) {
            let name = value.opt.name;
            words.push(match value.opt.is_flag() {
                true => format!("--{name}"),
                false => format!("--{name}={}", value.text),
            });
        }
    }
    words
}

/// Checks that two readings mean the same.
///
/// # Panics
/// When they do not.
pub(super) fn assert_same(global: &Section, roles: &[Section], again_global: &Section, again: &[Section]) {
    assert_eq!(global.fingerprint(), again_global.fingerprint());
    assert_eq!(roles.len(), again.len());
    for (one, other) in roles.iter().zip(again) {
        assert_eq!(one.fingerprint(), other.fingerprint());
    }
}
