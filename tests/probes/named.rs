//! The calls by which processes of this kind were broken out of (B1, B3, B4), each in each role's sandbox, started as root and
//! as an ordinary user: the process dies of that very call. Outside the same call survives, and works where the kernel is not
//! set up otherwise.
//!
//! Checked: with memfd_create in the broker's policy, with mmap's check of its protection left out there, or without the filter, these fail.

use super::{ORDINARY, sandbox, untraceable};
use crate::support::probe::{Abi, Call, End, Sandbox, Sibling, call, probe};
use crate::support::root;
use nsecd_sandbox::filter::SUPERVISOR;
use std::ffi::CStr;

/// What the call does outside, to root.
#[derive(Clone, Copy, PartialEq)]
enum Outside {
    Works,
    /// It ends the process as the program it becomes.
    Becomes,
    /// The kernel may be set up, or built, to answer with an error.
    Survives,
}
use Outside::{Becomes, Survives, Works};

struct Probe {
    name: &'static str,
    number: u32,
    abi: Abi,
    outside: Outside,
    /// Made in the process itself, before its lock: descriptors, memory.
    args: Box<dyn Fn() -> [u64; 6]>,
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as u64
}

fn text(of: &'static CStr) -> u64 {
    of.as_ptr() as u64
}

/// A live object for the rest of the process.
fn lasting<T>(value: T) -> u64 {
    address(Box::leak(Box::new(value)))
}

const HERE: u64 = libc::AT_FDCWD as u64;
const PAGE: u64 = 4096;
const PRIVATE: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;

fn page() -> u64 {
    call(libc::SYS_mmap, [0, PAGE, libc::PROT_READ as u64, PRIVATE, u64::MAX, 0]) as u64
}

fn udp() -> u64 {
    call(libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_DGRAM as u64, 0, 0, 0, 0]) as u64
}

