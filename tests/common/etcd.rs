//! A real etcd, one server on an address of its own.

use super::{own_ip, wait_for, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// etcd; its process ends with the value.
pub struct Etcd {
    dir: PathBuf,
    child: Option<Child>,
    /// Where clients ask.
    pub addr: SocketAddr,
    token: Option<String>,
    /// How it makes the tokens it gives out.
    tokens: String,
}

impl Etcd {
    /// Starts one with its data in `dir`.
    pub fn start(dir: &Path) -> Etcd {
        Etcd::start_with(dir, "simple")
    }

    /// Starts one whose tokens are signed, and so say of themselves what they are good for and how long.
    pub fn start_signing(dir: &Path, seconds: u32) -> Etcd {
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let (private, public) = (file("jwt"), file("jwt.pub"));
        for line in
            [format!("genrsa -out {private} 2048"), format!("rsa -in {private} -pubout -out {public}")]
        {
            let out = Command::new("openssl").args(line.split(' ')).output().expect("openssl is installed");
            assert!(out.status.success(), "{out:?}");
        }
        let tokens = format!("jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl={seconds}s");
        Etcd::start_with(dir, &tokens)
    }

    fn start_with(dir: &Path, tokens: &str) -> Etcd {
        let addr = SocketAddr::new(own_ip().into(), 2379);
        let dir = dir.join(format!("etcd-{}", addr.ip()));
        let mut etcd = Etcd { dir, child: None, addr, token: None, tokens: tokens.to_owned() };
        etcd.run();
        etcd
    }

    /// Starts the process (again) on the same data, and waits until it answers.
    pub fn run(&mut self) {
        std::fs::create_dir_all(&self.dir).unwrap();
        let (client, peer) = (format!("http://{}", self.addr), format!("http://{}:2380", self.addr.ip()));
        let log = std::fs::File::create(self.dir.join("log")).unwrap();
        let child = Command::new("etcd")
            .args([
                "--name",
                "t",
                "--log-level",
                "warn",
                "--data-dir",
                self.dir.join("data").to_str().unwrap(),
            ])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("t={peer}"), "--auth-token", &self.tokens])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is installed (tests/run.sh installs it)");
        self.child = Some(child);
        wait_until("etcd answers", || self.try_call("/v3/kv/range", &json!({"key": "eA=="})).is_some());
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// STOP: it takes connections and answers nothing. Or CONT.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("etcd runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Its url, for options.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Asks it something, until it answers: a disk that is busy makes it slow.
    #[track_caller]
    pub fn call(&self, path: &str, body: &Value) -> Value {
        wait_for("etcd answers", || self.try_call(path, body))
    }

    fn try_call(&self, path: &str, body: &Value) -> Option<Value> {
        let body = body.to_string();
        let auth = self.token.as_ref().map_or(String::new(), |token| format!("Authorization: {token}\r\n"));
        let request = format!(
            "POST {path} HTTP/1.0\r\nHost: etcd\r\n{auth}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = self.exchange(&request)?;
        serde_json::from_str(reply.split_once("\r\n\r\n")?.1.trim()).ok()
    }

    fn exchange(&self, request: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        Some(reply)
    }

    /// All keys that begin with `prefix`, with their values.
    #[track_caller]
    pub fn keys(&self, prefix: &str) -> BTreeMap<String, String> {
        let end = prefix.bytes().take(prefix.len() - 1).chain([prefix.as_bytes()[prefix.len() - 1] + 1]);
        let end: Vec<u8> = end.collect();
        let reply =
            self.call("/v3/kv/range", &json!({"key": to64(prefix.as_bytes()), "range_end": to64(&end)}));
        let text = |kv: &Value, name: &str| from64(kv[name].as_str().unwrap_or_default());
        let kvs = reply["kvs"].as_array().cloned().unwrap_or_default();
        kvs.iter().map(|kv| (text(kv, "key"), text(kv, "value"))).collect()
    }

    /// The value of one key.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<String> {
        let reply = self.call("/v3/kv/range", &json!({"key": to64(key.as_bytes())}));
        reply["kvs"][0]["key"].as_str()?;
        Some(from64(reply["kvs"][0]["value"].as_str().unwrap_or_default()))
    }

    /// Sets a key, without a lease.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        self.call("/v3/kv/put", &json!({"key": to64(key.as_bytes()), "value": to64(value.as_bytes())}));
    }

    /// How much was ever proposed to be written to the raft log, and the store's revision.
    pub fn written(&self) -> (u64, u64) {
        let reply = self.exchange("GET /metrics HTTP/1.0\r\nHost: etcd\r\n\r\n").expect("etcd answers");
        let line = reply.lines().find_map(|l| l.strip_prefix("etcd_server_proposals_committed_total "));
        let revision = self.call("/v3/kv/range", &json!({"key": "eA=="}))["header"]["revision"].clone();
        let proposals: f64 = line.expect("the metric").parse().unwrap();
        (format!("{proposals:.0}").parse().unwrap(), revision.as_str().unwrap().parse().unwrap())
    }

    /// Demands a user from now on: `root` with this password.
    pub fn demand_login(&mut self, password: &str) {
        self.call("/v3/auth/user/add", &json!({"name": "root", "password": password}));
        self.call("/v3/auth/role/add", &json!({"name": "root"}));
        self.call("/v3/auth/user/grant", &json!({"user": "root", "role": "root"}));
        self.call("/v3/auth/enable", &json!({}));
        self.log_in(password);
    }

    /// Gets a token for the test's own questions.
    pub fn log_in(&mut self, password: &str) {
        self.token = None;
        let reply = self.call("/v3/auth/authenticate", &json!({"name": "root", "password": password}));
        self.token = Some(reply["token"].as_str().expect("a token").to_owned());
    }

    /// Changes who may what: tokens that are signed are worth nothing from then on.
    pub fn add_role(&mut self, name: &str, password: &str) {
        self.call("/v3/auth/role/add", &json!({"name": name}));
        self.log_in(password);
    }

    /// Forgets every token that it has given out.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn to64(bytes: &[u8]) -> String {
    beacond::sinks::etcd::base64::encode(bytes)
}

fn from64(text: &str) -> String {
    String::from_utf8_lossy(&beacond::sinks::etcd::base64::decode(text).expect("base64")).into_owned()
}
