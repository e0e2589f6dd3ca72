//! Gift wraps from outside (NIP-59): a layer opens exactly if the second NIP-01 finds it signed by whom it names, and what
//! comes out is the seal's author's.
//!
//! Input: a byte of choices, then (0) a gift wrap, (1) an event that is wrapped's fields, signed here, (2) what a wrap that was
//! made here has in it, (3) what a seal that was made here has in it, (7) choices of which a rumor is made up.

use arbitrary::{Result, Unstructured};
use nsecd_broker::json;
use nsecd_broker::nostr::conversation::Conversation;
use nsecd_broker::nostr::nip44::{MessageKeys, Payload, encrypt};
use nsecd_broker::nostr::nip59::{GiftWrap, Random, wrap};
use secp256k1::{Keypair, SecretKey, XOnlyPublicKey, schnorr};

use super::canonical::text;
use super::hex;
use crate::reader::{self, Node};
use crate::tree::{is_beyond, is_borderline};
use crate::{nip01, subject};

/// Secret keys: the account's, a sender's, a one-time key.
const OWN: u8 = 3;
const SENDER: u8 = 5;
const ONCE: u8 = 7;

pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    if choice & 7 == 7 {
        let Ok(text) = made_up(&mut Unstructured::new(rest)) else { return };
        return message(&text, reader::read(text.as_bytes()));
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let root = reader::read(rest).filter(|root| root.members().is_some());
    if root.as_ref().is_some_and(is_borderline) {
        return;
    }
    let root = root.filter(|root| !is_beyond(root));
    match choice & 3 {
        0 => assert_eq!(is_gift_wrap(text), root.is_some_and(|root| genuine(&root, 1059).is_some())),
        1 => {
            let Some(event) = root.and_then(|root| nip01::read(&root)) else { return };
            let object = signed(&event, ONCE);
            let expected = event.kind == 1059 && Payload::parse(&event.content).is_ok();
            assert_eq!(is_gift_wrap(&object), expected, "{object}");
        }
        2 => {
            let Some(wrapped) = wrapped(text) else { return };
            let seal = wrapped.open(&keys(&ONCE_AUTHOR.with(|author| *author), &NONCE));
            let expected = root.and_then(|root| genuine(&root, 13));
            assert_eq!(seal.as_ref().ok().map(|seal| *seal.author()), expected, "{text}");
        }
        _ => message(text, root),
    }
}

/// The nonce of what is encrypted here.
const NONCE: [u8; 32] = [9; 32];

thread_local! {
    static ONCE_AUTHOR: [u8; 32] = public(ONCE);
    static SENDER_AUTHOR: [u8; 32] = public(SENDER);
    static OWN_KEY: [u8; 32] = public(OWN);
}

fn secret(last: u8) -> SecretKey {
    let mut bytes = [0; 32];
    bytes[31] = last;
    SecretKey::from_secret_bytes(bytes).unwrap()
}

fn public(last: u8) -> [u8; 32] {
    Keypair::from_secret_key(&secret(last)).x_only_public_key().0.to_byte_array()
}

/// The account's keys for a message of `peer`'s: what the ECDH holder would answer.
fn keys(peer: &[u8; 32], nonce: &[u8; 32]) -> MessageKeys {
    Conversation::agree(&secret(OWN), &XOnlyPublicKey::from_byte_array(*peer).unwrap()).message_keys(nonce)
}

fn is_gift_wrap(text: &str) -> bool {
    json::parse(text.as_bytes()).is_ok_and(|object| GiftWrap::verify(object).is_ok())
}

/// A gift wrap for the account with this text in it; `None` if the text does not fit.
fn wrapped(text: &str) -> Option<GiftWrap> {
    let key = secret(ONCE).to_secret_bytes().into();
    let random = Random { key, nonce: NONCE, aux: [0; 32].into() };
    let object = wrap(text, &OWN_KEY.with(|key| *key), &random, 1_700_000_000).ok()?;
    Some(GiftWrap::verify(json::parse(object.as_bytes()).unwrap()).expect("a wrap of our own"))
}

/// The event signed by one of the keys above.
fn signed(event: &nip01::Event, by: u8) -> String {
    let author = hex(&public(by));
    let created_at = event.created_at.unwrap_or(1);
    let id = nip01::id(&nip01::canonical(event, &author, created_at));
    let signature = schnorr::sign_with_aux_rand(&id, &Keypair::from_secret_key(&secret(by)), &[0; 32]);
    serde_json::json!({
        "kind": event.kind, "content": event.content, "tags": event.tags, "created_at": created_at, "pubkey": author,
        "id": hex(&id), "sig": hex(&signature.to_byte_array()),
    })
    .to_string()
}

