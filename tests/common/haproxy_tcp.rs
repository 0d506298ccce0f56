//! A real HAProxy as a neighbour of the proxy: in front of it, behind it, or where it stands itself.

use super::wait_until;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// HAProxy, one process with one thread; it ends with the value.
pub struct HaproxyTcp {
    child: Child,
}

impl HaproxyTcp {
    /// Starts one with these sections, beyond global and defaults; waits until it listens on all of `addrs`.
    pub fn start(dir: &Path, sections: &str, addrs: &[SocketAddr]) -> HaproxyTcp {
        HaproxyTcp::start_with(dir, "", sections, addrs)
    }

    /// The same, with more lines of `global`.
    pub fn start_with(dir: &Path, global: &str, sections: &str, addrs: &[SocketAddr]) -> HaproxyTcp {
        let text = format!(
            "global\n  nbthread 1\n  maxconn 6000\n{global}\
             defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n{sections}\n"
        );
        let named = tempfile::Builder::new().prefix("tcp").suffix(".cfg").tempfile_in(dir).unwrap();
        let (_, config) = named.keep().unwrap();
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(config.with_extension("log")).unwrap();
        let child = Command::new("/usr/sbin/haproxy")
            .args(["-db", "-f", config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("HAProxy is installed (tests/run.sh installs it)");
        let mut haproxy = HaproxyTcp { child };
        wait_until("HAProxy listens", || {
            let ended = haproxy.child.try_wait().unwrap();
            let said = || std::fs::read_to_string(config.with_extension("log")).unwrap();
            assert!(ended.is_none(), "HAProxy ended: {}", said());
            addrs.iter().all(|addr| TcpStream::connect(addr).is_ok())
        });
        haproxy
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for HaproxyTcp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A self-signed certificate with its key in one file, made by openssl now.
pub fn certificate(dir: &Path, name: &str) -> PathBuf {
    let (key, cert, both) = (dir.join("key.pem"), dir.join("cert.pem"), dir.join(format!("{name}.pem")));
    let out = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            key.to_str().unwrap(),
            "-out",
            cert.to_str().unwrap(),
        ])
        .output()
        .expect("openssl is installed (tests/run.sh installs it)");
    assert!(out.status.success(), "{out:?}");
    let text = std::fs::read_to_string(cert).unwrap() + &std::fs::read_to_string(key).unwrap();
    std::fs::write(&both, text).unwrap();
    both
}
