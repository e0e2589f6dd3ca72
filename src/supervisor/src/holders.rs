//! Starting the key-holders: one for each account, for as long as nsecd runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::config::Config;
use crate::fault::{Fault, OrFault};
use crate::images::Images;
use crate::keysource::KeySource;
use crate::ready::{Expected, KEY_PATIENCE, NotReady, hellos};
use crate::signals::Signals;
use crate::spawn::{Child, Start};
use crate::uids::Roles;

/// How long a key-holder may take to notice that its last gate is gone.
const FAREWELL: Duration = Duration::from_millis(500);

/// A locked key-holder.
pub struct Holder {
    /// Its process.
    pub child: Child,
    /// The gate's end of the pair to it; every gate of the account gets a duplicate.
    pub channel: OwnedFd,
    /// x-only public key (BIP-340), lower-case hex.
    pub public_key: String,
    /// Optional steps of its lock that are missing (`nsecd_sandbox::lock::names`).
    pub missing: u64,
}

/// What every role gets as descriptors 0 and 1, and as 2.
pub struct Standard {
    /// /dev/null, for reading and writing.
    pub null: OwnedFd,
    /// The supervisor's stderr.
    pub stderr: OwnedFd,
}

impl Standard {
    /// Opens /dev/null and duplicates stderr.
    pub fn open() -> Result<Standard, Fault> {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
        let stderr = std::io::stderr().as_fd().try_clone_to_owned();
        Ok(Standard {
            null: null.or_fault(|| "opening /dev/null".into())?.into(),
            stderr: stderr.or_fault(|| "duplicating stderr".into())?,
        })
    }

    /// Descriptors 0, 1 and 2, with /dev/null as standard input.
    pub fn triple(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.null.as_fd(), self.null.as_fd(), self.stderr.as_fd()]
    }
}

/// A pair of sequenced-packet sockets.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd), Fault> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .or_fault(|| "making a socket pair".into())
}

/// Starts a key-holder on each source, waits until all are locked, and closes the sources.
///
/// # Errors
/// One could not start; two accounts hold the same key.
pub fn start(
    config: &Config,
    sources: Vec<KeySource>,
    images: &Images,
    ids: &Roles,
    standard: &Standard,
    signals: &Signals,
) -> Result<Vec<Holder>, NotReady> {
    let flag = |on: bool| if on { "1".to_owned() } else { "0".to_owned() };
    let mut started = Vec::new();
    for ((account, source), ids) in config.accounts.iter().zip(&sources).zip(&ids.holders) {
        let (channel, theirs) = packet_pair()?;
        let mut fds = standard.triple();
        if let KeySource::Descriptor(fd) = source {
            fds[0] = fd.as_fd();
        }
        fds.push(theirs.as_fd());
        let mut arguments = vec![flag(config.holder.require_secretmem), flag(account.consume)];
        arguments.extend(source.arguments());
        let child = Child::start(Start {
            name: format!("the key-holder of account {}", account.name),
            program: "nsecd-keyholder",
            image: images.holder.as_fd(),
            ids: *ids,
            arguments,
            fds,
        })?;
        started.push((child, channel));
    }
    drop(sources);
    let mut expected: Vec<Expected> =
        started.iter_mut().map(|(child, channel)| Expected { child, channel, role: b'K' }).collect();
    let hellos = hellos(&mut expected, None, signals, KEY_PATIENCE)?;
    let holders: Vec<Holder> = started
        .into_iter()
        .zip(hellos)
        .map(|((child, channel), hello)| Holder {
            child,
            channel,
            public_key: hello.public_key.iter().map(|b| format!("{b:02x}")).collect(),
            missing: hello.missing,
        })
        .collect();
    refuse_same_key(&holders)?;
    Ok(holders)
}

/// Each account has its own ceiling and record: one key in two accounts would have twice its ceiling.
fn refuse_same_key(holders: &[Holder]) -> Result<(), Fault> {
    for (i, holder) in holders.iter().enumerate() {
        if let Some(same) = holders[..i].iter().find(|h| h.public_key == holder.public_key) {
            return Err(Fault::new(format!(
                "{} and {} hold the same key ({}): one key is one account",
                same.child.name(),
                holder.child.name(),
                holder.public_key
            )));
        }
    }
    Ok(())
}

/// Ends the key-holders: their gates are gone, so closing our ends lets them leave by themselves.
pub fn stop(holders: Vec<Holder>) {
    let mut children = Vec::new();
    for Holder { child, channel, .. } in holders {
        drop(channel);
        children.push(child);
    }
    for mut child in children {
        child.wait(FAREWELL);
    }
}
