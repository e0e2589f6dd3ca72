//! What /proc says of a process: its role, ids, descriptors, memory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

/// All processes below `pid`, depth first.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        // A thread or process may end while we look: what has gone has no children.
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().map(|c| c.parse().unwrap()) {
            all.push(child);
            all.extend(descendants(child));
        }
    }
    all
}

/// The arguments of a process, empty if it has ended.
pub fn arguments(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|b| *b == 0).filter(|a| !a.is_empty()).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
}

/// The file name of argv[0], which names a role.
pub fn name(pid: i32) -> String {
    arguments(pid).first().and_then(|a| a.rsplit('/').next()).unwrap_or_default().into()
}

/// The fields of /proc/PID/status, runs of white space made one space.
pub fn status(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pairs = text.lines().filter_map(|l| l.split_once(':'));
    pairs.map(|(k, v)| (k.into(), v.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

/// A number of kilobytes of /proc/PID/status, such as VmRSS.
pub fn kilobytes(pid: i32, field: &str) -> u64 {
    status(pid)[field].trim_end_matches(" kB").parse().unwrap()
}

/// Open descriptors and what each is, `socket:[…]` and `pipe:[…]` without the inode.
pub fn descriptors(pid: i32) -> BTreeMap<i32, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        // A descriptor may be closed while we look.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        let what = target.split(":[").next().unwrap_or_default().to_string();
        all.insert(entry.file_name().to_string_lossy().parse().unwrap(), what);
    }
    all
}

/// One mapping of a process.
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
    /// As /proc/PID/maps prints it, such as `r-xp`.
    pub mode: String,
    /// File or pseudo-name, may be empty.
    pub name: String,
}

/// The mappings of a process.
pub fn mappings(pid: i32) -> Vec<Mapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let mode = words.next()?.to_string();
        let address = |a| u64::from_str_radix(a, 16).ok();
        Some(Mapping {
            start: address(start)?,
            end: address(end)?,
            mode,
            name: words.nth(3).unwrap_or_default().into(),
        })
    };
    text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("maps line: {line}"))).collect()
}

/// The mapping's bytes page by page through /proc/PID/mem; pages that cannot be read are left out.
pub fn read(pid: i32, mapping: &Mapping) -> Vec<u8> {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = vec![0; (mapping.end - mapping.start) as usize];
    if memory.read_exact_at(&mut all, mapping.start).is_ok() {
        return all;
    }
    let mut some = Vec::new();
    for page in (mapping.start..mapping.end).step_by(4096) {
        let mut bytes = [0; 4096];
        if memory.read_exact_at(&mut bytes, page).is_ok() {
            some.extend_from_slice(&bytes);
        }
    }
    some
}
