//! A hijacked broker and a reload: it speaks of one at the wrong time, too often, in no frame or not at all, uses what it was given, and
//! dies at each step.
//!
//! Whatever it does: one configuration holds as a whole, for it and for the broker after it, `nsecctl reload` is told which, nobody else
//! dies, and all signatures together, of old gates and new ones, are no more than the ceiling allows, each with its row.
//!
//! Checked, with tests turned red: the ceiling of a gate that takes over not started from the record; what the broker says taken without
//! regard to the step; no end to the wait for a broker; a broker that has taken over and died taken for one that has not; whoever asks
//! for a reload left to wait while no broker starts.

use super::deaths::flood;
use super::puppet::{Hand, STILLBORN};
use super::signatures::{KIND_NOT_ALLOWED, Loot, canonical, now};
use super::{CEILING, config, hijacked, most, rows, starters, true_time, untouchable};
use crate::support::{Dir, Nsecd, PUBLIC_KEY, control, until};
use nsecd_policy::control::Control;
use nsecd_policy::operator::{Command, Status, reason};

/// Kinds 1 and 7 on one socket.
pub fn old() -> String {
    config("20, 10/s").replace("[1, 7, 1111]", "[1, 7]")
}

/// Kinds 1 and 1111, and another socket: nothing that the two have in common tells which one is in force.
pub fn new() -> String {
    let second = "[[socket]]\npath = \"@DIR@/second.sock\"\nkinds = [1]\n";
    config("20, 10/s").replace("[1, 7, 1111]", "[1, 1111]") + second
}

pub fn write(dir: &Dir, config: &str) {
    dir.file("nsecd.toml", 0o644, None, config.replace("@DIR@", dir.path().to_str().unwrap()).as_bytes());
}

/// Asks for a reload; why there was none, if there was none.
pub fn ask(nsecd: &Nsecd) -> Result<(), String> {
    let replies = control::order(nsecd, Command::Reload, "");
    match replies.first().map(|reply| reply.status) {
        Some(Status::Done) => Ok(()),
        Some(Status::NotReloaded) => Err(reason(&replies)),
        other => panic!("{other:?}\n{}", nsecd.stderr()),
    }
}

pub fn say(hand: &mut Hand, frame: Control) -> Option<i64> {
    hand.control(&frame.encode())
}

/// Rests and takes what is handed over; the ends of gates that came.
pub fn take(hand: &mut Hand) -> Option<Vec<u64>> {
    say(hand, Control::Quiet)?;
    let (_, frames) = hand.handed()?;
    Some(frames.iter().filter(|(frame, _)| matches!(frame, Control::NewGate(_))).map(|(_, fd)| *fd).collect())
}

/// What an honest broker does, but that it signs all it can meanwhile.
fn obey(hand: &mut Hand, loot: &mut Loot) -> Option<()> {
    let gates = take(hand)?;
    gates.iter().for_each(|gate| loot.take_all_at(*gate, hand, 200));
    say(hand, Control::Reloaded).map(drop)
}

/// What the broker does once it has been asked to rest. `None` if it did not survive that.
type Deed = fn(&mut Hand, &mut Loot) -> Option<()>;

/// What comes of it: the new configuration, or the old one and a reason with these words.
type Outcome = Result<(), &'static str>;

const NONE_OF_OURS: Outcome = Err("sent what no broker of ours sends");

const DEEDS: [(&str, Deed, Outcome); 23] = [
    ("does as it is told", obey, Ok(())),
    ("has reloaded before it has seen anything", |hand, _| both(hand, Control::Quiet, Control::Reloaded), Ok(())),
    ("has reloaded before it is at rest", |hand, _| say(hand, Control::Reloaded).map(drop), NONE_OF_OURS),
    ("has not reloaded before it is at rest", |hand, _| say(hand, Control::NotReloaded).map(drop), NONE_OF_OURS),
    ("is at rest twice", |hand, _| both(hand, Control::Quiet, Control::Quiet), NONE_OF_OURS),
    ("is at rest again", |hand, _| take(hand).and_then(|_| say(hand, Control::Quiet)).map(drop), NONE_OF_OURS),
    ("reloads twice", |hand, _| take(hand).and_then(|_| both(hand, Control::Reloaded, Control::Reloaded)), Ok(())),
    (
        "reloads, and then not",
        |hand, _| take(hand).and_then(|_| both(hand, Control::Reloaded, Control::NotReloaded)),
        Ok(()),
    ),
    ("does not reload, and then does", refuse_and_reload, Err("does not take it over")),
    ("goes back to the old gate, and uses the new one", go_back, Err("does not take it over")),
    ("sends a short frame", |hand, _| hand.control(&Control::Quiet.encode()[..7]).map(drop), NONE_OF_OURS),
    ("sends a long frame", |hand, _| hand.control(&[33, 0, 0, 0, 0, 0, 0, 0, 0]).map(drop), NONE_OF_OURS),
    ("sends a frame with a number", |hand, _| hand.control(&[33, 0, 0, 1, 0, 0, 0, 0]).map(drop), NONE_OF_OURS),
    ("sends the supervisor's own", |hand, _| say(hand, Control::Resume).map(drop), NONE_OF_OURS),
    ("floods it with rest", |hand, _| flood(hand, Control::Quiet.encode()).map(drop), NONE_OF_OURS),
    ("floods it with other requests", |hand, _| flood(hand, Control::NextJournal.encode()).map(drop), NONE_OF_OURS),
    ("dies before it is at rest", |hand, _| exit(hand), Err("died meanwhile")),
    ("dies at rest", |hand, _| say(hand, Control::Quiet).and_then(|_| exit(hand)), Err("replaced")),
    ("dies with all it was given", |hand, _| take(hand).and_then(|_| exit(hand)), Err("died meanwhile")),
    ("dies once it has reloaded", |hand, loot| obey(hand, loot).and_then(|()| exit(hand)), Ok(())),
    ("ends the new gate", end_the_gate, Err("died meanwhile")),
    ("is at rest with events on the way", leave_events, Ok(())),
    ("asks for logs amid it", ask_for_logs, Ok(())),
];

