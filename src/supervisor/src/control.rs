//! The operator's control socket: fixed frames of root's or nsecd's own user's, from the admin directory.
//!
//! No agent's byte arrives here. Must never wait for a peer, hold more than a few connections, or keep the supervisor from its
//! children, whatever a peer does.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{MsgFlags, getsockopt, recv, send as send_bytes};
use nix::sys::stat::fstat;
use nix::unistd::geteuid;
use nsecd_policy::operator::{REQUEST, Reply, Request, SOCKET, Status};

use crate::fault::{Fault, OrFault};
use crate::listeners::{Access, Listener};
use crate::securefs::Dir;
use crate::sys;

/// Connections held; of more the one that has been silent for longest gives way.
const MOST: usize = 8;
/// Connections taken before the supervisor looks after its children again.
const AT_ONCE: usize = 16;
/// How long a peer may take to send its frame.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody is accepted after the kernel could not.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a stranger is logged.
const TOLD: Duration = Duration::from_secs(10);
/// What unmapped uids look like (user_namespaces(7)): nobody in particular.
const UNMAPPED: u32 = 65534;

/// The socket and who is connected.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Listener,
    connections: Vec<Connection>,
    next: u64,
    paused: Option<Instant>,
    told: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    stream: OwnedFd,
    uid: u32,
    since: Instant,
    /// One byte more than a request: a longer one must not pass for it.
    frame: [u8; REQUEST + 1],
    got: usize,
    /// Its request is known, and not yet answered.
    asked: bool,
}

/// A request, and whose it is.
pub struct Asked {
    /// For [`ControlSocket::answer`].
    pub connection: u64,
    /// The peer's uid when it connected.
    pub uid: u32,
    /// What is to be done.
    pub request: Request,
}

impl ControlSocket {
    /// Binds the socket in the admin directory.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn open(admin: &AdminDir) -> Result<ControlSocket, Fault> {
        let listener = bind(admin, SOCKET)?;
        Ok(ControlSocket { listener, connections: Vec::new(), next: 0, paused: None, told: None })
    }

    /// What to wait for.
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = self.accepts().then(|| PollFd::new(self.listener.fd.as_fd(), PollFlags::POLLIN));
        let silent = self.connections.iter().filter(|c| !c.asked);
        listener.into_iter().chain(silent.map(|c| PollFd::new(c.stream.as_fd(), PollFlags::POLLIN)))
    }

    /// When to look again though nothing has come.
    pub fn due(&self) -> Option<Instant> {
        let patience = self.connections.iter().filter(|c| !c.asked).map(|c| c.since + PATIENCE);
        patience.chain(self.paused).min()
    }

    /// Takes what has come: whole requests, each to be answered.
    pub fn requests(&mut self, now: Instant) -> Vec<Asked> {
        let mut asked = Vec::new();
        self.connections.retain_mut(|c| c.asked || c.take(now, &mut asked));
        if self.paused.is_some_and(|until| now >= until) {
            self.paused = None;
        }
        for _ in 0..AT_ONCE {
            if !self.accepts() {
                break;
            }
            match sys::accept(self.listener.fd.as_fd()) {
                Ok(stream) => self.admit(stream, now, &mut asked),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                // Out of descriptors or memory, at worst.
                Err(_) => self.paused = Some(now + PAUSE),
            }
        }
        asked
    }

    /// Sends the replies, as far as the socket takes them, which is room for all accounts there can be, and ends the connection.
    pub fn answer(&mut self, connection: u64, replies: &[Reply]) {
        let Some(at) = self.connections.iter().position(|c| c.id == connection) else { return };
        send(&self.connections.swap_remove(at).stream, replies);
    }

    fn admit(&mut self, stream: OwnedFd, now: Instant, asked: &mut Vec<Asked>) {
        let uid = getsockopt(&stream, PeerCredentials).map_or(UNMAPPED, |peer| peer.uid());
        if !may_ask(uid, geteuid().as_raw()) {
            if self.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD) {
                self.told = Some(now);
                log::warn!("uid {uid} is refused at the control socket: it is for root and nsecd's own user");
            }
            return send(&stream, &[Reply::refusal(Status::NotAllowed)]);
        }
        let (id, frame) = (self.next, [0; REQUEST + 1]);
        let mut connection = Connection { id, stream, uid, since: now, frame, got: 0, asked: false };
        if !connection.take(now, asked) {
            return;
        }
        self.next += 1;
        // There is room, or one that is silent: `accepts`.
        if self.connections.len() >= MOST
            && let Some(silent) = self.connections.iter().position(|c| !c.asked)
        {
            self.connections.remove(silent);
        }
        self.connections.push(connection);
    }

    /// Whether there is room for one more. Where all wait for an answer, which takes seconds at most, others wait in the backlog.
    fn accepts(&self) -> bool {
        self.paused.is_none() && self.connections.iter().filter(|c| c.asked).count() < MOST
    }
}

