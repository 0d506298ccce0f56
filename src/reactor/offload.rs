//! Work that would block the loop, done by two helper threads that live only while there is some.
//!
//! One resolves names, one reads and writes files: a resolver that does not answer must not keep a file from following
//! its members, nor a dead disk a name from being found. Nothing else is ever threaded. The threads never delay the end
//! of the process: what must be on disk at exit is written by the loop itself.

use super::ServiceId;
use super::{Form, Key};
use mio::Waker;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The most jobs that wait. A service has one or two under way at a time, so only a hanging resolver fills this.
const QUEUE: usize = 256;

/// Something to do off the loop.
#[derive(Debug)]
pub enum Job {
    /// Look up a name's addresses.
    Resolve {
        /// The name.
        host: String,
        /// The port put into the addresses.
        port: u16,
    },
    /// Replace a file as a whole: written beside it, renamed over it.
    WriteFile {
        /// The file.
        path: PathBuf,
        /// Its new contents.
        bytes: Vec<u8>,
        /// Who may read it, and whether a power cut may lose it.
        care: Care,
    },
    /// Read a file, unless it is known already.
    ReadFile {
        /// The file.
        path: PathBuf,
        /// The most bytes it may have.
        most: usize,
        /// What it was when it was last read: then nothing is read if it is that still.
        known: Option<Stamp>,
    },
}

/// By what a file is known to be unchanged without reading it: each write and each replacement leaves another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Of its last change, which nobody can set; seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &fs::Metadata) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        let changed = (file.ctime(), file.ctime_nsec());
        Stamp { device: file.dev(), inode: file.ino(), size: file.size(), changed }
    }
}

/// What a file to read came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// There is none.
    Absent,
    /// It is what is known.
    Same,
    /// All of it, and by what it will be known.
    Bytes(Vec<u8>, Stamp),
}

/// The care that a file is written with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Care {
    /// Its permissions, whatever those of the file it replaces and the process's mask.
    pub mode: u32,
    /// Whether it must be on the disk before it takes the old one's place. Wears flash: only for what a power cut must
    /// not take.
    pub sync: bool,
}

impl Care {
    /// For what nobody else may read and no power cut may take: secrets, state.
    pub const STATE: Care = Care { mode: 0o600, sync: true };
    /// For what nobody else may read and nobody would miss: captured bytes.
    pub const DUMP: Care = Care { mode: 0o600, sync: false };
    /// For what other programs read and would be started with after a power cut.
    pub const SERVED: Care = Care { mode: 0o644, sync: true };
    /// For what other programs read, and what is soon written anew.
    pub const SHOWN: Care = Care { mode: 0o644, sync: false };
}

/// What came of a job.
#[derive(Debug)]
pub enum Done {
    /// The addresses of a name, at least one.
    Resolved(io::Result<Vec<SocketAddr>>),
    /// A file was replaced, or why not.
    Written(io::Result<()>),
    /// What a file to read came to.
    Read(io::Result<Reading>),
    /// The reload that this service asked for took place, or why not.
    Reloaded(Result<(), String>),
    /// What each service that carries sessions says of them.
    Gathered(Form, Vec<String>),
}

/// The queue is full: its helper is stuck, most likely in a resolver that does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// The helpers.
pub(super) struct Offload {
    names: Helper,
    files: Helper,
}

/// A helper thread and its two queues.
struct Helper {
    waker: Arc<Waker>,
    queues: Arc<Mutex<Queues>>,
}

#[derive(Default)]
struct Queues {
    waiting: VecDeque<(ServiceId, Key, Job)>,
    finished: Vec<(ServiceId, Key, Done)>,
    running: bool,
}

impl Offload {
    pub(super) fn new(waker: Waker) -> Offload {
        let waker = Arc::new(waker);
        let helper = || Helper { waker: Arc::clone(&waker), queues: Arc::default() };
        Offload { names: helper(), files: helper() }
    }

    pub(super) fn submit(&self, who: ServiceId, key: Key, job: Job) -> Result<(), Full> {
        match &job {
            Job::Resolve { .. } => self.names.submit(who, key, job),
            Job::WriteFile { .. } | Job::ReadFile { .. } => self.files.submit(who, key, job),
        }
    }

    pub(super) fn finished(&self) -> Vec<(ServiceId, Key, Done)> {
        let mut finished = self.names.finished();
        finished.append(&mut self.files.finished());
        finished
    }
}

