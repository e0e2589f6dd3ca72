//! Events: what sign_event's parameters give is what the second NIP-01 reads in them, and the texts that are hashed and
//! answered say it again.
//!
//! Input: the parameters' text.

use nsecd_broker::json;
use nsecd_broker::nostr::incoming::Claim;

use super::request::is_drafted;
use super::{KEY, hex};
use crate::reader::{self, Node};
use crate::tree::{is_beyond, is_borderline};
use crate::{nip01, subject};

/// The time of an event that names none.
const NOW: u32 = 1_800_000_000;

pub fn run(data: &[u8]) {
    let root = reader::read(data).filter(|root| root.members().is_some() && !is_beyond(root) && !is_borderline(root));
    let (Some(root), Ok(mut params)) = (root, json::parse(data)) else { return };
    let event = nip01::read(&root);
    let draft = match (subject::draft(&mut params), &event) {
        (Ok(draft), Some(event)) => {
            assert!(is_drafted(event, &draft), "{draft:?}\n{event:?}");
            draft
        }
        (Err(error), None) => return assert!(!error.is_empty() && error.is_ascii(), "{error}"),
        (ours, theirs) => panic!("one reading takes it: {ours:?}\n{theirs:?}"),
    };
    assert!(draft.weight() >= draft.content.len());
    let event = event.unwrap();
    let created_at = event.created_at.unwrap_or(NOW);
    let texts = draft.settle(KEY, NOW);
    assert_eq!(texts.canonical, nip01::canonical(&event, KEY, created_at));

    // The reply's object says the same, to either reader.
    let id = nip01::id(&texts.canonical);
    let object = format!("{},\"id\":\"{}\",\"sig\":\"{}\"}}", texts.unsigned, hex(&id), "0".repeat(128));
    let again = reader::read(object.as_bytes()).expect("the reply is JSON");
    let named = nip01::Event { created_at: Some(created_at), pubkey: Some(KEY.into()), ..event };
    assert_eq!(nip01::read(&again), Some(named));
    assert_eq!(again.get("id").and_then(Node::text), Some(hex(&id).as_str()));
    let claim = Claim::read(json::parse(object.as_bytes()).unwrap()).expect("an event");
    assert!(claim.names_id(&id) && claim.texts().1 == id);
    assert_eq!(*claim.texts().0, texts.unsigned);
}
