//! The broker's start: policy, descriptors, lock, and only then the first byte from an agent.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nsecd_policy::hello::names;
use nsecd_policy::units::counted;
use nsecd_policy::{Policy, Process};
use nsecd_sandbox::lock::{Optional, close_from, descriptor, exit};
use nsecd_sandbox::{args, args::fail, filter, hello::Hello};

use crate::alert::AlertLog;
use crate::clock::{Clock, KeptClock, SystemClock};
use crate::decisions::{DecisionLog, Sized};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::policy::Engine;
use crate::replay::{Found, open, replay};
use crate::row::Row;
use crate::server::{ADMIN_CONNECTIONS, Files, Kept, Server};
use crate::{operator_log, principal, sys};

const CONTROL: i32 = 3;
const POLICY: i32 = 4;
/// What the operator knows it by.
pub(crate) const OWN_NAME: &str = "the broker";
/// The largest policy: far above what a configuration can come to.
pub(crate) const MAX_POLICY: usize = 16 * 1024 * 1024;
/// Exit codes after the lock: the supervisor or a gate is gone, or broke its word.
const PEER_GONE: i32 = 4;

/// Starts from the supervisor's arguments and policy, locks itself, serves until told to end.
pub fn main() -> ! {
    let (mut confinement, _) = args::begin(i32::MAX as u32, filter::BROKER);
    sys::give_back_large_blocks();
    let mut policy = read_policy().unwrap_or_else(|e| fail(args::USAGE, format!("the policy: {e}")));
    // Connections, and room for everything that the policy names, and later ones will.
    let highest = highest_fd(&policy);
    confinement.connections = Some(descriptors(&policy, highest));
    if !close_from(highest as u32 + 1) {
        fail(args::NOT_LOCKED, format!("close_range: {}", std::io::Error::last_os_error()));
    }
    operator_log::start(policy.syslog_fd.map(sys::take));
    let files = take_files(&policy).unwrap_or_else(|e| fail(args::NOT_LOCKED, format!("epoll_create1: {e}")));
    let journal = File::from(sys::take(policy.journal_fd));
    let decisions =
        decision_files(&policy).unwrap_or_else(|e| fail(args::NOT_LOCKED, format!("looking at the decision log: {e}")));
    let with_cgroup = principal::cgroups_are_told()
        .unwrap_or_else(|e| fail(args::NOT_LOCKED, format!("trying whether the kernel tells a peer's cgroup: {e}")));
    if !with_cgroup {
        log::warn!(
            "this kernel does not tell a peer's cgroup (Linux 6.13 does): containers of one uid on one socket are one \
             principal and can use each other's tokens: give each a socket of its own"
        );
    }
    confinement.may(Optional::CgroupIdentity, with_cgroup);
    // Behind the lock these can no longer be asked for.
    let pid = std::process::id() as i32;
    let uid = confinement.ids.map_or_else(|| nix::unistd::geteuid().as_raw(), |(uid, _)| uid);
    confinement.lock().unwrap_or_else(|e| fail(args::NOT_LOCKED, e));
    // Behind the lock: what the journal holds was written by a broker that agents may have talked into anything.
    let missing = names(confinement.missing).map(str::to_owned).collect();
    policy.processes.push(Process { name: OWN_NAME.into(), pid, uid, missing });
    let (engine, journal) = remember(&policy, journal).unwrap_or_else(|e| fail(args::NOT_LOCKED, e));
    let (current, previous) = decisions;
    let decisions = DecisionLog::open(current, previous.as_ref(), &policy, SystemClock.now())
        .unwrap_or_else(|e| fail(args::NOT_LOCKED, format!("reading the decision log: {e}")));
    drop(previous);
    let kept = Kept { journal, decisions };
    let mut server = Server::new(policy, engine, kept, files, KeptClock::new(), with_cgroup)
        .unwrap_or_else(|e| fail(args::NOT_LOCKED, format!("setting up epoll: {e}")));
    let hello = Hello { role: b'B', missing: confinement.missing, public_key: [0; 32] };
    nsecd_pages::drop_clean_pages();
    // The server owns it by now.
    if ManuallyDrop::new(descriptor(CONTROL)).write_all(&hello.encode()).is_err() {
        exit(PEER_GONE);
    }
    let end = server.run();
    if end.is_empty() {
        exit(0);
    }
    log::error!("{end}");
    exit(PEER_GONE)
}

