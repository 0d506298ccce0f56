//! What the options of several roles have in common: the secrets, the urls they let pass, and the rows of those who bring
//! members in.

use super::admission::{self, Admission, Allow};
use crate::config::plan::Ground;
use crate::config::{Error, Section};
use crate::options::Opt;
use crate::secret::{Secrets, file};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Opens the file that the option `name` names, if it was given, for a process in the groups of `ground`; odd lines
/// become warnings.
///
/// # Errors
/// A file that is missing, open to others, or without a fit secret.
pub fn secrets(section: &Section, name: &str, ground: &mut Ground<'_>) -> Result<Option<Secrets>, Error> {
    let Some(path) = section.text(name) else { return Ok(None) };
    let place = section.place_of(name);
    let secrets = file::load_for(Path::new(path), section.flag("weak-secret"), ground.groups)
        .map_err(|e| Error { message: format!("{place}: {}", e.message), ..e })?;
    let odd = secrets.warnings.iter().map(|warning| format!("{place}: secret file {path}: {warning}"));
    ground.warnings.extend(odd);
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

/// How many members.
pub const MAX_MEMBERS: Opt = Opt {
    name: "max-members",
    arg: "N",
    repeat: false,
    default: "256",
    help: "How many members the balancer may have, dead ones included, so that nobody can fill the memory. \
           The default is the reference receiver's.",
};

/// When to forget the dead.
pub const FORGET: Opt = Opt {
    name: "forget",
    arg: "TIME",
    repeat: false,
    default: "1h",
    help: "Forget a dead member after this long, but not before twice --max-skew has passed: until then its \
           last announcement could be replayed.",
};

/// Which schemes.
pub const SCHEMES: Opt = Opt {
    name: "schemes",
    arg: "LIST",
    repeat: false,
    default: "http https",
    help: "The URL schemes that are admitted, separated by blanks.",
};

/// Whether names.
pub const ALLOW_NAMES: Opt = Opt {
    name: "allow-names",
    arg: "",
    repeat: false,
    default: "",
    help: "Admit host names in URLs, not only IP addresses. HAProxy at run time takes addresses only.",
};

/// Which addresses.
pub const ALLOW: Opt = Opt {
    name: "allow",
    arg: "CIDR[:PORT[-PORT]]",
    repeat: true,
    default: "",
    help: "Admit members with these addresses and ports only. Without it every address is admitted but \
           loopback, unspecified, link-local, multicast, broadcast and IPv4-mapped ones.",
};
