//! The whole way of an event, from its request to the gate, against a second canonicaliser which never parses: an event is
//! made up, asked for in some spelling of JSON, and what the gate gets is compared with what NIP-01 says of the event.
//!
//! Input: choices. Texts are the input's own bytes.

use arbitrary::{Result, Unstructured};
use nsecd_broker::request::Method;
use nsecd_gate::prefix::Prefix;
use sha2::{Digest, Sha256};

use super::KEY;
use crate::{nip01, subject};

pub fn run(data: &[u8]) {
    let _ = follow(&mut Unstructured::new(data));
}

fn follow(choices: &mut Unstructured<'_>) -> Result<()> {
    let tags = (0..choices.int_in_range(0..=3)?)
        .map(|_| (0..choices.int_in_range(0..=3)?).map(|_| text(choices)).collect())
        .collect::<Result<_>>()?;
    let event = nip01::Event {
        kind: choices.arbitrary()?,
        created_at: Some(choices.arbitrary()?).filter(|t| *t > 0),
        content: text(choices)?,
        tags,
        pubkey: None,
    };
    let ceiling: Vec<u16> =
        if choices.arbitrary()? { vec![event.kind] } else { choices.arbitrary::<[u16; 3]>()?.into() };
    let request = spelled(&event, choices)?;

    let call = subject::request(request.as_bytes()).unwrap_or_else(|e| panic!("{e:?}: {request}"));
    let Method::SignEvent(draft) = call.method else { panic!("{request}") };
    let created_at = event.created_at.unwrap_or(1_800_000_000);
    let canonical = subject::canonical(&draft, KEY, 1_800_000_000);
    let expected = nip01::canonical(&event, KEY, created_at);
    assert_eq!(canonical, expected, "{request}");

    // As the gate reads it: in pieces, each hashed.
    let (mut prefix, mut hash) = (Prefix::new(KEY), Sha256::new());
    for part in canonical.as_bytes().chunks(choices.int_in_range(1..=100)?) {
        prefix.feed(part);
        hash.update(part);
    }
    let fields = prefix.fields().expect("the gate takes what the broker sends");
    assert_eq!((fields.created_at, fields.kind), (created_at, event.kind));
    assert_eq!(<[u8; 32]>::from(hash.finalize()), nip01::id(&expected));
    assert_eq!(super::gate::allows(&ceiling, fields.kind), ceiling.contains(&event.kind));
    Ok(())
}

/// Any text; bytes that are no UTF-8 stand for the characters of their number, so that control characters are common.
pub fn text(choices: &mut Unstructured<'_>) -> Result<String> {
    let length = choices.int_in_range(0..=40)?;
    let bytes = choices.bytes(usize::min(length, choices.len()))?;
    Ok(std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|b| char::from(*b)).collect(), str::to_owned))
}

/// A request for the event, spelled in one of the ways that JSON has for it.
fn spelled(event: &nip01::Event, choices: &mut Unstructured<'_>) -> Result<String> {
    let mut list = String::new();
    for tag in &event.tags {
        let items = tag.iter().map(|item| quoted(item, choices)).collect::<Result<Vec<_>>>()?;
        list += &format!("{}[{}]", if list.is_empty() { "" } else { " ,\t" }, items.join(", "));
    }
    let mut members = [
        format!("{}:{}", quoted("kind", choices)?, event.kind),
        format!("{} : {}", quoted("content", choices)?, quoted(&event.content, choices)?),
        format!("\"tags\":[{list}]"),
        format!("\"created_at\":{}", event.created_at.unwrap_or(0)),
    ];
    members.rotate_left(choices.int_in_range(0..=3)?);
    Ok(format!("{{\"params\":{{{}}} ,\"method\":{}}}", members.join(","), quoted("sign_event", choices)?))
}

/// A JSON string of this text, each character as it is, by its short escape, or by its UTF-16 units.
fn quoted(text: &str, choices: &mut Unstructured<'_>) -> Result<String> {
    let mut out = String::from('"');
    for c in text.chars() {
        let short = "\"\\/bfnrt".chars().zip("\"\\/\u{8}\u{c}\n\r\t".chars()).find(|(_, of)| *of == c);
        let must = c < ' ' || c == '"' || c == '\\';
        match (short, choices.int_in_range(0..=3)?) {
            (Some((letter, _)), 0 | 1) => out.extend(['\\', letter]),
            (_, 2) => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &format!("\\u{unit:04x}")),
            (_, 3) if !must => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &format!("\\u{unit:04X}")),
            _ if must => out += &format!("\\u{:04X}", u32::from(c)),
            _ => out.push(c),
        }
    }
    out.push('"');
    Ok(out)
}