/// What the brokers before this one remembered, and the journal to go on in.
fn remember(policy: &Policy, file: File) -> Result<(Engine, Journal), String> {
    let now = SystemClock.now();
    let mut ledger = Ledger::new(policy);
    let found = replay(&file, policy, &mut ledger, now).map_err(|e| format!("reading the journal: {e}"))?;
    tell(&found, ledger.sessions().count());
    let open = Row::Open(open(policy, now));
    ledger.apply(&open);
    let mut journal = Journal::new(file, &found, &open);
    for row in &found.changed {
        journal.append(row);
    }
    if !journal.is_whole() {
        log::error!("the journal cannot be written, so nothing is signed: free space where it lies");
    }
    Ok((Engine::new(policy.clone(), ledger), journal))
}

fn tell(found: &Found, sessions: usize) {
    let Found { torn, damaged, ended, rebooted, .. } = *found;
    if damaged > 0 {
        log::error!(
            "journal: {} cannot be read: no session before them is trusted; the file is kept aside",
            counted(damaged as u64, "row")
        );
    }
    if torn > 0 {
        log::warn!("journal: the last row of a broker that ended was cut short, and is dropped");
    }
    if ended > 0 {
        log::warn!(
            "journal: {} ended: before damage, or of a socket or account that is no more, or more than is allowed",
            counted(ended as u64, "session")
        );
    }
    if rebooted {
        log::info!("journal: this is another boot: all sessions have ended, what was used still counts");
    } else if sessions > 0 {
        log::info!("journal: {} from before", counted(sessions as u64, "session"));
    }
}

/// Length (u32, big-endian) ‖ JSON, from the policy pipe.
fn read_policy() -> Result<Policy, String> {
    // It stays open for policies to come.
    let mut pipe = ManuallyDrop::new(descriptor(POLICY));
    let mut read = |buffer: &mut [u8]| pipe.read_exact(buffer).map_err(|e| e.to_string());
    let mut length = [0; 4];
    read(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_POLICY {
        return Err(format!("{length} bytes are too many"));
    }
    let mut json = vec![0; length];
    read(&mut json)?;
    serde_json::from_slice(&json).map_err(|e| e.to_string())
}

/// Descriptors that the broker may have: agents cannot take the operator's.
fn descriptors(policy: &Policy, highest: i32) -> u64 {
    (policy.max_connections + ADMIN_CONNECTIONS) as u64 + highest as u64 + 48
}

fn highest_fd(policy: &Policy) -> i32 {
    let sockets = policy.sockets.iter().flat_map(|s| [s.listener_fd, s.alert_fd]);
    let gates = policy.accounts.iter().map(|a| a.gate_fd);
    sockets
        .chain(gates)
        .chain(policy.syslog_fd)
        .chain(policy.ecdh_fd)
        .chain([policy.journal_fd, policy.decisions_fd, policy.admin_fd])
        .chain(policy.decisions_previous_fd)
        .fold(POLICY, i32::max)
}

/// The decision log and the file before it.
fn decision_files(policy: &Policy) -> std::io::Result<(Sized, Option<Sized>)> {
    let open = |fd| Sized::new(File::from(sys::take(fd)));
    Ok((open(policy.decisions_fd)?, policy.decisions_previous_fd.map(open).transpose()?))
}

fn take_files(policy: &Policy) -> nix::Result<Files> {
    let all = |fds: Vec<i32>| -> Vec<OwnedFd> { fds.into_iter().map(sys::take).collect() };
    let alert =
        |s: &nsecd_policy::Socket| AlertLog::new(File::from(sys::take(s.alert_fd)), s.alert_size, policy.log_size);
    Ok(Files {
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        admin_epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        admin: sys::take(policy.admin_fd),
        control: sys::take(CONTROL),
        policy: sys::take(POLICY),
        listeners: all(policy.sockets.iter().map(|s| s.listener_fd).collect()),
        alerts: policy.sockets.iter().map(alert).collect(),
        gates: all(policy.accounts.iter().map(|a| a.gate_fd).collect()),
        ecdh: policy.ecdh_fd.map(sys::take),
    })
}
