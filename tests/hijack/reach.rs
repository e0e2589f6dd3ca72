//! B4: what a hijacked broker reaches for beyond its descriptors: the other roles, files, the network, and the pairs that it shares
//! with its neighbours. Each attempt is made in a life of its own, and ends it.
//!
//! Control: the same attempts by a broker without a sandbox, its own or its supervisor's, on a bystander that is an ordinary process of its user, all succeed.
//!
//! Checked: with the sandbox's filter not installed, with `close` allowed for descriptor 3 too, or with holders and gate left dumpable (by
//! the lock and after the user namespace: either suffices), tests of this file fail.

use super::puppet::Hand;
use super::{hijacked, starters, untouchable};
use crate::support::{Nsecd, process, sys};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::collections::BTreeMap;
use std::fs;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the call came back with, if the broker survived it.
type Outcome = Option<i64>;

/// What an attempt is made on.
struct Target {
    pid: u64,
    /// An address that is mapped there.
    address: u64,
    /// Files of nsecd's.
    record: PathBuf,
    journal: PathBuf,
    config: PathBuf,
    key: PathBuf,
    /// The agent socket.
    socket: PathBuf,
}

impl Target {
    fn new(nsecd: &Nsecd, pid: i32) -> Target {
        let state = nsecd.dir.join("state");
        Target {
            pid: pid as u64,
            address: writable(pid).unwrap_or_default(),
            record: state.join("default.record"),
            journal: state.join("journal"),
            config: nsecd.dir.join("nsecd.toml"),
            key: nsecd.dir.join("credentials/nsec"),
            socket: nsecd.socket.clone(),
        }
    }
}

/// The first address that a process may write to; `None` where we may not know.
fn writable(pid: i32) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let line = maps.lines().find(|line| line.contains(" rw"))?;
    u64::from_str_radix(line.split('-').next()?, 16).ok()
}

/// An attempt on another process.
type OnProcess = fn(&mut Hand, &Target) -> Outcome;

const PROCESSES: [(&str, OnProcess); 15] = [
    ("ptrace", |hand, target| hand.call(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), target.pid, 0, 0, 0, 0], b"")),
    ("process_vm_readv", |hand, target| remote(hand, libc::SYS_process_vm_readv, target)),
    ("process_vm_writev", |hand, target| remote(hand, libc::SYS_process_vm_writev, target)),
    ("pidfd_getfd", |hand, target| {
        let pidfd = hand.call(libc::SYS_pidfd_open, [target.pid, 0, 0, 0, 0, 0], b"")?;
        hand.call(libc::SYS_pidfd_getfd, [pidfd as u64, 0, 0, 0, 0, 0], b"")
    }),
    ("open mem", |hand, target| open(hand, format!("/proc/{}/mem", target.pid), libc::O_RDONLY)),
    ("open environ", |hand, target| open(hand, format!("/proc/{}/environ", target.pid), libc::O_RDONLY)),
    ("open maps", |hand, target| open(hand, format!("/proc/{}/maps", target.pid), libc::O_RDONLY)),
    ("open fd", |hand, target| open(hand, format!("/proc/{}/fd", target.pid), libc::O_RDONLY)),
    ("open root", |hand, target| open(hand, format!("/proc/{}/root", target.pid), libc::O_RDONLY)),
    ("kill", |hand, target| hand.call(libc::SYS_kill, [target.pid, libc::SIGCONT as u64, 0, 0, 0, 0], b"")),
    ("tgkill", |hand, target| {
        hand.call(libc::SYS_tgkill, [target.pid, target.pid, libc::SIGCONT as u64, 0, 0, 0], b"")
    }),
    ("pidfd_send_signal", |hand, target| {
        let pidfd = hand.call(libc::SYS_pidfd_open, [target.pid, 0, 0, 0, 0, 0], b"")?;
        hand.call(libc::SYS_pidfd_send_signal, [pidfd as u64, libc::SIGCONT as u64, 0, 0, 0, 0], b"")
    }),
    ("prlimit64", |hand, target| hand.call(libc::SYS_prlimit64, [target.pid, 4, 0, hand.output(), 0, 0], b"")),
    ("sched_setaffinity", |hand, target| {
        hand.call(libc::SYS_sched_setaffinity, [target.pid, 8, hand.input(), 0, 0, 0], &[0xff; 8])
    }),
    ("kcmp", |hand, target| hand.call(libc::SYS_kcmp, [target.pid, target.pid, 1, 0, 0, 0], b"")),
];

