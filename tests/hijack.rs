//! A hijacked broker does its worst: rows B4, B14, B22, B23 and B27 through the real supervisor, gate, key-holder and ECDH holder.
//!
//! What it gets is what SECURITY.md says that it may have: signatures on events of allowed kinds up to the ceiling, and key
//! agreements up to theirs, each with a row in a record. Every attack is made as root, where each role has a uid of its own,
//! and as an ordinary user, where all have one.
//!
//! Checked, with tests turned red: see each file. With the supervisor's limit of frames left out a flood does not end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "hijack/agreements.rs"]
mod agreements;
#[path = "hijack/deaths.rs"]
mod deaths;
#[path = "hijack/newcomers.rs"]
mod newcomers;
#[path = "hijack/place.rs"]
mod place;
#[path = "hijack/puppet.rs"]
mod puppet;
#[path = "hijack/reach.rs"]
mod reach;
#[path = "hijack/reload.rs"]
mod reload;
#[path = "hijack/signatures.rs"]
mod signatures;

use nix::time::{ClockId, clock_gettime};
use std::fs;
use support::daemon::Setup;
use support::{Nsecd, root};

/// An ordinary user for whom nothing is set up.
const ORDINARY: u32 = 23_404;
/// The x-only public key of secret 5, the only one on the list of peers.
const PEER: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";

/// Burst and tokens a second of both ceilings.
const CEILING: (u64, u64) = (20, 10);
/// With a list of peers, and files that are soon full.
const CONFIG: &str = r#"
[key]
ceiling = "@CEILING@"
ecdh_ceiling = "@CEILING@"
[state]
log_size = "64KiB"
log_keep = 30
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 7, 1111]
tokenless = [1, 7, 1111]
methods = ["sign_event", "dm"]
peers = ["2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4"]
limits = "none"
total = "none"
"#;

fn config(ceiling: &str) -> String {
    CONFIG.replace("@CEILING@", ceiling)
}

/// One ready to be started with this program's own puppet as its broker.
fn hijacked(uid: Option<u32>, ceiling: &str) -> Setup {
    Setup::of(uid, &config(ceiling)).with_broker(&std::env::current_exe().unwrap())
}

/// Who starts nsecd: as root, root and an ordinary user.
fn starters() -> Vec<Option<u32>> {
    if root() { vec![None, Some(ORDINARY)] } else { vec![None] }
}

/// Nanoseconds since the boot: nobody sets this clock.
fn true_time() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// The most that a ceiling may have given since `start`.
fn most(start: u64) -> u64 {
    CEILING.0 + (true_time() - start) * CEILING.1 / 1_000_000_000
}

/// One row of a record.
#[derive(Clone, Debug)]
struct Row {
    sequence: u64,
    created_at: u64,
    kind: u64,
    id: [u8; 32],
}

/// All rows of a record and of the files before it, oldest first. Panics if one is missing or out of order.
fn rows(nsecd: &Nsecd, name: &str) -> Vec<Row> {
    let state = nsecd.dir.join("state");
    let old = (1..100).rev().map(|n| state.join(format!("{name}.{n}"))).filter(|path| path.exists());
    let mut all: Vec<Row> = Vec::new();
    for path in old.chain([state.join(name)]) {
        let bytes = fs::read(&path).unwrap();
        let number = |row: &[u8], from: usize, to: usize| row[from..to].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        assert_eq!((&bytes[..8], bytes.len() % 64), (&b"nsecrec\x01"[..], 0), "{}", path.display());
        all.extend(bytes[64..].chunks(64).map(|row| Row {
            sequence: number(row, 0, 8),
            created_at: number(row, 16, 24),
            kind: number(row, 24, 28),
            id: row[32..].try_into().unwrap(),
        }));
    }
    let sequences = all.iter().map(|row| row.sequence);
    assert!(sequences.eq(1..=all.len() as u64), "{name}: {all:?}");
    all
}

/// Those that no broker may bring to an end: their pids.
fn untouchable(nsecd: &Nsecd) -> [i32; 3] {
    [nsecd.pid(), nsecd.role("nsecd-keyholder"), nsecd.role("nsecd-ecdh")]
}
