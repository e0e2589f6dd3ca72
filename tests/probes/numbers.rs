//! B3: every number of every ABI in each role's sandbox; what survives is written down in survivors.txt, exactly.
//!
//! Numbers 0 to 1023 natively, with arguments of all zeros and of all ones, and with the arguments of every rule of every
//! role's policy; with x32's bit; by int 0x80; and numbers around each power of two above. 335 and 336 (uretprobe, uprobe) are the kernel's
//! own: some kernels handle them before any filter and accept them only from an address of their own making.
//!
//! Checked: with `getpid` added to the gate's policy, with the broker's check of accept4's flags left out, with no filter
//! installed by the lock, or with the gate's and the ECDH holder's filters exchanged, this fails.

use super::{sandbox, untraceable};
use crate::support::probe::{Abi, Call, End, Sandbox, probe};
use std::collections::BTreeSet;
use std::path::Path;

const X32: u32 = 0x4000_0000;
const URETPROBE: u32 = 335;
const UPROBE: u32 = 336;

/// Names of the calls in any policy.
const NAMES: [(libc::c_long, &str); 22] = [
    (libc::SYS_read, "read"),
    (libc::SYS_write, "write"),
    (libc::SYS_close, "close"),
    (libc::SYS_poll, "poll"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_brk, "brk"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_pread64, "pread64"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_mremap, "mremap"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_recvfrom, "recvfrom"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_getsockopt, "getsockopt"),
    (libc::SYS_clock_gettime, "clock_gettime"),
    (libc::SYS_exit_group, "exit_group"),
    (libc::SYS_epoll_wait, "epoll_wait"),
    (libc::SYS_epoll_ctl, "epoll_ctl"),
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_getrandom, "getrandom"),
];