/// One byte of the process's memory, there or back.
fn remote(hand: &mut Hand, number: i64, target: &Target) -> Outcome {
    let vectors = words(&[hand.output(), 1, target.address, 1]);
    hand.call(number, [target.pid, hand.input(), 1, hand.input() + 16, 1, 0], &vectors)
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn open(hand: &mut Hand, path: impl AsRef<Path>, flags: i32) -> Outcome {
    let text = [path.as_ref().to_str().unwrap().as_bytes(), b"\0"].concat();
    hand.call(libc::SYS_openat, [libc::AT_FDCWD as u64, hand.input(), flags as u64, 0, 0, 0], &text)
}

fn on_path(hand: &mut Hand, number: i64, path: &Path, second: u64) -> Outcome {
    let text = [path.to_str().unwrap().as_bytes(), b"\0"].concat();
    hand.call(number, [hand.input(), second, 0, 0, 0, 0], &text)
}

/// A message with the descriptor of stderr, over this one: SCM_RIGHTS.
fn pass(hand: &mut Hand, over: u64) -> Outcome {
    let base = hand.input();
    // struct msghdr, struct iovec, struct cmsghdr with one descriptor, and a byte.
    let bytes = words(&[0, 0, base + 56, 1, base + 72, 24, 0, base + 96, 1, 20, 1 | 1 << 32, 2]);
    hand.call(libc::SYS_sendmsg, [over, base, libc::MSG_DONTWAIT as u64, 0, 0, 0], &bytes)
}

fn gate(hand: &Hand) -> u64 {
    hand.fd("/accounts/0/gate_fd")
}

fn ecdh(hand: &Hand) -> u64 {
    hand.fd("/ecdh_fd")
}

fn journal(hand: &Hand) -> u64 {
    hand.fd("/journal_fd")
}

fn socket(hand: &mut Hand, family: i32, kind: i32) -> Outcome {
    hand.call(libc::SYS_socket, [family as u64, kind as u64, 0, 0, 0, 0], b"")
}

/// 127.0.0.1, port 9, as struct sockaddr_in.
const DISCARD: [u8; 16] = [2, 0, 0, 9, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

/// An attempt on everything else. Those that harm a neighbour come last.
const OTHERS: [(&str, OnProcess); 35] = [
    ("reads the key's source", |hand, target| open(hand, &target.key, libc::O_RDONLY)),
    ("reads the configuration", |hand, target| open(hand, &target.config, libc::O_RDONLY)),
    ("rewrites the configuration", |hand, target| open(hand, &target.config, libc::O_RDWR)),
    ("reads the record", |hand, target| open(hand, &target.record, libc::O_RDONLY)),
    ("rewrites the record", |hand, target| open(hand, &target.record, libc::O_RDWR)),
    ("rewrites the journal", |hand, target| open(hand, &target.journal, libc::O_RDWR)),
    ("makes a file", |hand, target| open(hand, target.record.with_file_name("made"), libc::O_RDWR | libc::O_CREAT)),
    ("removes a file", |hand, target| on_path(hand, libc::SYS_unlink, &target.record.with_file_name("made"), 0)),
    ("cuts a file", |hand, target| on_path(hand, libc::SYS_truncate, &target.journal, 0)),
    ("changes a mode", |hand, target| on_path(hand, libc::SYS_chmod, &target.journal, 0o600)),
    ("rewrites its own journal", |hand, _| {
        hand.call(libc::SYS_pwrite64, [journal(hand), hand.input(), 1, 0, 0, 0], b"x")
    }),
    ("cuts its own journal", |hand, _| hand.call(libc::SYS_ftruncate, [journal(hand), 0, 0, 0, 0, 0], b"")),
    ("takes the disk's space for it", |hand, _| hand.call(libc::SYS_fallocate, [journal(hand), 0, 0, 4096, 0, 0], b"")),
    ("maps its own journal", |hand, _| {
        hand.call(libc::SYS_mmap, [0, 4096, 1, libc::MAP_SHARED as u64, journal(hand), 0], b"")
    }),
    ("makes an internet socket", |hand, _| socket(hand, libc::AF_INET, libc::SOCK_STREAM)),
    ("makes a Unix socket", |hand, _| socket(hand, libc::AF_UNIX, libc::SOCK_STREAM)),
    ("connects", |hand, _| {
        let socket = socket(hand, libc::AF_INET, libc::SOCK_DGRAM)?;
        hand.call(libc::SYS_connect, [socket as u64, hand.input(), 16, 0, 0, 0], &DISCARD)
    }),
    ("sends to an address", |hand, _| {
        let socket = socket(hand, libc::AF_INET, libc::SOCK_DGRAM)?;
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u64;
        hand.call(libc::SYS_sendto, [socket as u64, hand.input(), 1, flags, hand.input(), 16], &DISCARD)
    }),
    ("listens for others", |hand, _| {
        hand.call(libc::SYS_listen, [hand.fd("/sockets/0/listener_fd"), 1, 0, 0, 0, 0], b"")
    }),
    ("maps code", |hand, _| {
        hand.call(libc::SYS_mmap, [0, 4096, 5, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64, u64::MAX, 0], b"")
    }),
    ("makes itself dumpable", |hand, _| hand.call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0], b"")),
    ("searches the user's keys", |hand, _| hand.call(libc::SYS_keyctl, [0, -4i64 as u64, 1, 0, 0, 0], b"")),
    ("duplicates a descriptor", |hand, _| hand.call(libc::SYS_dup, [3, 0, 0, 0, 0, 0], b"")),
    ("passes a descriptor to the gate", |hand, _| pass(hand, gate(hand))),
    ("passes a descriptor to the ECDH holder", |hand, _| pass(hand, ecdh(hand))),
    ("passes a descriptor to the supervisor", |hand, _| pass(hand, 3)),
    ("lets the gate's pair block", |hand, _| hand.call(libc::SYS_fcntl, [gate(hand), 4, 0, 0, 0, 0], b"")),
    ("lets the ECDH holder's pair block", |hand, _| {
        hand.call(libc::SYS_fcntl, [ecdh(hand), libc::F_SETFL as u64, libc::O_NONBLOCK as u64, 0, 0, 0], b"")
    }),
    ("has signals sent", |hand, _| hand.call(libc::SYS_fcntl, [ecdh(hand), libc::F_GETOWN as u64, 0, 0, 0, 0], b"")),
    ("narrows the ECDH holder's pair", |hand, _| {
        let option = [ecdh(hand), libc::SOL_SOCKET as u64, libc::SO_SNDBUF as u64, hand.input(), 4, 0];
        hand.call(libc::SYS_setsockopt, option, &[0, 0, 4, 0])
    }),
    ("receives from a gate as from the supervisor", |hand, _| {
        let message = [0; 56];
        let flags = (libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) as u64;
        match hand.call(libc::SYS_recvmsg, [gate(hand), hand.input(), flags, 0, 0, 0], &message)? {
            // Nothing to receive is what is to be expected.
            n if n == -i64::from(libc::EAGAIN) => Some(0),
            n => Some(n),
        }
    }),
    ("types into a terminal", |hand, _| {
        match hand.call(libc::SYS_ioctl, [2, libc::TIOCSTI, hand.input(), 0, 0, 0], b"x")? {
            n if n == -i64::from(libc::ENOTTY) => Some(0),
            n => Some(n),
        }
    }),
    ("shuts the gate's pair down", |hand, _| hand.call(libc::SYS_shutdown, [gate(hand), 2, 0, 0, 0, 0], b"")),
    ("shuts the supervisor's pair down", |hand, _| hand.call(libc::SYS_shutdown, [3, 0, 0, 0, 0, 0], b"")),
    ("takes an agent's descriptor", takes_an_agents_descriptor),
];

