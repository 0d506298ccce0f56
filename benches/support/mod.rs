//! What the side-by-side measurements share: figures against goals, the CPU time of another process, a paced sender.
//!
//! Machines are shared and virtual, so what is compared runs in turns within one run, and the median counts. Times of
//! day and absolute costs are printed for orientation; goals are ratios wherever two things can be compared.
#![allow(dead_code, reason = "each measurement uses its own part of this file")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks, and waits between two looks")]

pub mod load;

use beacond::beacon::auth::Key;
use beacond::beacon::wire::Announce;
use beacond::reactor::udp::send_all;
use beacond::reactor::unix_us;
use beacond::url::Url;
use mio::net::UdpSocket;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Figures as they are found; remembers whether one missed its goal.
#[derive(Default)]
pub struct Figures {
    missed: bool,
}

impl Figures {
    /// A figure that is to be at most `goal`. It counts as missed when it exceeds that by more than the factor
    /// `slack`, which allows for what the same program shows from run to run on a shared machine.
    pub fn at_most(&mut self, what: &str, value: f64, unit: &str, goal: f64, slack: f64) {
        let verdict = match value {
            v if v <= goal => String::new(),
            v if v <= goal * slack => format!("  OVER, by less than the {slack}x of slack"),
            _ => "  MISSED".to_owned(),
        };
        self.missed |= value > goal * slack;
        println!("{what}: {}{unit} (goal {goal}{unit}){verdict}", digits(value));
    }

    /// A figure without a goal.
    pub fn note(&self, what: &str, value: f64, unit: &str) {
        println!("{what}: {}{unit}", digits(value));
    }

    /// Failure if a goal was missed.
    pub fn end(self) -> ExitCode {
        if self.missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Two decimals below 100, none above: more would be invented.
fn digits(value: f64) -> String {
    if value.fract() == 0.0 || value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The middle of several measurements.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The largest of several measurements.
pub fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Keeps a process, all its threads, on one CPU.
pub fn pin(pid: u32, cpu: usize) {
    let done = tool("taskset", &["-acp", &cpu.to_string(), &pid.to_string()]);
    assert!(done, "taskset (util-linux) pins process {pid} to CPU {cpu}");
}

/// Lets a process go before its neighbours on the machine, or again with them. Without the right to do so, the
/// measurement is as quiet as the machine.
pub fn first(pid: u32, yes: bool) {
    let policy = if yes { ["-f", "-ap", "1"] } else { ["-o", "-ap", "0"] };
    tool("chrt", &[&policy[..], &[&pid.to_string()]].concat());
}

fn tool(name: &str, words: &[&str]) -> bool {
    let quiet = Command::new(name).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// CPU time that a process's first thread has used, as its scheduler counts it.
pub fn cpu(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("a kernel with schedstat");
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).expect("nanoseconds"))
}

/// The number after `name:` in /proc/PID/status.
pub fn status_of(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect(name);
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// A receiving socket as the kernel sees it.
pub struct Queue {
    /// Bytes that wait in it.
    pub waiting: u64,
    /// Datagrams dropped because it was full.
    pub drops: u64,
}

/// The queue of the UDP socket bound to `port`.
pub fn queue(port: u16) -> Queue {
    let table = std::fs::read_to_string("/proc/net/udp").expect("Linux");
    let wanted = format!(":{port:04X}");
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row =
        row.into_iter().find(|row| row.get(1).is_some_and(|local| local.ends_with(&wanted))).expect("bound");
    let waiting = row[4].split(':').nth(1).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    Queue { waiting: waiting.expect("hex"), drops: row[row.len() - 1].parse().expect("a number") }
}

/// Waits until the socket bound to `port` is empty and its reader asleep again.
pub fn drained(port: u16) {
    while queue(port).waiting > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(5));
}

/// `count` members, by their urls.
pub fn urls(count: u16) -> Vec<Url> {
    let url = |n: u16| {
        let [a, b] = n.to_be_bytes();
        Url::parse(format!("http://10.1.{a}.{b}:8080").as_bytes()).expect("a url")
    };
    (0..count).map(url).collect()
}

/// An announcement as `beacond announce` sends it: some 140 bytes.
pub fn announcement(url: &Url, key: &Key) -> Vec<u8> {
    let said = Announce {
        url: Some(url),
        host: "web-1",
        pid: 41564,
        seq: 3,
        ts: unix_us(),
        every: Some(Duration::from_secs(5)),
        weight: Some(1),
        to: Some("web"),
    };
    let mut text = said.to_text();
    key.sign(&mut text);
    text
}

/// A socket connected to a receiver.
pub fn sender(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into()).expect("a socket");
    socket.connect(to).expect("a route");
    socket
}

/// Sends all of `datagrams`.
pub fn send(socket: &UdpSocket, datagrams: &[Vec<u8>]) {
    let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
    let (sent, error) = send_all(socket, &slices);
    assert!(sent == slices.len(), "sent {sent} of {}: {error:?}", slices.len());
}

/// Datagrams that leave together, each time.
pub const BURST: u32 = 50;

/// Calls `burst` at an even pace, so that [`BURST`] datagrams each time make `rate` a second, for `time`; returns how
/// many datagrams that were. Who was kept from a burst does not hurry to make up for it.
pub fn paced(rate: u32, time: Duration, mut burst: impl FnMut()) -> u64 {
    let pause = Duration::from_secs(1) * BURST / rate;
    let (end, mut sent) = (Instant::now() + time, 0);
    let mut next = Instant::now();
    while next < end {
        burst();
        sent += u64::from(BURST);
        let now = Instant::now();
        next = (next + pause).max(now);
        if next > now {
            std::thread::sleep(next - now);
        }
    }
    sent
}
