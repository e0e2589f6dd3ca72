//! Starting the holders of keys, for as long as nsecd runs: one key-holder for each account, and the default account's
//! ECDH holder where a socket offers encryption.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::config::{Account, Config};
use crate::fault::{Fault, OrFault};
use crate::freeze::Freeze;
use crate::images::Images;
use crate::keysource::KeySource;
use crate::page::Busy;
use crate::ready::{Expected, KEY_PATIENCE, NotReady, hellos};
use crate::record::Record;
use crate::setup::State;
use crate::signals::Signals;
use crate::spawn::{Child, Start};
use crate::uids::{Ids, Roles};

/// How long a holder may take to notice that nobody is left to ask it.
const FAREWELL: Duration = Duration::from_millis(500);

/// A locked holder of a key.
pub struct Holder {
    /// Its process.
    pub child: Child,
    /// The asking end of the pair to it: every gate of the account gets a duplicate, or, of the ECDH holder's, every broker.
    pub channel: OwnedFd,
    /// x-only public key (BIP-340), lower-case hex.
    pub public_key: String,
    /// Optional steps of its lock that are missing (`nsecd_policy::hello::names`).
    pub missing: u64,
    /// Of an ECDH holder: whether it is using the key. Of a key-holder its gate tells.
    pub busy: Option<Busy>,
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

/// Sets O_NONBLOCK on a descriptor and all its duplicates.
pub fn set_nonblocking(fd: &OwnedFd) -> Result<(), Fault> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop).or_fault(|| "setting O_NONBLOCK".into())
}

/// A yes or no among a role's arguments.
pub fn flag(on: bool) -> String {
    u8::from(on).to_string()
}

/// What every holder is started with.
pub struct Means<'a> {
    /// What the operator configured.
    pub config: &'a Config,
    /// The role binaries.
    pub images: &'a Images,
    /// The roles' uids.
    pub ids: &'a Roles,
    /// Descriptors 0 to 2.
    pub standard: &'a Standard,
    /// SIGTERM and the like.
    pub signals: &'a Signals,
}

impl Means<'_> {
    /// Descriptors 0 to 2 of a holder that reads its key from this source.
    fn triple<'a>(&'a self, source: &'a KeySource) -> Vec<BorrowedFd<'a>> {
        let mut fds = self.standard.triple();
        if let KeySource::Descriptor(fd) = source {
            fds[0] = fd.as_fd();
        }
        fds
    }

    /// A holder's last arguments, as `nsecd_vault` reads them.
    fn key_arguments(&self, source: &KeySource) -> Vec<String> {
        let mut arguments = vec![flag(self.config.holder.require_secretmem)];
        arguments.extend(source.arguments());
        arguments
    }
}

/// Whose key-holder is to be started: its account, its ids, its key.
pub type Keyed<'a> = (&'a Account, Option<Ids>, KeySource);

/// Starts a key-holder for each, waits until all are locked, and closes the sources.
///
/// # Errors
/// One could not start; two accounts hold the same key.
pub fn start(means: &Means, keyed: Vec<Keyed>, patience: Duration) -> Result<Vec<Holder>, NotReady> {
    let mut started = Vec::new();
    let Means { images, signals, .. } = means;
    for (account, ids, source) in &keyed {
        let (channel, theirs) = packet_pair()?;
        let mut fds = means.triple(source);
        fds.push(theirs.as_fd());
        let child = Child::start(Start {
            name: format!("the key-holder of account {}", account.name),
            program: "nsecd-keyholder",
            image: images.holder.as_fd(),
            ids: *ids,
            arguments: means.key_arguments(source),
            fds,
        })?;
        started.push((child, channel));
    }
    drop(keyed);
    let mut expected: Vec<Expected> =
        started.iter_mut().map(|(child, channel)| Expected { child, channel, role: b'K' }).collect();
    let hellos = hellos(&mut expected, None, signals, patience)?;
    let holders: Vec<Holder> = started
        .into_iter()
        .zip(hellos)
        .map(|((child, channel), hello)| Holder {
            child,
            channel,
            public_key: hex(&hello.public_key),
            missing: hello.missing,
            busy: None,
        })
        .collect();
    refuse_same_key(&holders.iter().collect::<Vec<_>>())?;
    Ok(holders)
}

/// Starts the default account's ECDH holder, if one is configured, on its key source opened a second time; `record` is what
/// it continues. Only once that account's key-holder, the `first` of all, is locked; beside it whether the account is frozen.
///
/// # Errors
/// It could not start, or holds another key.
pub fn start_ecdh(
    means: &Means,
    source: Option<KeySource>,
    record: Option<&Record>,
    state: &State,
    first: Option<(&Holder, &Freeze)>,
) -> Result<Option<Holder>, NotReady> {
    let Means { config, images, ids, signals, .. } = means;
    let (account, image) = (config.accounts.first(), &images.ecdh);
    let (Some(ecdh), Some(account), Some(image)) = (&config.ecdh, account, image) else { return Ok(None) };
    let (Some(source), Some(record), Some((first, freeze))) = (source, record, first) else { return Ok(None) };
    let (channel, theirs) = packet_pair()?;
    set_nonblocking(&channel)?;
    let (hello_end, hello_theirs) = packet_pair()?;
    let mut fds = means.triple(&source);
    let busy = Busy::new()?;
    fds.extend([theirs.as_fd(), hello_theirs.as_fd(), record.file().as_fd()]);
    fds.extend([freeze.page().as_fd(), busy.as_fd()]);
    let ops: Vec<String> = ecdh.ops.iter().map(u8::to_string).collect();
    let peers = ecdh.peers.as_ref().map_or("any".into(), |peers| peers.join(","));
    let [ceiling, position] = record.arguments(state, config, &[account.ecdh_ceiling])?;
    let mut arguments = vec![ops.join(","), peers, ceiling, position];
    arguments.extend(means.key_arguments(&source));
    let mut child = Child::start(Start {
        name: format!("the ECDH holder of account {}", account.name),
        program: "nsecd-ecdh",
        image: image.as_fd(),
        ids: ids.ecdh,
        arguments,
        fds,
    })?;
    drop(source);
    let mut expected = [Expected { child: &mut child, channel: &hello_end, role: b'E' }];
    let hellos = hellos(&mut expected, None, signals, KEY_PATIENCE)?;
    let (public_key, missing) = hellos.first().map(|h| (hex(&h.public_key), h.missing)).unwrap_or_default();
    if public_key != first.public_key {
        return Err(Fault::new(format!(
            "{} loaded a key ({}), {} another ({public_key}): the source changed meanwhile; start nsecd again",
            first.child.name(),
            first.public_key,
            child.name()
        ))
        .into());
    }
    Ok(Some(Holder { child, channel, public_key, missing, busy: Some(busy) }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Each account has its own ceiling and record: one key in two accounts would have twice its ceiling.
pub fn refuse_same_key(holders: &[&Holder]) -> Result<(), Fault> {
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

/// Ends the holders: gates and broker are gone, so closing our ends lets them leave by themselves.
pub fn stop(holders: impl IntoIterator<Item = Holder>) {
    let mut children = Vec::new();
    for Holder { child, channel, .. } in holders {
        drop(channel);
        children.push(child);
    }
    for mut child in children {
        child.wait(FAREWELL);
    }
}
