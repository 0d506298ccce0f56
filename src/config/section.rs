//! One role with its options: what a section of a file, or one role on the command line, comes down to.
//!
//! A [`Builder`] takes option after option and judges each with getopts; a [`Section`] answers for their values.
//! Values are the same wherever they were written: edge blanks are dropped, `{hostname}` is replaced, an empty value
//! and control characters are refused. Nothing here reads a file.

use super::env::FromEnv;
use super::{Error, Origin, Shown};
use crate::options::{Opt, Role};
use getopts::Fail;

/// One role with its values, defaults included.
#[derive(Clone, Debug)]
pub struct Section {
    role: &'static Role,
    at: Origin,
    values: Vec<Given>,
}

/// One value of a section.
#[derive(Clone, Debug)]
pub struct Given {
    /// The option's row.
    pub opt: &'static Opt,
    /// The value's text; empty for a flag.
    pub text: String,
    /// Where it was given; [`Origin::Default`] if it was not.
    pub origin: Origin,
}

impl Section {
    /// The section's role.
    #[must_use]
    pub fn role(&self) -> &'static Role {
        self.role
    }

    /// Where the section begins.
    #[must_use]
    pub fn at(&self) -> &Origin {
        &self.at
    }

    /// All values: the given ones in the order in which they were written, then those of the environment and the
    /// defaults of the others.
    #[must_use]
    pub fn values(&self) -> &[Given] {
        &self.values
    }

    /// Whether the flag `name` was given.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The text of the option `name`: as given, else its default, else nothing.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.find(name).map(|v| v.text.as_str())
    }

    /// Whether the option `name` was written somewhere.
    #[must_use]
    pub fn given(&self, name: &str) -> bool {
        self.find(name).is_some_and(|v| v.origin.is_written())
    }

    /// The option's value, or `None` where there is neither a given one nor a default.
    ///
    /// # Errors
    /// `parse` says in its error what is wanted ("a time such as 30 or 500ms"); this adds where and what was found.
    pub fn get<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
        let Some(value) = self.find(name) else { return Ok(None) };
        parse(&value.text).map(Some).map_err(|wanted| self.refuse(value, &wanted))
    }

    /// The value of an option that must have one.
    ///
    /// # Errors
    /// As [`Section::get`], and when there is no value.
    pub fn need<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Error> {
        let Some(value) = self.find(name) else { return Err(self.missing(name)) };
        parse(&value.text).map_err(|wanted| self.refuse(value, &wanted))
    }

    /// All values of an option that may be repeated, in order.
    ///
    /// # Errors
    /// As [`Section::get`], for the first value that is wrong.
    pub fn all<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Error> {
        self.each(name).map(|v| parse(&v.text).map_err(|wanted| self.refuse(v, &wanted))).collect()
    }

    /// The values of an option as they were given, in order.
    pub fn each(&self, name: &str) -> impl Iterator<Item = &Given> {
        self.values.iter().filter(move |v| v.opt.name == name)
    }

    /// An error at the option `name`, or at the section where the option is not given: for checks that need more
    /// than one value.
    #[must_use]
    pub fn wrong(&self, name: &str, wanted: &str) -> Error {
        match self.find(name) {
            Some(v) => self.refuse(v, wanted),
            None => Error::text(format!("{}: wanted {wanted}", self.place(name, &Origin::Default))),
        }
    }

    /// Where the option `name` was written, as messages say it: `FILE:LINE: timeout` or `argument 3 (--timeout)`;
    /// for a default, the section's place and the name.
    #[must_use]
    pub fn place_of(&self, name: &str) -> String {
        self.place(name, self.find(name).map_or(&Origin::Default, |v| &v.origin))
    }

    /// Where one of its values comes from, as messages say it.
    #[must_use]
    pub fn place_at(&self, value: &Given) -> String {
        self.place(value.opt.name, &value.origin)
    }

    /// The section's effective text: two sections with the same one mean the same, wherever they are written.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        // By the option's row, not as written; only the order of a repeated option's values counts.
        let mut text = format!("[{}]\n", self.role.name);
        for opt in self.role.options {
            for value in self.each(opt.name) {
                text.extend([opt.name, " ", &value.text, "\n"]);
            }
        }
        text
    }

    /// These values where they were given, `below`'s elsewhere.
    #[must_use]
    pub fn over(&self, below: Section) -> Section {
        let given = self.values.iter().filter(|v| v.origin.is_written());
        let mut values: Vec<Given> = given.cloned().collect();
        values.extend(below.values.into_iter().filter(|v| !self.given(v.opt.name)));
        Section { values, ..below }
    }

    /// This section with values of the environment instead of defaults. `host` is what `{hostname}` stands for.
    #[must_use]
    pub fn with_env(&self, values: Vec<FromEnv>, host: &str) -> Section {
        let (mut all, mut defaults) = (Vec::new(), Vec::new());
        for value in &self.values {
            let of_env = values.iter().any(|v| v.option == value.opt.name);
            match value.origin {
                Origin::Default if of_env => {}
                Origin::Default => defaults.push(value.clone()),
                _ => all.push(value.clone()),
            }
        }
        for FromEnv { option, text, variables } in values {
            let opt = self.role.option(option);
            debug_assert!(opt.is_some(), "{} has no option {option}", self.role.name);
            let text = text.replace("{hostname}", host);
            all.extend(opt.map(|opt| Given { opt, text, origin: Origin::Env(variables) }));
        }
        all.append(&mut defaults);
        Section { role: self.role, at: self.at.clone(), values: all }
    }

    /// An error at one of the option's values.
    #[cold]
    #[must_use]
    pub fn refuse(&self, value: &Given, wanted: &str) -> Error {
        let place = self.place_at(value);
        if value.opt.is_flag() {
            return Error::text(format!("{place}: wanted {wanted}"));
        }
        let login = value.text.contains('@') && self.role.option("auth-file").is_some();
        let hint = if login { ": see --auth-file" } else { "" };
        Error::text(format!("{place}: '{}': wanted {wanted}{hint}", Shown(&value.text)))
    }

    fn find(&self, name: &str) -> Option<&Given> {
        debug_assert!(self.role.option(name).is_some(), "{} has no option {name}", self.role.name);
        self.values.iter().find(|v| v.opt.name == name)
    }

    #[cold]
    fn missing(&self, name: &str) -> Error {
        let arg = self.role.option(name).map_or("", |o| o.arg);
        Error::text(format!("{}: missing: wanted {arg}", self.place(name, &Origin::Default)))
    }

    fn place(&self, name: &str, origin: &Origin) -> String {
        place(self.role, &self.at, name, origin)
    }
}

