//! Where the demo takes place: a private folder with configuration, secrets and control socket, and addresses that no
//! other demo uses.
#![expect(
    clippy::disallowed_types,
    reason = "sockets are opened only to see which addresses and ports are free"
)]

use super::backend::Backend;
use crate::reactor::bank::plain;
use crate::tools::keygen::fresh_secret;
use log::LevelFilter;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The listener's timeout.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// From one announcement to the next.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// With which secret a backend is announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Secret {
    /// The one that the listener knows.
    Right,
    /// Another one.
    Wrong,
}

impl Secret {
    fn file(self) -> &'static str {
        match self {
            Secret::Right => "secret",
            Secret::Wrong => "rogue",
        }
    }
}

/// Addresses and files of one demo.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The loopback address of everything.
    pub ip: Ipv4Addr,
    /// Where the proxy listens.
    pub proxy: SocketAddr,
    /// Where the listener receives.
    beacons: SocketAddr,
    folder: PathBuf,
    level: LevelFilter,
}

/// A stage's folder; it goes with the value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Stage {
    /// Chooses addresses, makes the folder and its secrets. The daemon will log at `level`.
    ///
    /// # Errors
    /// One line: what could not be had.
    pub fn set(level: LevelFilter) -> Result<(Stage, Folder), String> {
        let random = getrandom::u64().map_err(|e| format!("no random bytes from the system: {e}"))?;
        let ip = own_loopback(random);
        let free =
            || Ok((TcpListener::bind((ip, 0))?.local_addr()?, UdpSocket::bind((ip, 0))?.local_addr()?));
        let (proxy, beacons) =
            free().map_err(|e: io::Error| format!("no free port at {ip}: {}", plain(&e)))?;
        let folder = env::temp_dir().join(format!("beacond-demo-{random:016x}"));
        let fail = |e: io::Error| format!("{}: {}", folder.display(), plain(&e));
        DirBuilder::new().mode(0o700).create(&folder).map_err(fail)?;
        let guard = Folder(folder.clone());
        for secret in [Secret::Right, Secret::Wrong] {
            let text = fresh_secret().map_err(|e| e.message)?;
            private(&folder.join(secret.file()), text.as_bytes()).map_err(fail)?;
        }
        Ok((Stage { ip, proxy, beacons, folder, level }, guard))
    }

    /// The daemon's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("conf")
    }

    /// The daemon's control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder.join("control")
    }

    /// Writes the configuration that announces these backends.
    ///
    /// # Errors
    /// What the system says.
    pub fn announce(&self, backends: &[(&Backend, Secret)]) -> io::Result<()> {
        fs::write(self.config(), self.text(backends))
    }

    fn text(&self, backends: &[(&Backend, Secret)]) -> String {
        let Stage { ip, proxy, beacons, folder, level } = self;
        let level = level.as_str().to_ascii_lowercase();
        let control = self.control();
        let secret = |secret: Secret| folder.join(secret.file());
        let (timeout, interval) = (TIMEOUT.as_millis(), INTERVAL.as_millis());
        let mut text = format!(
            "log-level {level}\ncontrol {}\n\
             [listen]\nlisten {beacons}\nsecret-file {}\ntimeout {timeout}ms\nallow {ip}\n\
             [proxy]\nlisten {proxy}\nbalancer default\nslow-start 0\n",
            control.display(),
            secret(Secret::Right).display(),
        );
        for (backend, with) in backends {
            let (url, addr, file) = (backend.url(), backend.addr(), secret(*with));
            let _ = write!(
                text,
                "[announce]\naddress {beacons}\nadvertise {url}\nsecret-file {}\ninterval {interval}ms\nallow {ip}\n\
                 check tcp:{addr}\ncheck-interval 100ms\nrise 1\nfall 2\nhost {}\n",
                file.display(),
                backend.name(),
            );
        }
        text
    }
}

/// An address in 127/8 for this demo alone, where the system answers at all of them; else the usual one.
fn own_loopback(random: u64) -> Ipv4Addr {
    let [a, b, c, ..] = random.to_le_bytes();
    // Never 127.0.0.x, and never .0 or .255 at the end.
    let own = Ipv4Addr::new(127, a | 0x40, b, c.clamp(1, 254));
    if UdpSocket::bind((own, 0)).is_ok() { own } else { Ipv4Addr::LOCALHOST }
}

fn private(path: &Path, text: &[u8]) -> io::Result<()> {
    File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::load;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_stage_is_private_and_leaves_nothing() {
        let (stage, folder) = Stage::set(LevelFilter::Error).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&stage.folder), 0o700);
        let secrets = [Secret::Right, Secret::Wrong].map(|s| stage.folder.join(s.file()));
        assert!(secrets.iter().all(|path| mode(path) == 0o600));
        assert_ne!(fs::read(&secrets[0]).unwrap(), fs::read(&secrets[1]).unwrap());
        drop(folder);
        assert!(!stage.folder.exists());
    }

    #[test]
    fn two_stages_share_nothing() {
        let (one, _one) = Stage::set(LevelFilter::Error).unwrap();
        let (two, _two) = Stage::set(LevelFilter::Error).unwrap();
        assert!(one.folder != two.folder && one.proxy != two.proxy && one.beacons != two.beacons);
    }

    #[test]
    fn the_daemon_can_read_the_configuration() {
        let (stage, _folder) = Stage::set(LevelFilter::Error).unwrap();
        let at = SocketAddr::from((stage.ip, 0));
        let (web, rogue) = (Backend::start("web1", at).unwrap(), Backend::start("rogue", at).unwrap());
        stage.announce(&[(&web, Secret::Right), (&rogue, Secret::Wrong)]).unwrap();
        let (global, roles) = load(stage.config().to_str().unwrap(), "host").unwrap();
        assert_eq!(global.text("control"), stage.control().to_str());
        assert_eq!(global.text("log-level"), Some("error"));
        let names: Vec<_> = roles.iter().map(|r| r.role().name).collect();
        assert_eq!(names, ["listen", "proxy", "announce", "announce"]);
        assert_eq!(roles[2].text("advertise"), Some(web.url().as_str()));
        assert_ne!(roles[2].text("secret-file"), roles[3].text("secret-file"));
    }
}
