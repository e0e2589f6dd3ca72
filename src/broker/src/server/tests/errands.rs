//! Errands at the ECDH holder: turns, places, patience, and what junk may cost.
//!
//! Checked, each taken out alone: a client's leaving, the places, the room to fail, the classes' turns, the budget that is
//! spent only once the request is read, giving up a holder that is silent.

use nsecd_policy::DmLimits;

use super::*;
use crate::nostr::nip59::{self, Random};

const PEERS: [&str; 2] = [
    "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4",
    "5cbdf0646e5db4eaa398f365f2ea7a0e3d419b7e0330e39ce92bddedcac4f9bc",
];
const DM: DmLimits = DmLimits { unwrap_burst: 200, unwrap_per_minute: 60, failed_per_minute: 600, wrap_per_minute: 30 };

/// A server that encrypts and sends messages, as often as one likes but for the failures.
fn open(failed_per_minute: u32) -> Bench {
    Bench::new(|s| {
        s.methods = vec![Method::SignEvent, Method::Nip44, Method::Nip04, Method::Dm];
        (s.dm, s.crypt, s.total) = (Some(DmLimits { failed_per_minute, ..DM }), None, None);
    })
}

/// A request to open a gift wrap that anybody could have made: its signature is right, its content nobody's.
fn junk(n: u8) -> String {
    let to = crate::nostr::unhex(PEERS[1]).expect("digits");
    let random = Random { key: [n.max(1); 32].into(), nonce: [n; 32], aux: [n; 32].into() };
    let wrap = nip59::wrap("junk", &to, &random, 1_700_000_000).expect("it fits");
    format!(r#"{{"method":"unwrap_gift_wrap","params":{{"event":{wrap}}}}}"#)
}

fn code(reply: &Value) -> &str {
    reply["code"].as_str().unwrap_or("none")
}

impl Bench {
    /// Closes a client's end, and lets the server see it.
    fn leave(&mut self, id: u64) {
        let (gone, _) = pair();
        self.clients[id as usize] = gone;
        self.server.client_ready(id, EpollFlags::EPOLLHUP);
    }

    /// Bytes of the journal.
    fn written(&mut self) -> u64 {
        assert!(self.server.journal.is_whole());
        self.server.journal.size()
    }
}

/// Checked: with agreements asked for as they come, or tried again in the order of their arrival, this fails.
#[test]
fn a_key_agreement_that_is_put_off_has_its_turn_whoever_else_asks_and_patience_ends() {
    let mut bench = Bench::new(|s| s.methods = vec![Method::Nip44]);
    let crowd: Vec<u64> = (0..20).map(|i| bench.encrypt(1, i % 3, PEERS[0])).collect();
    assert_eq!(bench.holder(0), "2".repeat(20), "all at once, all over the ceiling");
    let owner = bench.encrypt(2, 1, PEERS[1]);
    bench.round();
    assert_eq!(bench.holder(9), "", "nobody is overtaken, and the holder is left alone for a moment");
    let mut asked = String::new();
    for _ in 0..4 {
        bench.pass(100);
        bench.round();
        // One token: it is used, and the next try finds none.
        asked += &bench.holder(1);
        bench.round();
        asked += &bench.holder(0);
    }
    assert!(asked[..3].contains('5'), "{asked}");
    assert!(bench.reply(owner).expect("its turn")["result"].is_string());
    bench.pass(30_000);
    bench.round();
    let replies: Vec<Value> = crowd.iter().filter_map(|id| bench.reply(*id)).collect();
    let refused = replies.iter().filter(|r| r["code"] == "rate_limited").count();
    assert!(replies.len() >= 19 && refused >= 15, "{} replies, {refused} refused", replies.len());
}

/// A12: whoever leaves takes no place with it, and those who wait leave room for others.
#[test]
fn who_waits_for_a_key_leaves_with_its_client_and_takes_no_more_than_its_places() {
    let mut bench = open(600);
    let first = bench.encrypt(1, 1, PEERS[0]);
    bench.holder(0);
    let (mut waiting, mut refused) = (vec![first], 0);
    for _ in 0..999 {
        bench.round();
        let id = bench.encrypt(1, 1, PEERS[0]);
        match bench.reply(id) {
            None => waiting.push(id),
            Some(reply) => refused += usize::from(code(&reply) == "rate_limited"),
        }
    }
    assert_eq!((waiting.len(), refused), (250, 750), "a quarter of all connections, for one uid");
    // Another request of the same principal is served at once.
    let other = bench.ask(1, 1, r#"{"method":"get_public_key"}"#);
    assert!(bench.reply(other).expect("at once").get("error").is_none_or(Value::is_null));
    for id in &waiting {
        bench.leave(*id);
        assert!(!bench.server.clients.contains_key(id));
    }
    assert!(bench.server.stalled.is_empty());
    assert!(bench.encrypt(1, 1, PEERS[0]) > 0 && bench.holder(9).len() == 1, "the line is empty");
}

/// A6, A8: each piece of junk draws an agreement, so it draws no more of them than may fail.
#[test]
fn junk_draws_no_agreements_beyond_its_budget_and_leaves_other_classes_and_principals_alone() {
    let mut bench = open(5);
    let junk = junk(9);
    let mut asked = 0;
    let mut crowd = Vec::new();
    for _ in 0..50 {
        crowd.push(bench.ask(1, 1, &junk));
        bench.round();
    }
    asked += bench.holder(99).len();
    assert_eq!(asked, 6, "five, and the one that a socket has tried all the same");
    let (mut own, mut other) = (0, 0);
    for _ in 0..290 {
        bench.pass(100);
        bench.round();
        asked += bench.holder(99).len();
        own += usize::from(bench.encrypt(1, 1, PEERS[1]) > 0) * bench.holder(99).len();
        other += usize::from(bench.encrypt(2, 1, PEERS[1]) > 0) * bench.holder(99).len();
    }
    assert_eq!((own, other), (290, 290), "nobody else waits, nor the same principal's notes");
    assert!((30..=36).contains(&asked), "one a second: {asked}");
    bench.pass(2_000);
    bench.round();
    let replies: Vec<Value> = crowd.iter().filter_map(|id| bench.reply(*id)).collect();
    assert_eq!(replies.len(), 50);
    assert_eq!(replies.iter().filter(|r| code(r) == "bad_request").count(), 5);
    let told = replies.iter().filter(|r| r["error"].as_str().is_some_and(|e| e.contains("5/5 failed per minute")));
    assert_eq!(told.count(), 45);
}

/// Two rows for each refusal would fill the journal as fast as an agent can write.
#[test]
fn what_is_refused_for_its_form_or_by_a_full_ceiling_writes_no_row() {
    let mut bench = open(600);
    let malformed = [
        r#"{"method":"wrap_dm","params":{"recipientPubkey":"x","message":"hi"}}"#.to_owned(),
        format!(
            r#"{{"method":"wrap_dm","params":{{"recipientPubkey":"{}","message":"{}"}}}}"#,
            PEERS[0],
            "x".repeat(50_000)
        ),
        r#"{"method":"nip44_encrypt","params":{"plaintext":"","peer_pubkey":"y"}}"#.to_owned(),
    ];
    let before = bench.written();
    for line in &malformed {
        let id = bench.ask(1, 1, line);
        assert_eq!(code(&bench.reply(id).expect("at once")), "bad_request", "{line:.80}");
    }
    assert_eq!(bench.written(), before);
    bench.sign(1, 1, "first");
    assert_eq!(bench.gate(1), ["first"], "over the ceiling");
    let before = bench.written();
    for _ in 0..50 {
        let id = bench.sign(1, 1, "another");
        assert_eq!(code(&bench.reply(id).expect("at once")), "rate_limited");
    }
    assert_eq!(bench.written(), before);
    bench.pass(500);
    bench.sign(1, 1, "later");
    assert_eq!(bench.gate(SIGNED), ["later"], "the gate is asked again in time");
}

#[test]
fn a_holder_that_has_stopped_keeps_nobody_waiting_and_is_asked_again_once_it_answers() {
    let mut bench = open(600);
    let asked = bench.encrypt(1, 1, PEERS[0]);
    bench.pass(9_999);
    bench.round();
    assert_eq!(bench.reply(asked), None);
    bench.pass(1);
    bench.round();
    assert_eq!(code(&bench.reply(asked).expect("an end")), "unavailable");
    let later = bench.encrypt(1, 1, PEERS[0]);
    assert_eq!(code(&bench.reply(later).expect("at once")), "unavailable");
    let note = bench.sign(1, 1, "a note");
    assert_eq!(bench.gate(SIGNED), ["a note"], "signing goes on");
    assert!(bench.reply(note).expect("a reply").get("event").is_some());
    // It goes on: what it answers now, nobody waits for.
    assert_eq!(bench.holder(9), "2");
    let again = bench.encrypt(1, 1, PEERS[0]);
    bench.holder(9);
    assert!(bench.reply(again).expect("a reply")["result"].is_string());
}

/// A gate answers in the order in which it is asked, and the audit takes rows for the intents in their order.
///
/// Checked: where a seal, or the operator's event, is asked for at once, this fails.
#[test]
fn a_seal_and_the_operators_event_take_their_turn_among_the_events_of_a_round() {
    let mut bench = open(600);
    bench.sign(1, 1, "first");
    let params = format!(r#"{{"recipientPubkey":"{}","message":"second"}}"#, PEERS[0]);
    bench.ask(1, 2, &format!(r#"{{"method":"wrap_dm","params":{params}}}"#));
    assert_ne!(bench.holder(9), "", "the key that the seal is encrypted with");
    bench.sign(1, 3, "third");
    let mut operator = super::operator::connect(&mut bench);
    bench.server.serve_operator();
    let event = r#"{"method":"sign_event","params":{"kind":1,"content":"fourth"}}"#;
    assert_eq!(super::operator::ask(&mut bench, &mut operator, event), None);
    let came = bench.gate(SIGNED);
    let [first, seal, third, fourth] = &came[..] else { panic!("{came:?}") };
    assert_eq!([first, third, fourth], ["first", "third", "fourth"]);
    assert!(seal.len() > 100, "a seal's content is encrypted: {seal}");
}
