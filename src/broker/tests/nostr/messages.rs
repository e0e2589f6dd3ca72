//! Messages wrapped here and unwrapped here, and every layer forged (A7, A17).
//!
//! Checked: with any one `return Err` of nip59.rs's verification taken out, a test of this file fails.

use nsecd_broker::event::Draft;
use nsecd_broker::json;
use nsecd_broker::nostr::nip17::{self, Message, ReplyTo};
use nsecd_broker::nostr::nip44;
use nsecd_broker::nostr::nip59::{self, Error, GiftWrap, PAST, Random, Rumor, fuzzed};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::Party;
use crate::published::unwrap;

const NOW: u32 = 1_700_000_000;

fn random(n: u8) -> Random {
    Random { key: [n; 32].into(), nonce: [n ^ 0x80; 32], aux: [n; 32].into() }
}

fn draft(kind: u16, content: &str) -> Draft {
    Draft { kind, content: content.into(), tags: vec![], created_at: None, pubkey: None }
}

/// `text` encrypted by `from` to `to`.
fn encrypted(text: &str, from: &Party, to: &Party) -> String {
    let nonce = [0x42; 32];
    nip44::encrypt(text, &nonce, &from.conversation(&to.public()).message_keys(&nonce)).unwrap()
}

/// An event of `author`, signed.
fn signed(draft: &Draft, author: &Party) -> String {
    let texts = draft.settle(&author.name(), NOW);
    let (id, signature) = author.sign(&texts.canonical);
    nip59::signed(&texts.unsigned, &id, &signature)
}

fn wrapped(seal: &str, to: &Party) -> Value {
    serde_json::from_str(&nip59::wrap(seal, &to.public(), &random(9), NOW).unwrap()).unwrap()
}

/// What `to` gets to see of a seal that `author` signed over `rumor`.
fn sealed(rumor: &str, author: &Party, to: &Party) -> Result<String, Error> {
    let seal = signed(&draft(13, &encrypted(rumor, author, to)), author);
    unwrap(&wrapped(&seal, to), to).map(|rumor| rumor.json().to_owned())
}

/// A rumor's object.
fn rumor(author: &Party) -> Value {
    serde_json::from_str(Rumor::new(&draft(14, "hello"), &author.name(), NOW).json()).unwrap()
}

#[test]
fn a_message_reaches_its_recipient_and_its_author_as_the_same_rumor() {
    let (author, recipient) = (Party::number(3), Party::number(5));
    let answered = "56d63feb4b364985a53e67dccc775bcb7f4ff10d5d3dcccc084d1e5d7f46df74";
    let message = Message {
        recipient: &recipient.name(),
        text: "hi \u{1f600}\n\"\\",
        title: Some("a title"),
        reply_to: Some(ReplyTo { event_id: answered, relay: "wss://relay.example" }),
    };
    let rumor = Rumor::new(&message.draft().unwrap(), &author.name(), NOW);
    let mut seen = Vec::new();
    for (n, to) in [&author, &recipient].into_iter().enumerate() {
        let nonce = [n as u8; 32];
        let keys = author.conversation(&to.public()).message_keys(&nonce);
        let texts = nip59::seal(&rumor, &author.name(), &nonce, &keys, fuzzed(NOW, 12345)).unwrap();
        let (id, signature) = author.sign(&texts.canonical);
        let seal = nip59::signed(&texts.unsigned, &id, &signature);
        let text = nip59::wrap(&seal, &to.public(), &random(n as u8 + 1), fuzzed(NOW, 54321)).unwrap();
        let wrap: Value = serde_json::from_str(&text).unwrap();
        let seal: Value = serde_json::from_str(&seal).unwrap();
        assert_eq!((&seal["kind"], &seal["tags"], &seal["created_at"]), (&json!(13), &json!([]), &json!(NOW - 12345)));
        assert_eq!((&wrap["kind"], &wrap["created_at"]), (&json!(1059), &json!(NOW - 54321)));
        assert_eq!(wrap["tags"], json!([["p", to.name()]]));
        assert!(wrap["pubkey"] != json!(author.name()) && !text.contains(&author.name()) || to.name() == author.name());
        seen.push(unwrap(&wrap, to).unwrap().json().to_owned());
        let other = Party::number(7);
        assert_eq!(unwrap(&wrap, &other).map(|_| ()), Err(Error::Wrap(nip44::Error::Mac)));
    }
    assert_eq!(seen[0], seen[1]);
    let rumor: Value = serde_json::from_str(&seen[0]).unwrap();
    assert_eq!(rumor["content"], message.text);
    assert_eq!(
        rumor["tags"],
        json!([["p", recipient.name()], ["e", answered, "wss://relay.example", "reply"], ["subject", "a title"]])
    );
    assert_eq!((&rumor["kind"], &rumor["pubkey"]), (&json!(14), &json!(author.name())));
    assert!(rumor.get("sig").is_none());
}

