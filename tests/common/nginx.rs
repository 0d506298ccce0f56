//! A real nginx with its stream module, one process, nothing outside the test's own folder.

use super::{free_port, own_ip, wait_until};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// nginx; it ends with the value.
pub struct Nginx {
    child: Child,
    /// Where its stream server listens.
    pub addr: SocketAddr,
    log: PathBuf,
}

impl Nginx {
    /// In front: a stream proxy that sends PROXY v1 to `upstream`.
    pub fn in_front_of(dir: &Path, upstream: SocketAddr) -> Nginx {
        Nginx::start(dir, "", &format!("proxy_protocol on; proxy_half_close on; proxy_pass {upstream};"))
    }

    /// Behind: it takes a PROXY header, logs it and passes the rest on to `upstream`.
    pub fn behind(dir: &Path, upstream: SocketAddr) -> Nginx {
        Nginx::start(dir, "proxy_protocol", &format!("proxy_half_close on; proxy_pass {upstream};"))
    }

    fn start(dir: &Path, listen: &str, server: &str) -> Nginx {
        let (addr, at, log) = (free_port(own_ip()), dir.display(), dir.join("stream.log"));
        let text = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nworker_processes 1;\nmaster_process off;\n\
             daemon off;\npid {at}/nginx.pid;\nerror_log {at}/error.log;\nevents {{ }}\n\
             stream {{\n  log_format seen '$proxy_protocol_addr $proxy_protocol_port $bytes_received $bytes_sent';\n  \
             access_log {} seen;\n  server {{ listen {addr} {listen}; {server} }}\n}}\n",
            log.display()
        );
        let config = dir.join("nginx.conf");
        std::fs::write(&config, text).unwrap();
        let error = dir.join("error.log");
        let child = Command::new("/usr/sbin/nginx")
            .arg("-c")
            .arg(config)
            .arg("-e")
            .arg(error)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed (tests/run.sh installs it)");
        let nginx = Nginx { child, addr, log };
        wait_until("nginx listens", || TcpStream::connect(addr).is_ok());
        nginx
    }

    /// Waits for a line of its log with `fragment`.
    #[track_caller]
    pub fn logged(&self, fragment: &str) {
        wait_until(&format!("nginx logs {fragment}"), || {
            std::fs::read_to_string(&self.log).is_ok_and(|text| text.contains(fragment))
        });
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
