//! Many requests at a time: signatures a second, compared with what a core can sign and verify.

use crate::client::{Client, SIGN};
use crate::floor::{BLOCK, Bench};
use crate::options::Options;
use crate::stats::{median, table};
use crate::subject::Subject;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a slice of a run lasts, and how many there are: daemon and floor take turns, since the machine's speed changes within a
/// second.
const SLICE: Duration = Duration::from_millis(70);
const SLICES: usize = 10;
/// Requests that are sent before the first reply is read.
const AHEAD: usize = 32;

/// What was made in what time.
#[derive(Clone, Copy, Default)]
struct Made {
    signatures: usize,
    time: Duration,
}

impl Made {
    fn add(&mut self, signatures: usize, time: Duration) {
        self.signatures += signatures;
        self.time += time;
    }

    fn rate(self) -> f64 {
        self.signatures as f64 / self.time.as_secs_f64()
    }
}

/// Signatures over so many connections, `AHEAD` requests under way in all.
fn slice(socket: &Path, connections: usize, made: &mut Made) {
    let mut clients: Vec<Client> = (0..connections).map(|_| Client::connect(socket)).collect();
    let each = AHEAD / connections;
    let requests = SIGN.repeat(each);
    let mut round = || {
        clients.iter_mut().for_each(|client| client.send(&requests));
        clients.iter_mut().for_each(|client| client.replies(each));
    };
    round();
    let (begun, mut rounds) = (Instant::now(), 0);
    while begun.elapsed() < SLICE {
        round();
        rounds += 1;
    }
    made.add(rounds * AHEAD, begun.elapsed());
}

/// This part.
pub fn print(options: &Options) {
    let mut bench = Bench::start();
    let subjects = Subject::all(options);
    let ways = [("one connection", 1), ("8 connections", 8), ("32 connections", 32)];
    let mut runs = vec![Vec::new(); subjects.len() * ways.len()];
    for _ in 0..options.runs {
        let mut made = vec![(Made::default(), Made::default()); runs.len()];
        for _ in 0..SLICES {
            for (i, subject) in subjects.iter().enumerate() {
                for (j, (_, connections)) in ways.iter().enumerate() {
                    let (nsecd, core) = &mut made[i * ways.len() + j];
                    // The floor of each slice on both sides of it.
                    core.add(BLOCK, bench.use_of_key());
                    slice(&subject.socket, *connections, nsecd);
                    core.add(BLOCK, bench.use_of_key());
                }
            }
        }
        for (run, (nsecd, core)) in runs.iter_mut().zip(made) {
            run.push((nsecd.rate(), core.rate()));
        }
    }
    let mut rows = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        for (j, (name, _)) in ways.iter().enumerate() {
            let of = &runs[i * ways.len() + j];
            rows.push(vec![
                format!("{}: {name}", subject.name),
                format!("{:.0}", median(of.iter().map(|run| run.0))),
                format!("{:.0}", median(of.iter().map(|run| run.1))),
                format!("{:.0} %", 100.0 * median(of.iter().map(|run| run.0 / run.1))),
                "80 %".into(),
            ]);
        }
    }
    let title = format!("Signatures a second, {AHEAD} requests under way (medians of {} runs)", options.runs);
    table(&title, &["over", "nsecd's", "core signs and verifies", "share", "target"], &rows);
}
