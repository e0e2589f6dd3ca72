//! Requests that are sent ahead over one connection: their events are with the gate together, their replies come in their order.

use std::io::{Read, Write};

use super::{Bench, EpollFlags, FAILED, Limits, Method, SIGNED, TOTAL};
use serde_json::Value;

/// A request for the signature of an event of kind 1 that says so.
fn event(content: &str) -> String {
    format!(r#"{{"method":"sign_event","params":{{"kind":1,"content":"{content}"}}}}"#)
}

const KEY: &str = r#"{"method":"get_public_key"}"#;

impl Bench {
    /// Sends lines over one connection, in one piece.
    fn ahead(&mut self, lines: &[String]) -> u64 {
        self.ask(1, 1, &lines.join("\n"))
    }

    /// What a client has been sent.
    fn taken(&mut self, id: u64) -> String {
        self.server.commit();
        let mut text = String::new();
        let _ = self.clients[id as usize].read_to_string(&mut text);
        text
    }

    /// The replies that it has.
    fn replies(&mut self, id: u64) -> Vec<String> {
        said(&self.taken(id))
    }
}

/// What replies say: of an event its content, of a key or an encryption `done`, else the error's code.
fn said(text: &str) -> Vec<String> {
    let what = |reply: Value| match (&reply["event"]["content"], &reply["code"]) {
        (Value::String(content), _) => content.clone(),
        (_, Value::String(code)) => code.clone(),
        _ if reply.get("pubkey").or(reply.get("result")).is_some() => "done".into(),
        _ => panic!("{reply}"),
    };
    text.lines().map(|line| what(serde_json::from_str(line).expect("JSON"))).collect()
}

/// Checked: with `looks_ahead` never true, only "a" comes to the gate; with `reply` not queued behind what is owed, the key comes first.
#[test]
fn events_are_with_the_gate_together_and_replies_come_in_the_order_of_the_requests() {
    let mut bench = Bench::new(|socket| socket.total = None);
    let refused = event("refused").replace(":1,", ":5,");
    let id = bench.ahead(&[event("a"), KEY.into(), event("b"), refused, event("c")]);
    assert_eq!(bench.replies(id), [""; 0], "the first is not signed");
    assert_eq!(bench.gate(SIGNED), ["a", "b", "c"]);
    assert_eq!(bench.replies(id), ["a", "done", "b", "no_session", "c"]);
    bench.send(id, KEY);
    assert_eq!(bench.replies(id), ["done"], "and it goes on");
}

/// Checked: without the bound on what is owed, all twenty come at once; without `send_early`, replies are kept back.
#[test]
fn so_many_and_no_more_at_a_time_until_all_are_served() {
    let mut bench = Bench::new(|socket| socket.total = None);
    let lines: Vec<String> = (0..20).map(|n| event(&n.to_string())).collect();
    let id = bench.ahead(&lines);
    let mut came = Vec::new();
    for expected in [8, 8, 4] {
        let some = bench.gate(SIGNED);
        assert_eq!(some.len(), expected);
        came.extend(some);
        assert_eq!(bench.replies(id).len(), expected, "none is kept back for those behind");
    }
    assert_eq!(came, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(!bench.server.clients[&id].connection.owes());
}

/// Checked: with `wait` though replies are owed, this fails.
#[test]
fn what_waits_for_a_slot_waits_until_all_before_it_are_answered_and_nothing_overtakes_it() {
    let mut bench = Bench::new(|socket| socket.total = Some(Limits { burst: 2, ..TOTAL }));
    let id = bench.ahead(&[event("a"), event("b"), event("c"), KEY.into()]);
    assert_eq!(bench.gate(SIGNED), ["a", "b"]);
    assert_eq!(bench.replies(id), ["a", "b"]);
    bench.round();
    assert_eq!((bench.gate(SIGNED).len(), bench.replies(id).len()), (0, 0));
    bench.pass(10_000);
    bench.round();
    assert_eq!(bench.gate(SIGNED), ["c"]);
    assert_eq!(bench.replies(id), ["c", "done"]);
}

/// Checked: with the errand begun at once, the holder is asked before the gate has answered; with the farewell before what was put off has
/// its turn (`next` in `write`), the last is not answered.
#[test]
fn an_errand_sets_out_when_all_before_it_are_answered() {
    let mut bench = Bench::new(|socket| {
        socket.methods.push(Method::Nip44);
        socket.total = None;
    });
    let peer = "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
    let encrypt = format!(r#"{{"method":"nip44_encrypt","params":{{"plaintext":"x","peer_pubkey":"{peer}"}}}}"#);
    let id = bench.ahead(&[event("a"), encrypt.clone(), event("b")]);
    assert_eq!(bench.holder(1), "");
    assert_eq!(bench.gate(SIGNED), ["a"]);
    assert_eq!(bench.holder(1), "c");
    assert_eq!(bench.gate(SIGNED), ["b"]);
    assert_eq!(bench.replies(id), ["a", "done", "b"]);
    // The same without a newline behind the last.
    let id = bench.connect(1, 1);
    bench.clients[id as usize].write_all(format!("{}\n{encrypt}", event("a")).as_bytes()).expect("room");
    bench.server.client_ready(id, EpollFlags::EPOLLIN);
    assert_eq!(bench.gate(SIGNED), ["a"]);
    assert_eq!((bench.holder(1).as_str(), bench.replies(id)), ("c", vec!["a".to_owned(), "done".into()]));
}

/// Checked: with `answer` instead of `settle` in `unsigned`, this fails.
#[test]
fn an_event_that_the_gate_refuses_is_answered_in_its_place_and_gives_its_slot_back() {
    let mut bench = Bench::new(|socket| socket.total = Some(Limits { burst: 2, ..TOTAL }));
    let id = bench.ahead(&[event("a"), event("b"), event("c"), event("d")]);
    assert_eq!(bench.gate(FAILED), ["a", "b"]);
    assert_eq!(bench.gate(SIGNED), ["c", "d"], "with the two slots that came back");
    assert_eq!(bench.replies(id), ["unavailable", "unavailable", "c", "d"]);
}

/// Checked: with `looks_ahead` true behind the last request as well, the connection is closed with its replies owed.
#[test]
fn whoever_ends_its_side_behind_its_requests_has_all_replies_and_then_the_end() {
    let mut bench = Bench::new(|socket| socket.total = None);
    let id = bench.connect(1, 1);
    // The last without its newline.
    let text = [event("a"), event("b"), event("c")].join("\n");
    bench.clients[id as usize].write_all(text.as_bytes()).expect("room");
    bench.clients[id as usize].shutdown(std::net::Shutdown::Write).expect("open");
    while bench.server.clients.contains_key(&id) {
        bench.server.client_ready(id, EpollFlags::EPOLLIN);
        bench.gate(SIGNED);
    }
    assert_eq!(bench.replies(id), ["a", "b", "c"]);
    assert_eq!(bench.clients[id as usize].read(&mut [0]).expect("the end"), 0);
}

/// Checked: with `looks_ahead` alone (a connection that has hung up has no entry in epoll), more than eight are signed.
#[test]
fn nothing_more_is_begun_for_a_client_that_has_gone_and_its_place_is_free_in_the_end() {
    let mut bench = Bench::new(|socket| socket.total = None);
    let lines: Vec<String> = (0..20).map(|n| event(&n.to_string())).collect();
    let id = bench.ahead(&lines);
    bench.clients.pop();
    bench.server.client_ready(id, EpollFlags::EPOLLHUP);
    assert!(bench.server.clients.contains_key(&id), "what is with the gate keeps its place");
    assert_eq!(bench.gate(SIGNED).len(), 8);
    assert_eq!(bench.gate(SIGNED).len(), 0);
    assert!(!bench.server.clients.contains_key(&id));
    assert!(bench.server.ahead.is_empty());
}

/// A request is being decided: whoever waits on its socket comes first, is the sixteenth, and the gate is not there. So the event before it is
/// answered, and its connection would go on with what is behind it.
///
/// Checked: with a connection taken forward while it is (`moving` in `advance`), the key comes before "b".
#[test]
fn nothing_behind_a_request_is_answered_while_that_is_decided() {
    let mut bench = Bench::new(|s| {
        (s.total, s.limits) = (None, Some(Limits { burst: 2, ..TOTAL }));
        s.tokenless_on_limit_wait = 60;
    });
    for text in ["fill", "fill", "waits"] {
        bench.sign(2, 1, text);
    }
    assert_eq!(bench.gate(SIGNED).len(), 2);
    bench.pass(9_999);
    let id = bench.ahead(&[event("a")]);
    for n in 2..crate::server::batch::MOST as u32 {
        bench.sign(100 + n, 1, "of others");
    }
    bench.pass(1);
    let gate = bench.server.gates[0].take();
    let client = bench.server.clients.get_mut(&id).expect("it is there");
    client.connection.framer.push(format!("{KEY}\n").as_bytes());
    // As when it has just been read.
    client.moving = true;
    let call = crate::request::parse(event("b").as_bytes()).expect("a request");
    bench.server.decide(id, call);
    bench.server.clients.get_mut(&id).expect("it is there").moving = false;
    bench.server.gates[0] = gate;
    bench.server.advance(id);
    assert_eq!(bench.gate(SIGNED), ["b"]);
    assert_eq!(bench.replies(id), ["unavailable", "b", "done"]);
}

/// Checked: with the refusal first in `decide`, "c" and "d" are refused for slots that come back.
#[test]
fn where_nobody_waits_for_a_slot_one_that_comes_back_is_used_all_the_same() {
    let mut bench = Bench::new(|socket| {
        socket.total = Some(Limits { burst: 2, ..TOTAL });
        socket.tokenless_on_limit_wait = 0;
    });
    let id = bench.ahead(&["a", "b", "c", "d", "e"].map(event));
    assert_eq!(bench.gate(FAILED), ["a", "b"]);
    assert_eq!(bench.gate(SIGNED), ["c", "d"]);
    assert_eq!(bench.replies(id), ["unavailable", "unavailable", "c", "d", "rate_limited"]);
}

/// Checked: without `UNREAD` all four hundred are signed.
#[test]
fn for_a_client_that_takes_no_replies_no_more_are_made() {
    let mut bench = Bench::new(|socket| socket.total = None);
    let id = bench.connect(1, 1);
    let least = nix::sys::socket::sockopt::SndBuf;
    nix::sys::socket::setsockopt(&bench.server.clients[&id].connection, least, &4096).expect("set");
    let lines: Vec<String> = (0..400).map(|n| event(&n.to_string())).collect();
    bench.send(id, &lines.join("\n"));
    let mut signed = 0;
    loop {
        bench.server.eaten.clear();
        match bench.gate(SIGNED).len() {
            0 => break,
            more => signed += more,
        }
    }
    assert!((100..250).contains(&signed), "{signed} of replies of some 400 bytes");
    let mut text = String::new();
    loop {
        bench.server.eaten.clear();
        bench.server.client_ready(id, EpollFlags::EPOLLOUT);
        bench.gate(SIGNED);
        match bench.taken(id) {
            more if more.is_empty() => break,
            more => text += &more,
        }
    }
    assert_eq!(said(&text), (0..400).map(|n| n.to_string()).collect::<Vec<_>>(), "all, once it takes them");
}
