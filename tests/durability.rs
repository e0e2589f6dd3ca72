//! What outlives a broker, a gate, the whole daemon: sessions, windows, and the file that they are kept in.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "durability/damage.rs"]
mod damage;
#[path = "durability/disk.rs"]
mod disk;
#[path = "durability/file.rs"]
mod file;
#[path = "durability/load.rs"]
mod load;
#[path = "durability/named.rs"]
mod named;
#[path = "durability/planted.rs"]
mod planted;
#[path = "durability/sessions.rs"]
mod sessions;

use nix::sys::signal::Signal;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use support::{Nsecd, event, sys};

/// How nsecd, or a part of it, ends and comes back.
#[derive(Clone, Copy, Debug)]
enum Strike {
    /// Its broker is killed.
    Broker,
    /// Its gate is killed.
    Gate,
    /// It is told to stop, and started again.
    Stop,
    /// It is killed, and started again.
    Kill,
}

const STRIKES: [Strike; 4] = [Strike::Broker, Strike::Gate, Strike::Stop, Strike::Kill];

/// Lets it happen; afterwards nsecd serves again.
fn struck(mut nsecd: Nsecd, how: Strike) -> Nsecd {
    match how {
        Strike::Broker => drop(nsecd.kill("nsecd-broker")),
        Strike::Gate => drop(nsecd.kill("nsecd-gate")),
        Strike::Stop => nsecd = nsecd.restarted(Signal::SIGTERM),
        Strike::Kill => nsecd = nsecd.restarted(Signal::SIGKILL),
    }
    nsecd.serves();
    nsecd
}

/// Makes nsecd's loop turn until something has happened.
fn until(nsecd: &Nsecd, what: &str, mut happened: impl FnMut() -> bool) {
    let patience = Instant::now() + sys::PATIENCE;
    while !happened() {
        assert!(Instant::now() < patience, "never: {what}");
        nsecd.serves();
    }
}

fn journal(nsecd: &Nsecd) -> PathBuf {
    nsecd.dir.join("state/journal")
}

/// The ids in a record, one for each row.
fn recorded(record: &Path) -> Vec<String> {
    let all = fs::read(record).unwrap();
    all[64..].chunks_exact(64).map(|row| event::hex(&row[32..])).collect()
}

/// What must not change about a file that is left alone.
fn identity(path: &Path) -> (u64, u32, u64, u64, u32, i64, i64) {
    let m: Metadata = fs::symlink_metadata(path).unwrap();
    (m.ino(), m.mode(), m.nlink(), m.len(), m.uid(), m.mtime(), m.mtime_nsec())
}
