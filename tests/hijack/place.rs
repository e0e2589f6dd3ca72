//! What these tests rest on: the hijacked broker stands exactly where the real one does.

use super::puppet::Hand;
use super::{config, hijacked, starters};
use crate::support::daemon::Setup;
use crate::support::{Nsecd, filters, not_root, process};
use std::collections::BTreeMap;
use std::fs;

/// Ids, capabilities, filter, limits, descriptors and namespaces of the broker, as the kernel tells them.
fn place(nsecd: &Nsecd) -> BTreeMap<String, String> {
    let pid = nsecd.role("nsecd-broker");
    let status = process::status(pid).into_iter().filter(|(name, _)| {
        let exact = ["Groups", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Threads", "SigBlk", "SigIgn", "SigCgt"];
        exact.contains(&name.as_str()) || name.starts_with("Cap")
    });
    let mut place: BTreeMap<_, _> = status.collect();
    let others: Vec<_> = nsecd
        .processes()
        .into_iter()
        .filter(|(_, other)| *other != pid)
        .map(|(_, other)| process::status(other))
        .collect();
    let uid = process::status(pid)["Uid"].clone();
    place.insert("alone with its uid".into(), others.iter().all(|other| other["Uid"] != uid).to_string());
    for namespace in ["net", "ipc", "uts", "mnt", "cgroup", "user", "pid"] {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        place.insert(format!("{namespace} of its own"), (of(pid) != of(nsecd.pid())).to_string());
    }
    place.insert("limits".into(), fs::read_to_string(format!("/proc/{pid}/limits")).unwrap());
    let root = fs::read_dir(format!("/proc/{pid}/root")).map(|entries| entries.count() == 0);
    place.insert("empty root".into(), root.unwrap_or_default().to_string());
    let own = nsecd.dir.path().to_str().unwrap();
    let descriptors = process::descriptors(pid).into_iter().filter(|(_, what)| !what.starts_with("anon_inode"));
    let named: Vec<_> = descriptors.map(|(fd, what)| format!("{fd} {}", what.replace(own, "@"))).collect();
    place.insert("descriptors".into(), named.join("\n"));
    place.insert("filters".into(), format!("{:?}", filters::installed(pid).ok()));
    place
}

#[test]
fn the_hijacked_broker_has_the_real_ones_ids_capabilities_filter_limits_descriptors_and_namespaces() {
    if not_root("reading the descriptors and filters of a non-dumpable process") {
        return;
    }
    for uid in starters() {
        let real = Setup::of(uid, &config("20, 10/s")).start();
        let expected = place(&real);
        let nsecd = hijacked(uid, "20, 10/s").start();
        assert_eq!(place(&nsecd), expected);
        // Control: without its sandbox it would show.
        let unlocked = hijacked(uid, "20, 10/s");
        unlocked.dir.file("bin/unlocked", 0o644, None, b"");
        assert_ne!(place(&unlocked.start()), expected);
        drop(Hand::on(&nsecd));
    }
}
