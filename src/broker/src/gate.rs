//! The client of one account's gate: events go out in order, signatures come back in order.
//!
//! A reply is matched by its place and by the id in it. Anything else is a broken gate, and the broker ends with it:
//! the supervisor replaces both, with a fresh pair between them. Never blocks.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

/// Bytes of a reply: id(32) ‖ status(1) ‖ signature(64).
const REPLY: usize = 97;
/// Bytes received at a time: of as many replies as come together.
const REPLIES: usize = 32 * REPLY;
/// Bytes sent at a time: what the gate reads at a time, since the rest of a packet would be lost.
const PACKET: usize = 16 * 1024;
/// Room for frames that is kept when all are sent. Bytes.
const KEEP: usize = 16 * 1024;

/// What the gate decided, in its own numbers (design: the gate's statuses).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 0
    Signed,
    /// 1: the account's ceiling
    OverCeiling,
    /// 2: no row, no signature
    NotRecorded,
    /// 3
    KindNotAllowed,
    /// 4
    Frozen,
    /// 6
    CreatedAtOutside,
    /// 5, 7 and whatever else: our event was malformed, or the signature failed its verification
    Failed(u8),
}

/// A reply and the job it is for.
pub struct Answer<J> {
    /// What was handed in with the event.
    pub job: J,
    /// The event's id.
    pub id: [u8; 32],
    /// The verdict.
    pub status: Status,
    /// The same as the gate's own number.
    pub code: u8,
    /// The signature; zeros without one.
    pub signature: [u8; 64],
}

struct Pending<J> {
    /// When it was asked (CLOCK_BOOTTIME, ms).
    since: u64,
    job: J,
    id: [u8; 32],
}

/// The broker's end of the pair to a gate, and the jobs `J` that wait for it.
pub struct Gate<J> {
    fd: OwnedFd,
    /// Frames, one after the other: several events are in flight at a time.
    out: Vec<u8>,
    /// Bytes of them that are sent.
    sent: usize,
    pending: VecDeque<Pending<J>>,
    /// Replies received and not taken, the last perhaps in part: those from `taken` to `got`.
    replies: Box<[u8; REPLIES]>,
    taken: usize,
    got: usize,
    /// Whether epoll watches for room to write.
    pub watched: bool,
}

impl<J> Gate<J> {
    /// `fd`: a sequenced-packet socket, non-blocking.
    pub fn new(fd: OwnedFd) -> Gate<J> {
        let replies = Box::new([0; REPLIES]);
        Gate { fd, out: Vec::new(), sent: 0, pending: VecDeque::new(), replies, taken: 0, got: 0, watched: false }
    }

    /// Queues an event in its canonical form, with its id, SHA-256 of that. `now`: CLOCK_BOOTTIME, ms.
    pub fn ask(&mut self, canonical: &str, id: [u8; 32], job: J, now: u64) {
        let length = u32::try_from(canonical.len()).unwrap_or(u32::MAX);
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(canonical.as_bytes());
        self.pending.push_back(Pending { since: now, job, id });
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// The gate is gone.
    pub fn send(&mut self) -> Result<(), String> {
        while self.wants_write() {
            let end = self.out.len().min(self.sent + PACKET);
            match send(self.fd.as_raw_fd(), &self.out[self.sent..end], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
            {
                Ok(n) => self.sent += n,
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(e) => return Err(format!("sending to the gate: {e}")),
            }
        }
        self.forget_sent();
        Ok(())
    }

    /// Drops the bytes that are sent, once they are all or many: what is in them is somebody's text.
    fn forget_sent(&mut self) {
        if self.sent < self.out.len().min(KEEP) {
            return;
        }
        self.out.copy_within(self.sent.., 0);
        let left = self.out.len() - self.sent;
        self.out[left..].fill(0);
        self.out.truncate(left);
        self.sent = 0;
        if left == 0 && self.out.capacity() > KEEP {
            self.out = Vec::new();
        }
    }

    /// Since when the oldest event waits for its reply.
    pub fn waiting_since(&self) -> Option<u64> {
        self.pending.front().map(|p| p.since)
    }

    /// Whether something waits to be sent.
    pub fn wants_write(&self) -> bool {
        self.sent < self.out.len()
    }

    /// The next reply that has come, if one has. To be called until there is none.
    ///
    /// # Errors
    /// The gate is gone, or answers what was not asked.
    pub fn receive(&mut self) -> Result<Option<Answer<J>>, String> {
        while self.got - self.taken < REPLY {
            // Nothing more is asked for than is owed: the end of the gate shows in epoll, and here once it is waited for.
            if self.pending.is_empty() && self.got > 0 && self.taken == self.got {
                (self.taken, self.got) = (0, 0);
                return Ok(None);
            }
            self.replies.copy_within(self.taken..self.got, 0);
            (self.taken, self.got) = (0, self.got - self.taken);
            match recv(self.fd.as_raw_fd(), &mut self.replies[self.got..], MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err("the gate has closed its end".to_owned()),
                Ok(n) => self.got += n,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                // Said once, and before the replies that a gate has left which died with events unread.
                Err(Errno::ECONNRESET) => {}
                Err(e) => return Err(format!("receiving from the gate: {e}")),
            }
        }
        let reply = &self.replies[self.taken..self.taken + REPLY];
        self.taken += REPLY;
        let Some(Pending { job, id, .. }) = self.pending.pop_front() else {
            return Err("the gate answers what was not asked".to_owned());
        };
        if reply[..32] != id {
            (self.taken, self.got) = (0, 0);
            return Err("the gate answers for another event".to_owned());
        }
        let mut signature = [0; 64];
        signature.copy_from_slice(&reply[33..]);
        let code = reply[32];
        let status = match code {
            0 => Status::Signed,
            1 => Status::OverCeiling,
            2 => Status::NotRecorded,
            3 => Status::KindNotAllowed,
            4 => Status::Frozen,
            6 => Status::CreatedAtOutside,
            other => Status::Failed(other),
        };
        Ok(Some(Answer { job, id, status, code, signature }))
    }
}

impl<J> AsFd for Gate<J> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use sha2::{Digest, Sha256};

    fn pair() -> (Gate<u8>, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK).expect("pair");
        (Gate::new(ours), theirs)
    }

