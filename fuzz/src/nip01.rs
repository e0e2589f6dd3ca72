//! A second NIP-01: what an event's fields are, and the text that is hashed, written from the NIP, with serde_json's writer
//! instead of the broker's.

use sha2::{Digest, Sha256};

use crate::reader::Node;

/// An event's fields as they were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The kind.
    pub kind: u16,
    /// The content.
    pub content: String,
    /// The tags.
    pub tags: Vec<Vec<String>>,
    /// Seconds since 1970; `None`: 0, null or absent.
    pub created_at: Option<u32>,
    /// The author, if one is named.
    pub pubkey: Option<String>,
}

/// The event that sign_event's parameters ask for (docs/wire.md); `None` if they ask for none.
pub fn read(params: &Node) -> Option<Event> {
    let given = |name: &str| params.get(name).filter(|node| **node != Node::Null);
    let tag = |node: &Node| match node {
        Node::Array(items) => items.iter().map(|item| item.text().map(str::to_owned)).collect(),
        _ => None,
    };
    Some(Event {
        kind: given("kind")?.whole()?,
        content: given("content")?.text()?.to_owned(),
        tags: match given("tags") {
            None => Vec::new(),
            Some(Node::Array(tags)) => tags.iter().map(tag).collect::<Option<_>>()?,
            Some(_) => return None,
        },
        created_at: given("created_at").map_or(Some(0), Node::whole).map(|t: u32| Some(t).filter(|t| *t > 0))?,
        pubkey: given("pubkey").map_or(Some(None), |node| node.text().map(|text| Some(text.to_owned())))?,
    })
}

/// NIP-01: "a JSON-serialized string (with no white space or line breaks) of" 0, pubkey, created_at, kind, tags, content.
pub fn canonical(event: &Event, pubkey: &str, created_at: u32) -> String {
    serde_json::to_string(&(0, pubkey, created_at, event.kind, &event.tags, &event.content)).unwrap()
}

/// The id that a canonical text gives.
pub fn id(canonical: &str) -> [u8; 32] {
    Sha256::digest(canonical).into()
}
