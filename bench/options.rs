//! The command line.

use std::path::PathBuf;

/// What `--help` prints.
pub const HELP: &str = "\
cargo bench --bench nsecd [-- [PART…] [--core N] [--runs N] [--other SOCKET [--other-start COMMAND]]]

Parts (all, unless some are named): floor latency pipeline memory attacks start sessions
  --core N               the core that everything is pinned to (default: the last one)
  --runs N               runs of which the median is shown (default: 7)
  --other SOCKET         measure the daemon at this socket beside nsecd: any that speaks the same protocol and signs
                         kind 1 without a token
  --other-start COMMAND  start it with this command (and end it), rather than find it running";

/// A part of the benchmark; each takes less than 90 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the machine does.
    Floor,
    /// One request at a time.
    Latency,
    /// Many at a time.
    Pipeline,
    /// Memory of each role.
    Memory,
    /// What other clients notice of an attack.
    Attacks,
    /// From nothing to the first reply.
    Start,
    /// What live sessions cost.
    Sessions,
}

const PARTS: [(&str, Part); 7] = [
    ("floor", Part::Floor),
    ("latency", Part::Latency),
    ("pipeline", Part::Pipeline),
    ("memory", Part::Memory),
    ("attacks", Part::Attacks),
    ("start", Part::Start),
    ("sessions", Part::Sessions),
];

/// What to measure.
pub struct Options {
    /// In this order.
    pub parts: Vec<Part>,
    /// The core that is pinned to.
    pub core: usize,
    /// How often each is measured.
    pub runs: usize,
    /// Another daemon's socket.
    pub other: Option<PathBuf>,
    /// What starts it.
    pub other_start: Option<String>,
}

impl Options {
    /// `None`: not called as a benchmark, or only for help.
    pub fn parse(arguments: &[String]) -> Result<Option<Options>, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options = Options { parts: Vec::new(), core: cores - 1, runs: 7, other: None, other_start: None };
        let (mut is_bench, mut rest) = (false, arguments.iter());
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
            let number = |text: &String| text.parse().map_err(|_| format!("{argument}: {text} is no number"));
            match argument.as_str() {
                // Cargo's own.
                "--bench" => is_bench = true,
                "--core" => options.core = number(value()?)?,
                "--runs" => options.runs = number(value()?)?,
                "--other" => options.other = Some(value()?.into()),
                "--other-start" => options.other_start = Some(value()?.clone()),
                "--help" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                name => match PARTS.iter().find(|(part, _)| *part == name) {
                    Some((_, part)) => options.parts.push(*part),
                    None => return Err(format!("{name} is no part")),
                },
            }
        }
        if options.runs == 0 {
            return Err("--runs: at least 1".into());
        }
        if options.other_start.is_some() && options.other.is_none() {
            return Err("--other-start needs --other, the socket that will be there".into());
        }
        if options.parts.is_empty() {
            options.parts = PARTS.iter().map(|(_, part)| *part).collect();
        }
        Ok(is_bench.then_some(options))
    }
}
