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
        let sender = Sender::new(to.listening());
        let urls: Vec<String> = backends.iter().map(|backend| backend.url()).collect();
        let (stop, stopped) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            while stopped.recv_timeout(Duration::from_millis(50)) == Err(Timeout) {
                urls.iter().for_each(|url| sender.announce(url, ""));
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
