//! Announcements that go on.

use super::backend::Backend;
use super::daemon::Daemon;
use super::sender::Sender;
use std::time::Duration;

/// Announces all the time, until dropped.
pub struct Beat {
    stop: std::sync::mpsc::Sender<()>,
}

impl Beat {
    pub fn of(to: &Daemon, backends: &[&Backend]) -> Beat {
        let urls = backends.iter().map(|backend| backend.url()).collect();
        Beat::of_urls(to, urls, Duration::from_millis(50))
    }

    /// Each of them so often, in bursts that no receiver's buffer is too small for.
    pub fn of_urls(to: &Daemon, urls: Vec<String>, every: Duration) -> Beat {
        let sender = Sender::new(to.listening());
        let (stop, stopped) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            let bursts = u32::try_from(urls.len().div_ceil(BURST)).unwrap();
            for burst in urls.chunks(BURST).cycle() {
                if stopped.recv_timeout(every / bursts) != Err(Timeout) {
                    return;
                }
                burst.iter().for_each(|url| sender.announce(url, ""));
            }
        });
        Beat { stop }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let _ = self.stop.send(());
    }
}

const BURST: usize = 50;
