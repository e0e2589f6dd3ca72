//! Mixed load on the real daemon while its processes are killed every few seconds: every answer right, memory and
//! descriptors flat, and an audit that finds nothing.
//!
//! The short form is a test like any other. The long one, whose result is in docs/soak.md:
//!
//!     NSECD_SOAK_SECONDS=1800 cargo test --release --test soak -- --ignored --nocapture
//!
//! The listening sockets are held by the test, as systemd holds them, so that no client is ever refused a connection.
//!
//! Checked: with a broker that forgets its journal, with one signature more in a window, with a descriptor that the supervisor keeps of
//! each broker that it replaces, and with 8 KiB that the broker keeps of each connection, the short form fails.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "soak/agents.rs"]
mod agents;
#[path = "soak/gauge.rs"]
mod gauge;
#[path = "soak/limited.rs"]
mod limited;
#[path = "soak/link.rs"]
mod link;
#[path = "soak/messages.rs"]
mod messages;
#[path = "soak/pests.rs"]
mod pests;
#[path = "soak/strikes.rs"]
mod strikes;

use gauge::Gauge;
use link::{Tally, Watch};
use serde_json::Value;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use strikes::Strikes;
use support::{Finally, Setup, not_root};

/// The first socket without limits, so that load is load; the second with the limits that a socket has where nothing is said.
const CONFIG: &str = r#"
[state]
log_size = "32MiB"
log_keep = 1000
[key]
ceiling = "none"
ecdh_ceiling = "none"
[limits]
sessions_per_minute = 1000000
live_sessions = 64
[[socket]]
path = "/run/replaced.sock"
kinds = [1, 7, 1111]
tokenless = [7]
methods = ["sign_event", "nip44", "dm"]
limits = "none"
total = "none"
dm = "none"
crypt = "none"
[[socket]]
path = "@DIR@/limited.sock"
kinds = [1]
tokenless = [1]
"#;

/// A client's life: it goes on until the watch says that all is over.
type Life = fn(&Watch, &Tally);

/// Who is there, and how many of each.
const CLIENTS: [(&str, usize, Life); 9] = [
    ("sessions", 2, agents::sessions),
    ("signatures sent ahead", 1, agents::ahead),
    ("a connection for each request", 1, agents::single),
    ("refusals", 1, agents::refusals),
    ("limits as they are by default", 1, limited::windows),
    ("direct messages and encryption", 1, messages::messages),
    ("junk", 1, pests::junk),
    ("idle connections", 1, pests::idle),
    ("slow writers and readers", 1, pests::slow),
];

/// Runs all of it for so long, and prints what came of it.
fn soak(seconds: u64) {
    if not_root("reading the roles' memory") {
        return;
    }
    let setup = Setup::new(CONFIG);
    let sockets = [setup.socket.clone(), setup.dir.join("limited.sock")];
    let nsecd = setup.held(&sockets.each_ref().map(|path| path.as_path()), None).start();
    // Half an hour at full load would only write more gigabytes.
    let watch = Watch::new(sockets, Duration::from_millis(if seconds < 300 { 15 } else { 50 }));
    let tallies: Vec<Tally> = CLIENTS.iter().map(|_| Tally::default()).collect();
    let (mut gauge, mut strikes) = (Gauge::default(), Strikes::new(seconds));
    let begun = Instant::now();
    let nsecd = thread::scope(|scope| {
        let watch = &watch;
        for ((_, count, live), tally) in CLIENTS.iter().zip(&tallies) {
            for _ in 0..*count {
                scope.spawn(move || {
                    // One that fails ends all: the scope then fails with it.
                    let _end = Finally(|| watch.over.store(true, Ordering::Relaxed));
                    live(watch, tally);
                });
            }
        }
        let _end = Finally(|| watch.over.store(true, Ordering::Relaxed));
        let mut nsecd = nsecd;
        while begun.elapsed() < Duration::from_secs(seconds) && !watch.over.load(Ordering::Relaxed) {
            nsecd = strikes.turn(nsecd, watch);
            gauge.look(&nsecd, strikes.quiet());
            thread::sleep(Duration::from_millis(50));
        }
        nsecd
    });
    nsecd.serves();
    let (setup, status) = {
        nsecd.signal(nix::sys::signal::Signal::SIGTERM);
        nsecd.ended()
    };
    assert!(status.success(), "{status}");
    let audit = audit(&setup);

    println!("{} s; killed: {strikes}", begun.elapsed().as_secs());
    println!("{:<32} {:>9} {:>9} {:>9}", "clients", "right", "refused", "cut off");
    for ((name, count, _), tally) in CLIENTS.iter().zip(&tallies) {
        let [right, refused, cut] = tally.counts();
        println!("{:<32} {right:>9} {refused:>9} {cut:>9}", format!("{count} × {name}"));
        assert!(right + refused > 0, "nothing came of {name}");
    }
    print!("{gauge}");
    println!(
        "audit verify: clean; {} lines, {} signatures, {} key agreements",
        audit["log"]["lines"], audit["records"][0]["rows"], audit["records"][1]["rows"]
    );
    strikes.judge();
    gauge.judge();
}

/// `nsecctl audit verify`, which must find nothing.
fn audit(setup: &Setup) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
    command.args(["audit", "verify", "--json", "--state-dir"]).arg(setup.dir.join("state"));
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert!(output.status.success() && report["clean"] == true, "{report:#}");
    report
}

#[test]
fn twenty_seconds_of_mixed_load_and_deaths_leave_every_answer_right_and_all_sizes_flat() {
    soak(20);
}

#[test]
#[ignore = "half an hour, or NSECD_SOAK_SECONDS"]
fn mixed_load_and_deaths_leave_every_answer_right_and_all_sizes_flat() {
    soak(std::env::var("NSECD_SOAK_SECONDS").map_or(1800, |text| text.parse().expect("whole seconds")));
}