fn beside(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// The call of every rule of every policy, with the arguments that it checks, and zeros elsewhere.
fn of_the_policies() -> BTreeSet<Call> {
    let mut calls = BTreeSet::new();
    for role in ["keyholder", "gate", "ecdh", "broker"] {
        let text = std::fs::read(beside(&format!("sandbox/{role}.json"))).unwrap();
        let policy: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for rule in policy[role]["filter"].as_array().unwrap() {
            let name = rule["syscall"].as_str().unwrap();
            let number = NAMES.iter().find(|(_, n)| *n == name).unwrap_or_else(|| panic!("no number for {name}")).0;
            let mut args = [0; 6];
            for check in rule["args"].as_array().into_iter().flatten() {
                args[check["index"].as_u64().unwrap() as usize] = check["val"].as_u64().unwrap();
            }
            calls.insert(Call { abi: Abi::X86_64, number: number as u32, args });
        }
    }
    calls
}

/// All that is tried.
fn calls() -> BTreeSet<Call> {
    let edges = (10..32).flat_map(|bit| [(1u32 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u32::MAX, u32::MAX - 1]);
    let high: Vec<u32> = edges.filter(|number| *number > 1023).collect();
    let native = (0..=1023).chain(high.iter().copied());
    let mut calls = of_the_policies();
    for number in native {
        calls.extend([[0; 6], [u64::MAX; 6]].map(|args| Call { abi: Abi::X86_64, number, args }));
    }
    calls.extend((0..=1023).map(|number| Call { abi: Abi::X86_64, number: number | X32, args: [0; 6] }));
    calls.extend((0..=511).chain(high).map(|number| Call { abi: Abi::I386, number, args: [0; 6] }));
    calls
}

/// A line of survivors.txt.
fn line(role: &str, call: &Call) -> String {
    let name = NAMES.iter().find(|(number, _)| *number as u32 == call.number).map_or("?", |(_, name)| name);
    let arguments = match call.args {
        [0, 0, 0, 0, 0, 0] => "zeros".into(),
        [u64::MAX, ..] => "ones".into(),
        args => args.map(|arg| arg.to_string()).join(", "),
    };
    let name = if call.abi == Abi::X86_64 { name.to_string() } else { format!("{:?} {}", call.abi, call.number) };
    let number = if name == "?" { format!(" number {:#x}", call.number) } else { String::new() };
    format!("{role}: {name}({arguments}){number}")
}

/// Those of the calls that the role survives in this sandbox, or ends by, as lines.
fn survivors(role: &str, sandbox: &Sandbox, calls: &BTreeSet<Call>) -> BTreeSet<String> {
    let mut survivors = BTreeSet::new();
    for call in calls {
        let end = probe(Some(sandbox), || *call).unwrap();
        let own = call.abi == Abi::X86_64 && (call.number == URETPROBE || call.number == UPROBE);
        if own && !matches!(end, End::Refused(_)) {
            println!("{role}: number {} never came to the filter: {end:?}", call.number);
        }
        match end {
            End::Refused(refused) => assert_eq!(refused, *call, "{role}: another call than the one that was tried"),
            End::Signal(libc::SIGILL | libc::SIGSEGV) if own => {}
            End::Returned(errno) if own && errno == i64::from(-libc::ENXIO) => {}
            End::Returned(_) | End::Exited(_) => {
                survivors.insert(line(role, call));
            }
            other => panic!("{role}: {call:x?}: {other:?}"),
        }
    }
    survivors
}

fn only_what_is_written_down_survives(role: &str) {
    if untraceable() {
        return;
    }
    let calls = calls();
    let survivors = survivors(role, &sandbox(role), &calls);
    let text = std::fs::read_to_string(beside("tests/probes/survivors.txt")).unwrap();
    let written: BTreeSet<String> =
        text.lines().filter(|line| line.starts_with(&format!("{role}: "))).map(String::from).collect();
    let (new, gone): (Vec<_>, Vec<_>) =
        (survivors.difference(&written).collect(), written.difference(&survivors).collect());
    assert!(new.is_empty() && gone.is_empty(), "survive unannounced: {new:#?}\nannounced, but do not: {gone:#?}");
    println!("{role}: of {} calls {} survive", calls.len(), survivors.len());
}

#[test]
fn of_all_call_numbers_only_those_written_down_survive_in_the_key_holder() {
    only_what_is_written_down_survives("keyholder");
}

#[test]
fn of_all_call_numbers_only_those_written_down_survive_in_the_gate() {
    only_what_is_written_down_survives("gate");
}

#[test]
fn of_all_call_numbers_only_those_written_down_survive_in_the_ecdh_holder() {
    only_what_is_written_down_survives("ecdh");
}

#[test]
fn of_all_call_numbers_only_those_written_down_survive_in_the_broker() {
    only_what_is_written_down_survives("broker");
}

/// One instruction of a filter, as `struct sock_filter` (linux/filter.h): code, both jumps, operand.
const fn instruction(code: u64, if_true: u64, if_false: u64, operand: u32) -> u64 {
    code | if_true << 16 | if_false << 24 | (operand as u64) << 32
}

const ALLOW: u64 = instruction(0x06, 0, 0, libc::SECCOMP_RET_ALLOW);

/// The scan sees a hole where there is one: in each role's filter, by number; without a filter, by every door to the kernel.
///
/// Checked: with what came back counted as refused, this fails.
#[test]
fn control_a_hole_in_a_filter_is_among_the_survivors_by_its_number() {
    if untraceable() {
        return;
    }
    let native = |number: libc::c_long| Call { abi: Abi::X86_64, number: number as u32, args: [0; 6] };
    let x32 = Call { abi: Abi::X86_64, number: libc::SYS_getpid as u32 | X32, args: [0; 6] };
    let i386 = Call { abi: Abi::I386, number: 20, args: [0; 6] }; // getpid
    let calls =
        BTreeSet::from([native(libc::SYS_getpid), native(libc::SYS_getppid), native(libc::SYS_getuid), x32, i386]);
    for role in ["keyholder", "gate", "ecdh", "broker"] {
        let whole = sandbox(role);
        assert!(survivors(role, &whole, &calls).is_empty(), "{role}");
        // Before all else: the call's number is read, and getppid's is let through.
        let mut holed = vec![instruction(0x20, 0, 0, 0), instruction(0x15, 0, 1, libc::SYS_getppid as u32), ALLOW];
        holed.extend(whole.filter);
        let hole = survivors(role, &Sandbox { filter: holed.leak(), ..whole }, &calls);
        assert_eq!(hole, BTreeSet::from([format!("{role}: ?(zeros) number 0x6e")]));
        let open = survivors(role, &Sandbox { filter: &[ALLOW], ..whole }, &calls);
        assert_eq!(open, calls.iter().map(|call| line(role, call)).collect(), "{role}");
    }
}
