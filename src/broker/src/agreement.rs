//! The client of the ECDH holder: one packet out for a key, one packet back.
//!
//! A reply is matched by everything that it echoes. What matches nothing is what a broker before this one had asked for
//! when it died, and is dropped. Never blocks.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use zeroize::{Zeroize, Zeroizing};

/// op(1) ‖ x-only public key(32) ‖ nonce(32).
const REQUEST: usize = 65;
/// The request ‖ status(1) ‖ key(76).
const REPLY: usize = REQUEST + 1 + KEY;
/// Bytes of a key: NIP-44's message keys, or NIP-04's shared x and zeros.
pub const KEY: usize = 76;

/// What key is asked for, in the holder's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// NIP-44's, of one message.
    Nip44 = 1,
    /// NIP-04's shared x.
    Nip04 = 2,
    /// As 1, for the outer layer of a gift wrap, whose author is on nobody's list of peers.
    GiftWrap = 3,
}

/// A key agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// For what.
    pub op: Op,
    /// With whom (x-only).
    pub peer: [u8; 32],
    /// The message's; zeros for NIP-04.
    pub nonce: [u8; 32],
}

/// What the holder decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 0
    Agreed,
    /// 1: its ceiling
    OverCeiling,
    /// 2: no row, no key
    NotRecorded,
    /// 3: not this op, or not this peer
    NotAllowed,
    /// 4
    Frozen,
    /// 5: not a public key
    Malformed,
    /// 7 and whatever else
    Failed(u8),
}

/// A reply and the job it is for.
pub struct Answer<J> {
    /// What was handed in with the request.
    pub job: J,
    /// What had been asked.
    pub request: Request,
    /// The verdict.
    pub status: Status,
    /// The same as the holder's own number.
    pub code: u8,
    /// The key; zeros without one. Wiped when dropped, and boxed: bytes that are moved about leave copies on the stack.
    pub key: Box<Zeroizing<[u8; KEY]>>,
}

struct Pending<J> {
    since: u64,
    request: Request,
    job: J,
}

/// The broker's end of the pair to the ECDH holder, and the jobs `J` that wait for it.
pub struct Agreements<J> {
    fd: OwnedFd,
    /// How many of `pending`, from the front, are sent.
    sent: usize,
    pending: VecDeque<Pending<J>>,
    /// Whether it was given up, and has not answered since.
    silent: bool,
}

impl Request {
    fn bytes(&self) -> [u8; REQUEST] {
        let mut bytes = [0; REQUEST];
        bytes[0] = self.op as u8;
        bytes[1..33].copy_from_slice(&self.peer);
        bytes[33..].copy_from_slice(&self.nonce);
        bytes
    }
}

impl<J> Agreements<J> {
    /// `fd`: a sequenced-packet socket.
    pub fn new(fd: OwnedFd) -> Agreements<J> {
        Agreements { fd, sent: 0, pending: VecDeque::new(), silent: false }
    }

    /// Queues a request. `now`: CLOCK_BOOTTIME, ms.
    pub fn ask(&mut self, request: Request, job: J, now: u64) {
        self.pending.push_back(Pending { since: now, request, job });
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// The holder is gone.
    pub fn send(&mut self) -> Result<(), String> {
        while let Some(next) = self.pending.get(self.sent) {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.fd.as_raw_fd(), &next.request.bytes(), flags) {
                Ok(_) => self.sent += 1,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
                Err(e) => return Err(format!("sending to the ECDH holder: {e}")),
            }
        }
        Ok(())
    }

    /// Whether something waits to be sent.
    pub fn wants_write(&self) -> bool {
        self.sent < self.pending.len()
    }

    /// Since when the oldest request waits for its reply.
    pub fn waiting_since(&self) -> Option<u64> {
        self.pending.front().map(|p| p.since)
    }

    /// The jobs of all that has been asked: the holder has stopped, and none of them is going to be answered. What comes all
    /// the same matches nothing, and is dropped.
    pub fn give_up(&mut self) -> Vec<J> {
        self.silent = true;
        self.sent = 0;
        self.pending.drain(..).map(|pending| pending.job).collect()
    }

