//! Waiting for the roles to say that they are locked.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::write;
use nsecd_policy::hello::decode;
use nsecd_sandbox::hello::{self, Hello};

use crate::fault::Fault;
use crate::signals::Signals;
use crate::spawn::{Child, End};

/// Longest time that gates and broker may take; a lock takes a millisecond.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that a holder may take: whoever writes its key may have to ask somebody for a passphrase.
pub const KEY_PATIENCE: Duration = Duration::from_secs(60);

/// How long a role that has closed its sockets may take to be seen dead.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// Why there is no service.
pub enum NotReady {
    /// The operator asked nsecd to stop meanwhile.
    Stopped,
    /// It failed.
    Failed(Fault),
}

impl From<Fault> for NotReady {
    fn from(fault: Fault) -> NotReady {
        NotReady::Failed(fault)
    }
}

/// A role that is starting.
pub struct Expected<'a> {
    /// Its process.
    pub child: &'a mut Child,
    /// Where its hello arrives, a sequenced-packet socket.
    pub channel: &'a OwnedFd,
    /// The letter it must call itself.
    pub role: u8,
}

/// Bytes to hand over meanwhile, e.g. a policy that is larger than its pipe.
pub struct Handover<'a> {
    /// Non-blocking write end.
    pub pipe: &'a OwnedFd,
    /// What is left to write.
    pub rest: &'a [u8],
}

/// Waits for each role's hello, in any order; returns them in the order of `roles`.
///
/// # Errors
/// A role ended, sent something else, or said nothing in time.
pub fn hellos(
    roles: &mut [Expected],
    mut handover: Option<Handover>,
    signals: &Signals,
    patience: Duration,
) -> Result<Vec<Hello>, NotReady> {
    let until = Instant::now() + patience;
    let mut hellos: Vec<Option<Hello>> = vec![None; roles.len()];
    while hellos.contains(&None) || handover.as_ref().is_some_and(|h| !h.rest.is_empty()) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let late = roles.iter().zip(&hellos).find(|(_, h)| h.is_none());
            let name = late.map_or("the broker", |(role, _)| role.child.name());
            let advice = match late {
                Some((role, _)) if role.role == b'K' => ": a key source that is a pipe must be closed by who writes it",
                _ => "",
            };
            return Err(Fault::new(format!("{name} was not ready after {} s{advice}", patience.as_secs())).into());
        }
        wait(roles, &hellos, handover.as_ref(), signals, left);
        if signals.stop_asked() {
            return Err(NotReady::Stopped);
        }
        if let Some(handover) = &mut handover {
            // A broker that is gone is noticed below.
            if let Ok(n) = write(handover.pipe, handover.rest) {
                handover.rest = &handover.rest[n..];
            }
        }
        for (role, hello) in roles.iter_mut().zip(&mut hellos) {
            if hello.is_none() {
                *hello = receive(role)?;
            }
        }
        if let Some(why) = death(roles) {
            return Err(why.into());
        }
    }
    Ok(hellos.into_iter().flatten().collect())
}

fn wait(roles: &[Expected], hellos: &[Option<Hello>], handover: Option<&Handover>, signals: &Signals, left: Duration) {
    let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    for (role, hello) in roles.iter().zip(hellos) {
        fds.push(PollFd::new(role.child.as_fd(), PollFlags::POLLIN));
        if hello.is_none() {
            fds.push(PollFd::new(role.channel.as_fd(), PollFlags::POLLIN));
        }
    }
    if let Some(handover) = handover.filter(|h| !h.rest.is_empty()) {
        fds.push(PollFd::new(handover.pipe.as_fd(), PollFlags::POLLOUT));
    }
    let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut fds, timeout);
}

/// The role's hello, if it has arrived. A descriptor sent along is dropped by the kernel: recv(2) takes none.
fn receive(role: &Expected) -> Result<Option<Hello>, Fault> {
    // One byte more than a hello: a longer packet must not pass for one.
    let mut frame = [0; hello::LEN + 1];
    match recv(role.channel.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
        Err(Errno::EAGAIN) => Ok(None),
        // Its end is closed: how it ended is told by its process.
        Ok(0) | Err(_) => Ok(None),
        Ok(n) => match decode(&frame[..n]) {
            Some(hello) if hello.role == role.role => Ok(Some(hello)),
            _ => Err(Fault::new(format!(
                "{} did not introduce itself as this version's: install all binaries from one build",
                role.child.name()
            ))),
        },
    }
}

/// Why a role has ended, if one has. A broker ends when its gate does, and may be seen first: gates, which come after it,
/// are asked before it.
fn death(roles: &mut [Expected]) -> Option<Fault> {
    roles.iter_mut().find_map(|role| role.child.ended())?;
    roles.iter_mut().rev().find_map(|role| role.child.wait(LAST_WORDS).map(|end| died(role.child, end)))
}

/// What the operator should look at, by the exit codes that the roles document.
fn died(child: &Child, end: End) -> Fault {
    let advice = match end {
        End::Code(64) => "its binary is of another version or build: install all from one",
        End::Code(65) => "its source holds no valid key: an nsec1…, 64 hex digits or 32 raw bytes are expected",
        End::Code(66) => "the key could not be read from its source; --ephemeral tries nsecd on a throw-away key",
        End::Code(70) => "a mandatory step of its confinement failed",
        _ => "see what it printed",
    };
    let fault = Fault::new(format!("{} ended before it was ready ({end}): {advice}", child.name()));
    if matches!(end, End::Code(65 | 66)) { fault.for_want_of_a_key() } else { fault }
}
