//! Many requests at a time: signatures a second, compared with what a core can sign and verify.

use crate::client::{Client, SIGN};
use crate::floor::Bench;
use crate::options::Options;
use crate::stats::{median, table};
use crate::subject::Subject;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a run lasts.
const RUN: Duration = Duration::from_millis(700);
/// Requests that are sent before the first reply is read.
const AHEAD: usize = 32;

/// Signatures a second over so many connections, `AHEAD` requests under way in all.
fn rate(socket: &Path, connections: usize) -> f64 {
    let mut clients: Vec<Client> = (0..connections).map(|_| Client::connect(socket)).collect();
    let each = AHEAD / connections;
    let requests = SIGN.repeat(each);
    let mut round = || {
        clients.iter_mut().for_each(|client| client.send(&requests));
        clients.iter_mut().for_each(|client| client.replies(each));
    };
    round();
    let (begun, mut rounds) = (Instant::now(), 0);
    while begun.elapsed() < RUN {
        round();
        rounds += 1;
    }
    (rounds * AHEAD) as f64 / begun.elapsed().as_secs_f64()
}

/// This part.
pub fn print(options: &Options) {
    let mut bench = Bench::start();
    let subjects = Subject::all(options);
    let ways = [("one connection", 1), ("8 connections", 8), ("32 connections", 32)];
    let mut runs = vec![Vec::new(); subjects.len() * ways.len()];
    for _ in 0..options.runs {
        let core = bench.run().rate();
        for (i, subject) in subjects.iter().enumerate() {
            for (j, (_, connections)) in ways.iter().enumerate() {
                runs[i * ways.len() + j].push((rate(&subject.socket, *connections), core));
            }
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