impl Helper {
    fn submit(&self, who: ServiceId, key: Key, job: Job) -> Result<(), Full> {
        let mut queues = lock(&self.queues);
        if queues.waiting.len() >= QUEUE {
            return Err(Full);
        }
        queues.waiting.push_back((who, key, job));
        if !queues.running {
            let (shared, waker) = (Arc::clone(&self.queues), Arc::clone(&self.waker));
            let name = "offload".to_owned();
            match std::thread::Builder::new()
                .name(name)
                .stack_size(256 << 10)
                .spawn(move || help(&shared, &waker))
            {
                Ok(_) => queues.running = true,
                // No thread to be had: the job comes back failed rather than waiting for a thread that never starts.
                Err(e) => fail_all(&mut queues, &self.waker, &e),
            }
        }
        Ok(())
    }

    fn finished(&self) -> Vec<(ServiceId, Key, Done)> {
        std::mem::take(&mut lock(&self.queues).finished)
    }
}

/// The helper's life: until nothing waits.
fn help(queues: &Mutex<Queues>, waker: &Waker) {
    loop {
        let next = {
            let mut queues = lock(queues);
            let next = queues.waiting.pop_front();
            queues.running = next.is_some();
            next
        };
        let Some((who, key, job)) = next else { return };
        let done = run(job);
        lock(queues).finished.push((who, key, done));
        // A lost wake-up only delays the result until the next event.
        let _ = waker.wake();
    }
}

fn run(job: Job) -> Done {
    match job {
        Job::Resolve { host, port } => Done::Resolved(resolve(&host, port)),
        Job::WriteFile { path, bytes, care } => Done::Written(replace_file(&path, ".tmp", &bytes, care)),
        Job::ReadFile { path, most, known } => Done::Read(read_file(&path, most, known)),
    }
}

fn fail_all(queues: &mut Queues, waker: &Waker, why: &io::Error) {
    while let Some((who, key, job)) = queues.waiting.pop_front() {
        let error = io::Error::new(why.kind(), why.to_string());
        let done = match job {
            Job::Resolve { .. } => Done::Resolved(Err(error)),
            Job::WriteFile { .. } => Done::Written(Err(error)),
            Job::ReadFile { .. } => Done::Read(Err(error)),
        };
        queues.finished.push((who, key, done));
    }
    let _ = waker.wake();
}

/// Looks up a name's addresses, at least one.
///
/// Blocks; for the helper thread, and before the loop runs.
///
/// # Errors
/// What the resolver says.
#[expect(clippy::disallowed_methods, reason = "the one place where names are resolved")]
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))?.collect();
    if found.is_empty() { Err(io::Error::new(io::ErrorKind::NotFound, "no addresses")) } else { Ok(found) }
}

/// Replaces `path` so that a reader sees the old contents or the new, never a part; after a power cut, too, if it is
/// written with that care.
///
/// Blocks; for the loop itself only when a service stops. The helper may be writing the same file then: so each has a
/// temporary file of its own, told apart by `suffix`; a dot before its name keeps it from programs that read every file
/// of a folder.
///
/// # Errors
/// What the file system says. The temporary file is removed again.
pub fn replace_file(path: &Path, suffix: &str, bytes: &[u8], care: Care) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    let temporary = path.with_file_name(name);
    // One that a crash left, or that somebody put there, may be open to others or lead elsewhere: made anew it does not.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(care.mode).open(&temporary)?;
    let mut write = || -> io::Result<()> {
        file.set_permissions(fs::Permissions::from_mode(care.mode))?;
        file.write_all(bytes)?;
        if care.sync {
            file.sync_data()?;
        }
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Reads a regular file of at most `most` bytes, unless it is what is `known`.
fn read_file(path: &Path, most: usize, known: Option<Stamp>) -> io::Result<Reading> {
    // Looked at before it is opened: to open a pipe could take for ever.
    let about = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Reading::Absent),
        about => about?,
    };
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if known == Some(Stamp::of(&about)) {
        return Ok(Reading::Same);
    }
    let file = fs::File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    let bound = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {most} bytes")));
    }
    Ok(Reading::Bytes(bytes, stamp))
}