/// Puts an agent's connection in the place of the supervisor's, and takes the descriptor that the agent passes: what a hijacked
/// broker and an agent could open between them otherwise.
fn takes_an_agents_descriptor(hand: &mut Hand, target: &Target) -> Outcome {
    hand.call(libc::SYS_close, [3, 0, 0, 0, 0, 0], b"")?;
    let flags = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;
    let listener = hand.fd("/sockets/0/listener_fd");
    // Lower numbers are free as well: standard input's, for one.
    let mut agents = Vec::new();
    while {
        let agent = UnixStream::connect(&target.socket).unwrap();
        let passed = [agent.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&passed)];
        sendmsg::<()>(agent.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
        agents.push(agent);
        hand.call(libc::SYS_accept4, [listener, 0, 0, flags, 0, 0], b"")? < 3
    } {}
    // struct msghdr, struct iovec; the control message goes where it can be read.
    let (base, out) = (hand.input(), hand.output());
    let message = words(&[0, 0, base + 56, 1, out, 24, 0, base + 72, 1, 0]);
    let flags = (libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) as u64;
    let (result, _, control) = hand.repeat(1, libc::SYS_recvmsg, [3, base, flags, 0, 0, 0], &message, 24)?;
    assert_eq!((result, control[0]), (1, 20), "a byte and a descriptor");
    Some(i64::from(control[16]))
}

/// An ordinary process of nsecd's user, without root's capabilities.
struct Bystander(Child);

