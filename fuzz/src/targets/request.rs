//! Requests: the broker's reader and the second one agree on every text, and what a method takes is taken as written.
//!
//! Input: a request's text.

use nsecd_broker::event::Draft;
use nsecd_broker::json;
use nsecd_broker::reply::Code;
use nsecd_broker::request::{Crypto, Method, Token};

use crate::reader::{self, Node};
use crate::tree::{is_beyond, is_borderline, same_members};
use crate::{nip01, subject};

/// No error is longer than this: 100 characters of a method's name, 40 of a key, and what is said about them.
const LONGEST_ERROR: usize = 1024;

pub fn run(data: &[u8]) {
    let root = reader::read(data);
    if root.as_ref().is_some_and(is_borderline) {
        return;
    }
    let root = root.filter(|root| root.members().is_some() && !is_beyond(root));
    let tree = json::parse(data).ok();
    match (&tree, root.as_ref().and_then(Node::members)) {
        (None, None) => {}
        (Some(ours), Some(theirs)) => assert!(same_members(ours, theirs), "{ours:?}\n{theirs:?}"),
        (ours, theirs) => panic!("one reader takes it: {ours:?}\n{theirs:?}"),
    }
    let expected = root.as_ref().and_then(|root| expected(root, data.len()));
    match subject::request(data) {
        Ok(call) => {
            let (method, token, account) = expected.expect("refused by the second reading");
            assert_eq!((call.token, call.account), (token, account));
            assert!(method.is(&call.method), "{:?}\n{method:?}", call.method);
        }
        Err(error) => {
            assert!(expected.is_none(), "taken by the second reading: {error:?}");
            assert_eq!(error.code, Code::BadRequest);
            let line = error.line();
            assert!(line.len() < LONGEST_ERROR, "{line}");
            let read = reader::read(line.as_bytes()).expect("a reply is a JSON text");
            assert_eq!(read.get("error").and_then(Node::text), Some(error.text.as_str()));
        }
    }
}

/// A method as the second reading has it.
#[derive(Debug)]
enum Asked {
    /// One without parameters of its own.
    Plain(&'static str),
    Start(Option<Vec<u16>>, Option<u64>),
    /// A method's name and its token.
    Of(&'static str, String),
    Sign(nip01::Event),
    /// A method's name, its parameters, the request's size.
    Crypto(&'static str, Vec<(String, Node)>, usize),
}

impl Asked {
    fn is(&self, method: &Method) -> bool {
        let named = |name: &str| method.name() == name;
        match (self, method) {
            (Asked::Plain(name), Method::GetPublicKey | Method::ListAccounts) => named(name),
            (Asked::Start(scope, ttl), Method::SessionStart { scope: ours, ttl: our }) => scope == ours && ttl == our,
            (Asked::Of(name, token), Method::SessionInfo(ours) | Method::SessionRevoke(ours)) => {
                named(name) && token == ours
            }
            (Asked::Sign(event), Method::SignEvent(draft)) => is_drafted(event, draft),
            (Asked::Crypto(name, members, size), Method::Crypto { fields, size: ours, .. }) => {
                named(name) && size == ours && same_members(fields, members)
            }
            _ => false,
        }
    }
}

/// Whether a draft says what the event says.
pub fn is_drafted(event: &nip01::Event, draft: &Draft) -> bool {
    let nip01::Event { kind, content, tags, created_at, pubkey } = event.clone();
    *draft == Draft { kind, content, tags, created_at, pubkey }
}

/// What a request asks for, by docs/wire.md.
fn expected(root: &Node, size: usize) -> Option<(Asked, Token, Option<String>)> {
    let none = Node::Object(Vec::new());
    let params = root.get("params").filter(|params| params.members().is_some()).unwrap_or(&none);
    let given = |name: &str| params.get(name).filter(|node| **node != Node::Null);
    let asked = match root.get("method")?.text()? {
        "get_public_key" => Asked::Plain("get_public_key"),
        "list_accounts" => Asked::Plain("list_accounts"),
        "session_info" => Asked::Of("session_info", given("token")?.text().filter(|t| !t.is_empty())?.into()),
        "session_revoke" => Asked::Of("session_revoke", given("token")?.text().filter(|t| !t.is_empty())?.into()),
        "session_start" => Asked::Start(scope(given("scope"))?, ttl(given("ttl"))?),
        "sign_event" => Asked::Sign(nip01::read(params)?),
        name => crypto(name, params, size)?,
    };
    let token = match given("session_token") {
        None => Token::None,
        Some(Node::String(token)) if !token.is_empty() => Token::Given(token.clone()),
        Some(_) => Token::Malformed,
    };
    let account = given("account").map_or(Some(""), Node::text)?;
    Some((asked, token, Some(account.to_owned()).filter(|name| !name.is_empty())))
}

/// Kinds with commas and perhaps blanks between them, each counted once.
fn scope(value: Option<&Node>) -> Option<Option<Vec<u16>>> {
    let text = match value.map(Node::text) {
        None | Some(Some("")) => return Some(None),
        Some(text) => text?,
    };
    let mut kinds: Vec<u16> = Vec::new();
    for item in text.split(',').map(|item| item.trim_matches(&[' ', '\t', '\r', '\n'][..])) {
        let kind: u16 = item.parse().ok()?;
        // As it would be written, so without a sign or zeros before it.
        (kind.to_string() == item).then_some(())?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    (kinds.len() <= 1024).then_some(Some(kinds))
}

/// Seconds, at least one, as a number or as its digits; what is too large for any ceiling stays too large.
fn ttl(value: Option<&Node>) -> Option<Option<u64>> {
    let (digits, is_text) = match value {
        None => return Some(None),
        Some(Node::String(text)) if text.is_empty() => return Some(None),
        Some(Node::String(text)) => (text, true),
        Some(Node::Number(text)) => (text, false),
        Some(_) => return None,
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    match digits.parse::<u64>() {
        _ if !plain => None,
        Ok(seconds) => Some(Some(seconds)),
        Err(_) => is_text.then_some(Some(u64::MAX)),
    }
}

fn crypto(name: &str, params: &Node, size: usize) -> Option<Asked> {
    let methods = [Crypto::Nip44Encrypt, Crypto::Nip44Decrypt, Crypto::Nip04Encrypt, Crypto::Nip04Decrypt];
    let methods = methods.into_iter().chain([Crypto::WrapDm, Crypto::UnwrapGiftWrap]);
    let name = methods.map(Crypto::name).find(|known| *known == name)?;
    let has = |field: &str| params.get(field).is_some_and(|node| *node != Node::Null && node.text() != Some(""));
    let required: &[&[&str]] = match name {
        "nip44_encrypt" => &[&["plaintext"], &["peer_pubkey"]],
        "nip44_decrypt" => &[&["ciphertext"], &["peer_pubkey"]],
        "nip04_encrypt" => &[&["plaintext", "message"], &["recipientPubkey", "peer_pubkey"]],
        "nip04_decrypt" => &[&["ciphertext", "content"], &["senderPubkey", "peer_pubkey"]],
        "wrap_dm" => &[&["recipientPubkey"]],
        _ => &[&["event"]],
    };
    let enough = required.iter().all(|names| names.iter().any(|name| has(name)));
    let message = name != "wrap_dm" || params.get("message").is_some();
    let common = ["session_token", "account"];
    let members = params.members()?.iter().filter(|(name, _)| !common.contains(&name.as_str())).cloned().collect();
    (enough && message).then_some(Asked::Crypto(name, members, size))
}
