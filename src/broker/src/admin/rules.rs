//! Rules of a session, as the operator's JSON has them: the words and units of `[[socket.rule]]`.

use nsecd_policy::rules::{LONGEST, MAX_CONTENT, MOST, Rule, TagPatterns};
use nsecd_policy::units;
use serde_json::json;

use crate::json::{Object, Value};

/// Reads a list of rules, at most one for a kind.
///
/// # Errors
/// What is wrong with it, and what was expected.
pub fn read(value: Value) -> Result<Vec<Rule>, String> {
    let Value::Array(items) = value else { return Err("Invalid rules: must be an array of objects".to_owned()) };
    if items.len() > MOST {
        return Err(format!("Invalid rules: more than {MOST}"));
    }
    let mut rules: Vec<Rule> = Vec::new();
    for item in items {
        let Value::Object(members) = item else { return Err("Invalid rules: must be an array of objects".to_owned()) };
        let rule = rule(members)?;
        if rules.iter().any(|other| other.kind == rule.kind) {
            return Err(format!(
                "Invalid rules: a second one for kind {}: expected one, with all that is to hold",
                rule.kind
            ));
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn rule(mut members: Object) -> Result<Rule, String> {
    let kind = match members.take("kind") {
        Some(Value::Unsigned(kind)) => u16::try_from(kind).ok(),
        _ => None,
    };
    let kind = kind.ok_or("Invalid rule: expected kind, from 0 to 65535")?;
    let wrong = |name: &str, expected: &str| format!("Invalid rule for kind {kind}: {name}: expected {expected}");
    let mut take = |name: &str| members.take(name).filter(|value| *value != Value::Null);
    let mut rule = Rule { kind, ..Rule::default() };
    if let Some(value) = take("tag") {
        rule.tag = tags(value).ok_or_else(|| wrong("tag", "an object of tag names with lists of patterns"))?;
    }
    for (name, list) in [("require", &mut rule.require), ("forbid", &mut rule.forbid)] {
        if let Some(value) = take(name) {
            *list = texts(value).ok_or_else(|| wrong(name, "a list of tag names"))?;
        }
    }
    if let Some(value) = take("recipients") {
        let keys = texts(value).filter(|keys| keys.iter().all(|key| is_key(key)));
        let keys = keys.ok_or_else(|| wrong("recipients", "a list of public keys, 64 lower-case hex digits each"))?;
        rule.recipients = Some(keys);
    }
    if let Some(value) = take("max_content") {
        let bytes = text(value).and_then(|text| units::size(&text)).filter(|n| (1..=MAX_CONTENT).contains(n));
        let bytes = bytes.ok_or_else(|| wrong("max_content", "a size up to \"512KiB\", such as \"8KiB\""))?;
        rule.max_content = Some(bytes as usize);
    }
    if let Some(value) = take("created_at") {
        let window = text(value).and_then(|text| units::window(&text).flatten());
        let window = window.ok_or_else(|| wrong("created_at", "a window that contains now, such as \"-5m..+5m\""))?;
        rule.created_at = Some(window);
    }
    let whole = |value: Option<Value>, name: &str| match value {
        None => Ok(None),
        Some(Value::Unsigned(n)) if (1..=u64::from(u32::MAX)).contains(&n) => Ok(Some(n)),
        Some(_) => Err(wrong(name, "a whole number from 1 to 4294967295")),
    };
    rule.per_day = whole(take("per_day"), "per_day")?.and_then(|n| u32::try_from(n).ok());
    rule.max_sats = whole(take("max_sats"), "max_sats")?;
    rule.max_sats_per_day = whole(take("max_sats_per_day"), "max_sats_per_day")?;
    rule.canary = match take("canary") {
        None => false,
        Some(Value::Bool(yes)) => yes,
        Some(_) => return Err(wrong("canary", "true or false")),
    };
    if let Some(other) = members.first() {
        return Err(format!(
            "Invalid rule for kind {kind}: unknown word {}",
            other.chars().take(LONGEST).collect::<String>()
        ));
    }
    match rule.contradiction() {
        Some(why) => Err(format!("Invalid {why}")),
        None => Ok(rule),
    }
}

/// A rule in the same words.
pub fn show(rule: &Rule) -> serde_json::Value {
    let mut out = json!({"kind": rule.kind});
    let mut put = |name: &str, value: serde_json::Value| out[name] = value;
    if !rule.tag.is_empty() {
        let tags = rule.tag.iter().map(|tag| (tag.name.clone(), json!(tag.patterns)));
        put("tag", serde_json::Value::Object(tags.collect()));
    }
    for (name, list) in [("require", &rule.require), ("forbid", &rule.forbid)] {
        if !list.is_empty() {
            put(name, json!(list));
        }
    }
    if let Some(keys) = &rule.recipients {
        put("recipients", json!(keys));
    }
    if let Some(bytes) = rule.max_content {
        put("max_content", json!(units::show_size(bytes as u64)));
    }
    if rule.created_at.is_some() {
        put("created_at", json!(units::show_window(rule.created_at)));
    }
    let numbers = [
        ("per_day", rule.per_day.map(u64::from)),
        ("max_sats", rule.max_sats),
        ("max_sats_per_day", rule.max_sats_per_day),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            put(name, json!(number));
        }
    }
    if rule.canary {
        put("canary", json!(true));
    }
    out
}

fn text(value: Value) -> Option<String> {
    if let Value::String(text) = value { Some(text) } else { None }
}

/// A list of short texts, none of them twice.
fn texts(value: Value) -> Option<Vec<String>> {
    let Value::Array(items) = value else { return None };
    let mut out: Vec<String> = Vec::new();
    for item in items {
        let text = text(item).filter(|text| (1..=LONGEST).contains(&text.len()) && !out.contains(text))?;
        out.push(text);
    }
    (1..=MOST).contains(&out.len()).then_some(out)
}

fn tags(value: Value) -> Option<Vec<TagPatterns>> {
    let Value::Object(members) = value else { return None };
    let mut out = Vec::new();
    for (name, value) in members.into_members() {
        let patterns = texts(value)?;
        out.push(TagPatterns { name: Some(name).filter(|name| (1..=LONGEST).contains(&name.len()))?, patterns });
    }
    (1..=MOST).contains(&out.len()).then_some(out)
}

fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn read_text(text: &str) -> Result<Vec<Rule>, String> {
        read(json::parse(format!("{{\"r\":{text}}}").as_bytes()).expect("JSON").take("r").expect("there"))
    }

    #[test]
    fn rules_are_shown_in_the_words_that_they_are_read_in() {
        let text = format!(
            r#"[{{"canary":true,"kind":0}},{{"created_at":"-5m..+5m","forbid":["q"],"kind":1,"max_content":"8KiB","per_day":50,"recipients":["{}"],"require":["client"]}},{{"kind":9734,"max_sats":5,"max_sats_per_day":10}},{{"kind":27235,"tag":{{"method":["GET"],"u":["https://api.example.org/*"]}}}}]"#,
            "a".repeat(64)
        );
        let rules = read_text(&text).expect("valid");
        assert_eq!(serde_json::Value::Array(rules.iter().map(show).collect()).to_string(), text);
    }

    #[test]
    fn what_does_not_say_what_it_means_is_refused() {
        for (text, why) in [
            ("{}", "must be an array"),
            ("[1]", "must be an array of objects"),
            ("[{}]", "expected kind"),
            (r#"[{"kind":65536}]"#, "expected kind"),
            (r#"[{"kind":1}]"#, "says nothing"),
            (r#"[{"kind":1,"per_day":1},{"kind":1,"per_day":2}]"#, "a second one for kind 1"),
            (r#"[{"kind":1,"perday":1}]"#, "unknown word perday"),
            (r#"[{"kind":1,"per_day":0}]"#, "per_day: expected a whole number"),
            (r#"[{"kind":1,"per_day":1.0}]"#, "per_day: expected a whole number"),
            (r#"[{"kind":1,"max_sats":1}]"#, "satoshis are limited for kind 9734 only"),
            (r#"[{"kind":1,"max_content":"8kb"}]"#, "max_content: expected a size"),
            (r#"[{"kind":1,"max_content":8}]"#, "max_content: expected a size"),
            (r#"[{"kind":1,"created_at":"any"}]"#, "created_at: expected a window"),
            (r#"[{"kind":1,"tag":{}}]"#, "tag: expected"),
            (r#"[{"kind":1,"tag":{"u":"x"}}]"#, "tag: expected"),
            (r#"[{"kind":1,"require":[]}]"#, "require: expected"),
            (r#"[{"kind":1,"require":["q"],"forbid":["q"]}]"#, "needed and forbidden"),
            (r#"[{"kind":1,"recipients":["npub1"]}]"#, "recipients: expected"),
            (r#"[{"kind":1,"canary":1}]"#, "canary: expected true or false"),
            (r#"[{"kind":1,"canary":true,"per_day":1}]"#, "a canary is never signed"),
        ] {
            let found = read_text(text).expect_err(text);
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}