impl Bystander {
    fn start(uid: Option<u32>) -> Bystander {
        let mut command = Command::new("cat");
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        sys::without_capabilities(&mut command);
        sys::die_with_us(&mut command);
        Bystander(command.spawn().unwrap())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What no broker may change: content by path.
fn files(nsecd: &Nsecd) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut paths = nsecd.files_in_state("default.");
    paths.extend(["nsecd.toml", "credentials/nsec"].map(|name| nsecd.dir.join(name)));
    assert_eq!(paths.len(), 4, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// On whom an attempt is made, found while the broker lives, since a gate does not outlive it; a role once it is locked.
fn target(nsecd: &Nsecd, who: &str, bystander: &Bystander) -> Target {
    while who == "nsecd-gate" && process::status(nsecd.role(who))["Seccomp"] != "2" {
        std::thread::yield_now();
    }
    Target::new(
        nsecd,
        match who {
            "bystander" => bystander.0.id() as i32,
            "nsecd" => nsecd.pid(),
            role => nsecd.role(role),
        },
    )
}

const SIBLINGS: [&str; 4] = ["nsecd", "nsecd-keyholder", "nsecd-ecdh", "nsecd-gate"];

#[test]
fn whatever_a_hijacked_broker_reaches_for_ends_it_and_nobody_else() {
    for uid in starters() {
        let nsecd = hijacked(uid, "20, 10/s").start();
        let (before, others) = (files(&nsecd), untouchable(&nsecd));
        let bystander = Bystander::start(uid);
        let all: Vec<_> = PROCESSES.iter().chain(&OTHERS).collect();
        let refused = || nsecd.stderr().matches("the broker died (SIGSYS").count();
        for ((name, attempt), who) in all.iter().zip(SIBLINGS.iter().cycle()) {
            // Where the supervisor sees the closed pair long before the death, it says only that. Then once more.
            let tries = (0..20).position(|_| {
                let mut hand = Hand::on(&nsecd);
                let before = refused();
                hand.served();
                let target = target(&nsecd, who, &bystander);
                assert_eq!(attempt(&mut hand, &target), None, "{name} {who}, started by {uid:?}");
                hand.ended();
                drop(Hand::on(&nsecd));
                refused() > before
            });
            assert!(tries.is_some(), "{name} {who}, started by {uid:?}: not ended by the filter");
        }
        assert_eq!((files(&nsecd), untouchable(&nsecd)), (before, others));
    }
}

/// What each comes back with where the broker has no sandbox.
fn unlocked(uid: Option<u32>, attempts: &[(&str, OnProcess, &str)]) -> Vec<i64> {
    let setup = hijacked(uid, "20, 10/s");
    setup.dir.file("bin/unlocked", 0o644, None, b"");
    let nsecd = setup.with_an_unlocked_supervisor().start();
    let others = untouchable(&nsecd);
    let bystander = Bystander::start(uid);
    let outcome = |(name, attempt, who): &(&str, OnProcess, &str)| {
        // Whoever shuts the gate's pair down may be ended by the supervisor before it has told. Then once more.
        let told = (0..20).find_map(|_| {
            let mut hand = Hand::on(&nsecd);
            hand.served();
            let target = target(&nsecd, who, &bystander);
            let outcome = attempt(&mut hand, &target);
            if outcome.is_some() {
                hand.call(libc::SYS_exit_group, [0; 6], b"");
            }
            hand.ended();
            outcome
        });
        told.unwrap_or_else(|| panic!("{name} {who}: it died each time"))
    };
    let outcomes = attempts.iter().map(outcome).collect();
    drop(Hand::on(&nsecd));
    assert_eq!(untouchable(&nsecd), others);
    outcomes
}

#[test]
fn control_without_its_sandbox_the_same_attempts_succeed() {
    for uid in starters() {
        let all: Vec<_> =
            PROCESSES.iter().chain(&OTHERS).map(|(name, attempt)| (*name, *attempt, "bystander")).collect();
        for ((name, ..), outcome) in all.iter().zip(unlocked(uid, &all)) {
            assert!(outcome >= 0, "{name}, started by {uid:?}: {outcome}");
        }
    }
}

/// That the roles are non-dumpable is a second defence, and the only other one where all have the same uid. From signals
/// only the filter keeps a broker, as the same user or with what root's supervisor keeps (CAP_KILL).
#[test]
fn without_its_sandbox_too_it_reads_and_traces_no_other_role_and_can_only_signal_it() {
    let memory = ["ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "open mem"];
    let signals = ["kill", "pidfd_send_signal"];
    for uid in starters() {
        let of = |(name, attempt): &(&'static str, OnProcess)| {
            let named = memory.contains(name) || signals.contains(name);
            named.then(|| SIBLINGS.map(|who| (*name, *attempt, who)))
        };
        let all: Vec<_> = PROCESSES.iter().filter_map(of).flatten().collect();
        for ((name, _, who), outcome) in all.iter().zip(unlocked(uid, &all)) {
            let refused = [-libc::EPERM, -libc::EACCES].contains(&(outcome as i32));
            assert_eq!(
                (refused, outcome == 0),
                (memory.contains(name), signals.contains(name)),
                "{name} {who} {uid:?}: {outcome}"
            );
        }
    }
}
