//! A real Apache httpd with balancer-manager, from Debian's package, in a folder of the test's own.

use super::{free_port, get, own_ip, wait_until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Apache; its processes end with the value.
pub struct Apache {
    dir: PathBuf,
    child: Option<Child>,
    mpm: &'static str,
    /// Leads to balancer `web`, and to the manager.
    pub web: SocketAddr,
}

/// One member of a balancer, as the manager's XML has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub name: String,
    pub status: String,
    pub factor: String,
}

impl Apache {
    /// Starts one. `global` are more directives; `balancer` some of balancer `web`, beside room for eight members.
    pub fn start(dir: &Path, global: &str, balancer: &str) -> Apache {
        Apache::start_with("event", dir, global, balancer)
    }

    /// Starts one with another MPM than `event`.
    pub fn start_with(mpm: &'static str, dir: &Path, global: &str, balancer: &str) -> Apache {
        let dir = dir.join("apache");
        std::fs::create_dir(&dir).unwrap();
        let apache = Apache { web: free_port(own_ip()), child: None, mpm, dir };
        apache.configure(global, balancer);
        let mut apache = apache;
        apache.run();
        apache
    }

    /// Writes the configuration (anew).
    pub fn configure(&self, global: &str, balancer: &str) {
        let (dir, web) = (self.dir.display(), self.web);
        let mpm = format!("mpm_{}", self.mpm);
        let modules = [
            mpm.as_str(),
            "authn_core",
            "authn_file",
            "authz_core",
            "authz_user",
            "auth_basic",
            "proxy",
            "proxy_http",
            "slotmem_shm",
            "proxy_balancer",
            "lbmethod_byrequests",
        ];
        let load = |name: &str| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
        let modules: String = modules.map(load).concat();
        let text = format!(
            "ServerRoot {dir}\nServerName {}\nListen {web}\nPidFile {dir}/pid\nErrorLog {dir}/error.log\n\
             DefaultRuntimeDir {dir}\nMutex file:{dir} default\n{modules}\
             StartServers 2\n{global}\n\
             <Proxy balancer://web>\nProxySet growth=8\n{balancer}\n</Proxy>\n\
             <Location /balancer-manager>\nSetHandler balancer-manager\n</Location>\n\
             ProxyPass /balancer-manager !\nProxyPass / balancer://web/\n",
            web.ip()
        );
        std::fs::write(self.dir.join("httpd.conf"), text).unwrap();
    }

    /// The folder it runs in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manager's url.
    pub fn manager(&self) -> String {
        format!("http://{}/balancer-manager", self.web)
    }

    /// Starts the processes (again) and waits until the manager answers.
    pub fn run(&mut self) {
        // What was killed could not remove it.
        let _ = std::fs::remove_file(self.dir.join("pid"));
        let log = std::fs::File::create(self.dir.join("output")).unwrap();
        let child = Command::new("/usr/sbin/apache2")
            .arg("-f")
            .arg(self.dir.join("httpd.conf"))
            .arg("-DFOREGROUND")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("Apache is installed (tests/run.sh installs it)");
        self.child = Some(child);
        wait_until("Apache answers", || get(self.web, "/balancer-manager") != super::Answer::None);
    }

    /// A graceful restart.
    pub fn reload(&self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-USR1", &pid]).status().unwrap().success());
    }

    /// Stops it as an operator would, so that it can keep what it persists.
    pub fn stop(&mut self) {
        self.signal("TERM");
        self.child.take().unwrap().wait().unwrap();
    }

    /// kill -9, all of it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
        }
    }

    /// A signal to all of its processes.
    pub fn signal(&self, name: &str) {
        let group = format!("-{}", self.pid());
        let done = Command::new("kill").args([&format!("-{name}"), "--", &group]).status().unwrap();
        assert!(done.success());
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("Apache runs").id()
    }

    /// The members of a balancer; none while it does not answer. While members come Apache may cut the page short.
    pub fn members(&self, balancer: &str) -> Vec<Member> {
        let page = self.page("?xml=1", None);
        let Some((_, rest)) = page.split_once(&format!("balancer://{balancer}</httpd:name>")) else {
            return Vec::new();
        };
        let own = rest.split("</httpd:balancer>").next().unwrap();
        let field = |text: &str, name: &str| {
            let (_, rest) = text.split_once(&format!("<httpd:{name}>"))?;
            Some(rest.split('<').next()?.trim().to_owned())
        };
        own.split("<httpd:worker>")
            .skip(1)
            .filter_map(|worker| {
                let of = |name| field(worker, name);
                Some(Member { name: of("name")?, status: of("status")?, factor: of("loadfactor")? })
            })
            .collect()
    }

    /// One member of balancer `web`.
    pub fn member(&self, name: &str) -> Option<Member> {
        self.members("web").into_iter().find(|member| member.name == name)
    }

    /// Changes a member of balancer `web` as an operator does.
    pub fn operate(&self, change: &str) {
        let page = self.page("?xml=1", None);
        let (_, rest) = page.split_once("balancer://web</httpd:name>").unwrap();
        let nonce = rest.split_once("<httpd:nonce>").unwrap().1.split('<').next().unwrap();
        self.page("", Some(&format!("b=web&nonce={nonce}&{change}")));
    }

    /// The manager's answer; empty if there is none.
    fn page(&self, query: &str, body: Option<&str>) -> String {
        let exchange = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.web)?;
            stream.set_read_timeout(Some(std::time::Duration::from_millis(500)))?;
            let method = if body.is_some() { "POST" } else { "GET" };
            let body = body.unwrap_or_default();
            write!(
                stream,
                "{method} /balancer-manager{query} HTTP/1.0\r\nHost: {}\r\nReferer: {}\r\nContent-Length: {}\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
                self.web,
                self.manager(),
                body.len()
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        exchange().unwrap_or_default()
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        self.kill();
    }
}