#[test]
fn two_wraps_of_one_seal_share_no_key() {
    let seal = signed(&draft(13, "x"), &Party::number(3));
    let to = Party::number(5).public();
    let author = |n| {
        serde_json::from_str::<Value>(&nip59::wrap(&seal, &to, &random(n), NOW).unwrap()).unwrap()["pubkey"].clone()
    };
    assert_ne!(author(1), author(2));
    assert_eq!(nip59::wrap(&seal, &to, &random(0), NOW), Err(Error::Randomness));
    assert_eq!(nip59::wrap(&seal, &[0xff; 32], &random(1), NOW), Err(Error::Recipient));
}

#[test]
fn a_forged_or_altered_wrap_is_refused() {
    let (author, to) = (Party::number(3), Party::number(5));
    let seal = signed(&draft(13, &encrypted(&rumor(&author).to_string(), &author, &to)), &author);
    let good = wrapped(&seal, &to);
    assert!(unwrap(&good, &to).is_ok());
    let altered = |change: &dyn Fn(&mut Value)| {
        let mut wrap = good.clone();
        change(&mut wrap);
        unwrap(&wrap, &to).map(|_| ()).unwrap_err()
    };
    let other_id = "56d63feb4b364985a53e67dccc775bcb7f4ff10d5d3dcccc084d1e5d7f46df74";
    assert_eq!(altered(&|w| w["kind"] = json!(1)), Error::WrapKind);
    assert_eq!(altered(&|w| w["kind"] = json!(21059)), Error::WrapKind);
    assert_eq!(altered(&|w| w["id"] = json!(other_id)), Error::WrapId);
    assert_eq!(altered(&|w| w["created_at"] = json!(NOW + 1)), Error::WrapId);
    assert_eq!(altered(&|w| w["tags"][0][1] = json!(author.name())), Error::WrapId);
    assert_eq!(altered(&|w| w["pubkey"] = json!(author.name())), Error::WrapId);
    assert_eq!(altered(&|w| w["sig"] = json!("0".repeat(128))), Error::WrapSignature);
    for field in ["kind", "content", "tags", "created_at", "pubkey"] {
        assert_eq!(altered(&|w| drop(w.as_object_mut().unwrap().remove(field))), Error::WrapForm, "{field}");
        assert_eq!(altered(&|w| w[field] = json!(null)), Error::WrapForm, "{field}");
    }
    assert_eq!(altered(&|w| drop(w.as_object_mut().unwrap().remove("id"))), Error::WrapId);
    assert_eq!(altered(&|w| drop(w.as_object_mut().unwrap().remove("sig"))), Error::WrapSignature);
    for (field, value) in [("id", json!(5)), ("id", json!("ab")), ("pubkey", json!("zz")), ("created_at", json!(0))] {
        assert_eq!(altered(&|w| w[field] = value.clone()), Error::WrapForm, "{field} {value}");
    }
    // Upper case is another text and so another id.
    assert_eq!(altered(&|w| w["pubkey"] = json!(w["pubkey"].as_str().unwrap().to_uppercase())), Error::WrapForm);
    // Signed by its author, with another content.
    let junk: Value = serde_json::from_str(&signed(&draft(1059, "x"), &author)).unwrap();
    assert_eq!(unwrap(&junk, &to).map(|_| ()), Err(Error::Wrap(nip44::Error::PayloadLength)));
}

