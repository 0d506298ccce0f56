//! What the options of `listen` and `announce` have in common: the secrets, and the urls they let pass.

use super::admission::{self, Admission, Allow};
use crate::config::{Error, Section};
use crate::secret::{Secrets, file};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Opens the file that the option `name` names, if it was given, for a process in `groups`; odd lines are logged.
///
/// # Errors
/// A file that is missing, open to others, or without a fit secret.
pub fn secrets(section: &Section, name: &str, groups: &[u32]) -> Result<Option<Secrets>, Error> {
    let Some(path) = section.text(name) else { return Ok(None) };
    let secrets = file::load_for(Path::new(path), section.flag("weak-secret"), groups)
        .map_err(|e| Error { message: format!("{}: {}", section.place_of(name), e.message), ..e })?;
    for warning in &secrets.warnings {
        log::warn!(target: section.role().name, "secret file {path}: {warning}");
    }
    Ok(Some(secrets))
}

/// The policy for urls.
///
/// # Errors
/// The first value that is wrong.
pub fn admission(section: &Section) -> Result<Admission, Error> {
    let schemes = section.need("schemes", admission::read_schemes)?;
    Ok(Admission::new(schemes, section.flag("allow-names"), section.all("allow", Allow::parse)?))
}

/// What a section and its secrets come to, as a text that differs where they do and shows no secret.
#[must_use]
pub fn fingerprint(section: &Section, secrets: &[&Secrets]) -> String {
    let mut hasher = DefaultHasher::new();
    for secret in secrets.iter().flat_map(|s| &s.list) {
        secret.bytes().hash(&mut hasher);
    }
    format!("{}{:x}", section.fingerprint(), hasher.finish())
}
