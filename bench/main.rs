//! What nsecd costs, beside what the machine cannot do cheaper: `cargo bench --bench nsecd`.
//!
//! Everything runs pinned to one core, seven times, floor and daemon in turns; a table shows medians. No test asserts a time:
//! figures of a run are in docs/performance.md, with what was done about them.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/support/mod.rs"]
mod support;

mod attackers;
mod attacks;
mod client;
mod floor;
mod latency;
mod machine;
mod memory;
mod options;
mod peers;
mod pipeline;
#[allow(unsafe_code, reason = "libsecp256k1 as the key-holder calls it")]
mod raw;
mod sessions;
mod start;
mod stats;
mod subject;

use machine::Spent;
use options::{Options, Part};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The other end of a measurement is this program too.
    if let [flag, what, rest @ ..] = arguments.as_slice()
        && flag == peers::FLAG
    {
        return peers::be(what, rest);
    }
    let options = match Options::parse(&arguments) {
        Ok(Some(options)) => options,
        // `cargo test --benches` runs this too: it is no test.
        Ok(None) => return,
        Err(why) => {
            eprintln!("{why}\n\n{}", options::HELP);
            std::process::exit(2);
        }
    };
    machine::pin(&[options.core]);
    println!("{}", machine::describe(options.core));
    for part in &options.parts {
        let before = Spent::by(options.core);
        match part {
            Part::Floor => floor::print(&options),
            Part::Latency => latency::print(&options),
            Part::Pipeline => pipeline::print(&options),
            Part::Memory => memory::print(&options),
            Part::Attacks => attacks::print(&options),
            Part::Start => start::print(&options),
            Part::Sessions => sessions::print(),
        }
        let stolen = Spent::by(options.core).stolen_since(before);
        if stolen > 0 {
            println!("\nMeanwhile the host took {stolen} % of the core's time: the longest times are its doing.");
        }
    }
}
