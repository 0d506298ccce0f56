//! A server that answers HTTP as a test says: a stand-in for those that lie, and a record of what they were asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method and target, as `GET /x`.
    pub line: String,
    /// The header lines.
    pub headers: Vec<String>,
    pub body: String,
}

/// What it says to a request: bytes as they are, and then it closes; a whole response unless it is empty.
pub type Says = dyn FnMut(&Asked) -> Vec<u8> + Send;

/// The stand-in.
pub struct StandIn {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl StandIn {
    pub fn start(says: impl FnMut(&Asked) -> Vec<u8> + Send + 'static) -> StandIn {
        let listener = TcpListener::bind((super::own_ip(), 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        let mut says: Box<Says> = Box::new(says);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Some(question) = read(&stream) else { continue };
                let answer = says(&question);
                record.lock().unwrap().push(question);
                let _ = stream.write_all(&answer);
            }
        });
        StandIn { addr, asked }
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// A whole response.
pub fn response(status: u16, kind: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} So\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length =
        lines.iter().find_map(|l| l.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = lines.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
    Some(Asked { line, headers: lines, body: String::from_utf8_lossy(&body).into_owned() })
}
