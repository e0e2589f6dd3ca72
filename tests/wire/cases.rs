//! Replays what the reference daemon was recorded to answer (data/cases.json) under data/conform.toml.
//!
//! What each case expects:
//! `same` the recorded reply, field by field (signatures verified, live values ignored), and the same closing;
//! `error` one error, in words of our own · `refuse` the same, where the reference wrongly accepted;
//! `errors` one or more · `free` a reply or the end of the stream · `error-or-nothing` an error or just the end;
//! `error-or-first` any reply. Whether the stream is still open is asked, not waited for: by one more request.

use crate::support::{Client, Nsecd, PUBLIC_KEY, event};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PROBE: &str = "\n{\"method\":\"get_public_key\"}\n";

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("data/cases.json")).unwrap()
}

fn replay(group: &str, expected: usize) {
    let nsecd = Nsecd::start(include_str!("data/conform.toml"));
    let alone = |case: &Value| !case["send"].to_string().contains("@@");
    let cases: Vec<_> = cases().into_iter().filter(|c| c["group"] == group && alone(c)).collect();
    assert_eq!(cases.len(), expected, "cases of {group}");
    let wrong: Vec<String> = cases.iter().filter_map(|c| judge(&nsecd, c).err()).collect();
    nsecd.serves();
    assert!(wrong.is_empty(), "{} of {expected} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn framing_is_as_recorded() {
    replay("framing", 19);
}

#[test]
fn top_level_values_are_as_recorded() {
    replay("top-level", 33);
}

#[test]
fn signing_without_a_session_is_as_recorded() {
    replay("sign-legacy", 74);
}

#[test]
fn large_and_deep_requests_are_as_recorded() {
    replay("large", 12);
}

#[test]
fn sessions_are_as_recorded() {
    replay("session", 55);
}

/// One case needs another's reply; tests/messages.rs goes both ways with replies of its own.
#[test]
fn encryption_and_messages_are_as_recorded() {
    replay("crypto", 97);
}

/// Sends one part of a request, or pauses where the recording did.
fn transmit(client: &mut Client, part: &Value) {
    if let Some(seconds) = part.as_f64() {
        return std::thread::sleep(Duration::from_secs_f64(seconds));
    }
    let text = |name: &str| part[name].as_str().unwrap_or_default();
    let bytes = match text("encoding") {
        "utf8" => text("data").as_bytes().to_vec(),
        "base64" => base64(text("data")),
        _ => {
            let times = part["times"].as_u64().unwrap() as usize;
            let again = text("repeat2").repeat(times);
            [text("prefix"), &text("repeat").repeat(times), text("middle"), &again, text("suffix")].concat().into()
        }
    };
    // nsecd may have refused and closed before it was given everything.
    let _ = client.try_send(bytes);
}

fn judge(nsecd: &Nsecd, case: &Value) -> Result<(), String> {
    let mut client = nsecd.connect();
    let half_close = case["half_close"] == true;
    let reference = case["reference"].as_array().unwrap();
    let parts = case["send"].as_array().unwrap();
    parts.iter().for_each(|part| transmit(&mut client, part));
    let (lines, closed) = if half_close {
        client.half_close();
        (client.rest().lines().map(String::from).collect(), true)
    } else {
        // "incomplete JSON": completed here, it must be the only thing that is answered.
        let incomplete = |text: &str| text.starts_with('{') && !text.contains(['}', '\n']);
        let incomplete = parts.last().and_then(|p| p["data"].as_str()).is_some_and(incomplete);
        let wanted = if case["expect"] == "same" { reference.len() } else { 1 };
        listen(&mut client, wanted, incomplete)
    };
    let volatile = case["volatile"].to_string();
    let replies: Vec<Value> = lines.iter().map(|l| normal(l, &volatile)).collect();
    let ok = match case["expect"].as_str().unwrap() {
        "same" => same(reference, &replies, &volatile) && closed == (case["reference_closes"] == true),
        "error" | "refuse" => replies.len() == 1 && failed(&replies[0]),
        "errors" => !replies.is_empty() && replies.iter().all(failed),
        "error-or-nothing" => closed && replies.first().is_none_or(failed),
        "error-or-first" => !replies.is_empty(),
        "free" => closed || !replies.is_empty(),
        other => panic!("unknown expectation {other}"),
    };
    let show = |v: &[Value]| serde_json::to_string(v).unwrap().chars().take(300).collect::<String>();
    let report = || {
        let (name, expect) = (&case["name"], &case["expect"]);
        format!("{} {name} {expect}: {} not {}, closed: {closed}", case["id"], show(&replies), show(reference))
    };
    ok.then_some(()).ok_or_else(report)
}

/// Reads `wanted` lines and whatever else precedes the answer to one more request; whether the stream had ended.
fn listen(client: &mut Client, wanted: usize, incomplete: bool) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    while lines.len() < wanted {
        match client.line() {
            Some(line) => lines.push(line),
            None => return (lines, true),
        }
    }
    let probe = if incomplete { "}\n" } else { PROBE };
    // Fails if nsecd has closed, and then the next read says so.
    let _ = client.try_send(probe);
    loop {
        match client.line() {
            Some(line) if line.starts_with("{\"pubkey\":") => return (lines, false),
            Some(line) => lines.push(line),
            None => return (lines, true),
        }
    }
}

