//! A real Caddy with a reverse proxy whose `@id` is `web`, in a folder of the test's own.

use super::{free_port, get, own_ip, wait_for, wait_until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Caddy; it ends with the value.
pub struct Caddy {
    dir: PathBuf,
    child: Option<Child>,
    /// Leads to the proxy.
    pub web: SocketAddr,
    /// The admin API.
    pub admin: SocketAddr,
}

impl Caddy {
    /// Starts one. `more` are further fields of the handler, as `"upstreams": []`.
    pub fn start(dir: &Path, more: &str) -> Caddy {
        let dir = dir.join("caddy");
        std::fs::create_dir(&dir).unwrap();
        let ip = own_ip();
        let mut caddy = Caddy { web: free_port(ip), admin: free_port(ip), child: None, dir };
        let text = format!(
            r#"{{"admin": {{"listen": "{}"}}, "storage": {{"module": "file_system", "root": "{}"}},
               "logging": {{"logs": {{"default": {{"level": "ERROR"}}}}}},
               "apps": {{"http": {{"servers": {{"s": {{"listen": ["{}"], "automatic_https": {{"disable": true}},
               "routes": [{{"handle": [{{"@id": "web", "handler": "reverse_proxy",
               "load_balancing": {{"selection_policy": {{"policy": "round_robin"}}}}, {more}}}]}}]}}}}}}}}}}"#,
            caddy.admin,
            caddy.dir.join("storage").display(),
            caddy.web
        );
        std::fs::write(caddy.dir.join("caddy.json"), text).unwrap();
        caddy.run();
        caddy
    }

    /// Starts it (again) and waits until it answers.
    pub fn run(&mut self) {
        let log = std::fs::File::create(self.dir.join("output")).unwrap();
        let child = Command::new("caddy")
            .arg("run")
            .arg("--config")
            .arg(self.dir.join("caddy.json"))
            .env("HOME", &self.dir)
            .env("XDG_CONFIG_HOME", &self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("Caddy is installed (tests/run.sh installs it)");
        self.child = Some(child);
        wait_until("Caddy answers", || {
            self.upstreams().is_some() && get(self.web, "/") != super::Answer::None
        });
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("Caddy runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Its list, while it answers.
    pub fn upstreams(&self) -> Option<Vec<Value>> {
        match serde_json::from_str(&self.call("GET", "").ok()?).ok()? {
            Value::Array(list) => Some(list),
            Value::Null => Some(Vec::new()),
            _ => None,
        }
    }

    /// Whether `addr` is in its list. Asks until it answers: no answer is not an absence.
    #[track_caller]
    pub fn has(&self, addr: SocketAddr) -> bool {
        let list = wait_for("Caddy answers", || self.upstreams());
        list.iter().any(|entry| entry["dial"] == addr.to_string())
    }

    /// Replaces the list as somebody else would.
    pub fn replace(&self, list: &str) {
        self.call("PATCH", list).unwrap();
    }

    fn call(&self, method: &str, body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(std::time::Duration::from_millis(500)))?;
        write!(
            stream,
            "{method} /id/web/upstreams HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.admin,
            body.len()
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.trim().to_owned()))
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        self.kill();
    }
}