/// Takes a section's options one by one; the first that is wrong is the error.
pub struct Builder {
    role: &'static Role,
    at: Origin,
    judge: getopts::Options,
    host: String,
    values: Vec<Given>,
}

impl Builder {
    /// An empty section of `role` that begins at `at`; `host` is what `{hostname}` stands for.
    #[must_use]
    pub fn new(role: &'static Role, at: Origin, host: &str) -> Builder {
        let mut judge = getopts::Options::new();
        for opt in role.options {
            match (opt.is_flag(), opt.repeat) {
                (true, _) => judge.optflag("", opt.name, opt.help),
                (false, true) => judge.optmulti("", opt.name, opt.help, opt.arg),
                (false, false) => judge.optopt("", opt.name, opt.help, opt.arg),
            };
        }
        Builder { role, at, judge, host: host.to_owned(), values: Vec::new() }
    }

    /// The section's role.
    #[must_use]
    pub fn role(&self) -> &'static Role {
        self.role
    }

    /// Takes one option as it was written at `origin`: its name, and its value unless it stands alone.
    ///
    /// # Errors
    /// An unknown name, a missing, empty or unprintable value, a value for a flag, a second value for an option that
    /// takes one.
    pub fn add(&mut self, name: &str, value: Option<&str>, origin: Origin) -> Result<(), Error> {
        let value = value.map(|v| v.trim().replace("{hostname}", &self.host));
        // One word at a time: given all of them, getopts would let a word that lost its value swallow the next.
        let word = value.as_ref().map_or_else(|| format!("--{name}"), |v| format!("--{name}={v}"));
        let place = place(self.role, &self.at, name, &origin);
        let opt = match (self.judge.parse([word]), self.role.option(name)) {
            (Ok(_), Some(opt)) => opt,
            (Err(fail), Some(opt)) => return Err(judged(&place, opt, &fail, value.as_deref())),
            (_, None) => return Err(Error::text(format!("{place}: {}", unknown(name, self.role)))),
        };
        if let Some(text) = value.as_deref()
            && (text.is_empty() || text.chars().any(|c| c.is_control() && c != '\t'))
        {
            let wanted = if text.is_empty() { opt.arg } else { "text without control characters" };
            return Err(Error::text(format!("{place}: '{}': wanted {wanted}", Shown(text))));
        }
        if let Some(first) = self.values.iter().find(|v| v.opt.name == opt.name && !opt.repeat) {
            return Err(Error::text(format!("{place}: given already at {}: wanted once", first.origin)));
        }
        self.values.push(Given { opt, text: value.unwrap_or_default(), origin });
        Ok(())
    }

    /// The section, with the defaults of everything that was not given.
    #[must_use]
    pub fn finish(mut self) -> Section {
        for opt in self.role.options {
            if !opt.default.is_empty() && !self.values.iter().any(|v| v.opt.name == opt.name) {
                let text = opt.default.replace("{hostname}", &self.host);
                self.values.push(Given { opt, text, origin: Origin::Default });
            }
        }
        Section { role: self.role, at: self.at, values: self.values }
    }
}

