//! Reloads without end while clients sign: every request has its answer, in its order, on its connection, and every signature its row.

use super::{OPEN, another, ask, reload, write};
use crate::support::client::line;
use crate::support::{Client, Nsecd, control};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

const CLIENTS: usize = 4;
/// Requests that a client has on the way.
const PIPELINE: usize = 8;
const RELOADS: usize = 12;

/// The configurations that take turns: another gate, another socket, other limits.
fn configurations() -> [String; 3] {
    let gate = OPEN.replace("ceiling = \"none\"", "ceiling = \"1000000, 1000/s\"");
    let limits =
        OPEN.replace("limits = \"none\"", "limits = { burst = 1000000, per_minute = 1000000, per_hour = 1000000 }");
    [gate, format!("{OPEN}{}", another("second")), limits]
}

fn verified(nsecd: &Nsecd) -> Value {
    let state = nsecd.dir.join("state");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
    let output = command.args(["audit", "verify", "--json", "--state-dir"]).arg(state).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn under_a_storm_of_reloads_no_request_is_lost_or_answered_wrongly_and_each_has_its_row() {
    let nsecd = Nsecd::start(OPEN);
    let (over, signed) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (nsecd, over, signed) = (&nsecd, &over, &signed);
            scope.spawn(move || {
                let mut connection = nsecd.connect();
                let (mut asked, mut answered) = (0, 0);
                loop {
                    while asked < answered + PIPELINE && !over.load(Relaxed) {
                        let params = json!({"kind": 1 + 6 * (asked % 2), "content": format!("{client}.{asked}")});
                        connection.send(line("sign_event", params));
                        asked += 1;
                    }
                    if answered == asked {
                        break;
                    }
                    let reply = connection.reply();
                    assert_eq!(reply["event"]["content"], format!("{client}.{answered}"), "{reply}");
                    answered += 1;
                    signed.fetch_add(1, Relaxed);
                }
            });
        }
        let _over = crate::support::Finally(|| over.store(true, Relaxed));
        let configurations = configurations();
        for n in 0..RELOADS {
            let before = signed.load(Relaxed);
            reload(&nsecd, &configurations[n % configurations.len()]);
            // Some of the work is done under each.
            crate::support::until("signatures", || signed.load(Relaxed) > before + CLIENTS * PIPELINE);
        }
    });
    let signed = signed.load(Relaxed);
    let report = verified(&nsecd);
    assert_eq!(report["clean"], json!(true), "{report:#}");
    assert_eq!(report["records"][0]["matched"], json!(signed), "{report:#}");
    assert_eq!(std::fs::metadata(nsecd.dir.join("state/default.record")).unwrap().len(), 64 * (signed as u64 + 1));
    let log = std::fs::read_to_string(nsecd.dir.join("state/decisions.log")).unwrap();
    assert_eq!(log.matches("\"is\":\"reloaded\"").count(), RELOADS);
}

#[test]
fn a_freeze_that_is_asked_for_amid_reloads_holds_once_it_is_answered() {
    let nsecd = Nsecd::start(OPEN);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = crate::support::Finally(|| over.store(true, Relaxed));
        scope.spawn(|| {
            let configurations = configurations();
            for n in 0.. {
                if over.load(Relaxed) {
                    break;
                }
                write(&nsecd, &configurations[n % 2]);
                assert_eq!(ask(&nsecd), Ok(()));
            }
        });
        let mut client: Client = nsecd.connect();
        for _ in 0..10 {
            assert!(client.sign(1, None).get("event").is_some());
            control::freeze(&nsecd);
            for _ in 0..5 {
                assert_eq!(client.sign(1, None)["code"], "frozen");
            }
            control::thaw(&nsecd);
        }
    });
    assert_eq!(verified(&nsecd)["clean"], json!(true));
}

/// A broker says two things a reload, and one that says too much is taken for a hijacked one.
#[test]
fn reloads_as_fast_as_they_can_be_asked_for_replace_no_broker_and_lose_no_connection() {
    let nsecd = Nsecd::start(OPEN);
    let (mut client, broker) = (nsecd.connect(), nsecd.role("nsecd-broker"));
    for n in 0..600 {
        assert_eq!(ask(&nsecd), Ok(()), "reload {n}");
    }
    assert!(client.sign(1, None).get("event").is_some());
    assert_eq!(nsecd.role("nsecd-broker"), broker);
}
