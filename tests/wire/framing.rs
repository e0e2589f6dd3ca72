//! Two framings on one socket: a request with a newline keeps the connection, one without is answered and closed.

use crate::support::daemon::OPEN;
use crate::support::{Nsecd, PUBLIC_KEY, client, event};
use serde_json::json;

fn request() -> String {
    client::line("sign_event", json!({"kind": 1, "content": "{}\\\"[", "tags": [["t", "}"]], "created_at": null}))
}

#[test]
fn a_request_without_newline_is_answered_and_closed_whether_or_not_the_client_half_closes() {
    let nsecd = Nsecd::start(OPEN);
    for half_close in [true, false] {
        let mut client = nsecd.connect();
        client.send(request().trim_end());
        if half_close {
            client.half_close();
        }
        event::signed(&client.reply(), PUBLIC_KEY);
        assert_eq!(client.line(), None);
    }
}

#[test]
fn requests_with_newlines_are_answered_in_order_on_one_connection() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    let key = client::line("get_public_key", json!({}));
    client.send(format!("{}\r\n\n \r\n{key}{{nonsense}}\n{}{key}", request().trim_end(), request()));
    event::signed(&client.reply(), PUBLIC_KEY);
    assert_eq!(client.reply()["pubkey"], PUBLIC_KEY);
    assert!(client::refusal(&client.reply()).starts_with("Parse error: "));
    event::signed(&client.reply(), PUBLIC_KEY);
    assert_eq!(client.reply()["pubkey"], PUBLIC_KEY);
    client.half_close();
    assert_eq!(client.line(), None);
}

#[test]
fn what_is_replied_never_depends_on_how_the_bytes_were_cut() {
    let nsecd = Nsecd::start(include_str!("data/conform.toml"));
    let fixed = json!({"kind": 1, "content": "é\u{1f600}{[\\\"", "tags": [["e", "]"]], "created_at": 1700000000});
    let request = client::line("sign_event", fixed);
    let whole = nsecd
        .connect()
        .ask("sign_event", serde_json::from_str(&request).map(|v: serde_json::Value| v["params"].clone()).unwrap());
    for newline in [true, false] {
        let bytes = if newline { request.as_bytes() } else { request.trim_end().as_bytes() };
        for cut in 1..bytes.len() {
            let mut client = nsecd.connect();
            client.send(&bytes[..cut]);
            // Cut before its newline it may be answered and closed by now: only closing depends on the cut.
            let _ = client.try_send(&bytes[cut..]);
            let reply = client.reply();
            assert_eq!(event::signed(&reply, PUBLIC_KEY)["id"], whole["event"]["id"], "cut at {cut}");
        }
    }
}

#[test]
fn a_request_over_the_size_limit_is_refused_and_closed() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    // The daemon may close while we still write.
    let _ =
        client.try_send(format!("{{\"method\":\"sign_event\",\"params\":{{\"content\":\"{}", "x".repeat(600 << 10)));
    let reply = client.line().map(|l| serde_json::from_str::<serde_json::Value>(&l).unwrap());
    let reply = reply.expect("a reply before the end");
    assert_eq!(client::code(&reply), "too_large");
    assert_eq!(client.line(), None);
}
