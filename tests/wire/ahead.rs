//! Requests that are sent ahead over one connection get the replies that they get one at a time.
//!
//! Checked: with what is behind a put-off request decided all the same, and with replies sent as they come, this fails.

use crate::support::{Nsecd, PUBLIC_KEY, client, event};
use serde_json::{Value, json};
use std::thread;

/// Connections, each with up to forty requests.
const CASES: u64 = 60;
const PEER: &str = "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
const CONFIG: &str = r#"
[key]
ceiling = "none"
[limits]
sessions_per_minute = 1000
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 7, 1111]
tokenless = [1, 7]
methods = ["sign_event", "nip44"]
limits = "none"
total = "none"
crypt = "none"
"#;

/// The same numbers for the same seed (splitmix64): a case that fails can be had again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }
}

/// A line without its newline; `TOKEN` is the session's.
fn request(n: &mut Numbers, i: usize) -> String {
    let line = |method: &str, params: Value| client::line(method, params).trim_end().to_owned();
    let long = "x".repeat(n.one_of(&[0, 10, 300, 3_000, 20_000]));
    let content = format!("{i}{long}");
    match n.below(20) {
        0..=7 => line("sign_event", json!({"kind": n.one_of(&[1, 1, 7]), "content": content})),
        8..=10 => line("sign_event", json!({"kind": 1111, "content": content, "session_token": "TOKEN"})),
        11 => line("sign_event", json!({"kind": n.one_of(&[0, 5, 99_999]), "content": content})),
        12 => line("nip44_encrypt", json!({"plaintext": content + "x", "peer_pubkey": PEER})),
        13 => line("session_info", json!({"token": "TOKEN"})),
        14 if n.below(4) == 0 => line("session_revoke", json!({"token": "TOKEN"})),
        14 | 15 => line("get_public_key", json!({})),
        16 => n
            .one_of(&[
                r#"{"method":"sign_event","#,
                r#"{"method":"sign_event","params":{"kind":1,"content":"\ud800"}}"#,
            ])
            .into(),
        17 => format!("nonsense {i}"),
        18 => format!(r#"{{"method":"nothing{i}"}}"#),
        _ => n.one_of(&["\r", "", " "]).into(),
    }
}

/// A reply without what differs from time to time: an event's id, signature and time, a ciphertext, a session's times.
fn constant(mut reply: Value) -> Value {
    if reply.get("event").is_some() {
        event::signed(&reply, PUBLIC_KEY);
        ["id", "sig", "created_at"].iter().for_each(|name| drop(reply["event"][name].take()));
    } else if reply["result"].is_string() {
        drop(reply["result"].take());
    } else if reply["session"].is_object() {
        ["createdAt", "expiresAt"].iter().for_each(|name| drop(reply["session"][name].take()));
    }
    reply
}

/// The last one without its newline if `last`.
fn one_at_a_time(nsecd: &Nsecd, requests: &[String], last: bool) -> Vec<Value> {
    let mut client = nsecd.connect();
    let mut ask = |(i, request): (usize, &String)| {
        if last && i + 1 == requests.len() {
            client.send(request);
            client.half_close();
        } else {
            client.send(format!("{request}\n"));
        }
        constant(client.reply())
    };
    requests.iter().enumerate().filter(|(_, request)| !request.trim().is_empty()).map(&mut ask).collect()
}

/// In pieces, the last one without its newline if `last`.
fn ahead(nsecd: &Nsecd, requests: &[String], last: bool, n: &mut Numbers) -> Vec<Value> {
    let text = requests.join("\n") + if last { "" } else { "\n" };
    let pieces = n.one_of(&[1, 2, 4, 20]);
    let mut cuts: Vec<usize> = (1..pieces).map(|_| n.below(text.len())).collect();
    // Where what has come is complete but for its newline, or can be no JSON any more, it is answered and the connection closed.
    cuts.retain(|cut| {
        let begin = text[..*cut].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[begin..].split('\n').next().unwrap();
        begin + line.len() > *cut && serde_json::from_str::<Value>(line).is_ok()
    });
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    let mut client = nsecd.connect();
    let stream = client.stream().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut writer = client::Client::over(stream).unwrap();
            cuts.windows(2).for_each(|cut| writer.send(&text[cut[0]..cut[1]]));
            writer.half_close();
        });
        client.rest().lines().map(|line| constant(serde_json::from_str(line).unwrap())).collect()
    })
}

#[test]
fn requests_sent_ahead_get_the_replies_that_they_get_one_at_a_time() {
    let nsecd = Nsecd::start(CONFIG);
    let mut signed = 0;
    for case in 0..CASES {
        let n = &mut Numbers(case);
        let count = 1 + n.below(40);
        let requests: Vec<String> = (0..count).map(|i| request(n, i)).collect();
        // A session of its own for each way, since both may end it.
        let under = |run: &mut dyn FnMut(&[String]) -> Vec<Value>| {
            let token = nsecd.connect().session(json!({"scope": "1111"}));
            let replies = run(&requests.iter().map(|r| r.replace("TOKEN", &token)).collect::<Vec<_>>());
            nsecd.connect().ask("session_revoke", json!({"token": token}));
            replies
        };
        let last = n.below(3) == 0;
        let wanted = under(&mut |requests| one_at_a_time(&nsecd, requests, last));
        let got = under(&mut |requests| ahead(&nsecd, requests, last, n));
        for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            assert_eq!(got, wanted, "case {case}, reply {i}");
        }
        assert_eq!(got.len(), wanted.len(), "case {case}");
        signed += got.iter().filter(|reply| reply.get("event").is_some()).count();
    }
    assert!(signed > 400, "{signed}");
}