impl Connection {
    /// Reads what has come; false if the connection is over.
    fn take(&mut self, now: Instant, asked: &mut Vec<Asked>) -> bool {
        while self.got <= REQUEST {
            match recv(self.stream.as_raw_fd(), &mut self.frame[self.got..], MsgFlags::MSG_DONTWAIT) {
                // Whole, or never to be.
                Ok(0) => break,
                Ok(n) => self.got += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.got == REQUEST => break,
                Err(Errno::EAGAIN) => return now.saturating_duration_since(self.since) < PATIENCE,
                Err(_) => return false,
            }
        }
        let request = (self.got == REQUEST).then(|| self.frame.first_chunk().and_then(Request::decode)).flatten();
        let Some(request) = request else {
            send(&self.stream, &[Reply::refusal(Status::Malformed)]);
            return false;
        };
        self.asked = true;
        asked.push(Asked { connection: self.id, uid: self.uid, request });
        true
    }
}

/// The admin directory. Dropped, it is gone again if it was made for this nsecd and nothing is left in it.
#[derive(Debug)]
pub struct AdminDir(Dir);

impl AdminDir {
    /// Opens or makes it.
    ///
    /// # Errors
    /// It is another's, or open to others; as [`Dir::open_or_create`].
    pub fn open(path: &Path) -> Result<AdminDir, Fault> {
        let dir = Dir::open_or_create(path, 0o700);
        let dir = AdminDir(
            dir.map_err(|why| Fault::new(format!("{why}; --admin-dir gives the admin directory another place")))?,
        );
        let stat = fstat(&dir.0).or_fault(|| format!("looking at {}", path.display()))?;
        if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            return Err(Fault::new(format!(
                "the admin directory {0} (uid {1}, mode {2:04o}) must be of the user that nsecd runs as and closed to all others: chmod 0700 {0}, or use another --admin-dir",
                path.display(),
                stat.st_uid,
                stat.st_mode & 0o7777
            )));
        }
        Ok(dir)
    }
}

impl Drop for AdminDir {
    fn drop(&mut self) {
        self.0.unmake();
    }
}

/// Binds a socket of the operator's in the admin directory.
///
/// # Errors
/// As [`Listener::bind`].
pub fn bind(admin: &AdminDir, name: &str) -> Result<Listener, Fault> {
    let access = Access { mode: 0o600, owner: None, group: None };
    Listener::bind_or_advise(&admin.0.path().join(name), access, "--admin-dir")
}

/// Whether a peer of this uid is the operator.
fn may_ask(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own && own != UNMAPPED
}

/// All replies in one call that does not wait.
fn send(stream: &OwnedFd, replies: &[Reply]) {
    let bytes: Vec<u8> = replies.iter().flat_map(Reply::encode).collect();
    // Who has gone, or does not read, has no use for it.
    let _ = send_bytes(stream.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked: with `own != UNMAPPED` taken out this fails.
    #[test]
    fn only_root_and_nsecds_own_user_may_ask() {
        for (peer, own, may) in
            [(0, 0, true), (0, 1000, true), (1000, 1000, true), (1000, 0, false), (1001, 1000, false)]
        {
            assert_eq!(may_ask(peer, own), may, "{peer} of {own}");
        }
        assert!(!may_ask(UNMAPPED, UNMAPPED), "anybody of another user namespace");
    }
}
