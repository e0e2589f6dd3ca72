//! The gate's check of an event's first bytes against the second JSON reader: it takes exactly the texts that begin as
//! NIP-01 writes an event of this key, names the same kind and time, and nothing outside the ceiling.
//!
//! Input: a byte of choices, the kinds of the ceiling (3 × 2 bytes), then what comes from the broker, after this key's opening
//! if the first bit is set.

use super::KEY;
use crate::reader::{self, Node};
use crate::subject;

pub fn run(data: &[u8]) {
    let Some(([choices, kinds @ ..], rest)) = data.split_first_chunk::<7>() else { return };
    let mut event = if choices & 1 == 1 { format!("[0,\"{KEY}\",").into_bytes() } else { Vec::new() };
    event.extend_from_slice(rest);
    let ceiling: Vec<u16> = kinds.chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();

    let whole = subject::prefix([&event[..]]);
    let piece = usize::from(choices >> 1) + 1;
    assert_eq!(subject::prefix(event.chunks(piece)), whole, "the cut of the bytes must not matter");
    assert_eq!(whole, expected(&event), "{}", String::from_utf8_lossy(&event));
    if let Some((_, kind)) = whole {
        assert_eq!(allows(&ceiling, kind), ceiling.contains(&kind));
        assert!(allows(&[kind], kind) && !allows(&[kind ^ 1 << (choices >> 4)], kind));
    }
}

/// Whether a gate with a ceiling of these kinds takes this one.
pub fn allows(ceiling: &[u16], kind: u16) -> bool {
    let kinds: Vec<String> = ceiling.iter().map(u16::to_string).collect();
    let arguments = [KEY, &kinds.join(","), "any", "any", "none", "none"].map(String::from);
    nsecd_gate::Gate::new(&arguments).unwrap().allows(kind)
}

/// Time and kind that the second reader finds, if these bytes begin as NIP-01 would write them.
fn expected(event: &[u8]) -> Option<(u32, u16)> {
    // Three commas and a bracket: no name of a field or string before them can have one, or it is not this key's.
    let bracket = event.iter().skip(1).position(|b| *b == b'[')? + 1;
    let begin = [&event[..=bracket], b"]]"].concat();
    let Some(Node::Array(items)) = reader::read(&begin) else { return None };
    let [Node::Number(zero), Node::String(key), created_at, kind, Node::Array(_)] = &items[..] else { return None };
    let (created_at, kind): (u32, u16) = (created_at.whole()?, kind.whole()?);
    let canonical = format!("[0,{},{created_at},{kind},[", serde_json::to_string(key).unwrap());
    (zero == "0" && key == KEY && created_at > 0 && canonical.as_bytes() == &event[..=bracket])
        .then_some((created_at, kind))
}