    fn id(canonical: &str) -> [u8; 32] {
        Sha256::digest(canonical).into()
    }

    fn reply(canonical: &str, status: u8) -> Vec<u8> {
        [&Sha256::digest(canonical)[..], &[status], &[9; 64]].concat()
    }

    #[test]
    fn several_events_in_flight_come_back_in_order() {
        let (mut gate, peer) = pair();
        for (i, text) in ["[0,a]", "[0,b]"].iter().enumerate() {
            gate.ask(text, id(text), i as u8, 7);
        }
        gate.send().expect("room");
        let mut sent = [0; 18];
        assert_eq!(recv(peer.as_raw_fd(), &mut sent, MsgFlags::empty()), Ok(18));
        assert_eq!(&sent, b"\0\0\0\x05[0,a]\0\0\0\x05[0,b]");
        let both = [reply("[0,a]", 0), reply("[0,b]", 3)].concat();
        for cut in both.chunks(50) {
            send(peer.as_raw_fd(), cut, MsgFlags::empty()).expect("sent");
        }
        let first = gate.receive().expect("whole").expect("there");
        assert_eq!((first.job, first.status, first.signature), (0, Status::Signed, [9; 64]));
        let second = gate.receive().expect("whole").expect("there");
        assert_eq!((second.job, second.status), (1, Status::KindNotAllowed));
        assert!(gate.receive().expect("open").is_none());
    }

    /// The kernel tells of the death before what was sent.
    #[test]
    fn what_a_gate_answered_before_it_died_is_taken_though_it_left_events_unread() {
        let (mut gate, peer) = pair();
        gate.ask("[0,a]", id("[0,a]"), 1, 7);
        gate.send().expect("room");
        send(peer.as_raw_fd(), &reply("[0,a]", 0), MsgFlags::empty()).expect("sent");
        drop(peer);
        assert_eq!(gate.receive().expect("a reply").expect("there").status, Status::Signed);
        gate.ask("[0,b]", id("[0,b]"), 2, 8);
        assert!(gate.receive().is_err());
    }

    #[test]
    fn a_reply_for_another_event_or_unasked_is_a_broken_gate() {
        let (mut gate, peer) = pair();
        send(peer.as_raw_fd(), &reply("[0,a]", 0), MsgFlags::empty()).expect("sent");
        assert!(gate.receive().is_err());
        let (mut gate, peer) = pair();
        gate.ask("[0,b]", id("[0,b]"), 1, 7);
        assert_eq!(gate.waiting_since(), Some(7));
        send(peer.as_raw_fd(), &reply("[0,a]", 0), MsgFlags::empty()).expect("sent");
        assert!(gate.receive().is_err());
        drop(peer);
        assert!(gate.receive().is_err());
    }
}