#[test]
fn a_forged_seal_is_refused() {
    let (mallory, alice, to) = (Party::number(7), Party::number(3), Party::number(5));
    let seen = |seal: &str| unwrap(&wrapped(seal, &to), &to).map(|_| ());
    let content = encrypted(&rumor(&alice).to_string(), &mallory, &to);
    let good = encrypted(&rumor(&alice).to_string(), &alice, &to);
    assert_eq!(seen(&signed(&draft(13, &good), &alice)), Ok(()));
    assert_eq!(seen(&signed(&draft(1, &good), &alice)), Err(Error::SealKind));
    // A7: the seal names Alice, whose key nobody had.
    let texts = draft(13, &content).settle(&alice.name(), NOW);
    let (id, signature) = mallory.sign(&texts.canonical);
    assert_eq!(seen(&nip59::signed(&texts.unsigned, &id, &signature)), Err(Error::SealSignature));
    assert_eq!(seen(&format!("{}}}", texts.unsigned)), Err(Error::SealId));
    let unsigned = signed(&draft(13, &good), &alice).replace("\"sig\"", "\"gis\"");
    assert_eq!(seen(&unsigned), Err(Error::SealSignature));
    let elsewhere = signed(&draft(13, &good), &alice).replace("1700000000", "1700000001");
    assert_eq!(seen(&elsewhere), Err(Error::SealId));
    for text in ["nope", "null", "[]", "{}", "\"x\"", "{\"kind\":13,\"kind\":13}"] {
        assert_eq!(seen(text), Err(Error::SealForm), "{text}");
    }
    assert_eq!(seen(&signed(&draft(13, "x"), &alice)), Err(Error::Seal(nip44::Error::PayloadLength)));
    // Sealed for somebody else.
    let other = encrypted(&rumor(&alice).to_string(), &alice, &mallory);
    assert_eq!(seen(&signed(&draft(13, &other), &alice)), Err(Error::Seal(nip44::Error::Mac)));
}

#[test]
fn a_rumor_in_anothers_name_is_refused() {
    let (mallory, alice, to) = (Party::number(7), Party::number(3), Party::number(5));
    // A7, as it was found: Mallory seals under his own name what names Alice.
    assert_eq!(sealed(&rumor(&alice).to_string(), &mallory, &to), Err(Error::RumorAuthor));
    assert!(sealed(&rumor(&mallory).to_string(), &mallory, &to).is_ok());
    // Also in the recipient's own.
    assert_eq!(sealed(&rumor(&to).to_string(), &mallory, &to), Err(Error::RumorAuthor));
}

#[test]
fn a_rumor_is_what_its_id_says_and_its_signature_means_nothing() {
    let (author, to) = (Party::number(3), Party::number(5));
    let good = rumor(&author);
    let seen = |change: &dyn Fn(&mut Value)| {
        let mut rumor = good.clone();
        change(&mut rumor);
        sealed(&rumor.to_string(), &author, &to)
    };
    assert_eq!(serde_json::from_str::<Value>(&seen(&|_| ()).unwrap()).unwrap(), good);
    assert_eq!(seen(&|r| r["content"] = json!("other")), Err(Error::RumorId));
    assert_eq!(seen(&|r| r["id"] = json!("f".repeat(64))), Err(Error::RumorId));
    assert_eq!(seen(&|r| r["id"] = json!(null)), Err(Error::RumorForm));
    let without = seen(&|r| drop(r.as_object_mut().unwrap().remove("id"))).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&without).unwrap(), good, "the id is recomputed");
    for sig in [json!("zz"), json!("0".repeat(128)), json!(null), json!({"a": 1})] {
        let seen = seen(&|r| r["sig"] = sig.clone()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&seen).unwrap(), good, "neither judged nor passed on");
    }
    for field in ["kind", "content", "tags", "created_at", "pubkey"] {
        assert_eq!(seen(&|r| drop(r.as_object_mut().unwrap().remove(field))), Err(Error::RumorForm), "{field}");
    }
    // What two parsers could read differently: a duplicate key, a lone surrogate, depth.
    let text = good.to_string();
    let twice = text.replacen('{', "{\"content\":\"x\",", 1);
    let lone = text.replace("hello", "\\ud800");
    let deep = text.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(70), "]".repeat(70)), 1);
    for text in [twice, lone, deep, "null".into(), "[]".into(), format!("{text} {text}")] {
        assert_eq!(sealed(&text, &author, &to), Err(Error::RumorForm), "{text}");
    }
}

