//! Freeze under the load of clients: what they get, and what they do not.
//!
//! Checked: red with the page not read, and with one account's page handed to all.

use crate::rows;
use crate::support::client::{code, refusal};
use crate::support::control::{freeze, order, thaw};
use crate::support::daemon::OPEN;
use crate::support::{Finally, Nsecd, Setup, until};
use nsecd_policy::operator::{Command, Status};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

const CLIENTS: usize = 5;
const ROUNDS: u64 = 40;

#[test]
fn once_a_freeze_is_acknowledged_no_client_gets_another_row_or_signature() {
    let nsecd = Nsecd::start(OPEN);
    let (signed, refused, over) =
        ([const { AtomicU64::new(0) }; CLIENTS], [const { AtomicU64::new(0) }; CLIENTS], AtomicBool::new(false));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (nsecd, signed, refused, over) = (&nsecd, &signed[client], &refused[client], &over);
            scope.spawn(move || {
                let mut connection = nsecd.connect();
                while !over.load(SeqCst) {
                    let reply = connection.sign(1, None);
                    if reply["event"]["sig"].is_string() {
                        signed.fetch_add(1, SeqCst);
                    } else {
                        assert_eq!(
                            (refusal(&reply), code(&reply)),
                            ("The account is frozen by its operator", "frozen")
                        );
                        refused.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        let _end = Finally(|| over.store(true, SeqCst));
        // Each client gets so many more of these.
        let wait = |counts: &[AtomicU64], more: u64| {
            let goals: Vec<u64> = counts.iter().map(|c| c.load(SeqCst) + more).collect();
            until("each client has its answers", || {
                counts.iter().zip(&goals).all(|(count, goal)| count.load(SeqCst) >= *goal)
            });
        };
        for round in 0..ROUNDS {
            wait(&signed, 1 + round % 3);
            freeze(&nsecd);
            let before = rows(&nsecd, "default");
            // One may have been on its way to the client; what comes after it was asked for after the freeze.
            wait(&refused, 3);
            assert_eq!(rows(&nsecd, "default"), before, "round {round}: a row after the acknowledgement");
            let at_rest: Vec<u64> = signed.iter().map(|c| c.load(SeqCst)).collect();
            assert_eq!(at_rest.iter().sum::<u64>(), before, "each signature has its row");
            wait(&refused, 3);
            assert_eq!(
                at_rest,
                signed.iter().map(|c| c.load(SeqCst)).collect::<Vec<_>>(),
                "round {round}: a signature"
            );
            thaw(&nsecd);
        }
        wait(&signed, 1);
    });
    assert!(nsecd.alerts().contains("sign_event rejected: The account is frozen by its operator (kind=1"));
    let log = nsecd.stderr();
    assert!(
        log.contains("account default is frozen by uid") && log.contains("account default is thawed by uid"),
        "{log}"
    );
}

#[test]
fn a_frozen_request_uses_no_slot_and_what_needs_no_key_goes_on() {
    let nsecd =
        Nsecd::start(&OPEN.replace("limits = \"none\"", "limits = { burst = 3, per_minute = 3, per_hour = 3 }"));
    let mut client = nsecd.connect();
    freeze(&nsecd);
    for _ in 0..10 {
        assert_eq!(code(&client.sign(1, None)), "frozen");
    }
    let token = client.session(json!({"scope": "1"}));
    assert_eq!(client.public_key(), crate::support::PUBLIC_KEY);
    assert_eq!(code(&client.sign(1, Some(&token))), "frozen");
    thaw(&nsecd);
    for _ in 0..3 {
        assert!(client.sign(1, None)["event"].is_object());
    }
    assert_eq!(code(&client.sign(1, None)), "rate_limited", "control");
}

#[test]
fn one_account_is_frozen_and_thawed_by_its_name_and_the_others_go_on() {
    let config = OPEN.replace("[[socket]]", "[[account]]\nname = \"second\"\nsource = \"credential:second\"\nceiling = \"none\"\n[[socket]]\naccounts = [\"default\", \"second\"]");
    let setup = Setup::new(&config);
    setup.dir.file("credentials/second", 0o400, None, crate::support::SCAN_KEY.as_bytes());
    let nsecd = setup.start();
    let mut client = nsecd.connect();
    let mut signs = |account: &str| {
        let reply = client.ask("sign_event", json!({"kind": 1, "content": "x", "account": account}));
        assert!(reply["event"].is_object() || code(&reply) == "frozen", "{reply}");
        reply["event"].is_object()
    };
    assert!(signs("default") && signs("second"), "control");
    let replies = order(&nsecd, Command::Freeze, "second");
    assert_eq!((replies.len(), &*replies[0].account, replies[0].frozen.is_some()), (1, "second", true));
    assert!(signs("default") && !signs("second"));
    let states = |replies: Vec<nsecd_policy::operator::Reply>| {
        replies.into_iter().map(|r| (r.account, r.frozen.is_some())).collect::<Vec<_>>()
    };
    let both = |first, second| vec![("default".to_owned(), first), ("second".to_owned(), second)];
    assert_eq!(states(order(&nsecd, Command::Status, "")), both(false, true));
    assert_eq!(states(order(&nsecd, Command::Freeze, "")), both(true, true));
    assert!(!signs("default") && !signs("second"));
    order(&nsecd, Command::Thaw, "second");
    assert!(!signs("default") && signs("second"));
    for command in [Command::Freeze, Command::Thaw, Command::Status] {
        let replies = order(&nsecd, command, "third");
        assert_eq!((replies.len(), replies[0].status), (1, Status::UnknownAccount));
    }
    assert!(!signs("default") && signs("second"));
}