/// 127.0.0.1, port 9, as struct sockaddr_in.
fn discard() -> u64 {
    lasting([2u8, 0, 0, 9, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn probes(sibling: i32) -> Vec<Probe> {
    let mut all: Vec<Probe> = Vec::new();
    let mut add = |name, number: libc::c_long, outside, args: Box<dyn Fn() -> [u64; 6]>| {
        all.push(Probe { name, number: number as u32, abi: Abi::X86_64, outside, args });
    };
    let plain = |args: [u64; 6]| -> Box<dyn Fn() -> [u64; 6]> { Box::new(move || args) };
    let target = sibling as u64;
    let pidfd = move || call(libc::SYS_pidfd_open, [target, 0, 0, 0, 0, 0]) as u64;
    let vector = || {
        let buffer = lasting([0u64; 1]);
        lasting([buffer, 8])
    };

    // Code.
    add("mmap executable", libc::SYS_mmap, Works, plain([0, PAGE, 5, PRIVATE, u64::MAX, 0]));
    add("mmap writable and executable", libc::SYS_mmap, Works, plain([0, PAGE, 7, PRIVATE, u64::MAX, 0]));
    add("mprotect executable", libc::SYS_mprotect, Works, Box::new(|| [page(), PAGE, 5, 0, 0, 0]));
    add("pkey_mprotect executable", libc::SYS_pkey_mprotect, Works, Box::new(|| [page(), PAGE, 5, u64::MAX, 0, 0]));
    add("memfd_create", libc::SYS_memfd_create, Works, plain([text(c"probe"), 0, 0, 0, 0, 0]));
    let argv = || lasting([text(c"/bin/true"), 0]);
    add("execve", libc::SYS_execve, Becomes, Box::new(move || [text(c"/bin/true"), argv(), lasting(0u64), 0, 0, 0]));
    add(
        "execveat",
        libc::SYS_execveat,
        Becomes,
        Box::new(move || [HERE, text(c"/bin/true"), argv(), lasting(0u64), 0, 0]),
    );
    // Other processes.
    add("ptrace", libc::SYS_ptrace, Works, plain([libc::PTRACE_SEIZE as u64, target, 0, 0, 0, 0]));
    add(
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        Works,
        Box::new(move || [target, vector(), 1, vector_of_static(), 1, 0]),
    );
    add(
        "process_vm_writev",
        libc::SYS_process_vm_writev,
        Works,
        Box::new(move || [target, vector(), 1, vector_of_scratch(), 1, 0]),
    );
    add("pidfd_open", libc::SYS_pidfd_open, Works, plain([target, 0, 0, 0, 0, 0]));
    add("pidfd_getfd", libc::SYS_pidfd_getfd, Works, Box::new(move || [pidfd(), 0, 0, 0, 0, 0]));
    add("kill", libc::SYS_kill, Works, plain([target, 0, 0, 0, 0, 0]));
    add("kill all", libc::SYS_kill, Works, plain([u64::MAX, 0, 0, 0, 0, 0]));
    add("tkill", libc::SYS_tkill, Works, plain([target, libc::SIGCONT as u64, 0, 0, 0, 0]));
    add("tgkill", libc::SYS_tgkill, Works, plain([target, target, libc::SIGCONT as u64, 0, 0, 0]));
    add("pidfd_send_signal", libc::SYS_pidfd_send_signal, Works, Box::new(move || [pidfd(), 0, 0, 0, 0, 0]));
    add("fork", libc::SYS_fork, Works, plain([0; 6]));
    let child = libc::SIGCHLD as u64;
    add("clone", libc::SYS_clone, Works, plain([child, 0, 0, 0, 0, 0]));
    add(
        "clone3",
        libc::SYS_clone3,
        Works,
        Box::new(move || [lasting([0, 0, 0, 0, child, 0, 0, 0u64]), 64, 0, 0, 0, 0]),
    );
    // Namespaces.
    for (name, flag) in [
        ("unshare user", libc::CLONE_NEWUSER),
        ("unshare mounts", libc::CLONE_NEWNS),
        ("unshare network", libc::CLONE_NEWNET),
        ("unshare processes", libc::CLONE_NEWPID),
    ] {
        let outside = if flag == libc::CLONE_NEWUSER { Survives } else { Works };
        add(name, libc::SYS_unshare, outside, plain([flag as u64, 0, 0, 0, 0, 0]));
    }
    let new_user = libc::CLONE_NEWUSER as u64;
    add("clone user", libc::SYS_clone, Survives, plain([new_user | child, 0, 0, 0, 0, 0]));
    add(
        "clone3 user",
        libc::SYS_clone3,
        Survives,
        Box::new(move || [lasting([new_user, 0, 0, 0, child, 0, 0, 0]), 64, 0, 0, 0, 0]),
    );
    add(
        "setns",
        libc::SYS_setns,
        Works,
        Box::new(|| [call(libc::SYS_open, [text(c"/proc/self/ns/uts"), 0, 0, 0, 0, 0]) as u64, 0, 0, 0, 0, 0]),
    );
    // Sockets and files.
    add("socket unix", libc::SYS_socket, Works, plain([libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0]));
    add("socket inet", libc::SYS_socket, Works, plain([libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0]));
    add(
        "socketpair",
        libc::SYS_socketpair,
        Works,
        Box::new(|| [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0, lasting(0u64), 0, 0]),
    );
    add("connect", libc::SYS_connect, Works, Box::new(|| [udp(), discard(), 16, 0, 0, 0]));
    add("bind", libc::SYS_bind, Works, Box::new(|| [udp(), lasting([2u64, 0]), 16, 0, 0, 0]));
    add("setsockopt", libc::SYS_setsockopt, Works, Box::new(|| [udp(), 1, 2, lasting(1u64), 4, 0]));
    add("sendto an address", libc::SYS_sendto, Works, Box::new(|| [udp(), lasting(0u64), 1, 16448, discard(), 16]));
    add("sendmsg", libc::SYS_sendmsg, Survives, Box::new(|| [udp(), lasting([0u64; 7]), 0, 0, 0, 0]));
    add("open", libc::SYS_open, Works, plain([text(c"/dev/null"), 0, 0, 0, 0, 0]));
    add("openat", libc::SYS_openat, Works, plain([HERE, text(c"/dev/null"), 0, 0, 0, 0]));
    add("openat2", libc::SYS_openat2, Works, Box::new(|| [HERE, text(c"/dev/null"), lasting([0u64; 3]), 24, 0, 0]));
    add("fcntl", libc::SYS_fcntl, Works, plain([3, libc::F_GETFD as u64, 0, 0, 0, 0]));
    add("dup", libc::SYS_dup, Works, plain([3, 0, 0, 0, 0, 0]));
    add("mount", libc::SYS_mount, Survives, plain([0; 6]));
    // Machinery with a life of its own.
    add("io_uring_setup", libc::SYS_io_uring_setup, Survives, Box::new(|| [8, lasting([0u64; 15]), 0, 0, 0, 0]));
    add("io_setup", libc::SYS_io_setup, Works, Box::new(|| [1, lasting(0u64), 0, 0, 0, 0]));
    add("bpf", libc::SYS_bpf, Survives, Box::new(|| [0, lasting([2u32, 4, 4, 1]), 16, 0, 0, 0]));
    add("userfaultfd", libc::SYS_userfaultfd, Survives, plain([1, 0, 0, 0, 0, 0]));
    add(
        "perf_event_open",
        libc::SYS_perf_event_open,
        Survives,
        Box::new(|| [lasting([1 | 112u64 << 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 0, u64::MAX, u64::MAX, 0, 0]),
    );
    add("keyctl", libc::SYS_keyctl, Works, plain([0, -2i64 as u64, 1, 0, 0, 0]));
    add("add_key", libc::SYS_add_key, Works, plain([text(c"user"), text(c"probe"), text(c"x"), 1, -2i64 as u64, 0]));
    add("request_key", libc::SYS_request_key, Survives, plain([text(c"user"), text(c"nsecd-probe"), 0, 0, 0, 0]));
    add("seccomp", libc::SYS_seccomp, Works, Box::new(|| [2, 0, lasting(0x8000_0000u64), 0, 0, 0]));
    add("prctl", libc::SYS_prctl, Works, plain([libc::PR_GET_DUMPABLE as u64, 0, 0, 0, 0, 0]));
    add("setuid", libc::SYS_setuid, Works, plain([0; 6]));
    add("personality", libc::SYS_personality, Works, plain([0xffff_ffff, 0, 0, 0, 0, 0]));
    add("sigaction", libc::SYS_rt_sigaction, Works, plain([libc::SIGUSR1 as u64, 0, 0, 8, 0, 0]));
    // Other doors to the same kernel.
    add("x32 getpid", 0x4000_0000 | libc::SYS_getpid, Survives, plain([0; 6]));
    all.push(Probe { name: "int 0x80 getpid", number: 20, abi: Abi::I386, outside: Survives, args: plain([0; 6]) });
    all
}

/// What process_vm_readv and process_vm_writev reach for: the sibling has it at the same address.
static SHARED: [u64; 1] = [42];
static mut SCRATCH: [u64; 1] = [0];

fn vector_of_static() -> u64 {
    lasting([address(&SHARED), 8])
}

fn vector_of_scratch() -> u64 {
    lasting([&raw const SCRATCH as u64, 8])
}

impl Probe {
    fn end(&self, sandbox: Option<&Sandbox>) -> End {
        probe(sandbox, || Call { abi: self.abi, number: self.number, args: (self.args)() }).unwrap()
    }
}

#[test]
fn each_way_out_ends_the_role_that_tries_it() {
    if untraceable() {
        return;
    }
    let sibling = Sibling::start();
    let starts: &[Option<u32>] = if root() { &[None, Some(ORDINARY)] } else { &[None] };
    for role in ["keyholder", "gate", "ecdh", "broker"] {
        for start_as in starts {
            let mut sandbox = Sandbox { start_as: *start_as, ..sandbox(role) };
            if start_as.is_some() {
                sandbox.become_id = None;
            }
            for probe in probes(sibling.0) {
                let end = probe.end(Some(&sandbox));
                let End::Refused(call) = end else { panic!("{role} {start_as:?}: {}: {end:?}", probe.name) };
                assert_eq!((call.number, call.abi), (probe.number, probe.abi), "{role}: {}", probe.name);
            }
        }
    }
}

#[test]
fn control_outside_a_sandbox_each_of_these_calls_survives_and_as_root_works() {
    if untraceable() {
        return;
    }
    let sibling = Sibling::start();
    for probe in probes(sibling.0) {
        let end = probe.end(None);
        let fine = match (probe.outside, end) {
            (Works, End::Returned(result)) => result >= 0 || !root(),
            (Survives, End::Returned(_)) | (Becomes, End::Exited(0)) => true,
            _ => false,
        };
        assert!(fine, "{}: {end:?}", probe.name);
        println!("{}: {end:?}", probe.name);
    }
}

/// The supervisor's filter, which its roles inherit: what none of them needs to start or to lock itself ends who tries it.
///
/// Checked: with the supervisor's rule for mmap without its check, or with `ptrace` in its policy, this fails.
#[test]
fn what_no_role_needs_ends_the_supervisor_that_tries_it() {
    if untraceable() {
        return;
    }
    // With these arguments; the policy says with which others they are refused.
    const NEEDED: [&str; 15] = [
        "mmap executable",
        "memfd_create",
        "pidfd_open",
        "unshare user",
        "unshare mounts",
        "socket unix",
        "socketpair",
        "connect",
        "bind",
        "sendto an address",
        "sendmsg",
        "openat",
        "openat2",
        "keyctl",
        "sigaction",
    ];
    let sibling = Sibling::start();
    let sandbox = Sandbox { filter: SUPERVISOR, ..sandbox("broker") };
    let mut survived = Vec::new();
    for probe in probes(sibling.0) {
        match probe.end(Some(&sandbox)) {
            End::Refused(call) => assert_eq!((call.number, call.abi), (probe.number, probe.abi), "{}", probe.name),
            End::Returned(_) | End::Exited(_) => survived.push(probe.name),
            end => panic!("{}: {end:?}", probe.name),
        }
    }
    assert_eq!(survived, NEEDED);
}
