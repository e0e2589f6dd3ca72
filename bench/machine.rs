//! What it was measured on.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;
use std::process::Command;

/// Binds this thread, and every process and thread that it starts, to these cores.
pub fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core).unwrap();
    }
    sched_setaffinity(Pid::from_raw(0), &set).unwrap_or_else(|e| panic!("pinning to core {cores:?}: {e}"));
}

/// Every core that there is but this one; this one where there is no other.
pub fn others(core: usize) -> Vec<usize> {
    let all = (0..cores()).filter(|other| *other != core).collect::<Vec<_>>();
    if all.is_empty() { vec![core] } else { all }
}

fn cores() -> usize {
    let listed = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    listed.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

/// One line of Markdown: date, processor, cores, kernel, governor, clock source, load.
pub fn describe(core: usize) -> String {
    let listed = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = listed.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(':').nth(1));
    let virtual_machine = if listed.contains(" hypervisor") { ", a virtual machine" } else { "" };
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok().map(|output| output.stdout);
        String::from_utf8_lossy(&output.unwrap_or_default()).trim().to_owned()
    };
    let read = |path: String| fs::read_to_string(path).map_or("unknown".to_owned(), |text| text.trim().to_owned());
    let load = read("/proc/loadavg".into());
    format!(
        "{}, nsecd {}: {}, {} cores{virtual_machine}, pinned to core {core}; Linux {}; governor {}; clock source {}; load before {}.",
        said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"]),
        env!("CARGO_PKG_VERSION"),
        model.map_or("unknown", str::trim),
        cores(),
        read("/proc/sys/kernel/osrelease".into()),
        read(format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")),
        read("/sys/devices/system/clocksource/clocksource0/current_clocksource".into()),
        load.split(' ').next().unwrap_or_default(),
    )
}

/// What a core has been through since the boot (proc_stat(5)). Hundredths of a second.
#[derive(Clone, Copy)]
pub struct Spent {
    all: u64,
    stolen: u64,
}

impl Spent {
    /// So far.
    pub fn by(core: usize) -> Spent {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} "))).unwrap_or_default();
        let times: Vec<u64> = line.split_whitespace().take(8).filter_map(|time| time.parse().ok()).collect();
        Spent { all: times.iter().sum(), stolen: times.get(7).copied().unwrap_or_default() }
    }

    /// What the host of a virtual machine has given to others since `before`, in per cent.
    pub fn stolen_since(self, before: Spent) -> u64 {
        100 * (self.stolen - before.stolen) / (self.all - before.all).max(1)
    }
}
