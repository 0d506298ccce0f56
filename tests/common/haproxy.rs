//! A real HAProxy, master and worker, with a runtime socket.

use super::{free_port, own_ip, wait_until};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// HAProxy; its processes end with the value.
pub struct Haproxy {
    config: PathBuf,
    child: Option<Child>,
    /// The frontend that leads to backend `web`.
    pub web: SocketAddr,
    /// The runtime socket, level admin.
    pub socket: PathBuf,
    /// Another runtime socket, level operator: it may look but not add.
    pub operator_socket: PathBuf,
}

/// One row of `show servers state`.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: String,
    pub address: String,
    pub operational: u32,
    pub admin: u32,
    pub weight: u32,
}

impl Haproxy {
    /// Starts one whose backend `web` has `lines` beyond its balance algorithm.
    pub fn start(dir: &Path, lines: &str) -> Haproxy {
        let web = free_port(own_ip());
        let mut haproxy = Haproxy {
            config: dir.join("haproxy.cfg"),
            child: None,
            web,
            socket: dir.join("haproxy.sock"),
            operator_socket: dir.join("operator.sock"),
        };
        let text = format!(
            "global\n  stats socket {} mode 600 level admin expose-fd listeners\n  stats socket {} mode 600 level operator\n  nbthread 1\n\
             defaults\n  mode http\n  timeout connect 1s\n  timeout client 10s\n  timeout server 10s\n\
             frontend web_in\n  bind {web}\n  default_backend web\n\
             backend web\n  balance roundrobin\n{lines}\n\
             backend static_only\n  balance static-rr\n\
             backend mixed\n  balance leastconn\n  server fixed1 127.0.0.1:1 disabled\n",
            haproxy.socket.display(),
            haproxy.operator_socket.display(),
        );
        std::fs::write(&haproxy.config, text).unwrap();
        haproxy.run();
        haproxy
    }

    /// Starts the processes (again) and waits until the runtime socket answers.
    pub fn run(&mut self) {
        let log = std::fs::File::create(self.config.with_extension("log")).unwrap();
        let child = Command::new("/usr/sbin/haproxy")
            .args(["-W", "-f", self.config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("HAProxy is installed (tests/run.sh installs it)");
        self.child = Some(child);
        wait_until("HAProxy answers", || self.try_cli("show info").is_some_and(|r| r.contains("Pid:")));
    }

    /// Reloads it: a new worker that knows nothing of run-time servers.
    pub fn reload(&self) {
        let before = self.pid();
        self.kill_master("USR2");
        wait_until("HAProxy has a new worker", || self.pid().is_some_and(|p| Some(p) != before));
    }

    /// kill -9, master and workers.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
        }
    }

    /// Sends one line of commands and returns the whole reply.
    #[track_caller]
    pub fn cli(&self, line: &str) -> String {
        self.try_cli(line).expect("HAProxy answers on its runtime socket")
    }

    fn try_cli(&self, line: &str) -> Option<String> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.write_all(format!("{line}\n").as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        Some(reply)
    }

    /// The worker that answers.
    pub fn pid(&self) -> Option<u32> {
        let info = self.try_cli("show info")?;
        info.lines().find_map(|l| l.strip_prefix("Pid: "))?.trim().parse().ok()
    }

    /// The servers of a backend.
    #[track_caller]
    pub fn servers(&self, backend: &str) -> Vec<Server> {
        let reply = self.cli(&format!("show servers state {backend}"));
        let rows = reply.lines().skip(2).filter(|l| !l.is_empty());
        let row = |line: &str| {
            let fields: Vec<&str> = line.split(' ').collect();
            Server {
                name: fields[3].to_owned(),
                address: format!("{}:{}", fields[4], fields[18]),
                operational: fields[5].parse().unwrap(),
                admin: fields[6].parse().unwrap(),
                weight: fields[7].parse().unwrap(),
            }
        };
        rows.map(row).collect()
    }

    /// One server by its address.
    pub fn server(&self, address: SocketAddr) -> Option<Server> {
        self.servers("web").into_iter().find(|s| s.address == address.to_string())
    }

    fn kill_master(&self, signal: &str) {
        let pid = self.child.as_ref().expect("HAProxy runs").id().to_string();
        assert!(Command::new("kill").arg(format!("-{signal}")).arg(pid).status().unwrap().success());
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.kill();
    }
}