fn same(reference: &[Value], replies: &[Value], volatile: &str) -> bool {
    reference.len() == replies.len()
        && reference.iter().zip(replies).all(|(recorded, reply)| {
            // A reply too long to be kept was recorded as its length and hash, which the signature changes.
            let Some(text) = recorded.as_str() else { return reply["event"]["sig"] == "valid" };
            let mut recorded = normal(text, volatile);
            if reply["event"]["created_at"] == "live" && recorded["event"].is_object() {
                recorded["event"]["created_at"] = json!("live");
                recorded["event"]["id"] = json!("live");
            }
            recorded == *reply
        })
}

fn failed(reply: &Value) -> bool {
    reply["error"].is_string()
}

/// A reply with signatures verified and live values named as such.
fn normal(line: &str, volatile: &str) -> Value {
    let created_at = volatile.contains("event.created_at");
    let Ok(mut reply) = serde_json::from_str::<Value>(line) else { return json!({"not json": line}) };
    if let Some(event) = reply.get_mut("event").filter(|e| e.is_object()) {
        let valid = event::valid(event, PUBLIC_KEY);
        event["sig"] = json!(if valid { "valid" } else { "not valid" });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        if created_at || event["created_at"].as_f64().is_some_and(|t| (t - now).abs() < 120.0) {
            event["created_at"] = json!("live");
            event["id"] = json!("live");
        }
    }
    if let Some(session) = reply.get_mut("session").filter(|s| s.is_object()) {
        if let Some(token) = session.get("token").and_then(Value::as_str) {
            let hex = token.len() == 64 && token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            session["token"] = json!(hex);
        }
        for time in ["createdAt", "expiresAt"] {
            if session.get(time).is_some_and(Value::is_number) {
                session[time] = json!("live");
            }
        }
    }
    if let Some(events) = reply.get_mut("events").and_then(Value::as_array_mut) {
        for event in events {
            let valid = event::valid(event, event["pubkey"].as_str().unwrap_or_default());
            *event = json!([event["kind"], event["tags"].as_array().map(Vec::len), event["tags"][0][0], valid]);
        }
    }
    if let Some(fields) = reply.as_object_mut() {
        fields.remove("code");
        for name in ["result", "ciphertext"] {
            if volatile.contains(name) && fields.get(name).is_some_and(Value::is_string) {
                fields[name] = json!("live");
            }
        }
    }
    reply
}

/// RFC 4648 base64.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for digit in text.trim_end_matches('=').chars().map(|c| ALPHABET.find(c).unwrap() as u32) {
        (bits, count) = (bits << 6 | digit, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
