//! docs/wire.md: every exchange in it, replayed on a running nsecd.
//!
//! Tokens, ids, signatures, ciphertexts and times differ from one run to the next; each stands for the one that came in its place,
//! in later requests too. Everything else is compared byte by byte, the order of fields included.

use super::{blocks, read};
use crate::support::{Client, Nsecd, PUBLIC_KEY, Setup, admin, event};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// The time at which the document has events signed whose id is therefore always the same.
const FIXED: u64 = 1_700_000_000;
/// Shorter ones are words and small numbers, which must be as they are.
const LONG: usize = 20;
/// Digits of a time in seconds or milliseconds, or of what remains of an hour in milliseconds.
const TIME: usize = 7;
/// Digits of a session's name.
const NAME: usize = 12;
/// The document leaves the middle out of texts of this length.
const ABRIDGED: usize = 140;

/// What stands for what.
struct Names {
    real: HashMap<String, String>,
    /// What is always itself: what the document's client made up.
    fixed: HashSet<String>,
}

/// Runs of characters of keys, numbers and Base64, and what lies between them.
fn runs(text: &str) -> Vec<&str> {
    let inside = |c: char| c.is_ascii_alphanumeric() || "+/=…".contains(c);
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| inside(c) != inside(first)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        all.push(run);
        rest = after;
    }
    all
}

/// Whether two runs may stand for one another.
fn alike(shown: &str, real: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if shown.contains('…') {
        return real.len() >= ABRIDGED;
    }
    if [shown, real].iter().all(|text| text.len() == NAME && hex(text)) {
        return true;
    }
    if digits(shown) || digits(real) {
        return shown.len() == real.len() && shown.len() >= TIME && digits(shown) == digits(real);
    }
    shown.len() == real.len() && shown.len() >= LONG && hex(shown) == hex(real)
}

impl Names {
    /// The request that is meant.
    fn request(&mut self, shown: &str) -> String {
        let mut out = String::new();
        for run in runs(shown) {
            match self.real.get(run) {
                Some(real) => out += real,
                None => {
                    self.fixed.insert(run.to_owned());
                    out += run;
                }
            }
        }
        out
    }

    /// Takes a reply for the one that the document shows, or says what differs.
    fn reply(&mut self, shown: &str, real: &str) -> Result<(), String> {
        let (one, other) = (runs(shown), runs(real));
        let differs = |what: &str| Err(format!("{what}\nshown: {shown}\nreal:  {real}"));
        if one.len() != other.len() {
            return differs("a reply of another shape");
        }
        for (shown, real) in one.into_iter().zip(other) {
            if shown == real {
                continue;
            }
            if self.fixed.contains(shown) || self.fixed.contains(real) || !alike(shown, real) {
                return differs(&format!("{real} in the place of {shown}"));
            }
            self.real.insert(shown.to_owned(), real.to_owned());
        }
        let id = |text: &str| {
            let event = serde_json::from_str::<Value>(text).map(|reply| reply["event"].clone()).unwrap_or_default();
            (event["created_at"] == FIXED).then(|| event["id"].clone())
        };
        if id(shown) == id(real) { Ok(()) } else { differs("another id of the same event") }
    }
}

/// One connection.
fn replay(nsecd: &Nsecd, block: &str, names: &mut Names) -> Result<usize, String> {
    let (mut client, block): (Client, &str) = match block.strip_prefix("admin.sock\n") {
        Some(rest) => (admin::connect(nsecd), rest),
        None => (nsecd.connect(), block),
    };
    // The document's sockets lie elsewhere.
    let dir = nsecd.dir.path().to_str().unwrap();
    let mut replies = 0;
    for line in block.lines() {
        match line.split_once(' ') {
            Some((">", request)) => client.send(names.request(request) + "\n"),
            Some((">>", request)) => client.send(names.request(request)),
            Some(("<", shown)) => {
                let real = client.line().ok_or_else(|| format!("no reply, instead of: {shown}"))?;
                let real = real.replace(dir, "/run/nostr");
                names.reply(shown, &real)?;
                let reply: Value = serde_json::from_str(&real).unwrap();
                if reply.get("event").is_some() {
                    event::signed(&reply, PUBLIC_KEY);
                }
                replies += 1;
            }
            None if line == "." => assert_eq!(client.line(), None, "not closed"),
            _ => panic!("neither request nor reply: {line}"),
        }
    }
    Ok(replies)
}

#[test]
fn every_exchange_in_the_document_is_what_nsecd_says() {
    let document = read("docs/wire.md");
    let nsecd = Setup::at("signer.sock", &blocks(&document, "toml")[0]).start();
    let mut names = Names { real: HashMap::new(), fixed: [PUBLIC_KEY.to_owned()].into() };
    let mut replies = 0;
    for block in blocks(&document, "exchange") {
        replies += replay(&nsecd, &block, &mut names).unwrap_or_else(|what| panic!("{what}\nin:\n{block}"));
    }
    assert!(replies > 30, "the exchanges were not found: {replies}");
}

#[test]
fn every_method_and_every_error_code_is_in_the_document() {
    let document = read("docs/wire.md");
    let source = |name: &str, after: &str| {
        let text = read(name).split(after).nth(1).unwrap().split("\n}\n").next().unwrap().to_owned();
        text.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let codes = source("src/broker/src/reply.rs", "fn word(self)");
    let methods = source("src/broker/src/request.rs", "fn method(name: &str, params: &mut Object, size: usize)");
    assert!(codes.len() > 8 && codes.contains(&"frozen".into()), "{codes:?}");
    for code in codes {
        assert!(document.contains(&format!("\n| `{code}` | ")), "no row for {code}");
    }
    // Parameters' names are words without one.
    let methods: Vec<_> = methods.into_iter().filter(|name| name.contains('_')).collect();
    assert!(methods.len() > 10, "{methods:?}");
    for method in methods {
        let shown = [">", ">>"].map(|mark| format!("\n{mark} {{\"method\":\"{method}\""));
        assert!(shown.iter().any(|line| document.contains(line)), "no exchange for {method}");
    }
}

/// What a comparison of this kind lets pass and what it does not.
#[test]
fn control_a_reply_that_differs_in_a_word_a_number_a_field_or_its_order_is_found() {
    let names = || Names { real: HashMap::new(), fixed: [PUBLIC_KEY.to_owned()].into() };
    let [token, other, zeros] = ["ab", "cd", "00"].map(|pair| pair.repeat(32));
    let shown =
        format!("{{\"error\":\"5/5 in 10s\",\"pubkey\":\"{PUBLIC_KEY}\",\"token\":\"{token}\",\"at\":1795886013}}");
    names().reply(&shown, &shown.replace(&token, &other).replace("1795886013", "1800000000")).unwrap();
    for (from, to) in [
        ("5/5", "6/6"),
        ("error", "Error"),
        ("in 10s", "in  10s"),
        (token.as_str(), &token[2..]),
        ("1795886013", "17958860130"),
        (PUBLIC_KEY, zeros.as_str()),
        ("1795886013", "1795886013,\"x\":1"),
        ("\"error\":\"5/5 in 10s\",", ""),
    ] {
        assert!(names().reply(&shown, &shown.replace(from, to)).is_err(), "{from} as {to}");
    }
}
