//! Each rule on both sides of its bound.

use super::*;

const NOW: i64 = 1_800_000_000;

fn draft(kind: u16, content: &str, tags: &[&[&str]]) -> Draft {
    let tags = tags.iter().map(|tag| tag.iter().map(|text| (*text).to_owned()).collect()).collect();
    Draft { kind, content: content.to_owned(), tags, created_at: None, pubkey: None }
}

fn broken(rule: &Rule, draft: &Draft) -> Option<(&'static str, String)> {
    check(rule, draft, NOW, NOW).err().map(|broken| (broken.rule, broken.text))
}

fn names(name: &str, patterns: &[&str]) -> TagPatterns {
    TagPatterns { name: name.to_owned(), patterns: patterns.iter().map(|p| (*p).to_owned()).collect() }
}

#[test]
fn a_tag_that_is_named_is_there_and_every_one_of_it_matches() {
    let rule = Rule {
        kind: 27235,
        tag: vec![names("u", &["https://api.example.org/*", "https://b.example/x"]), names("method", &["GET"])],
        ..Rule::default()
    };
    let with = |tags: &[&[&str]]| broken(&rule, &draft(27235, "", tags));
    let good = ["u", "https://api.example.org/v1", "more"];
    assert_eq!(with(&[&good, &["method", "GET"]]), None);
    assert_eq!(with(&[&["method", "GET"], &["u", "https://b.example/x"], &["x"], &[]]), None);
    for (tags, text) in [
        (vec![&good[..]], "tag \"method\" is missing"),
        (vec![&["method", "GET"]], "tag \"u\" is missing"),
        (vec![&good, &["method", "POST"]], "tag \"method\" has \"POST\", which no pattern matches"),
        (
            vec![&good, &["method", "GET"], &["u", "https://evil.example/"]],
            "tag \"u\" has \"https://evil.example/\", which no pattern matches",
        ),
        (vec![&good, &["method"]], "tag \"method\" has no value, which no pattern matches"),
    ] {
        assert_eq!(with(&tags), Some(("tag", text.to_owned())));
    }
    let long = "x".repeat(10_000);
    assert!(with(&[&["u", &long]]).is_some_and(|(_, text)| text.len() < 200));
}

#[test]
fn required_and_forbidden_tags_go_by_their_names() {
    let rule = Rule { require: vec!["client".into()], forbid: vec!["e".into(), "q".into()], ..Rule::default() };
    let with = |tags: &[&[&str]]| broken(&rule, &draft(1, "", tags)).map(|(name, _)| name);
    assert_eq!(with(&[&["client"]]), None);
    assert_eq!(with(&[&["client", "x"], &["E", "y"]]), None);
    assert_eq!(with(&[&["Client", "x"]]), Some("require"));
    assert_eq!(with(&[&["client", "x"], &["q"]]), Some("forbid"));
}

#[test]
fn every_recipient_is_listed() {
    let [a, b, c] = ["a", "b", "c"].map(|digit| digit.repeat(64));
    let rule = Rule { recipients: Some(vec![a.clone(), b.clone()]), ..Rule::default() };
    let with = |tags: &[&[&str]]| broken(&rule, &draft(1, "", tags)).map(|(name, _)| name);
    assert_eq!(with(&[]), None, "nobody is named");
    assert_eq!(with(&[&["p", &a], &["p", &b, "wss://relay"], &["e", &c]]), None);
    assert_eq!(with(&[&["p", &a], &["p", &c]]), Some("recipients"));
    assert_eq!(with(&[&["p", &a.to_uppercase()]]), Some("recipients"), "no key that relays would take for this one");
    assert_eq!(with(&[&["p"]]), Some("recipients"));
    let none = Rule { recipients: Some(vec![]), ..Rule::default() };
    assert!(broken(&none, &draft(1, "", &[&["p", &a]])).is_some());
}

#[test]
fn content_and_time_are_bounded_on_both_sides() {
    let rule = Rule { max_content: Some(4), created_at: Some((-300, 60)), ..Rule::default() };
    assert_eq!(broken(&rule, &draft(1, "é€", &[])).map(|(name, _)| name), Some("max_content"), "bytes, not letters");
    assert_eq!(broken(&rule, &draft(1, "é12", &[])), None);
    let at = |created_at| check(&rule, &draft(1, "", &[]), created_at, NOW).err().map(|broken| broken.rule);
    assert_eq!(
        [at(NOW - 300), at(NOW + 60), at(NOW - 301), at(NOW + 61)],
        [None, None, Some("created_at"), Some("created_at")]
    );
}

#[test]
fn a_zap_has_one_amount_in_digits_and_no_more_than_it_may() {
    let rule = Rule { kind: 9734, max_sats: Some(5000), ..Rule::default() };
    let with = |tags: &[&[&str]]| check(&rule, &draft(9734, "", tags), NOW, NOW).map_err(|broken| broken.rule);
    assert_eq!(with(&[&["amount", "5000000"]]), Ok(5_000_000));
    assert_eq!(with(&[&["amount", "0"], &["p", "x"]]), Ok(0));
    for tags in [
        &[&["amount", "5000001"][..]][..],
        &[],
        &[&["amount", "1"], &["amount", "1"]],
        &[&["amount"]],
        &[&["amount", ""]],
        &[&["amount", "-1"]],
        &[&["amount", "+1"]],
        &[&["amount", "1e3"]],
        &[&["amount", " 1"]],
        &[&["amount", "0x10"]],
        &[&["amount", "1.0"]],
        &[&["amount", "99999999999999999999999"]],
    ] {
        assert_eq!(with(tags), Err("max_sats"), "{tags:?}");
    }
    let unlimited = Rule { max_sats: None, ..rule };
    assert_eq!(check(&unlimited, &draft(9734, "", &[]), NOW, NOW), Ok(0), "nobody asks for an amount");
}

#[test]
fn a_days_budgets_are_full_when_they_are() {
    let rule = Rule { per_day: Some(3), max_sats_per_day: Some(10), ..Rule::default() };
    let day = |msats, used| check_day(&rule, msats, used).err().map(|broken| broken.rule);
    assert_eq!(day(1000, (2, 9000)), None);
    assert_eq!(day(1001, (2, 9000)), Some("max_sats_per_day"));
    assert_eq!(day(0, (3, 0)), Some("per_day"));
    assert_eq!(day(u64::MAX, (0, 5)), Some("max_sats_per_day"));
    assert!(has_day(&rule) && !has_day(&Rule { max_sats: Some(1), ..Rule::default() }));
}