fn lock(queues: &Mutex<Queues>) -> std::sync::MutexGuard<'_, Queues> {
    // Both sides only move values in and out: a poisoned queue is still whole.
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_and_again_when_it_was_touched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web");
        let read = |most, known| read_file(&file, most, known);
        assert_eq!(read(9, None).unwrap(), Reading::Absent);
        fs::write(&file, "one").unwrap();
        let Reading::Bytes(bytes, stamp) = read(3, None).unwrap() else { panic!("not read") };
        assert_eq!((bytes.as_slice(), read(3, Some(stamp)).unwrap()), (&b"one"[..], Reading::Same));
        assert!(read(2, None).is_err(), "too long");
        replace_file(&file, ".tmp", b"two", Care::SHOWN).unwrap();
        let again = read(3, Some(stamp)).unwrap();
        assert!(matches!(&again, Reading::Bytes(bytes, other) if bytes == b"two" && *other != stamp));
        assert!(
            read_file(dir.path(), 9, None).is_err() && read_file(Path::new("/dev/null"), 9, None).is_err()
        );
    }

    #[test]
    fn a_resolver_that_hangs_keeps_no_file_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let mut poll = mio::Poll::new().unwrap();
        let offload = Offload::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        // As if its thread were in a look-up that does not end.
        lock(&offload.names.queues).running = true;
        let who = ServiceId { index: 0, generation: 0 };
        let job = Job::Resolve { host: "localhost".to_owned(), port: 1 };
        offload.submit(who, Key(1), job).unwrap();
        let job = Job::WriteFile { path: dir.path().join("web"), bytes: Vec::new(), care: Care::SHOWN };
        offload.submit(who, Key(2), job).unwrap();
        let mut events = mio::Events::with_capacity(1);
        poll.poll(&mut events, Some(std::time::Duration::from_secs(10))).unwrap();
        let done = offload.finished();
        assert!(matches!(done.as_slice(), [(_, Key(2), Done::Written(Ok(())))]), "{done:?}");
    }

    #[test]
    fn replacing_a_file_leaves_no_temporary_behind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state");
        replace_file(&file, ".tmp", b"one", Care::STATE).unwrap();
        replace_file(&file, ".tmp", b"two", Care::STATE).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace_file(&dir.path().join("no/such"), ".tmp", b"x", Care::STATE).is_err());
        fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(replace_file(&dir.path().join("folder"), ".tmp", b"x", Care::STATE).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the temporary is gone");
    }

    #[test]
    fn a_file_gets_the_mode_asked_for_whatever_was_there() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (file, temporary, other) =
            (dir.path().join("dump"), dir.path().join(".dump.tmp"), dir.path().join("other"));
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for care in
            [Care::DUMP, Care { mode: 0o666, ..Care::DUMP }, Care::STATE, Care { mode: 0o640, sync: true }]
        {
            for path in [&file, &temporary] {
                fs::write(path, "old").unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
            }
            let job = Job::WriteFile { path: file.clone(), bytes: b"new".to_vec(), care };
            assert!(matches!(run(job), Done::Written(Ok(()))));
            assert_eq!((mode(&file), fs::read(&file).unwrap()), (care.mode, b"new".to_vec()));
            assert!(!temporary.exists());
        }
        fs::write(&other, "mine").unwrap();
        symlink(&other, &temporary).unwrap();
        symlink(&other, dir.path().join("link")).unwrap();
        replace_file(&file, ".tmp", b"two", Care::DUMP).unwrap();
        replace_file(&dir.path().join("link"), ".tmp", b"two", Care::DUMP).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"mine", "no link is followed");
    }

    #[test]
    fn two_writers_at_once_leave_the_whole_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state");
        let (long, short) = (vec![b'x'; 1 << 20], vec![b'y'; 1 << 10]);
        let write = |suffix: &str, bytes: &[u8]| {
            for _ in 0..50 {
                replace_file(&file, suffix, bytes, Care::STATE).unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| write(".tmp", &long));
            scope.spawn(|| write(".last", &short));
            for _ in 0..200 {
                let Ok(found) = fs::read(&file) else { continue };
                assert!(found == long || found == short, "a mixture of {} bytes", found.len());
            }
        });
    }

    #[test]
    fn a_name_without_addresses_is_an_error() {
        assert!(resolve("no-such-name.invalid", 1).is_err());
        assert_eq!(resolve("127.0.0.9", 7).unwrap(), ["127.0.0.9:7".parse::<SocketAddr>().unwrap()]);
    }
}
