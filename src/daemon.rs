//! The life of the daemon: sections to services, sockets, privileges, the loop.

use crate::admin::client::DEFAULT_PATH;
use crate::admin::control::{Control, Facts, LATE};
use crate::assembly::{self, Assembly};
use crate::config::argv::Source;
use crate::config::global::Global;
use crate::config::{Config, Error, Section, Shown};
use crate::logging;
use crate::reactor::bank::{answers_at, plain};
use crate::reactor::offload::resolve;
use crate::reactor::{LogPipe, Plan, Planned, Reactor};
use crate::secret::file::own_groups;
use crate::sorted::Sorted;
use crate::state::State;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{AccessFlags, Gid, User, access, geteuid, getgrouplist, initgroups, setgid, setuid};
use std::ffi::CString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs the roles of `source` until a signal ends them. `host` is this host's name.
///
/// # Errors
/// What keeps them from starting.
pub fn run(source: Source, host: &str) -> Result<(), Error> {
    let config = Config::load(&source, host)?;
    let global = Global::from_section(&config.global)?;
    let log = LogPipe::default();
    logging::init(global.log_level, global.log_stamp, &log);

    // A core file would hold the secrets.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);

    let mut planner = Planner {
        source,
        host: host.to_owned(),
        control: None,
        global,
        late: false,
        names: Sorted::default(),
    };
    let assembly = planner.assemble(&config)?;
    foresee(&config.global)?;
    planner.control = control_path(&planner.global)?;
    let plan = planner.plan(&config, assembly);
    let global = planner.global.clone();
    let control = planner.control.clone();

    let mut reactor = Reactor::new(log, Box::new(move || planner.again().map_err(|e| e.message)))
        .map_err(|e| Error::world(format!("cannot start: {}", plain(&e))))?;
    reactor.open(&plan).map_err(Error::world)?;
    if let Some(path) = &global.pid_file {
        write_pid(path).map_err(|e| Error::world(format!("pid-file {}: {}", path.display(), plain(&e))))?;
    }
    if let Some(user) = &global.user {
        become_user(user, control.as_deref())?;
    }
    let result = reactor
        .start(plan)
        .and_then(|()| reactor.run().map_err(|e| format!("polling failed: {}", plain(&e))))
        .map_err(Error::world);
    if let Some(path) = &global.pid_file {
        // After a change of user it may not be ours to remove.
        let _ = fs::remove_file(path);
    }
    result
}

/// Whether the host has what the global options name: said here, with the place, better than by who first misses it.
fn foresee(global: &Section) -> Result<(), Error> {
    let missing =
        |name: &str, what: &dyn fmt::Display| Error::world(format!("{}: {what}", global.place_of(name)));
    if let Some(name) = global.text("user") {
        account(name).map_err(|why| missing("user", &format_args!("'{}': {why}", Shown(name))))?;
    }
    for name in ["control", "state", "pid-file"] {
        let folder = global.text(name).and_then(|path| Path::new(path).parent()).and_then(Path::to_str);
        if let Some(folder) = folder.filter(|folder| !folder.is_empty() && !Path::new(folder).is_dir()) {
            return Err(missing(name, &format_args!("{}: no such folder: make it first", Shown(folder))));
        }
    }
    Ok(())
}

/// Has every section judged as a start would, without touching the network.
///
/// # Errors
/// The first thing that is wrong.
pub fn judge(config: &Config) -> Result<Vec<String>, Error> {
    let global = Global::from_section(&config.global)?;
    let unresolved = &mut |_: &str| Ok(IpAddr::from([0, 0, 0, 0]));
    let warnings = assembly::assemble(config, &groups(&global), unresolved)?.warnings;
    foresee(&config.global).map(|()| warnings)
}

/// What is needed to plan again at a reload.
struct Planner {
    source: Source,
    host: String,
    control: Option<PathBuf>,
    global: Global,
    /// A reload found options that only a start takes.
    late: bool,
    /// Names to listen at that were resolved once: a reload looks up new ones only, for that blocks.
    names: Sorted<String, IpAddr>,
}

impl Planner {
    fn again(&mut self) -> Result<Plan, Error> {
        let config = Config::load(&self.source, &self.host)?;
        let global = Global::from_section(&config.global)?;
        let assembly = self.assemble(&config)?;
        self.adopt(global);
        Ok(self.plan(&config, assembly))
    }

