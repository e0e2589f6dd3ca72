//! One request at a time: what a signature and the cheapest request take, and how that compares with the floor.

use crate::client::{self, Client, PUBLIC_KEY, SIGN};
use crate::floor::{self, BLOCK, BLOCKS, Bench, Floor, Steps};
use crate::options::Options;
use crate::stats::{Micros, Times, median, table};
use crate::subject::Subject;
use std::path::Path;
use std::time::Duration;

/// A way to ask.
struct Case {
    name: &'static str,
    request: &'static str,
    connects: bool,
    floor: fn(&Floor) -> Micros,
    /// What it is to be at most, in floors; empty: nothing was set.
    target: &'static str,
    formula: &'static str,
}

const CASES: [Case; 4] = [
    Case {
        name: "sign, a connection each",
        request: SIGN,
        connects: true,
        floor: Floor::sign_once,
        target: "1.3",
        formula: "connect + 2 ping-pongs + sign + verify",
    },
    Case {
        name: "sign, connection open",
        request: SIGN,
        connects: false,
        floor: Floor::sign_open,
        target: "1.3",
        formula: "line + 2 ping-pongs + sign + verify",
    },
    Case {
        name: "get_public_key, a connection each",
        request: PUBLIC_KEY,
        connects: true,
        floor: |floor| floor.connect,
        target: "1.5",
        formula: "connect",
    },
    Case {
        name: "get_public_key, connection open",
        request: PUBLIC_KEY,
        connects: false,
        floor: |floor| floor.echo,
        target: "",
        formula: "line",
    },
];

impl Case {
    /// A block of requests.
    fn block(&self, socket: &Path, times: &mut Vec<Duration>) {
        let mut open = Client::connect(socket);
        floor::block(times, || if self.connects { client::once(socket, self.request) } else { open.ask(self.request) });
    }
}

/// This part.
pub fn print(options: &Options) {
    let mut bench = Bench::start();
    let subjects = Subject::all(options);
    let mut floors = Vec::new();
    let mut runs = vec![Vec::new(); subjects.len() * CASES.len()];
    for _ in 0..options.runs {
        let (mut steps, mut times) = (Steps::default(), vec![Vec::new(); runs.len()]);
        // In turns, so that a machine that is slower for a while is so for all.
        for _ in 0..BLOCKS {
            bench.block(&mut steps);
            for (i, subject) in subjects.iter().enumerate() {
                for (j, case) in CASES.iter().enumerate() {
                    case.block(&subject.socket, &mut times[i * CASES.len() + j]);
                }
            }
        }
        floors.push(steps.floor());
        for (run, times) in runs.iter_mut().zip(times) {
            let times = Times::from(times);
            run.push([50, 99].map(|share| times.percentile(share)));
        }
    }
    let floor = floor::medians(&floors);
    floor::show(&floor, options.runs);
    let mut rows = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        for (j, case) in CASES.iter().enumerate() {
            let of = &runs[i * CASES.len() + j];
            let [half, most] = [0, 1].map(|k| median(of.iter().map(|run| run[k])));
            let least = (case.floor)(&floor);
            // Of the same run each, since the machine's speed changes.
            let ratio = median(of.iter().zip(&floors).map(|(run, floor)| run[0] / (case.floor)(floor)));
            rows.push(vec![
                format!("{}: {}", subject.name, case.name),
                format!("{half:.1}"),
                format!("{most:.1}"),
                format!("{least:.1}"),
                format!("{ratio:.2}"),
                case.target.into(),
                case.formula.into(),
            ]);
        }
    }
    let title = format!("One request at a time (medians of {} runs of {})", options.runs, BLOCK * BLOCKS);
    table(&title, &["request", "median, µs", "p99, µs", "floor, µs", "ratio", "target", "floor is"], &rows);
}
