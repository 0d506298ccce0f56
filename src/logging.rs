//! The logger: one line a record, to standard error, through a pipe that never blocks the loop.

use crate::reactor::{LogPipe, unix_us};
use env_logger::{Builder, Target};
use log::LevelFilter;
use std::io::Write;

/// Installs the logger. Lines begin with the Unix time in seconds if `stamp` is set.
pub fn init(level: LevelFilter, stamp: bool, pipe: &LogPipe) {
    Builder::new()
        // What is logged is decided by the level alone, which can be changed while running.
        .filter_level(LevelFilter::Trace)
        .target(Target::Pipe(Box::new(pipe.clone())))
        .format(move |out, record| {
            if stamp {
                let now = unix_us();
                write!(out, "{}.{:03} ", now.div_euclid(1_000_000), now.rem_euclid(1_000_000) / 1000)?;
            }
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(out, "{level:<5} {}: {}", record.target(), record.args())
        })
        .init();
    log::set_max_level(level);
}
