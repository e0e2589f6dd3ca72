//! Freeze amid a reload: a hijacked broker has the old gates, and then the gates of accounts that are to come, before anybody else knows
//! them.
//!
//! Checked: with the busy word of a new account's gate not looked at, with its page not set, or with gates that do not look
//! at their pages, tests of this file fail.

use super::puppet::Hand;
use super::reload::{new, old, say, take, write};
use super::signatures::{Loot, canonical, now};
use super::{hijacked, rows};
use crate::support::{Nsecd, PUBLIC_KEY, control, process, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsecd_policy::control::Control;
use nsecd_policy::operator::Command;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

const FROZEN: u8 = 4;
/// The secret 5, and its public key.
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000005";
const OTHER_PUBLIC: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";

/// Asks the operator's socket, and waits for no answer.
fn begin(nsecd: &Nsecd, command: Command) -> UnixStream {
    let mut stream = control::connect(nsecd);
    stream.write_all(&control::frame(command, "")).unwrap();
    stream
}

/// Whether there is an answer by now.
fn is_answered(stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = nix::sys::socket::recv(
        std::os::fd::AsRawFd::as_raw_fd(stream),
        &mut [0],
        nix::sys::socket::MsgFlags::MSG_PEEK | nix::sys::socket::MsgFlags::MSG_DONTWAIT,
    );
    stream.set_nonblocking(false).unwrap();
    peeked != Err(nix::errno::Errno::EAGAIN)
}

/// Reads what is answered.
fn end(mut stream: UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("no answer: {e}"),
        _ => all,
    }
}

#[test]
fn a_freeze_amid_a_reload_holds_for_the_old_gate_and_the_one_that_takes_over() {
    let setup = hijacked(None, "none");
    write(&setup.dir, &old());
    let nsecd = setup.start();
    let (mut hand, mut loot) = (Hand::on(&nsecd), Loot::default());
    hand.served();
    write(&nsecd.dir, &new());
    let asked = begin(&nsecd, Command::Reload);
    assert_eq!(hand.told().map(|(frame, _)| frame), Some(Control::Rest));
    let event = || [canonical(PUBLIC_KEY, now(), "1")];
    let first = hand.fd("/accounts/0/gate_fd");
    assert_eq!(loot.ask_at(first, &mut hand, &event()), Some(0));
    control::freeze(&nsecd);
    assert_eq!(loot.ask_at(first, &mut hand, &event()), Some(FROZEN));
    let gate = take(&mut hand).unwrap()[0];
    assert_eq!(loot.ask_at(gate, &mut hand, &event()), Some(FROZEN));
    say(&mut hand, Control::Reloaded);
    end(asked);
    assert_eq!(loot.ask_at(gate, &mut hand, &event()), Some(FROZEN));
    assert_eq!(rows(&nsecd, "default.record").len(), 1);
    control::thaw(&nsecd);
    assert_eq!(loot.ask_at(gate, &mut hand, &event()), Some(0), "control");
}

/// An account is about to come, and the broker has its gate: a freeze of all is not acknowledged while that gate uses its key.
#[test]
fn a_freeze_of_all_waits_for_the_gate_of_an_account_that_is_about_to_come() {
    let setup = hijacked(None, "none");
    write(&setup.dir, &old());
    setup.dir.file("credentials/biz", 0o400, None, OTHER.as_bytes());
    let nsecd = setup.start();
    let with = with_biz();
    let holder = nsecd.role("nsecd-keyholder");
    // Where the machine stood still for so long that the reload was given up, once more.
    let done = (0..5).any(|_| {
        write(&nsecd.dir, &with);
        let mut hand = Hand::on(&nsecd);
        hand.served();
        let asked = begin(&nsecd, Command::Reload);
        assert_eq!(hand.told().map(|(frame, _)| frame), Some(Control::Rest));
        let gate = take(&mut hand).unwrap()[0];
        let roles = process::descendants(nsecd.pid());
        let new = *roles.iter().find(|pid| process::name(**pid) == "nsecd-keyholder" && **pid != holder).unwrap();
        kill(Pid::from_raw(new), Signal::SIGSTOP).unwrap();
        let before = rows(&nsecd, "biz.record").len();
        let event = canonical(OTHER_PUBLIC, now(), "1");
        hand.send(gate, &[&(event.len() as u32).to_be_bytes()[..], &event].concat());
        // Once the row is written the gate waits for its key-holder.
        until("a row", || rows(&nsecd, "biz.record").len() > before || is_answered(&asked));
        let freezing = begin(&nsecd, Command::Freeze);
        // Answered after the freeze was looked at.
        control::order(&nsecd, Command::Status, "default");
        let early = is_answered(&freezing);
        let valid = !is_answered(&asked);
        let _ = kill(Pid::from_raw(new), Signal::SIGCONT); // gone, if the reload was given up
        assert!(!(early && valid), "acknowledged while the key was in use");
        assert!(!end(freezing).is_empty());
        let signed = rows(&nsecd, "biz.record").len();
        if valid {
            let reply = hand.receive(gate, 97).unwrap();
            assert_eq!((&reply[..2], reply[32]), (&sha(&event)[..2], 0), "what had begun before");
            assert_eq!(ask(&mut hand, gate), FROZEN);
        }
        say(&mut hand, Control::Reloaded);
        end(asked);
        assert_eq!(rows(&nsecd, "biz.record").len(), signed, "a row after the acknowledgement");
        let _ = hand.call(libc::SYS_exit_group, [0; 6], b"");
        hand.ended();
        control::thaw(&nsecd);
        valid
    });
    assert!(done, "the reload was given up each time:\n{}", nsecd.stderr());
}

/// A freeze of all and then a thaw of all, both while an account is about to come: it does not come frozen.
///
/// Checked: with a thaw that knows only the accounts that are there, this fails.
#[test]
fn a_thaw_of_all_amid_a_reload_holds_for_an_account_that_is_about_to_come() {
    let setup = hijacked(None, "none");
    write(&setup.dir, &old());
    setup.dir.file("credentials/biz", 0o400, None, OTHER.as_bytes());
    let nsecd = setup.start();
    let mut hand = Hand::on(&nsecd);
    hand.served();
    write(&nsecd.dir, &with_biz());
    let asked = begin(&nsecd, Command::Reload);
    assert_eq!(hand.told().map(|(frame, _)| frame), Some(Control::Rest));
    let frozen = nsecd.dir.join("state/biz.frozen");
    control::freeze(&nsecd);
    assert!(frozen.exists(), "control: the freeze was for it as well");
    let gate = take(&mut hand).unwrap()[0];
    assert_eq!(ask(&mut hand, gate), FROZEN, "control");
    control::thaw(&nsecd);
    assert!(!frozen.exists());
    assert_eq!(ask(&mut hand, gate), 0);
    say(&mut hand, Control::Reloaded);
    end(asked);
    assert_eq!(ask(&mut hand, gate), 0);
}

/// The old configuration with a second account.
fn with_biz() -> String {
    let account = "[[account]]\nname = \"biz\"\nsource = \"credential:biz\"\nceiling = \"none\"\n";
    old().replace("[[socket]]", &format!("{account}[[socket]]\naccounts = [\"default\", \"biz\"]"))
}

/// The status that this gate gives to an event of the second account's.
fn ask(hand: &mut Hand, gate: u64) -> u8 {
    let event = canonical(OTHER_PUBLIC, now(), "1");
    hand.send(gate, &[&(event.len() as u32).to_be_bytes()[..], &event].concat());
    hand.receive(gate, 97).unwrap()[32]
}

fn sha(event: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(event).to_vec()
}
