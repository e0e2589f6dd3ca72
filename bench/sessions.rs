//! What live sessions cost: with 10, 1,000 and 100,000 of one principal, session_start and sign_event with a token over one
//! connection, the time from a killed broker to the next signature, that of a restart of the whole daemon, the broker's memory
//! and the journal's size. nsecd alone: the other daemon's limits on sessions are its own.

use crate::stats::{Times, table};
use crate::subject::pss;
use crate::support::{Client, Nsecd};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::time::Instant;

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
const RESTARTS: usize = 7;

/// This part.
pub fn print() {
    let rows: Vec<Vec<String>> = [10, 1000, 100_000].into_iter().map(measure).collect();
    let title = format!("Live sessions (single requests: median and p99 of {SAMPLES}; restarts: median of {RESTARTS})");
    table(
        &title,
        &[
            "sessions",
            "start, µs",
            "p99, µs",
            "sign, µs",
            "p99, µs",
            "broker killed, ms",
            "daemon again, ms",
            "PSS each, B",
            "journal each, B",
        ],
        &rows,
    );
}

fn measure(live: usize) -> Vec<String> {
    let mut nsecd = Nsecd::start(CONFIG);
    let mut client = nsecd.connect();
    let start = |client: &mut Client| client.session(json!({"scope": "1", "ttl": 3600}));
    let token = start(&mut client);
    client.sign(1, Some(&token));
    let broker = |nsecd: &Nsecd| pss(nsecd.role("nsecd-broker"));
    let before = broker(&nsecd);
    for _ in 1..live {
        start(&mut client);
    }
    let memory = broker(&nsecd).saturating_sub(before) * 1024 / live as u64;
    let journal = fs::metadata(nsecd.dir.join("state/journal")).unwrap().len() / live as u64;
    let signs = Times::of(SAMPLES, || drop(client.sign(1, Some(&token))));
    // Each sample is one session more: with ten live ones a handful, so that ten stay ten.
    let starts = Times::of(SAMPLES.min(live), || drop(start(&mut client)));
    let killed = Times::of(RESTARTS, || {
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
    let again = Times::from(again);
    let us = |of: &Times, share| format!("{:.1}", of.percentile(share));
    let ms = |of: &Times| format!("{:.1}", of.percentile(50) / 1000.0);
    vec![
        live.to_string(),
        us(&starts, 50),
        us(&starts, 99),
        us(&signs, 50),
        us(&signs, 99),
        ms(&killed),
        ms(&again),
        memory.to_string(),
        journal.to_string(),
    ]
}
