//! How large each process is and how many descriptors it has, over time.

use crate::support::Nsecd;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// By how much memory may grow: a tenth, and so many kB, since the load is never the same twice.
const KB: u64 = 192;
/// Likewise the descriptors of the broker, which has the connections. Of the others none has one more than it began with.
const CONNECTIONS: u64 = 8;

/// One look at one process.
struct Sample {
    pid: i32,
    /// Proportional set size, kB.
    pss: u64,
    /// The part of it that no file is behind, kB: all that a leak can be. The rest is code and tables; how much of those is resident, and who
    /// shares it, is up to whatever else runs on the machine.
    own: u64,
    fds: u64,
    /// Whether nobody was being killed at the time.
    quiet: bool,
}

#[derive(Default)]
pub struct Gauge {
    last: Option<Instant>,
    roles: BTreeMap<String, Vec<Sample>>,
}

impl Gauge {
    /// Looks at all processes, twice a second.
    pub fn look(&mut self, nsecd: &Nsecd, quiet: bool) {
        if self.last.is_some_and(|last| last.elapsed() < Duration::from_millis(500)) {
            return;
        }
        self.last = Some(Instant::now());
        for (role, pid) in nsecd.processes() {
            // One that has just ended is not looked at.
            if let (Some([pss, own]), Some(fds)) = (memory(pid), descriptors(pid)) {
                self.roles.entry(role).or_default().push(Sample { pid, pss, own, fds, quiet });
            }
        }
    }

    /// Panics unless all sizes are flat: over the whole time, and over the longest life of each process.
    pub fn judge(&self) {
        assert_eq!(self.roles.len(), 5, "not all were measured: {:?}", self.roles.keys());
        let mut grown = Vec::new();
        for (role, samples) in &self.roles {
            let more = if role == "nsecd-broker" { CONNECTIONS } else { 0 };
            for (what, [early, late]) in [("early and late", thirds(samples)), ("in one life", life(samples))] {
                if late.own > early.own + early.own / 10 + KB || late.fds > early.fds + more {
                    grown.push(format!("{role}, {what}: {early} to {late}"));
                }
            }
        }
        assert!(grown.is_empty(), "grown:\n{}", grown.join("\n"));
    }
}

impl fmt::Display for Gauge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "PSS / of it without a file behind it, in kB, and descriptors in brackets; medians")?;
        let [whole, one] = ["first third -> last third", "longest life, begin -> end"];
        writeln!(out, "{:<16} {:>8} {whole:>34} {one:>34} {:>16}", "process", "samples", "largest")?;
        for (role, samples) in &self.roles {
            let show = |[early, late]: [Size; 2]| format!("{early} -> {late}");
            let most = Size {
                pss: samples.iter().map(|s| s.pss).max().unwrap_or(0),
                own: samples.iter().map(|s| s.own).max().unwrap_or(0),
                fds: samples.iter().map(|s| s.fds).max().unwrap_or(0),
            };
            let (whole, one) = (show(thirds(samples)), show(life(samples)));
            writeln!(out, "{role:<16} {:>8} {whole:>34} {one:>34} {:>16}", samples.len(), most.to_string())?;
        }
        Ok(())
    }
}

/// Medians.
#[derive(Clone, Copy)]
struct Size {
    pss: u64,
    own: u64,
    fds: u64,
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} / {} ({})", self.pss, self.own, self.fds)
    }
}

fn median(samples: &[&Sample]) -> Size {
    let of = |field: fn(&Sample) -> u64| {
        let mut all: Vec<u64> = samples.iter().map(|sample| field(sample)).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(0)
    };
    Size { pss: of(|s| s.pss), own: of(|s| s.own), fds: of(|s| s.fds) }
}

/// The first and the last third of the time, while processes were being killed.
fn thirds(samples: &[Sample]) -> [Size; 2] {
    let restless: Vec<&Sample> = samples.iter().filter(|s| !s.quiet).collect();
    let third = restless.len() / 3;
    [median(&restless[..third]), median(&restless[restless.len() - third..])]
}

/// The first and the last quarter of the longest life that a process had, the deaths of others included.
fn life(samples: &[Sample]) -> [Size; 2] {
    let mut lives: BTreeMap<i32, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        lives.entry(sample.pid).or_default().push(sample);
    }
    let longest = lives.into_values().max_by_key(Vec::len).unwrap_or_default();
    let quarter = longest.len().div_ceil(4);
    [median(&longest[..quarter]), median(&longest[longest.len() - quarter..])]
}

/// PSS, and the part of it that is anonymous or shared without a file.
fn memory(pid: i32) -> Option<[u64; 2]> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    Some([field("Pss:")?, field("Pss_Anon:")? + field("Pss_Shmem:")? + field("SwapPss:")?])
}

fn descriptors(pid: i32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}