#[test]
fn no_error_carries_decrypted_text() {
    // A17: the reference quoted what it could not parse.
    let (author, to) = (Party::number(3), Party::number(5));
    let planted = "PLANTED-SECRET";
    let mut errors = vec![sealed(planted, &author, &to).unwrap_err()];
    errors.push(unwrap(&wrapped(planted, &to), &to).map(|_| ()).unwrap_err());
    errors.push(sealed(&format!("{{\"{planted}\":1,\"{planted}\":2}}"), &author, &to).unwrap_err());
    errors.push(sealed(&json!({"kind": planted}).to_string(), &author, &to).unwrap_err());
    assert_eq!(errors[..2], [Error::RumorForm, Error::SealForm]);
    for error in errors {
        let text = format!("{error} {error:?}");
        assert!(!text.contains("PLANTED"), "{text}");
    }
}

#[test]
fn what_fits_into_a_wrap_passes_and_more_is_refused() {
    let (author, to) = (Party::number(3), Party::number(5));
    let wrap = |length: usize| {
        let rumor = Rumor::new(&draft(14, &"x".repeat(length)), &author.name(), NOW);
        let keys = author.conversation(&to.public()).message_keys(&[1; 32]);
        let texts = nip59::seal(&rumor, &author.name(), &[1; 32], &keys, NOW)?;
        let (id, signature) = author.sign(&texts.canonical);
        let wrap = nip59::wrap(&nip59::signed(&texts.unsigned, &id, &signature), &to.public(), &random(1), NOW)?;
        unwrap(&serde_json::from_str(&wrap).unwrap(), &to).map(|rumor| rumor.json().len())
    };
    assert!(wrap(40_000).is_ok_and(|length| length > 40_000));
    assert_eq!(wrap(41_000), Err(Error::TooLong)); // the seal does not fit into the wrap
    assert_eq!(wrap(65_536), Err(Error::TooLong)); // the rumor does not fit into the seal
}

#[test]
fn a_message_names_keys_and_ids_in_full() {
    let name = Party::number(5).name();
    let message = Message { recipient: &name, text: "", title: None, reply_to: None };
    assert_eq!(message.draft().unwrap().tags, [["p", &name]]);
    assert_eq!(Message { title: Some(""), ..message }.draft().unwrap().tags.len(), 1);
    let upper = name.to_uppercase();
    for recipient in ["", "zz", &name[1..], &upper, &format!("02{name}")] {
        assert_eq!(Message { recipient, ..message }.draft(), Err(nip17::Error::Recipient), "{recipient}");
    }
    let reply_to = Some(ReplyTo { event_id: "abc", relay: "" });
    assert_eq!(Message { reply_to, ..message }.draft(), Err(nip17::Error::ReplyTo));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_message_comes_back(text in "\\PC{0,200}", title in prop::option::of("\\PC{0,20}"), n in 1u8..255) {
        let (author, to) = (Party::number(3), Party::number(5));
        let name = to.name();
        let message = Message { recipient: &name, text: &text, title: title.as_deref(), reply_to: None };
        let rumor = Rumor::new(&message.draft().unwrap(), &author.name(), NOW);
        let keys = author.conversation(&to.public()).message_keys(&[n; 32]);
        let texts = nip59::seal(&rumor, &author.name(), &[n; 32], &keys, NOW).unwrap();
        let (id, signature) = author.sign(&texts.canonical);
        let seal = nip59::signed(&texts.unsigned, &id, &signature);
        let wrap = nip59::wrap(&seal, &to.public(), &random(n), NOW).unwrap();
        let opened = unwrap(&serde_json::from_str(&wrap).unwrap(), &to).unwrap();
        prop_assert_eq!(opened.json(), rumor.json());
        prop_assert_eq!(opened.id(), rumor.id());
    }

    #[test]
    fn times_lie_at_most_two_days_in_the_past(now: u32, random: u64) {
        let time = fuzzed(now, random);
        prop_assert!(time >= 1 && (time <= now || now == 0) && now.saturating_sub(time) < PAST);
    }

    #[test]
    fn whatever_is_no_wrap_is_refused_and_nothing_panics(content in "\\PC{0,80}", kind: u16, sig: [u8; 32]) {
        let text = json!({"kind": kind, "content": content, "tags": [], "created_at": 1, "pubkey": crate::hex(&sig),
            "id": crate::hex(&sig), "sig": crate::hex(&[sig, sig].concat())}).to_string();
        prop_assert!(GiftWrap::verify(json::parse(text.as_bytes()).unwrap()).is_err());
    }
}
