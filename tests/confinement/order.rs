//! B5: the trace of a real start shows every filter installed before the first byte from outside is read.
//!
//! Checked: with the broker accepting once before its lock this fails.

use crate::support::daemon::{DM, ROLES, Setup};
use crate::support::{missing, not_root};

/// The calls of the process that became `role`, from its exec on.
fn calls<'a>(trace: &'a [(i32, String)], role: &str) -> Vec<&'a str> {
    let named = format!("[\"{role}\"");
    let exec = trace.iter().position(|(_, c)| c.starts_with("exec") && c.contains(&named));
    let exec = exec.unwrap_or_else(|| panic!("no exec of {role}"));
    let pid = trace[exec].0;
    trace[exec..].iter().filter(|(p, _)| *p == pid).map(|(_, c)| c.as_str()).collect()
}

fn first(calls: &[&str], of: impl Fn(&str) -> bool) -> Option<usize> {
    calls.iter().position(|c| of(c))
}

#[test]
fn every_filter_is_in_place_before_the_first_byte_from_outside() {
    if not_root("reading what a non-dumpable process passes to the kernel") || missing("strace", "--version") {
        return;
    }
    let nsecd =
        Setup::new(DM).traced("execve,execveat,seccomp,prctl,read,readv,recvfrom,recvmsg,accept,accept4").start();
    let mut client = nsecd.connect();
    client.sign(1, None);
    drop(client);
    let trace = nsecd.into_trace();
    let filter = |c: &str| c.starts_with("seccomp(SECCOMP_SET_MODE_FILTER") || c.starts_with("prctl(PR_SET_SECCOMP");
    let reads = |c: &str, fd: i32| {
        ["read", "readv", "recvfrom", "recvmsg"].iter().any(|r| c.starts_with(&format!("{r}({fd},")))
    };

    for role in ROLES {
        let calls = calls(&trace, role);
        let installed = first(&calls, filter).unwrap_or_else(|| panic!("{role} installs no filter"));
        assert_eq!(calls.iter().filter(|c| filter(c)).count(), 1, "{role}");
        let input = match role {
            "nsecd-keyholder" | "nsecd-ecdh" => first(&calls, |c| reads(c, 3)),
            "nsecd-gate" => first(&calls, |c| reads(c, 3) || reads(c, 4)),
            _ => first(&calls, |c| c.starts_with("accept")),
        };
        let input = input.unwrap_or_else(|| panic!("control: {role} did read: {calls:?}"));
        assert!(installed < input, "{role}: {calls:?}");
    }
}
