//! Somebody dies in the middle of a reload: the old configuration is in force, or after a restart the new one, and never half of each.
//!
//! In the middle: the broker is stopped, so that it does not come to rest, and everything new has been made.

use super::{OPEN, another, ask, write};
use crate::support::{Client, Nsecd, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// An nsecd that is being reloaded, and does not get on.
fn amid(nsecd: &Nsecd) -> Pid {
    let broker = Pid::from_raw(nsecd.role("nsecd-broker"));
    kill(broker, Signal::SIGSTOP).unwrap();
    let narrow = OPEN.replace("kinds = [1, 7, 1111]\ntokenless = [1, 7]", "kinds = [1]\ntokenless = [1]");
    write(nsecd, &(narrow + &another("second")));
    broker
}

#[test]
fn a_broker_that_dies_amid_a_reload_leaves_the_old_configuration_in_force() {
    let nsecd = Nsecd::start(OPEN);
    let second = nsecd.dir.join("second.sock");
    let broker = amid(&nsecd);
    let outcome = std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask(&nsecd));
        until("prepared", || second.exists());
        kill(broker, Signal::SIGKILL).unwrap();
        asked.join().unwrap()
    });
    assert!(outcome.unwrap_err().contains("died meanwhile"));
    assert!(!second.exists());
    until("a broker serves", || Client::try_connect(&nsecd.socket).is_ok());
    assert!(nsecd.connect().sign(7, None).get("event").is_some());
    // And then it goes.
    assert_eq!(ask(&nsecd), Ok(()));
    assert!(nsecd.connect().sign(7, None).get("event").is_none());
    assert!(Client::connect(&second).sign(1, None).get("event").is_some());
}

#[test]
fn a_supervisor_that_dies_amid_a_reload_starts_with_the_new_configuration() {
    let nsecd = Nsecd::start(OPEN);
    let second = nsecd.dir.join("second.sock");
    amid(&nsecd);
    let mut stream = crate::support::control::connect(&nsecd);
    std::io::Write::write_all(
        &mut stream,
        &crate::support::control::frame(nsecd_policy::operator::Command::Reload, ""),
    )
    .unwrap();
    until("prepared", || second.exists());
    let nsecd = nsecd.restarted(Signal::SIGKILL);
    assert!(nsecd.connect().sign(7, None).get("event").is_none());
    assert!(nsecd.connect().sign(1, None).get("event").is_some());
    assert!(Client::connect(&second).sign(1, None).get("event").is_some());
}

#[test]
fn requests_that_do_not_come_to_an_end_keep_the_old_configuration_and_are_answered() {
    let nsecd = Nsecd::start(OPEN);
    let gate = Pid::from_raw(nsecd.role("nsecd-gate"));
    let mut client = nsecd.connect();
    assert!(client.sign(1, None).get("event").is_some());
    kill(gate, Signal::SIGSTOP).unwrap();
    client.send(crate::support::client::line("sign_event", serde_json::json!({"kind": 7, "content": "amid"})));
    let narrow = OPEN.replace("kinds = [1, 7, 1111]\ntokenless = [1, 7]", "kinds = [1]\ntokenless = [1]");
    write(&nsecd, &narrow);
    assert!(ask(&nsecd).unwrap_err().contains("do not come to an end"));
    kill(gate, Signal::SIGCONT).unwrap();
    assert_eq!(client.reply()["event"]["content"], "amid");
    assert!(client.sign(7, None).get("event").is_some());
    assert_eq!(ask(&nsecd), Ok(()));
    assert!(client.sign(7, None).get("event").is_none());
}
