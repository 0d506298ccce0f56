//! A real nginx, master and workers, in front of an upstream whose servers are included from a file.

use super::{free_port, own_ip, wait_until};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// nginx; its processes end with the value.
pub struct NginxHttp {
    dir: PathBuf,
    child: Option<Child>,
    /// Its front: `/` leads to the upstream, `/generation` tells the generation.
    pub web: SocketAddr,
}

impl NginxHttp {
    /// Writes its configuration into `dir` and starts it once the included files are there. `start` writes them.
    pub fn prepare(dir: &Path) -> NginxHttp {
        let (web, at) = (free_port(own_ip()), dir.display());
        let text = format!(
            "worker_processes 2;\ndaemon off;\npid {at}/nginx.pid;\nerror_log {at}/error.log notice;\n\
             worker_shutdown_timeout 10s;\nevents {{ }}\nhttp {{\n  access_log off;\n  \
             client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; \
             scgi_temp_path {at}/s;\n  \
             upstream web {{ zone web 64k; include {at}/web.members; }}\n  \
             server {{\n    listen {web};\n    location / {{ proxy_pass http://web; proxy_connect_timeout 1s; }}\n    \
             location = /generation {{ include {at}/web.gen*; }}\n  }}\n}}\n"
        );
        std::fs::write(dir.join("nginx.conf"), text).unwrap();
        NginxHttp { dir: dir.to_owned(), child: None, web }
    }

    /// The command that tests its configuration.
    pub fn test(&self) -> String {
        let at = self.dir.display();
        format!("/usr/sbin/nginx -t -e {at}/test.log -c {at}/nginx.conf")
    }

    /// How it is told to reload.
    pub fn reload(&self) -> String {
        format!("signal:{}/nginx.pid", self.dir.display())
    }

    /// The included file.
    pub fn members(&self) -> PathBuf {
        self.dir.join("web.members")
    }

    /// What is in it.
    pub fn text(&self) -> String {
        std::fs::read_to_string(self.members()).unwrap_or_default()
    }

    /// Starts it (again), once there is a file to include.
    pub fn run(&mut self) {
        wait_until("there is a file of members", || self.members().exists());
        let child = Command::new("/usr/sbin/nginx")
            .arg("-c")
            .arg(self.dir.join("nginx.conf"))
            .arg("-e")
            .arg(self.dir.join("error.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("nginx is installed (tests/run.sh installs it)");
        self.child = Some(child);
        wait_until("nginx listens", || TcpStream::connect(self.web).is_ok());
    }

    /// kill -9, master and workers.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
        }
    }

    /// A signal to master and workers: STOP or CONT.
    pub fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.as_ref().expect("nginx runs").id());
        assert!(Command::new("kill").args([&format!("-{name}"), "--", &group]).status().unwrap().success());
    }

    /// How often it has reloaded.
    pub fn reloads(&self) -> usize {
        let log = std::fs::read_to_string(self.dir.join("error.log")).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains("signal 1 (SIGHUP)") && line.contains("reconfiguring"))
            .count()
    }
}

impl Drop for NginxHttp {
    fn drop(&mut self) {
        self.kill();
    }
}
