//! Sliding windows: their texts, their order, what draws on them, and the queue of those who may wait.

use crate::support::client::{code, refusal, refused};
use crate::support::{Client, Nsecd, PUBLIC_KEY, client, event, sys};
use serde_json::json;
use std::os::fd::AsFd;

/// A socket with these limits (TOML lines), kind 1 without a token.
fn start(lines: &str) -> Nsecd {
    Nsecd::start(&format!("[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\ntokenless = [1]\n{lines}\n"))
}

/// Signs until refused; how often it was signed, and the refusal.
fn exhaust(client: &mut Client, token: Option<&str>) -> (u32, serde_json::Value) {
    for signed in 0..1_000 {
        let reply = client.sign(1, token);
        if reply.get("event").is_none() {
            return (signed, reply);
        }
        event::signed(&reply, PUBLIC_KEY);
    }
    panic!("never refused");
}

/// The hourly text needs a minute's window to slide first: the broker's own tests show it on a clock moved by hand.
#[test]
fn burst_and_minute_refuse_in_the_reference_daemons_words() {
    for with_token in [true, false] {
        let nsecd =
            start("limits = { burst = 1, burst_window = \"1s\", per_minute = 2, per_hour = 2 }\ntotal = \"none\"");
        let mut client = nsecd.connect();
        let token = with_token.then(|| client.session(json!({"scope": "1"})));
        let (mut signed, mut texts) = (0, Vec::new());
        while texts.last().is_none_or(|t| t != "Rate limit: 2/2 per minute") {
            let (some, reply) = exhaust(&mut client, token.as_deref());
            signed += some;
            assert_eq!(code(&reply), "rate_limited");
            assert!(reply["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0 && ms <= 3_600_000), "{reply}");
            texts.push(refusal(&reply).to_string());
            texts.dedup();
        }
        assert_eq!(signed, 2);
        // Where both windows are full the burst speaks.
        assert_eq!(texts, ["Rate limit: burst exceeded (1/1 in 1s)", "Rate limit: 2/2 per minute"]);
    }
}

#[test]
fn refused_and_failed_requests_use_no_slot() {
    let nsecd = start("limits = { burst = 3, burst_window = \"1h\" }\ntotal = \"none\"");
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    for _ in 0..20 {
        refused(&client.sign(7, Some(&token)));
        refused(&client.sign(7, None));
        refused(&client.ask("sign_event", json!({"kind": 1, "session_token": token})));
        refused(&client.ask("sign_event", json!({"kind": 1, "content": "x", "created_at": 1, "session_token": token})));
        refused(&client.ask("sign_event", json!({"kind": 1, "content": "x", "tags": [1], "session_token": token})));
    }
    assert_eq!(client.ask("session_info", json!({ "token": token }))["session"]["signCount"], 0);
    assert_eq!(exhaust(&mut client, Some(&token)).0, 3);
    assert_eq!(client.ask("session_info", json!({ "token": token }))["session"]["signCount"], 3);
}

#[test]
fn the_sockets_total_holds_over_all_its_principals_and_sessions() {
    let nsecd = start("limits = \"none\"\ntotal = { burst = 4, burst_window = \"1h\" }");
    let mut client = nsecd.connect();
    let mut signed = 0;
    for _ in 0..5 {
        let token = client.session(json!({"scope": "1"}));
        signed += exhaust(&mut nsecd.connect(), Some(&token)).0;
    }
    let (tokenless, reply) = exhaust(&mut client, None);
    assert_eq!((signed + tokenless, code(&reply)), (4, "rate_limited"));
}

#[test]
fn tokenless_requests_and_sessions_draw_on_one_principals_windows() {
    let nsecd = start("limits = { burst = 4, burst_window = \"1h\" }\ntotal = \"none\"");
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    for _ in 0..2 {
        event::signed(&client.sign(1, Some(&token)), PUBLIC_KEY);
        event::signed(&client.sign(1, None), PUBLIC_KEY);
    }
    assert_eq!(code(&client.sign(1, Some(&token))), "rate_limited");
    assert_eq!(code(&client.sign(1, None)), "rate_limited");
}

#[test]
fn those_who_wait_are_served_in_the_order_they_came() {
    let nsecd =
        start("tokenless_on_limit = \"wait 20s\"\nlimits = { burst = 1, burst_window = \"1s\" }\ntotal = \"none\"");
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    let mut waiting: Vec<(usize, Client)> = Vec::new();
    for n in 0..4 {
        let mut client = nsecd.connect();
        client.send(client::line("sign_event", json!({"kind": 1, "content": format!("{n}")})));
        // Answered by the loop that has read the line before: it fixes the order.
        nsecd.serves();
        waiting.push((n, client));
    }
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let fds: Vec<_> = waiting.iter().map(|(_, c)| c.stream().as_fd()).collect();
        let ready = *sys::wait_any(&fds).first().expect("one is served in time");
        let (n, mut client) = waiting.remove(ready);
        event::signed(&client.reply(), PUBLIC_KEY);
        order.push(n);
    }
    assert_eq!(order, [0, 1, 2, 3]);
}

#[test]
fn who_would_wait_longer_than_allowed_is_refused_at_once() {
    let nsecd =
        start("tokenless_on_limit = \"wait 2s\"\nlimits = { burst = 1, burst_window = \"1h\" }\ntotal = \"none\"");
    let mut client = nsecd.connect();
    event::signed(&client.sign(1, None), PUBLIC_KEY);
    assert_eq!(code(&client.sign(1, None)), "rate_limited");
}

#[test]
fn a_session_is_refused_at_once_where_only_tokenless_requests_wait() {
    let nsecd =
        start("tokenless_on_limit = \"wait 20s\"\nlimits = { burst = 1, burst_window = \"30s\" }\ntotal = \"none\"");
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    event::signed(&client.sign(1, Some(&token)), PUBLIC_KEY);
    assert_eq!(refusal(&client.sign(1, Some(&token))), "Rate limit: burst exceeded (1/1 in 30s)");
}

#[test]
fn a_client_that_waits_and_leaves_gives_its_place_to_the_next() {
    let nsecd =
        start("tokenless_on_limit = \"wait 20s\"\nlimits = { burst = 1, burst_window = \"1s\" }\ntotal = \"none\"");
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    for _ in 0..5 {
        let mut leaves = nsecd.connect();
        leaves.send(client::line("sign_event", json!({"kind": 1, "content": "never read"})));
        nsecd.serves();
    }
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
}

#[test]
fn starting_sessions_is_limited_too() {
    let nsecd = Nsecd::start("[limits]\nsessions_per_minute = 3\n[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\n");
    let mut client = nsecd.connect();
    for _ in 0..3 {
        client.session(json!({"scope": "1"}));
    }
    assert_eq!(code(&client.ask("session_start", json!({"scope": "1"}))), "rate_limited");
}

/// B28. Checked: with a bucket of each socket's own, that is without the gate's, this fails.
#[test]
fn many_sockets_of_one_account_sign_no_more_than_its_ceiling() {
    let socket = |name: &str| {
        format!(
            "[[socket]]\npath = \"@DIR@/{name}.sock\"\nkinds = [1]\ntokenless = [1]\nlimits = \"none\"\ntotal = \"none\"\n"
        )
    };
    let names = ["a", "b", "c"];
    let config = format!("[key]\nceiling = \"7, 1/h\"\n{}", names.map(socket).concat());
    let nsecd = Nsecd::start(&config);
    // The first socket's path is the harness's.
    let paths = [nsecd.socket.clone(), nsecd.dir.join("b.sock"), nsecd.dir.join("c.sock")];
    let signed: u32 = (0..4)
        .flat_map(|_| paths.iter())
        .map(|path| {
            let mut client = Client::connect(path);
            let token = client.session(json!({"scope": "1"}));
            (0..2).filter(|_| client.sign(1, Some(&token)).get("event").is_some()).count() as u32
        })
        .sum();
    assert_eq!(signed, 7);
    for path in &paths {
        let reply = Client::connect(path).sign(1, None);
        assert_eq!(refusal(&reply), "Rate limit: account ceiling reached");
    }
}