    fn assemble(&mut self, config: &Config) -> Result<Assembly, Error> {
        let names = &mut self.names;
        let mut look_up = |name: &str| match names.get(name) {
            Some(ip) => Ok(*ip),
            None => {
                let ip = resolve(name, 0).map_err(|e| plain(&e))?[0].ip();
                names.insert(name.to_owned(), ip);
                Ok(ip)
            }
        };
        let assembly = assembly::assemble(config, &groups(&self.global), &mut look_up)?;
        for warning in &assembly.warnings {
            log::warn!(target: "beacond", "{warning}");
        }
        Ok(assembly)
    }

    /// The services of the sections, and those that every daemon has.
    fn plan(&self, config: &Config, assembly: Assembly) -> Plan {
        let mut plan = assembly.plan;
        if let Some(path) = &self.global.state {
            let max_skew = plan.balancers.iter().map(|(_, policy)| policy.max_skew).max();
            let rules = format!("{:?}", assembly.admissions);
            let state =
                State::new(path.clone(), assembly.admissions, max_skew.unwrap_or(Duration::from_secs(30)));
            // First, so that the table is there before anybody writes or reads it.
            plan.services.insert(0, Planned { service: Box::new(state), fingerprint: rules });
        }
        if let Some(path) = &self.control {
            let carries = config.roles.iter().any(|section| section.role().name == "proxy");
            let facts = Facts { level: self.global.log_level, carries, late: self.late };
            let fingerprint = format!("{facts:?}");
            let control = Control::new(path.clone(), facts);
            plan.services.push(Planned { service: Box::new(control), fingerprint });
        }
        plan
    }

    /// Takes over what of the global options can change in a running process.
    fn adopt(&mut self, new: Global) {
        if new.log_level != self.global.log_level {
            log::set_max_level(new.log_level);
            self.global.log_level = new.log_level;
        }
        self.late = new != self.global;
        if self.late {
            log::warn!(target: "beacond", "{LATE}");
        }
    }
}

/// Where the control socket goes: as told, else the usual place if it is ours to use.
fn control_path(global: &Global) -> Result<Option<PathBuf>, Error> {
    if global.control.is_some() {
        return Ok(global.control.clone());
    }
    let path = Path::new(DEFAULT_PATH);
    let usable = path.parent().is_some_and(|folder| access(folder, AccessFlags::W_OK).is_ok());
    if usable && answers_at(path) {
        log::warn!(target: "beacond", "{DEFAULT_PATH}: another beacond answers there; running without a control socket");
        return Ok(None);
    }
    Ok(usable.then(|| path.to_owned()))
}

/// The groups that the process is in, or will be in once it has become its user.
fn groups(global: &Global) -> Vec<u32> {
    let user = global.user.as_deref().filter(|_| geteuid().is_root());
    let login = user.and_then(|name| Some((CString::new(name).ok()?, User::from_name(name).ok()??)));
    match login.and_then(|(name, user)| getgrouplist(&name, user.gid).ok()) {
        Some(groups) => groups.into_iter().map(Gid::as_raw).collect(),
        None => own_groups(),
    }
}

/// Writes the process's number. Never through a link: the folder may belong to the user that we are about to become,
/// who must not choose a file for root to overwrite.
fn write_pid(path: &Path) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o644).custom_flags(OFlag::O_NOFOLLOW.bits());
    writeln!(options.open(path)?, "{}", std::process::id())
}

fn account(name: &str) -> Result<User, String> {
    let found = User::from_name(name).map_err(|e| e.desc().to_owned())?;
    found.ok_or_else(|| "no such user".to_owned())
}

/// Gives up root for good. The control socket goes along, so that it can be removed at the end.
fn become_user(name: &str, control: Option<&Path>) -> Result<(), Error> {
    let fail = |why: String| Error::world(format!("cannot become user {name}: {why}"));
    let user = account(name).map_err(fail)?;
    if let Some(path) = control {
        // Not through a link either.
        lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .map_err(|e| fail(format!("{}: {}", path.display(), plain(&e))))?;
    }
    let login = CString::new(name).map_err(|_| fail("no such user".to_owned()))?;
    initgroups(&login, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(|e| fail(format!("{}; only root can change its user", e.desc())))
}