fn both(hand: &mut Hand, first: Control, second: Control) -> Option<()> {
    say(hand, first)?;
    say(hand, second).map(drop)
}

fn exit(hand: &mut Hand) -> Option<()> {
    hand.call(libc::SYS_exit_group, [0; 6], b"").map(drop)
}

fn refuse_and_reload(hand: &mut Hand, _: &mut Loot) -> Option<()> {
    take(hand)?;
    both(hand, Control::NotReloaded, Control::Reloaded)
}

/// Once the supervisor has gone back, the gate of the new configuration is gone, and the one that comes is the old one's.
fn go_back(hand: &mut Hand, loot: &mut Loot) -> Option<()> {
    let kept = take(hand)?;
    say(hand, Control::NotReloaded)?;
    let (Control::NewGate(0), gate) = hand.told()? else { panic!("no gate") };
    assert_eq!(hand.told()?.0, Control::Resume);
    assert_eq!(hand.receive(kept[0], 97)?, b"", "a gate of a configuration that is not in force");
    assert_eq!(loot.ask_at(gate, hand, &[canonical(PUBLIC_KEY, now(), "1111")])?, KIND_NOT_ALLOWED);
    assert_ne!(loot.ask_at(gate, hand, &[canonical(PUBLIC_KEY, now(), "7")])?, KIND_NOT_ALLOWED);
    loot.take_all_at(gate, hand, 200);
    Some(())
}

fn end_the_gate(hand: &mut Hand, _: &mut Loot) -> Option<()> {
    let gates = take(hand)?;
    hand.send(gates[0], &[0; 4]).map(drop)
}

/// Their answers, if there are any, are lost with the gate; their rows are not.
fn leave_events(hand: &mut Hand, loot: &mut Loot) -> Option<()> {
    let gate = hand.fd("/accounts/0/gate_fd");
    for _ in 0..40 {
        let event = canonical(PUBLIC_KEY, now(), "1");
        hand.send(gate, &[&(event.len() as u32).to_be_bytes()[..], &event].concat())?;
    }
    obey(hand, loot)
}

fn ask_for_logs(hand: &mut Hand, loot: &mut Loot) -> Option<()> {
    for frame in [Control::NextJournal, Control::NextAlertLog(0), Control::NextDecisionLog] {
        say(hand, frame)?;
    }
    let gates = take(hand)?;
    // Of the socket that is to come there is no log yet to be put aside.
    for frame in [Control::NextAlertLog(0), Control::NextDecisionLog] {
        say(hand, frame)?;
    }
    gates.iter().for_each(|gate| loot.take_all_at(*gate, hand, 200));
    say(hand, Control::Reloaded).map(drop)
}

/// Reloads under a broker that does this once it has been told to rest, and dies in the end.
fn amid(nsecd: &Nsecd, loot: &mut Loot, deed: Deed) -> Result<(), String> {
    std::thread::scope(|scope| {
        let mut hand = Hand::on(nsecd);
        hand.served();
        loot.take_all_at(hand.fd("/accounts/0/gate_fd"), &mut hand, 200);
        let asked = scope.spawn(|| ask(nsecd));
        assert_eq!(hand.told().map(|(frame, _)| frame), Some(Control::Rest));
        let _ = deed(&mut hand, loot);
        let answer = asked.join().unwrap();
        let _ = exit(&mut hand);
        hand.ended();
        answer
    })
}