/// The author of an event of this kind whose id is its content's, whose signature the author's, and whose content a
/// payload of NIP-44; `None` if something is not.
fn genuine(root: &Node, kind: u16) -> Option<[u8; 32]> {
    let (event, author) = authored(root)?;
    let id = nip01::id(&nip01::canonical(&event, &hex(&author), event.created_at?));
    let named: [u8; 32] = unhex(root.get("id")?.text()?)?;
    let signature = schnorr::Signature::from_byte_array(unhex(root.get("sig")?.text()?)?);
    let author_key = XOnlyPublicKey::from_byte_array(author).ok()?;
    schnorr::verify(&signature, &id, &author_key).ok()?;
    (event.kind == kind && named == id && Payload::parse(&event.content).is_ok()).then_some(author)
}

/// An event with all that one has beside id and signature, and its author.
fn authored(root: &Node) -> Option<(nip01::Event, [u8; 32])> {
    let event = nip01::read(root).filter(|event| event.created_at.is_some())?;
    matches!(root.get("tags")?, Node::Array(_)).then_some(())?;
    let author = unhex(event.pubkey.as_deref()?)?;
    Some((event, author))
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = text.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    // As it would be written: lower case, no signs, two digits each.
    (hex(&bytes) == text).then_some(())?;
    bytes.try_into().ok()
}

/// A rumor which is nearly right, or right: author and id are, or are not.
fn made_up(choices: &mut Unstructured<'_>) -> Result<String> {
    let author = hex(&public(if choices.ratio(7, 8)? { SENDER } else { OWN }));
    let tags = (0..choices.int_in_range(0..=2)?).map(|_| Ok(vec![text(choices)?])).collect::<Result<_>>()?;
    let created_at: u32 = choices.arbitrary()?;
    let event = nip01::Event {
        kind: choices.arbitrary()?,
        content: text(choices)?,
        tags,
        created_at: Some(created_at),
        pubkey: None,
    };
    let mut rumor = serde_json::json!({
        "kind": event.kind, "content": event.content, "tags": event.tags, "created_at": created_at, "pubkey": author,
    });
    let id = hex(&nip01::id(&nip01::canonical(&event, &author, created_at)));
    match choices.int_in_range(0..=3)? {
        0 => rumor["id"] = id.into(),
        1 => rumor["id"] = author.into(),
        2 => rumor["sig"] = id.into(),
        _ => {}
    }
    Ok(rumor.to_string())
}

/// Opens a whole message with this text as the rumor.
fn message(text: &str, root: Option<Node>) {
    let sender = SENDER_AUTHOR.with(|author| *author);
    let Ok(content) = encrypt(text, &NONCE, &keys(&sender, &NONCE)) else { return };
    let seal = nip01::Event { kind: 13, content, tags: vec![], created_at: Some(1_700_000_000), pubkey: None };
    let Some(wrapped) = wrapped(&signed(&seal, SENDER)) else { return };
    let seal = wrapped.open(&keys(&ONCE_AUTHOR.with(|author| *author), &NONCE)).expect("a seal of our own");
    assert_eq!(*seal.author(), sender);

    let expected = root.as_ref().and_then(|root| {
        let (event, author) = authored(root)?;
        let id = nip01::id(&nip01::canonical(&event, &hex(&author), event.created_at?));
        let named = match root.get("id") {
            None => id,
            Some(named) => unhex(named.text()?)?,
        };
        (author == sender && named == id).then_some((event, id))
    });
    match (subject::rumor(seal, &keys(&sender, &NONCE)), expected) {
        (None, None) => {}
        (Some(json), Some((event, id))) => {
            let again = reader::read(json.as_bytes()).expect("a rumor is JSON");
            assert_eq!(nip01::read(&again), Some(event));
            assert_eq!(again.get("id").and_then(Node::text), Some(hex(&id).as_str()));
            assert_eq!(again.members().map(<[_]>::len), Some(6), "no signature and nothing else: {json}");
        }
        (ours, theirs) => panic!("one reading takes it: {ours:?}\n{theirs:?}"),
    }
}
