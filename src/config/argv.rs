//! The command line: which of its words are global options, roles and their options, or a tool.
//!
//! ```text
//! beacond [GLOBAL]... ROLE [--option value]... [+ ROLE [--option value]...]...
//! beacond [GLOBAL]... -c FILE
//! beacond TOOL [--option value]... [OPERAND]...
//! beacond check|explain [GLOBAL|--option value]... (ROLE ... | -c FILE)
//! ```
//!
//! A lone `+` separates roles, except as an option's value. A value that names an option of the role is refused unless
//! `=` joins it to its option: more likely the option before it lost its value. Nothing here reads a file.

use super::grammar::role_hint;
use super::section::{Builder, Section};
use super::{Error, Origin, Shown};
use crate::options::{self, GLOBAL, Role, TOOLS, Tool};
use std::ffi::OsString;

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// No word at all: the few commands to begin with.
    Overview,
    /// The version.
    Version,
    /// Help about a role, a story or a tool; about everything without a topic.
    Help(Option<String>),
    /// Run roles.
    Run(Source),
    /// Look into a configuration without running it: a tool, with its own options.
    Study(&'static Tool, Section, Source),
    /// Another tool, with its options and operands.
    Tool(&'static Tool, Section, Vec<Operand>),
}

/// Where the roles to run are.
#[derive(Debug)]
pub enum Source {
    /// On the command line.
    Words {
        /// The global options.
        global: Section,
        /// The roles.
        roles: Vec<Section>,
    },
    /// In a file.
    File {
        /// The global options of the command line, which win over the file's.
        global: Section,
        /// The file.
        path: String,
    },
}

/// A word of a tool's command line that is not an option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operand {
    /// Its number among the words, from 1.
    pub word: usize,
    /// The word.
    pub text: String,
}

/// Reads the words behind the program's name. `host` is what `{hostname}` stands for.
///
/// # Errors
/// The first word that is wrong.
pub fn invocation(words: impl IntoIterator<Item = OsString>, host: &str) -> Result<Invocation, Error> {
    let text = |(i, word): (usize, OsString)| {
        word.into_string().map_err(|_| Error::text(format!("argument {}: wanted UTF-8 text", i + 1)))
    };
    let words = words.into_iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
    let mut reader = Words { words: &words, at: 0, host };
    let Some(first) = words.first() else { return Ok(Invocation::Overview) };
    let Some(tool) = TOOLS.iter().find(|t| t.role.name == first) else {
        return reader.source(None).map(|asked| match asked {
            Asked::Help(topic) => Invocation::Help(topic),
            Asked::Version => Invocation::Version,
            Asked::Source(source) => Invocation::Run(source),
        });
    };
    reader.at = 1;
    if tool.takes_roles() {
        let mut own = Builder::new(&tool.role, Origin::Argv { word: 1 }, host);
        return reader.source(Some(&mut own)).map(|asked| match asked {
            Asked::Help(topic) => Invocation::Help(topic.or(Some(tool.role.name.to_owned()))),
            Asked::Version => Invocation::Version,
            Asked::Source(source) => Invocation::Study(tool, own.finish(), source),
        });
    }
    let Some((section, operands)) = reader.tool(tool)? else {
        return Ok(Invocation::Help(Some(tool.role.name.to_owned())));
    };
    match tool.role.name {
        "help" => help(&operands),
        _ => Ok(Invocation::Tool(tool, section, operands)),
    }
}

/// Reads `[GLOBAL]... ROLE ... + ROLE ...` alone: the sections that these words are.
///
/// # Errors
/// The first word that is wrong, and words that are not this.
pub fn sections(words: &[String], host: &str) -> Result<(Section, Vec<Section>), Error> {
    match (Words { words, at: 0, host }).source(None)? {
        Asked::Source(Source::Words { global, roles }) => Ok((global, roles)),
        _ => Err(Error::text("wanted roles")),
    }
}

/// A walk over the words.
struct Words<'a> {
    words: &'a [String],
    at: usize,
    host: &'a str,
}

/// What the words of a source turned out to ask for.
enum Asked {
    Help(Option<String>),
    Version,
    Source(Source),
}

impl<'a> Words<'a> {
    /// Global options, then roles or a file. Options of a tool (`own`) may stand among the global ones, and behind a
    /// role that has none of the same name.
    fn source(&mut self, mut own: Option<&mut Builder>) -> Result<Asked, Error> {
        let mut global = Builder::new(&GLOBAL, Origin::Default, self.host);
        let mut file: Option<(usize, String)> = None;
        while let Some(word) = self.peek().filter(|w| w.starts_with('-')) {
            let name = word.split('=').next().unwrap_or_default();
            match name {
                "-h" | "--help" => return Ok(Asked::Help(None)),
                "-V" | "--version" => return Ok(Asked::Version),
                "-c" | "--config" => {
                    let (at, path) = self.config_file()?;
                    if let Some((first, _)) = file.replace((at, path)) {
                        return Err(Error::text(format!(
                            "argument {at} ({name}): given already at argument {first}: wanted once"
                        )));
                    }
                }
                _ => {
                    let name = name.trim_start_matches('-');
                    let section = match own.as_deref_mut() {
                        Some(own) if own.role().option(name).is_some() => own,
                        _ => &mut global,
                    };
                    self.option(section)?;
                }
            }
        }
        let global = global.finish();
        match (self.peek(), file) {
            (Some(word), Some((at, _))) => Err(Error::text(format!(
                "argument {} ('{}'): wanted no role beside the file of argument {at}",
                self.at + 1,
                Shown(word)
            ))),
            (None, Some((_, path))) => Ok(Asked::Source(Source::File { global, path })),
            (Some(_), None) => self.roles(global, own),
            (None, None) => Err(Error::text("no role: wanted ROLE or -c FILE")),
        }
    }

