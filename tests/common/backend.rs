//! Small HTTP backends that answer with their own address; `/slowN` answers after N tenths of a second.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A backend; it ends with the value.
pub struct Backend {
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Backend {
    pub fn start(ip: Ipv4Addr) -> Backend {
        Backend::start_at(SocketAddr::from((ip, 0)))
    }

    pub fn start_at(addr: SocketAddr) -> Backend {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::spawn(move || serve(stream, addr));
            }
        });
        Backend { addr, stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept call; the listener closes with its thread.
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(stream: TcpStream, addr: SocketAddr) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(request)) = lines.next() {
        // The head ends with an empty line; there is no body.
        if lines.by_ref().map_while(Result::ok).find(String::is_empty).is_none() {
            return;
        }
        let path = request.split(' ').nth(1).unwrap_or("/");
        if let Some(tenths) = path.strip_prefix("/slow").and_then(|n| n.parse().ok()) {
            std::thread::sleep(Duration::from_millis(100) * tenths);
        }
        let body = addr.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if out.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}
