//! What another client notices of an attack.
//!
//! Attacker and client are of one uid; run by root, the attacker has a cgroup of its own, as two containers have, so that the two
//! are not one principal: within a principal connections have their turns one after the other. The client runs on the daemon's core, the attacker on the others: on the attacker's it would wait for that as well, which is
//! the scheduler's doing and no daemon's.

use crate::attackers::ATTACKS;
use crate::client::{Client, SIGN};
use crate::machine;
use crate::options::Options;
use crate::peers::Peer;
use crate::stats::{Times, median, table};
use crate::subject::Subject;
use crate::support::{Cgroup, root};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long an attack lasts in a run.
const RUN: Duration = Duration::from_millis(1500);
/// Between two requests of the other client.
const PAUSE: Duration = Duration::from_millis(1);
/// A client that waits longer than this is not served.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the other client saw in a run.
struct Seen {
    times: Times,
    failed: usize,
}

/// Asks with a connection for each request, since an attacker may take all places.
fn client(socket: &Path) -> Seen {
    let (begun, mut times, mut failed) = (Instant::now(), Vec::new(), 0);
    while begun.elapsed() < RUN {
        let asked = Instant::now();
        let served = Client::patient(socket, PATIENCE).and_then(|mut client| client.try_ask(SIGN));
        match served {
            Ok(()) => times.push(asked.elapsed()),
            Err(_) => failed += 1,
        }
        thread::sleep(PAUSE);
    }
    if times.is_empty() {
        times.push(PATIENCE);
    }
    Seen { times: times.into(), failed }
}

/// One run.
fn run(subject: &Subject, attack: Option<&str>, core: usize) -> Seen {
    machine::pin(&machine::others(core));
    let cgroup = root().then(Cgroup::new);
    let socket = [subject.socket.to_str().unwrap()];
    let attacker = attack.map(|attack| match &cgroup {
        Some(cgroup) => Peer::start_in(cgroup, attack, &socket),
        None => Peer::start(attack, &socket, None),
    });
    machine::pin(&[core]);
    // By now an attack has had time to fill what it can.
    thread::sleep(if attacker.is_some() { RUN / 3 } else { Duration::ZERO });
    let seen = client(&subject.socket);
    drop(attacker);
    crate::support::until("served after the attack", || crate::subject::served(&subject.socket));
    seen
}

/// This part.
pub fn print(options: &Options) {
    let mut rows = Vec::new();
    for subject in &Subject::all(options) {
        let quiet = [(None, "no attack")];
        let attacks = quiet.into_iter().chain(ATTACKS.map(|(attack, what)| (Some(attack), what)));
        for (attack, what) in attacks {
            let runs: Vec<Seen> = (0..options.runs).map(|_| run(subject, attack, options.core)).collect();
            let of = |share: usize| median(runs.iter().map(|seen| seen.times.percentile(share))) / 1000.0;
            let worst = runs.iter().map(|seen| seen.times.percentile(100)).fold(0.0, f64::max) / 1000.0;
            rows.push(vec![
                format!("{}: {what}", subject.name),
                format!("{:.2}", of(50)),
                format!("{:.2}", of(99)),
                format!("{worst:.1}"),
                runs.iter().map(|seen| seen.times.count()).sum::<usize>().to_string(),
                runs.iter().map(|seen| seen.failed).sum::<usize>().to_string(),
            ]);
        }
    }
    let title = format!(
        "Another client during an attack: sign_event with a connection each (medians of {} runs; target: p99 below 5 ms)",
        options.runs
    );
    table(&title, &["attack", "median, ms", "p99, ms", "slowest, ms", "served", "not served"], &rows);
}
