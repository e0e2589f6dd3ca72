//! `[[socket.rule]]`: what a socket requires of events of a kind, as it is written and as it is printed.

use nsecd_policy::rules::{LONGEST, MAX_CONTENT, MOST, Rule, TagPatterns, ZAP_REQUEST};
use nsecd_policy::{Kinds, Method};

use super::error::{At, Error};
use super::print::{list, quoted};
use super::tree::{Section, Value};
use super::units;
use super::values;

/// A rule and where it was written.
pub type RawRule = At<Rule>;

/// Reads one table.
pub fn rule(mut s: Section) -> Result<RawRule, Error> {
    let origin = s.origin();
    let Some(kind) = s.take("kind", kind)? else {
        return Err(Error::at(&origin, "[[socket.rule]] has no kind: expected kind = 0 to 65535"));
    };
    let tag = match s.section("tag")? {
        Some(section) => tags(section)?,
        None => Vec::new(),
    };
    let require = s.take("require", names)?.map_or(Vec::new(), |at| at.value);
    let forbid = s.take("forbid", names)?.map_or(Vec::new(), |at| at.value);
    let sats = |value: &Value| values::count(value, u32::MAX).map(u64::from);
    let max_sats = s.take("max_sats", sats)?;
    let max_sats_per_day = s.take("max_sats_per_day", sats)?;
    let created_at = s.take("created_at", window)?;
    let rule = Rule {
        kind: kind.value,
        recipients: s.take("recipients", values::peers)?.map(|at| at.value),
        max_content: s.take("max_content", |v| values::size(v, 1, MAX_CONTENT))?.map(|at| at.value as usize),
        created_at: created_at.map(|at| at.value),
        per_day: s.take("per_day", |v| values::count(v, u32::MAX))?.map(|at| at.value),
        max_sats: max_sats.as_ref().map(|at| at.value),
        max_sats_per_day: max_sats_per_day.as_ref().map(|at| at.value),
        canary: s.take("canary", values::flag)?.is_some_and(|at| at.value),
        tag,
        require,
        forbid,
    };
    s.finish()?;
    for at in [&max_sats, &max_sats_per_day].into_iter().flatten() {
        if rule.kind != ZAP_REQUEST {
            let text =
                format!("socket.rule: satoshis are limited for kind {ZAP_REQUEST} only, this is kind {}", rule.kind);
            return Err(Error::at(&at.origin, text));
        }
    }
    match rule.contradiction() {
        Some(why) => Err(Error::at(&origin, format!("socket.{why}"))),
        None => Ok(At::new(rule, origin)),
    }
}

/// A socket's rules: one for a kind, and for kinds that it signs.
pub fn resolve(raw: &[RawRule], kinds: &Kinds, methods: &[Method]) -> Result<Vec<Rule>, Error> {
    if let Some(At { origin, .. }) = raw.get(MOST) {
        return Err(Error::at(origin, format!("expected at most {MOST} [[socket.rule]] tables for a socket")));
    }
    for (i, At { value: rule, origin }) in raw.iter().enumerate() {
        let kind = rule.kind;
        if raw[..i].iter().any(|other| other.value.kind == kind) {
            let text = format!("a second socket.rule for kind {kind}: expected one, with all that is to hold");
            return Err(Error::at(origin, text));
        }
        // An attempt is an alarm whether or not the kind could be signed.
        let signs = kinds.contains(kind) && methods.contains(&Method::SignEvent);
        if !rule.canary && !signs {
            let text =
                format!("socket.rule for kind {kind}, which the socket does not sign: expected it in socket.kinds");
            return Err(Error::at(origin, text));
        }
    }
    Ok(raw.iter().map(|at| at.value.clone()).collect())
}

fn kind(value: &Value) -> Result<u16, String> {
    let kind = if let Value::Number(n) = value { u16::try_from(*n).ok() } else { None };
    kind.ok_or_else(|| "expected a kind from 0 to 65535".to_owned())
}

fn window(value: &Value) -> Result<(i64, i64), String> {
    const EXPECTED: &str = "a window that contains now, such as \"-5m..+5m\"";
    values::text(value, EXPECTED, |text| units::window(text).flatten())
}

fn short(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) if (1..=LONGEST).contains(&text.len()) => Some(text.clone()),
        _ => None,
    }
}

fn strings(value: &Value, what: &str) -> Result<Vec<String>, String> {
    let expected = format!("a list of 1 to {MOST} {what}, each of 1 to {LONGEST} bytes");
    let found = values::list(value, &expected, short)?;
    if (1..=MOST).contains(&found.len()) { Ok(found) } else { Err(format!("expected {expected}")) }
}

fn names(value: &Value) -> Result<Vec<String>, String> {
    strings(value, "tag names")
}

/// `{ name = ["pattern", …], … }`
fn tags(section: Section) -> Result<Vec<TagPatterns>, Error> {
    let mut found = Vec::new();
    for (name, at) in section.entries() {
        if name.is_empty() || name.len() > LONGEST {
            return Err(Error::at(&at.origin, format!("socket.rule.tag: expected names of 1 to {LONGEST} bytes")));
        }
        match strings(&at.value, "patterns, in which * matches any run of characters") {
            Ok(patterns) => found.push(TagPatterns { name: name.clone(), patterns }),
            Err(expected) => return Err(section.error(name, at, &expected)),
        }
    }
    if found.is_empty() {
        return Err(Error::at(&section.origin(), "socket.rule.tag = {}: expected tag names with patterns"));
    }
    Ok(found)
}

/// A rule as it would be written.
pub fn print(rule: &Rule) -> String {
    let mut lines = vec![format!("kind = {}", rule.kind)];
    let texts = |texts: &[String]| list(texts.iter().map(|text| quoted(text)));
    if !rule.tag.is_empty() {
        let of = |tag: &TagPatterns| format!("{} = {}", quoted(&tag.name), texts(&tag.patterns));
        lines.push(format!("tag = {{ {} }}", rule.tag.iter().map(of).collect::<Vec<_>>().join(", ")));
    }
    for (name, tags) in [("require", &rule.require), ("forbid", &rule.forbid)] {
        if !tags.is_empty() {
            lines.push(format!("{name} = {}", texts(tags)));
        }
    }
    lines.extend(rule.recipients.as_ref().map(|keys| format!("recipients = {}", texts(keys))));
    lines.extend(rule.max_content.map(|n| format!("max_content = {}", quoted(&units::show_size(n as u64)))));
    lines.extend(rule.created_at.map(|w| format!("created_at = {}", quoted(&units::show_window(Some(w))))));
    lines.extend(rule.per_day.map(|n| format!("per_day = {n}")));
    lines.extend(rule.max_sats.map(|n| format!("max_sats = {n}")));
    lines.extend(rule.max_sats_per_day.map(|n| format!("max_sats_per_day = {n}")));
    lines.extend(rule.canary.then(|| "canary = true".to_owned()));
    lines.join("\n") + "\n"
}