/// The name among `names` that `word` was most likely meant to be.
#[must_use]
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &'a str| (edits(word, name), name);
    let (edits, name) = names.map(distance).min_by_key(|(edits, _)| *edits)?;
    (edits <= 1 + name.len() / 4).then_some(name)
}

fn place(role: &Role, at: &Origin, name: &str, origin: &Origin) -> String {
    let name = Shown(name);
    match (origin, at) {
        (Origin::Argv { word }, _) => format!("argument {word} (--{name})"),
        (Origin::File { .. }, _) => format!("{origin}: {name}"),
        (Origin::Env(_), _) => format!("{origin} ({name})"),
        (Origin::Default, Origin::Argv { word }) => format!("argument {word} ({}): --{name}", role.name),
        (Origin::Default, Origin::File { .. }) => format!("{at}: [{}]: {name}", role.name),
        (Origin::Default, _) => name.to_string(),
    }
}

fn judged(place: &str, opt: &Opt, fail: &Fail, value: Option<&str>) -> Error {
    let value = Shown(value.unwrap_or_default());
    Error::text(match fail {
        Fail::ArgumentMissing(_) => format!("{place}: no value: wanted {}", opt.arg),
        Fail::UnexpectedArgument(_) => format!("{place}: '{value}': wanted no value, it is a flag"),
        other => format!("{place}: '{value}': {other}"),
    })
}

fn unknown(name: &str, role: &Role) -> String {
    let what =
        if role.name.is_empty() { "global option".to_owned() } else { format!("option of {}", role.name) };
    let hint = match nearest(name, role.options.iter().map(|o| o.name)) {
        Some(name) => format!("did you mean {name}?"),
        None if role.name.is_empty() => "see beacond help".to_owned(),
        None => format!("see beacond help {}", role.name),
    };
    format!("unknown {what}: {hint}")
}

/// How many letters must be added, dropped or changed to make `b` of `a`, as far as `a` is not absurdly long.
fn edits(a: &str, b: &str) -> usize {
    const LONGEST: usize = 40;
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(LONGEST).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