    /// Whether the holder was given up and has not answered since.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// The next reply that has come, if one has.
    ///
    /// # Errors
    /// The holder is gone.
    pub fn receive(&mut self) -> Result<Option<Answer<J>>, String> {
        // One byte more than a reply: a longer packet must not pass for one.
        let mut reply = Zeroizing::new([0; REPLY + 1]);
        loop {
            let n = match recv(self.fd.as_raw_fd(), &mut *reply, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err("the ECDH holder has closed its end".to_owned()),
                Ok(n) => n,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(e) => return Err(format!("receiving from the ECDH holder: {e}")),
            };
            self.silent = false;
            let asked = self.pending.front().filter(|_| self.sent > 0).map(|p| p.request.bytes());
            if n != REPLY || asked.is_none_or(|asked| reply[..REQUEST] != asked) {
                reply.zeroize();
                continue;
            }
            let Some(Pending { request, job, .. }) = self.pending.pop_front() else { continue };
            self.sent -= 1;
            let mut key = Box::new(Zeroizing::new([0; KEY]));
            key.copy_from_slice(&reply[REQUEST + 1..REPLY]);
            let code = reply[REQUEST];
            let status = match code {
                0 => Status::Agreed,
                1 => Status::OverCeiling,
                2 => Status::NotRecorded,
                3 => Status::NotAllowed,
                4 => Status::Frozen,
                5 => Status::Malformed,
                other => Status::Failed(other),
            };
            return Ok(Some(Answer { job, request, status, code, key }));
        }
    }
}

impl<J> AsFd for Agreements<J> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    fn pair() -> (Agreements<u8>, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK).expect("a pair");
        (Agreements::new(ours), theirs)
    }

    fn request(nonce: u8) -> Request {
        Request { op: Op::Nip44, peer: [7; 32], nonce: [nonce; 32] }
    }

    fn reply(request: Request, status: u8) -> Vec<u8> {
        [&request.bytes()[..], &[status], &[9; KEY]].concat()
    }

    #[test]
    fn a_reply_that_a_dead_broker_left_is_dropped() {
        let (mut agreements, holder) = pair();
        let put = |packet: &[u8]| send(holder.as_raw_fd(), packet, MsgFlags::empty()).expect("room");
        // Before anything was asked, and of another nonce, and of other sizes.
        put(&reply(request(1), 0));
        assert!(agreements.receive().expect("open").is_none());
        agreements.ask(request(2), 22, 5);
        agreements.ask(request(3), 33, 6);
        agreements.send().expect("room");
        put(&reply(request(1), 0));
        put(&reply(request(2), 0)[..REPLY - 1]);
        put(&[&reply(request(2), 0)[..], &[0]].concat());
        put(&reply(Request { op: Op::GiftWrap, ..request(2) }, 0));
        put(&reply(request(2), 0));
        put(&reply(request(3), 3));
        assert_eq!(agreements.waiting_since(), Some(5));
        let first = agreements.receive().expect("open").expect("there");
        assert_eq!((first.job, first.status, **first.key), (22, Status::Agreed, [9; KEY]));
        let second = agreements.receive().expect("open").expect("there");
        assert_eq!((second.job, second.status, second.request), (33, Status::NotAllowed, request(3)));
        assert!(agreements.receive().expect("open").is_none());
        drop(holder);
        assert!(agreements.receive().is_err());
    }

    #[test]
    fn what_the_socket_does_not_take_is_sent_later() {
        let (mut agreements, holder) = pair();
        for i in 0..5000 {
            agreements.ask(request(i as u8), 0, 0);
        }
        agreements.send().expect("open");
        assert!(agreements.wants_write());
        let mut packet = [0; 100];
        while agreements.wants_write() {
            while recv(holder.as_raw_fd(), &mut packet, MsgFlags::empty()).is_ok() {}
            agreements.send().expect("open");
        }
        assert_eq!(agreements.sent, 5000);
    }
}
