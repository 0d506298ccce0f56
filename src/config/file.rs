//! A configuration file and what it includes, from the disk.
//!
//! A file is read whole before anything of it is used. How many files there are, how long and how deep is bounded, so
//! that an include of itself ends in a message.

use super::grammar::{Assembly, Inside, glob_matches};
use super::section::Section;
use super::{Error, Origin, Shown};
use crate::sorted::sort;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The longest file, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// How deep includes nest.
const MAX_DEPTH: usize = 8;
/// How many files there are in all.
const MAX_FILES: usize = 256;

/// Reads `path` and everything it includes: the global options and the sections.
///
/// # Errors
/// A file that cannot be read (status 1), a line that is wrong, a file without any role (status 2).
pub fn load(path: &str, host: &str) -> Result<(Section, Vec<Section>), Error> {
    let mut assembly = Assembly::new(host);
    Loader { open: Vec::new(), files: 0 }.file(&mut assembly, path, None, None)?;
    let (global, roles) = assembly.finish();
    if roles.is_empty() {
        return Err(Error::text(format!("{}: no role: wanted a section such as [listen]", Shown(path))));
    }
    Ok((global, roles))
}

/// The files that are being read.
struct Loader {
    open: Vec<Rc<str>>,
    files: usize,
}

impl Loader {
    /// Reads one file; `by` is the include that asked for it.
    fn file(
        &mut self,
        assembly: &mut Assembly,
        path: &str,
        by: Option<&Origin>,
        inside: Inside,
    ) -> Result<(), Error> {
        let place = by.map_or_else(String::new, |at| format!("{at}: include: "));
        if self.open.iter().any(|open| **open == *path) {
            return Err(Error::text(format!(
                "{place}'{}': wanted a file that does not include itself",
                Shown(path)
            )));
        }
        if self.open.len() > MAX_DEPTH {
            return Err(Error::text(format!("{place}'{}': wanted at most {MAX_DEPTH} levels", Shown(path))));
        }
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(Error::text(format!("{place}'{}': wanted at most {MAX_FILES} files", Shown(path))));
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|e| Error::world(format!("{place}{}: cannot read: {e}", Shown(path))))?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_BYTES) {
            return Err(Error::text(format!("{place}'{}': wanted at most {MAX_BYTES} bytes", Shown(path))));
        }
        let path: Rc<str> = Rc::from(path);
        self.open.push(Rc::clone(&path));
        let folder = Path::new(&*path).parent().unwrap_or(Path::new("")).to_path_buf();
        assembly.file(&path, &bytes, inside, &mut |assembly, glob, at, inside| {
            for included in expand(&folder, glob, &at)? {
                self.file(assembly, &included, Some(&at), inside)?;
            }
            Ok(())
        })?;
        self.open.pop();
        Ok(())
    }
}

/// The files that `glob` names, in the order of their names: one file, which must exist, or every file whose name
/// fits the wildcards of the last part, which may be none.
fn expand(folder: &Path, glob: &str, at: &Origin) -> Result<Vec<String>, Error> {
    let wild = |text: &str| text.contains(['*', '?']);
    let (parent, name) = match glob.rsplit_once('/') {
        Some(("", name)) => (PathBuf::from("/"), name),
        Some((parent, name)) => (folder.join(parent), name),
        None => (folder.to_path_buf(), glob),
    };
    if glob.rsplit_once('/').is_some_and(|(parent, _)| wild(parent)) {
        let wanted = "wildcards in the last part of the path only";
        return Err(Error::text(format!("{at}: include: '{}': wanted {wanted}", Shown(glob))));
    }
    if !wild(name) {
        return Ok(vec![utf8(parent.join(name), at)?]);
    }
    let listed = if parent.as_os_str().is_empty() { Path::new(".") } else { &parent };
    let failed =
        |e| Error::world(format!("{at}: include: {}: cannot list: {e}", Shown(&listed.to_string_lossy())));
    let mut found = Vec::new();
    for entry in fs::read_dir(listed).map_err(failed)? {
        let file = entry.map_err(failed)?.file_name();
        let path = parent.join(&file);
        if glob_matches(name, &file.to_string_lossy()) && !path.is_dir() {
            found.push(utf8(path, at)?);
        }
    }
    sort(&mut found, Ord::cmp);
    Ok(found)
}

fn utf8(path: PathBuf, at: &Origin) -> Result<String, Error> {
    path.into_os_string().into_string().map_err(|path| {
        Error::text(format!("{at}: include: '{}': wanted a name in UTF-8", Shown(&path.to_string_lossy())))
    })
}
