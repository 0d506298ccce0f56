//! Requests again and again until told to stop.

use super::status_of;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Asks one server; remembers what failed.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Vec<u16>)>,
}

impl Load {
    pub fn on(web: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut count, mut failed) = (0, Vec::new());
            while !stopped.load(Ordering::SeqCst) {
                count += 1;
                let status = status_of(web);
                if status != 200 {
                    failed.push(status);
                }
            }
            (count, failed)
        });
        Load { stop, thread }
    }

    /// How many requests there were, and the statuses of those that failed.
    pub fn end(self) -> (u32, Vec<u16>) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}
