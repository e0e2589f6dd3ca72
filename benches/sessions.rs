//! What live sessions cost: `cargo bench --bench sessions`.
//!
//! With 10, 1,000 and 100,000 live sessions of one principal: session_start and sign_event with a token over one
//! connection, the time from a killed broker to the next signature, the time that a restart of the whole daemon takes, the
//! broker's memory and the journal's size. Times are the median and the 99th percentile of so many single requests.
//! Figures of a run are in docs/benchmarks.md.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use support::{Client, Nsecd};

const CONFIG: &str = r#"
[key]
ceiling = "none"
[limits]
sessions_per_minute = 1000000
live_sessions = 1000000
[[socket]]
path = "/run/nsecd-bench.sock"
kinds = [1, 7, 1111]
limits = "none"
total = "none"
"#;
/// Single requests timed.
const SAMPLES: usize = 2000;
/// Restarts timed.
const RESTARTS: usize = 5;

fn main() {
    // `cargo test --benches` runs this too: it is no test.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!(
        "{:>8} | {:^19} | {:^19} | {:>10} | {:>10} | {:>11} | {:>11}",
        "", "session_start, µs", "sign, µs", "broker", "daemon", "PSS per", "journal per"
    );
    println!(
        "{:>8} | {:>9} {:>9} | {:>9} {:>9} | {:>10} | {:>10} | {:>11} | {:>11}",
        "sessions", "median", "p99", "median", "p99", "killed, ms", "again, ms", "session, B", "session, B"
    );
    for live in [10, 1000, 100_000] {
        measure(live);
    }
}

fn measure(live: usize) {
    let mut nsecd = Nsecd::start(CONFIG);
    let mut client = nsecd.connect();
    let start = |client: &mut Client| client.session(json!({"scope": "1", "ttl": 3600}));
    let token = start(&mut client);
    client.sign(1, Some(&token));
    let before = pss(&nsecd);
    for _ in 1..live {
        start(&mut client);
    }
    let memory = pss(&nsecd).saturating_sub(before) * 1024 / live as u64;
    let journal = fs::metadata(nsecd.dir.join("state/journal")).unwrap().len() / live as u64;
    let signs = times(SAMPLES, || drop(client.sign(1, Some(&token))));
    // Each sample is one session more: with ten live ones a handful, so that ten stay ten.
    let starts = times(SAMPLES.min(live), || drop(start(&mut client)));
    let killed = times(RESTARTS, || {
        nsecd.kill("nsecd-broker");
        assert!(nsecd.connect().sign(1, Some(&token)).get("event").is_some(), "the session goes on");
    });
    let mut again = Vec::new();
    for _ in 0..RESTARTS {
        let begun = Instant::now();
        nsecd = nsecd.restarted(Signal::SIGTERM);
        assert!(nsecd.connect().sign(1, Some(&token)).get("event").is_some(), "the session goes on");
        again.push(begun.elapsed());
    }
    again.sort();
    let us = |of: &[Duration], share: usize| of[(of.len() - 1) * share / 100].as_secs_f64() * 1e6;
    let ms = |of: &[Duration]| us(of, 50) / 1e3;
    println!(
        "{live:>8} | {:>9.1} {:>9.1} | {:>9.1} {:>9.1} | {:>10.1} | {:>10.1} | {memory:>11} | {journal:>11}",
        us(&starts, 50),
        us(&starts, 99),
        us(&signs, 50),
        us(&signs, 99),
        ms(&killed),
        ms(&again),
    );
}

fn times(count: usize, mut deed: impl FnMut()) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            deed();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times
}

/// The broker's proportional share of memory in KiB.
fn pss(nsecd: &Nsecd) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", nsecd.role("nsecd-broker"))).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
