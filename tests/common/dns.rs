//! A real dnsmasq that reads a folder of hosts files, and a question to it.

use super::{PATIENCE, own_ip, wait_until};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// dnsmasq; it ends with the value.
pub struct Dnsmasq {
    child: Child,
    pub addr: SocketAddr,
}

impl Dnsmasq {
    /// Starts one that answers with the hosts in `folder`.
    pub fn start(folder: &Path) -> Dnsmasq {
        let ip = own_ip();
        let port = UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap().port();
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let child = Command::new("/usr/sbin/dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--pid-file=",
            ])
            .args(["--bind-interfaces", "--log-facility=-"])
            .arg(format!("--user={}", String::from_utf8_lossy(&user).trim()))
            .arg(format!("--listen-address={ip}"))
            .arg(format!("--port={port}"))
            .arg(format!("--hostsdir={}", folder.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq is installed (tests/run.sh installs it)");
        let dnsmasq = Dnsmasq { child, addr: SocketAddr::from((ip, port)) };
        wait_until("dnsmasq answers", || dnsmasq.ask("nobody.lan").is_some());
        dnsmasq
    }

    /// The IPv4 addresses of a name, in order; `None` if there was no answer.
    pub fn ask(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        let socket = UdpSocket::bind((own_ip(), 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE / 10)).unwrap();
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, 1, 0, 1]);
        socket.send_to(&query, self.addr).ok()?;
        let mut answer = [0; 512];
        let (len, _) = socket.recv_from(&mut answer).ok()?;
        // Each answer has a pointer to the name: 12 bytes and the address.
        let rows = answer[query.len()..len].chunks_exact(16).take(usize::from(answer[7]));
        let mut found: Vec<Ipv4Addr> =
            rows.map(|row| Ipv4Addr::new(row[12], row[13], row[14], row[15])).collect();
        found.sort();
        Some(found)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
