//! Every way in which a hijacked broker can make the supervisor start it, and the gates, anew.

use super::puppet::{HALF, Hand};

/// A way to end a life of the broker. What is made ends it, or makes the supervisor or the gate end it.
pub type Death = fn(&mut Hand) -> Option<i64>;

/// A control frame as the supervisor reads it.
fn frame(op: u8, index: u16) -> [u8; 8] {
    let [high, low] = index.to_be_bytes();
    [op, 0, high, low, 0, 0, 0, 0]
}

/// All of them, by name. What the last call came back with, if it did, says nothing.
pub const ALL: [(&str, Death); 39] = [
    ("exits", |hand| hand.call(libc::SYS_exit_group, [0; 6], b"")),
    ("exits with a code", |hand| hand.call(libc::SYS_exit_group, [77, 0, 0, 0, 0, 0], b"")),
    ("makes a call that is not allowed", |hand| hand.call(libc::SYS_getpid, [0; 6], b"")),
    ("unmaps all of its memory", |hand| hand.call(libc::SYS_munmap, [0, 0x7fff_ffff_f000, 0, 0, 0, 0], b"")),
    // The supervisor.
    ("sends an empty control packet", |hand| hand.control(b"")),
    ("sends a short control frame", |hand| hand.control(&frame(8, 0)[..7])),
    ("sends a long control frame", |hand| hand.control(&[8, 0, 0, 0, 0, 0, 0, 0, 0])),
    ("sends 64 KiB as a control frame", |hand| hand.control(&[8; 65_536])),
    ("sends a control frame of no operation", |hand| hand.control(&frame(0, 0))),
    ("sends a control frame with something in its padding", |hand| hand.control(&[8, 0, 0, 0, 0, 0, 0, 1])),
    ("says twice that it has served", |hand| hand.control(&frame(1, 0))),
    ("answers what it was not asked", |hand| hand.control(&frame(7, 0))),
    ("asks for the log of a socket that is none", |hand| hand.control(&frame(2, 65_535))),
    ("sends the supervisor's own: a log", |hand| hand.control(&frame(3, 0))),
    ("sends the supervisor's own: no log", |hand| hand.control(&frame(4, 0))),
    ("sends the supervisor's own: drain", |hand| hand.control(&frame(5, 0))),
    ("sends the supervisor's own: ping", |hand| hand.control(&frame(6, 0))),
    ("sends the supervisor's own: a journal", |hand| hand.control(&frame(9, 0))),
    ("sends the supervisor's own: the journal is named", |hand| hand.control(&frame(11, 0))),
    ("sends the supervisor's own: thawed", |hand| hand.control(&frame(16, 0))),
    ("sends the supervisor's own: rest", |hand| hand.control(&frame(32, 0))),
    ("sends the supervisor's own: a listener", |hand| hand.control(&frame(34, 0))),
    ("sends the supervisor's own: a gate", |hand| hand.control(&frame(36, 0))),
    ("sends the supervisor's own: resume", |hand| hand.control(&frame(39, 0))),
    ("is at rest unasked", |hand| hand.control(&frame(33, 0))),
    ("has reloaded unasked", |hand| hand.control(&frame(37, 0))),
    ("has not reloaded, unasked", |hand| hand.control(&frame(38, 0))),
    ("says again that it is locked", |hand| hand.control(&[b'n'; 97])),
    ("floods the supervisor with requests for a journal", |hand| flood(hand, frame(8, 0))),
    ("floods the supervisor with journals that are written", |hand| flood(hand, frame(10, 1))),
    ("floods the supervisor with requests for a log", |hand| flood(hand, frame(2, 0))),
    ("closes the pair to the supervisor", |hand| hand.call(libc::SYS_close, [3, 0, 0, 0, 0, 0], b"")),
    // The gate.
    ("sends the gate an event of no length", |hand| to_gate(hand, &[0; 4])),
    ("sends the gate an event of 512 KiB and a byte", |hand| to_gate(hand, &524_289u32.to_be_bytes())),
    ("sends the gate an event of 4 GiB", |hand| to_gate(hand, &[0xff; 4])),
    ("ends within an event", |hand| {
        let gate = hand.fd("/accounts/0/gate_fd");
        hand.send(gate, &[0, 0, 2, 0, b'[', b'0']);
        hand.call(libc::SYS_exit_group, [0; 6], b"")
    }),
    ("closes the pair to the gate", |hand| {
        let gate = hand.fd("/accounts/0/gate_fd");
        hand.call(libc::SYS_close, [gate, 0, 0, 0, 0, 0], b"")
    }),
    // What the next broker reads.
    ("leaves a megabyte of nothing in the journal", |hand| {
        let journal = hand.fd("/journal_fd");
        hand.write(journal, &vec![0; HALF / 2]);
        hand.call(libc::SYS_exit_group, [0; 6], b"")
    }),
    ("puts an empty journal in the place of the old one", |hand| {
        hand.control(&frame(8, 0));
        hand.control(&frame(10, 1));
        hand.control(&frame(10, 1));
        hand.call(libc::SYS_exit_group, [0; 6], b"")
    }),
];

/// More frames than an honest broker ever sends, until it is stopped. What is answered is read: for want of room the supervisor
/// would give it up at once.
pub fn flood(hand: &mut Hand, frame: [u8; 8]) -> Option<i64> {
    let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u64;
    for _ in 0..5_000 {
        let args = [3, hand.input(), 8, flags, 0, 0];
        let (_, mut unanswered, _) = hand.repeat(50, libc::SYS_sendto, args, &frame, 0)?;
        while unanswered > 0 {
            hand.wait(3, libc::EPOLLIN)?;
            let args = [3, hand.output(), 64, libc::MSG_DONTWAIT as u64, 0, 0];
            unanswered -= hand.repeat(unanswered, libc::SYS_recvfrom, args, b"", 0)?.1;
        }
    }
    panic!("the supervisor takes any number of frames");
}

fn to_gate(hand: &mut Hand, bytes: &[u8]) -> Option<i64> {
    let gate = hand.fd("/accounts/0/gate_fd");
    hand.send(gate, bytes)
}
