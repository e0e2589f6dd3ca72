//! Rules on the whole event: what a socket requires of events of a kind, beyond the kind.
//!
//! A rule's name is the configuration's key; it is the same word in errors, logs and documents.

use nsecd_policy::rules::{Rule, TagPatterns, matches};

use crate::event::Draft;

/// Why an event is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule's name.
    pub rule: &'static str,
    /// For people: what was found and what the rule wants. Repeats of the event's text only what is short.
    pub text: String,
}

impl Broken {
    fn new(rule: &'static str, text: impl Into<String>) -> Broken {
        Broken { rule, text: text.into() }
    }
}

/// Millisatoshis in a satoshi.
const MSATS: u64 = 1000;
/// Characters of the event's own text that an error repeats.
const SHOWN: usize = 100;

/// What of an event counts in the rule's budgets: millisatoshis, 0 where none are limited.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(rule: &Rule, draft: &Draft, created_at: i64, now: i64) -> Result<u64, Broken> {
    for tag in &rule.tag {
        patterns(tag, draft)?;
    }
    if let Some(name) = rule.require.iter().find(|name| values(draft, name).next().is_none()) {
        return Err(Broken::new("require", format!("tag \"{name}\" is missing")));
    }
    if let Some(name) = rule.forbid.iter().find(|name| values(draft, name).next().is_some()) {
        return Err(Broken::new("forbid", format!("tag \"{name}\" is not allowed")));
    }
    if let Some(recipients) = &rule.recipients {
        let listed = |value: Option<&str>| value.is_some_and(|key| recipients.iter().any(|r| r == key));
        if let Some(other) = values(draft, "p").find(|value| !listed(*value)) {
            let text = format!("tag \"p\" names {}, who is not listed", shown(other));
            return Err(Broken::new("recipients", text));
        }
    }
    if let Some(most) = rule.max_content.filter(|most| draft.content.len() > *most) {
        let text = format!("content has {} bytes, at most {most} are allowed", draft.content.len());
        return Err(Broken::new("max_content", text));
    }
    if let Some((from, to)) = rule.created_at {
        let age = created_at - now;
        if age < from || age > to {
            let text = format!("created_at {created_at} is outside the window of {from:+} to {to:+} seconds from now");
            return Err(Broken::new("created_at", text));
        }
    }
    sats(rule, draft)
}

/// A tag that is named has to be there, and every one of it has to match.
fn patterns(TagPatterns { name, patterns }: &TagPatterns, draft: &Draft) -> Result<(), Broken> {
    let mut found = false;
    for value in values(draft, name) {
        found = true;
        if !value.is_some_and(|value| patterns.iter().any(|pattern| matches(pattern, value))) {
            let text = format!("tag \"{name}\" has {}, which no pattern matches", shown(value));
            return Err(Broken::new("tag", text));
        }
    }
    if found { Ok(()) } else { Err(Broken::new("tag", format!("tag \"{name}\" is missing"))) }
}

/// The amount of a zap request, if satoshis are limited: exactly one `amount` tag, in millisatoshis (NIP-57).
fn sats(rule: &Rule, draft: &Draft) -> Result<u64, Broken> {
    let name = match (rule.max_sats, rule.max_sats_per_day) {
        (Some(_), _) => "max_sats",
        (None, Some(_)) => "max_sats_per_day",
        (None, None) => return Ok(0),
    };
    let mut amounts = values(draft, "amount");
    let (Some(amount), None) = (amounts.next(), amounts.next()) else {
        return Err(Broken::new(name, "exactly one \"amount\" tag is needed"));
    };
    let digits = amount.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let Some(msats) = digits.and_then(|text| text.parse::<u64>().ok()) else {
        return Err(Broken::new(name, format!("amount {} is no number of millisatoshis", shown(amount))));
    };
    match rule.max_sats {
        Some(most) if msats > most.saturating_mul(MSATS) => {
            Err(Broken::new("max_sats", format!("amount {msats} is more than {most} satoshis")))
        }
        _ => Ok(msats),
    }
}

/// Whether a day's budget has room for one more of so many millisatoshis, where so many of each have been used.
///
/// # Errors
/// The budget that has none.
pub fn check_day(rule: &Rule, msats: u64, used: (u64, u64)) -> Result<(), Broken> {
    let (count, spent) = used;
    if let Some(most) = rule.per_day.filter(|most| count >= u64::from(*most)) {
        return Err(Broken::new("per_day", format!("{count}/{most} in 24 hours")));
    }
    if let Some(most) = rule.max_sats_per_day
        && spent.saturating_add(msats) > most.saturating_mul(MSATS)
    {
        let text =
            format!("{} of {most} satoshis are used in 24 hours, amount {msats} does not fit", spent.div_ceil(MSATS));
        return Err(Broken::new("max_sats_per_day", text));
    }
    Ok(())
}

/// Whether the rule has a budget, which each signature has to be counted in.
pub fn has_day(rule: &Rule) -> bool {
    rule.per_day.is_some() || rule.max_sats_per_day.is_some()
}

/// The values (second elements) of a tag's occurrences; `None` inside: it has none.
fn values<'a>(draft: &'a Draft, name: &'a str) -> impl Iterator<Item = Option<&'a str>> {
    draft
        .tags
        .iter()
        .filter(move |tag| tag.first().is_some_and(|n| n == name))
        .map(|tag| tag.get(1).map(String::as_str))
}

fn shown(value: Option<&str>) -> String {
    match value {
        None => "no value".to_owned(),
        Some(text) if text.chars().count() > SHOWN => format!("{:?}...", text.chars().take(SHOWN).collect::<String>()),
        Some(text) => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests;
