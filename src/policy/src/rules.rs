//! What a socket requires of events of a kind, beyond the kind.

use serde::{Deserialize, Serialize};

/// The rules for one kind on one socket. Every one of them must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The kind.
    pub kind: u16,
    /// Tags that must be there, each occurrence with a value that one of its patterns matches.
    pub tag: Vec<TagPatterns>,
    /// Names of tags that must be there.
    pub require: Vec<String>,
    /// Names of tags that must not.
    pub forbid: Vec<String>,
    /// Public keys (64 lower-case hex digits): every `p` tag must name one of them; `None`: anybody.
    pub recipients: Option<Vec<String>>,
    /// Bytes of content (UTF-8).
    pub max_content: Option<usize>,
    /// Seconds before and after now that created_at may lie.
    pub created_at: Option<(i64, i64)>,
    /// Signatures in 24 hours, of all clients of the socket.
    pub per_day: Option<u32>,
    /// Satoshis that one zap request (kind 9734, NIP-57) may ask for.
    pub max_sats: Option<u64>,
    /// Satoshis in 24 hours, of all clients of the socket.
    pub max_sats_per_day: Option<u64>,
    /// Whether an attempt is an alarm: it is refused and alerts, and where the kernel names the client's cgroup, its sessions
    /// are frozen.
    pub canary: bool,
}

/// NIP-57's zap request, the only kind whose `amount` is satoshis.
pub const ZAP_REQUEST: u16 = 9734;
/// Rules of one socket or session, patterns of one tag, and names of one list.
pub const MOST: usize = 256;
/// Bytes of a tag's name or pattern.
pub const LONGEST: usize = 256;
/// Bytes of content; no request is larger.
pub const MAX_CONTENT: u64 = 512 << 10;

impl Rule {
    /// Why it cannot be meant, if it cannot.
    pub fn contradiction(&self) -> Option<String> {
        let kind = self.kind;
        let empty = Rule { kind, ..Rule::default() };
        if *self == empty {
            return Some(format!("rule for kind {kind} says nothing: expected at least one rule"));
        }
        if (self.max_sats.is_some() || self.max_sats_per_day.is_some()) && kind != ZAP_REQUEST {
            return Some(format!("rule: satoshis are limited for kind {ZAP_REQUEST} only, this is kind {kind}"));
        }
        if self.canary && *self != (Rule { canary: true, ..empty }) {
            return Some(format!("rule for kind {kind}: a canary is never signed: expected no other rule beside it"));
        }
        let mut named = self.tag.iter().map(|tag| &tag.name).chain(&self.require);
        let both = named.find(|name| self.forbid.contains(name))?;
        Some(format!("rule for kind {kind}: tag \"{both}\" is needed and forbidden: nothing could be signed"))
    }
}

/// A tag and the patterns of its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagPatterns {
    /// The tag's name, its first element.
    pub name: String,
    /// `*` matches any run of characters, everything else itself.
    pub patterns: Vec<String>,
}

/// Whether a pattern matches a whole text: `*` stands for any run of characters, none included. Time is at most the product
/// of both lengths.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star stood, and the text behind what it stands for.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, end)) = star {
            star = Some((at, end + 1));
            (p, t) = (at + 1, end + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_and_all_else_is_itself() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "any\nthing é"),
            ("GET", "GET"),
            ("https://api.example.org/*", "https://api.example.org/"),
            ("https://api.example.org/*", "https://api.example.org/a/b?c=*"),
            ("*.example.org", "a.b.example.org"),
            ("a*b*c", "abbcxbc"),
            ("**a", "aa"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("GET", "GETS"),
            ("GET", "get"),
            ("GET", "GE"),
            ("https://api.example.org/*", "https://api.example.org.evil.example/"),
            ("https://api.example.org/*", "http://api.example.org/"),
            ("*.example.org", "example.org"),
            ("a*b", "abc"),
            ("?", "a"),
            ("a.c", "abc"),
            ("[a-z]", "a"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn no_pattern_takes_more_than_the_product_of_the_lengths() {
        let (pattern, text) = ("*a".repeat(50) + "b", "a".repeat(4_000));
        assert!(!matches(&pattern, &text));
    }
}