    fn roles(&mut self, global: Section, mut own: Option<&mut Builder>) -> Result<Asked, Error> {
        let mut roles = Vec::new();
        loop {
            let mut section = Builder::new(self.role()?, Origin::Argv { word: self.at }, self.host);
            loop {
                match self.peek() {
                    None => {
                        roles.push(section.finish());
                        return Ok(Asked::Source(Source::Words { global, roles }));
                    }
                    Some("+") => break,
                    Some("-h" | "--help") => return Ok(Asked::Help(Some(section.role().name.to_owned()))),
                    Some(word) if word.starts_with('-') => {
                        let name = word.split('=').next().unwrap_or_default().trim_start_matches('-');
                        let foreign = section.role().option(name).is_none();
                        match own.as_deref_mut().filter(|own| foreign && own.role().option(name).is_some()) {
                            Some(own) => self.option(own)?,
                            None => self.option(&mut section)?,
                        }
                    }
                    Some(word) => {
                        return Err(Error::text(format!(
                            "argument {} ('{}'): wanted an option of {}, or + and another role",
                            self.at + 1,
                            Shown(word),
                            section.role().name
                        )));
                    }
                }
            }
            self.at += 1;
            roles.push(section.finish());
        }
    }

    /// A tool's options and operands in any order; `None` when help is asked for.
    fn tool(&mut self, tool: &'static Tool) -> Result<Option<(Section, Vec<Operand>)>, Error> {
        let mut section = Builder::new(&tool.role, Origin::Argv { word: 1 }, self.host);
        let mut operands = Vec::new();
        while let Some(word) = self.peek() {
            match word {
                "-h" | "--help" => return Ok(None),
                _ if word.starts_with('-') => self.option(&mut section)?,
                _ => {
                    self.at += 1;
                    operands.push(Operand { word: self.at, text: word.to_owned() });
                }
            }
        }
        Ok(Some((section.finish(), operands)))
    }

    /// The role that the next word names.
    fn role(&mut self) -> Result<&'static Role, Error> {
        let Some(word) = self.peek() else {
            return Err(Error::text(format!("argument {} (+): no role: wanted ROLE", self.at)));
        };
        self.at += 1;
        options::role(word).ok_or_else(|| {
            let place = format!("argument {} ('{}')", self.at, Shown(word));
            if TOOLS.iter().any(|t| t.role.name == word) {
                return Error::text(format!("{place}: wanted the tool as first argument"));
            }
            Error::text(format!("{place}: unknown role{}", role_hint(word)))
        })
    }

    /// One option, joined to its value or followed by it.
    fn option(&mut self, section: &mut Builder) -> Result<(), Error> {
        let word = self.peek().unwrap_or_default();
        self.at += 1;
        let at = self.at;
        let Some(long) = word.strip_prefix("--") else {
            let place = format!("argument {at} ('{}')", Shown(word));
            return Err(Error::text(format!("{place}: unknown option: wanted a long one, --NAME")));
        };
        if let Some((name, value)) = long.split_once('=') {
            return section.add(name, Some(value), Origin::Argv { word: at });
        }
        let role = section.role();
        let value = match role.option(long) {
            Some(opt) if !opt.is_flag() => self.peek(),
            _ => None,
        };
        if let Some(value) = value {
            let named = value.strip_prefix("--").and_then(|v| v.split('=').next());
            if named.is_some_and(|name| role.option(name).is_some()) {
                return Err(Error::text(format!(
                    "argument {at} (--{long}): '{value}' is an option: wanted a value, or --{long}={value}",
                    value = Shown(value)
                )));
            }
            self.at += 1;
        }
        section.add(long, value, Origin::Argv { word: at })
    }

    /// The file named by `-c FILE`, `--config FILE` or `--config=FILE`, and the number of the option's word.
    fn config_file(&mut self) -> Result<(usize, String), Error> {
        let word = self.peek().unwrap_or_default();
        self.at += 1;
        let at = self.at;
        let path = match word.split_once('=') {
            Some((_, path)) => Some(path),
            None => self.peek().inspect(|_| self.at += 1),
        };
        match path.filter(|p| !p.is_empty() && (word.contains('=') || !p.starts_with('-'))) {
            Some(path) => Ok((at, path.to_owned())),
            None => Err(Error::text(format!("argument {at} ({}): no value: wanted FILE", Shown(word)))),
        }
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(String::as_str)
    }
}

fn help(operands: &[Operand]) -> Result<Invocation, Error> {
    match operands {
        [] => Ok(Invocation::Help(None)),
        [topic] => Ok(Invocation::Help(Some(topic.text.clone()))),
        [_, more, ..] => {
            Err(Error::text(format!("argument {} ('{}'): wanted one topic", more.word, Shown(&more.text))))
        }
    }
}