/// What the next broker stands under: `Ok` for the new configuration. Panics if it is something of both.
fn in_force(nsecd: &Nsecd, loot: &mut Loot) -> Result<(), ()> {
    let mut hand = Hand::on(nsecd);
    let gate = hand.fd("/accounts/0/gate_fd");
    let [seven, repost] = ["7", "1111"]
        .map(|kind| loot.ask_at(gate, &mut hand, &[canonical(PUBLIC_KEY, now(), kind)]).unwrap() != KIND_NOT_ALLOWED);
    loot.take_all_at(gate, &mut hand, 200);
    let sockets = hand.policy["sockets"].as_array().unwrap().len();
    match (seven, repost, sockets, nsecd.dir.join("second.sock").exists()) {
        (true, false, 1, false) => Err(()),
        (false, true, 2, true) => Ok(()),
        mixed => panic!("something of both: {mixed:?}\n{}", nsecd.stderr()),
    }
}

#[test]
fn whatever_a_hijacked_broker_says_of_a_reload_one_configuration_holds_and_the_ceiling_too() {
    for uid in starters() {
        let (start, mut loot) = (true_time(), Loot::default());
        let setup = hijacked(uid, "20, 10/s");
        write(&setup.dir, &old());
        let nsecd = setup.start();
        let before = untouchable(&nsecd);
        for (name, deed, expected) in DEEDS {
            write(&nsecd.dir, &new());
            let answer = amid(&nsecd, &mut loot, deed);
            match (&answer, expected) {
                (Ok(()), Ok(())) => {}
                (Err(why), Err(words)) if why.contains(words) => {}
                _ => panic!("{name}: {answer:?}, expected {expected:?}\n{}", nsecd.stderr()),
            }
            assert_eq!(in_force(&nsecd, &mut loot), expected.map_err(drop), "{name}");
            assert_eq!(untouchable(&nsecd), before, "{name}");
            if answer.is_ok() {
                write(&nsecd.dir, &old());
                assert_eq!(amid(&nsecd, &mut loot, obey), Ok(()));
                assert_eq!(in_force(&nsecd, &mut loot), Err(()));
            }
        }
        let got = loot.ids.len() as u64;
        assert!(got <= most(start), "{got} signatures, {} allowed", most(start));
        assert!(got >= CEILING.0, "{got} signatures only: it proves nothing");
        loot.are_recorded(&rows(&nsecd, "default.record"));
    }
}

/// Each takes the supervisor's whole patience, so all do at once.
#[test]
fn a_hijacked_broker_that_stalls_a_reload_at_any_step_is_waited_for_in_vain_and_not_for_long() {
    // More than the pipe holds.
    let long: Vec<String> = (0..256).map(|n| format!("\"https://example.org/{}{n}\"", "a/".repeat(100))).collect();
    let rule = format!("[[socket.rule]]\nkind = 1\ntag = {{ u = [{0}], v = [{0}] }}\n", long.join(", "));
    let cases: [(String, Deed, &str); 3] = [
        (new(), |_, _| Some(()), "do not come to an end"),
        (new(), |hand, _| take(hand).map(drop), "did not take it over in time"),
        (new() + &rule, |hand, _| say(hand, Control::Quiet).map(drop), "does not take the new configuration"),
    ];
    std::thread::scope(|scope| {
        for (config, deed, words) in cases {
            scope.spawn(move || {
                let setup = hijacked(None, "20, 10/s");
                write(&setup.dir, &old());
                let (nsecd, mut loot) = (setup.start(), Loot::default());
                let before = untouchable(&nsecd);
                write(&nsecd.dir, &config);
                let why = amid(&nsecd, &mut loot, deed).unwrap_err();
                assert!(why.contains(words), "{why}, expected {words}");
                assert_eq!(in_force(&nsecd, &mut loot), Err(()), "{words}");
                assert_eq!(untouchable(&nsecd), before);
            });
        }
    });
}

#[test]
fn whoever_asks_for_a_reload_while_no_broker_comes_up_is_told() {
    let setup = hijacked(None, "20, 10/s");
    write(&setup.dir, &old());
    let nsecd = setup.start();
    let mut hand = Hand::on(&nsecd);
    nsecd.dir.file(&format!("bin/{STILLBORN}"), 0o644, None, b"");
    let _ = exit(&mut hand);
    hand.ended();
    write(&nsecd.dir, &new());
    until("no broker", || nsecd.stderr().contains("trying again"));
    let why = ask(&nsecd).unwrap_err();
    assert!(why.contains("do not start"), "{why}");
    std::fs::remove_file(nsecd.dir.join(&format!("bin/{STILLBORN}"))).unwrap();
    let mut loot = Loot::default();
    assert_eq!(in_force(&nsecd, &mut loot), Err(()));
    assert_eq!(amid(&nsecd, &mut loot, obey), Ok(()));
    assert_eq!(in_force(&nsecd, &mut loot), Ok(()));
}
