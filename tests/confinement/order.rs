//! B5: the trace of a real start shows every filter installed before the first byte from outside is read.
//!
//! Checked: with the broker accepting once before its lock, or the ECDH holder looking at its pair, the first fails; with roles
//! dumpable until their lock, the second.

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

fn reads(call: &str, fd: i32) -> bool {
    ["read", "readv", "recvfrom", "recvmsg"].iter().any(|r| call.starts_with(&format!("{r}({fd},")))
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

/// From its exec on a process can be traced by another of its uid until it says otherwise (prctl(2)): no key may be in it by then.
#[test]
fn no_role_reads_its_key_or_its_policy_before_it_is_non_dumpable() {
    if not_root("reading what a non-dumpable process passes to the kernel") || missing("strace", "--version") {
        return;
    }
    let trace = Setup::new(DM).traced("execve,execveat,prctl,read,readv").start().into_trace();
    for (role, from) in [("nsecd-keyholder", 0), ("nsecd-ecdh", 0), ("nsecd-broker", 4)] {
        let calls = calls(&trace, role);
        let read = first(&calls, |c| reads(c, from)).unwrap_or_else(|| panic!("control: {role} did read: {calls:?}"));
        let hidden = first(&calls, |c| c.starts_with("prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE"));
        assert!(hidden.is_some_and(|hidden| hidden < read), "{role}: {calls:?}");
    }
}
