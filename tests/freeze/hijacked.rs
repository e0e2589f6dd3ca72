//! Freeze against a hijacked broker of a running nsecd: one that writes straight to gate and ECDH holder as fast as they read. The
//! tests take its ends out of a broker that is stopped.
//!
//! Checked: red with the page not read, or not handed to the ECDH holder, and with the busy word never set. That the answer waits for it: stuck.rs.

use crate::rows;
use crate::support::control::{freeze, thaw};
use crate::support::daemon::DM;
use crate::support::event::unhex;
use crate::support::{Finally, Nsecd, PUBLIC_KEY, not_root, process, sys, until};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use nix::unistd::Pid;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const ROUNDS: u64 = 60;
/// The x-only public key of secret 5.
const PEER: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";

/// The broker's ends to the ECDH holder and to the gate. The broker is stopped: it neither reads the answers nor ends.
pub fn ends(nsecd: &Nsecd) -> [OwnedFd; 2] {
    let broker = nsecd.role("nsecd-broker");
    kill(Pid::from_raw(broker), Signal::SIGSTOP).unwrap();
    let descriptors = process::descriptors(broker);
    let journal = descriptors.iter().find(|(_, what)| what.ends_with("/journal")).map(|(n, _)| *n).unwrap();
    [1, 2].map(|after| {
        let end = sys::steal(broker, journal + after).unwrap();
        // Ours now: to wait is simpler than to poll.
        nix::fcntl::fcntl(&end, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
        end
    })
}

/// A request to each: what the ECDH holder and the gate would do.
pub fn requests() -> [Vec<u8>; 2] {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let event = format!("[0,\"{PUBLIC_KEY}\",{now},1,[],\"x\"]");
    let frame = [&(event.len() as u32).to_be_bytes()[..], event.as_bytes()].concat();
    [[&[1][..], &unhex(PEER), &[9; 32]].concat(), frame]
}

#[test]
fn a_hijacked_broker_gets_neither_signature_nor_key_once_a_freeze_is_acknowledged() {
    if not_root("taking descriptors out of the broker") {
        return;
    }
    let nsecd =
        Nsecd::start(&DM.replace("\"dm\"]", "\"dm\", \"nip44\"]").replace("[key]", "[key]\necdh_ceiling = \"none\""));
    let ends = ends(&nsecd);
    let replies = [const { AtomicU64::new(0) }; 2];
    let granted = [const { AtomicU64::new(0) }; 2];
    // Where the status lies in a reply, and how long one is.
    let shapes = [(65, 142), (32, 97)];
    std::thread::scope(|scope| {
        for (end, request) in ends.iter().zip(requests()) {
            scope.spawn(move || while send(end.as_raw_fd(), &request, MsgFlags::MSG_NOSIGNAL).is_ok() {});
        }
        for (which, end) in ends.iter().enumerate() {
            let (replies, granted, (at, size)) = (&replies[which], &granted[which], shapes[which]);
            scope.spawn(move || {
                let mut reply = vec![0; size];
                while recv(end.as_raw_fd(), &mut reply, MsgFlags::MSG_WAITALL) == Ok(size) {
                    granted.fetch_add(u64::from(reply[at] == 0), SeqCst);
                    replies.fetch_add(1, SeqCst);
                }
            });
        }
        let _end = Finally(|| {
            for end in &ends {
                let _ = shutdown(end.as_raw_fd(), Shutdown::Both);
            }
        });
        let names = ["default.ecdh", "default"];
        let count = || names.map(|name| rows(&nsecd, name));
        let more = |before: [u64; 2], more: u64| {
            until("rows of both", || count().iter().zip(before).all(|(now, before)| *now >= before + more));
        };
        for round in 0..ROUNDS {
            more(count(), 1 + round % 20);
            freeze(&nsecd);
            let before = count();
            // Both go on answering: no.
            let seen: Vec<u64> = replies.iter().map(|r| r.load(SeqCst)).collect();
            until("answers of both", || replies.iter().zip(&seen).all(|(r, seen)| r.load(SeqCst) >= seen + 2000));
            assert_eq!(count(), before, "round {round}: a row after the acknowledgement");
            assert_eq!(granted.each_ref().map(|g| g.load(SeqCst)), before, "round {round}: without a row, or late");
            thaw(&nsecd);
        }
        more(count(), 1);
    });
}
