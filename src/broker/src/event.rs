//! A Nostr event before it is signed: which parameters make one, and the exact text that is hashed (NIP-01).
//!
//! Never repairs anything: a value of another type than NIP-01's is refused, never converted.

use std::fmt::Write;

use crate::json::{Object, Value, write_string};

/// Bytes of an event's texts beside tags and content, at most.
const AROUND: usize = 160;

/// An event as a client asks for it; account and time are not settled yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// 0 to 65535.
    pub kind: u16,
    /// Any text.
    pub content: String,
    /// Arrays of strings.
    pub tags: Vec<Vec<String>>,
    /// Unix seconds, 1 to 2³²−1; `None`: now.
    pub created_at: Option<u32>,
    /// A `pubkey` that the client named; it must be the account's.
    pub pubkey: Option<String>,
}

impl Draft {
    /// From the parameters of sign_event. The error is the reply's text.
    pub fn from_params(params: &mut Object) -> Result<Draft, String> {
        for field in ["kind", "content"] {
            params.get(field).ok_or_else(|| format!("Missing required field: {field}"))?;
        }
        Ok(Draft {
            kind: kind(params.take("kind"))?,
            content: string(params.take("content")).ok_or("Invalid content: must be a string")?,
            tags: tags(params.take("tags")).ok_or("Invalid tags: must be an array of arrays of strings")?,
            created_at: created_at(params.take("created_at"))?,
            pubkey: match params.take("pubkey") {
                None | Some(Value::Null) => None,
                value => Some(string(value).ok_or("Invalid pubkey: must be a string")?),
            },
        })
    }

    /// Bytes of memory that this draft holds, roughly: many tiny tags weigh more than their text.
    pub fn weight(&self) -> usize {
        let strings = self.tags.iter().flatten().map(|s| s.capacity() + size_of::<String>()).sum::<usize>();
        self.content.capacity() + strings + self.tags.capacity() * size_of::<Vec<String>>()
    }

    /// Settles author and time.
    pub fn settle(&self, public_key: &str, now: u32) -> Texts {
        let (kind, created_at) = (self.kind, self.created_at.unwrap_or(now));
        // For all that is not escaped.
        let tags: usize = self.tags.iter().map(|tag| 3 + tag.iter().map(|text| text.len() + 3).sum::<usize>()).sum();
        let mut canonical = String::with_capacity(AROUND + tags + self.content.len());
        // Writing to a String cannot fail.
        let _ = write!(canonical, "[0,\"{public_key}\",{created_at},{kind},");
        let tags = canonical.len();
        self.write_tags(&mut canonical);
        let tags = tags..canonical.len();
        canonical.push(',');
        let content = canonical.len();
        write_string(&mut canonical, &self.content);
        let content = content..canonical.len();
        canonical.push(']');
        let (tags, content) = (&canonical[tags], &canonical[content]);
        let mut unsigned = String::with_capacity(AROUND + tags.len() + content.len());
        let _ = write!(
            unsigned,
            "{{\"kind\":{kind},\"content\":{content},\"tags\":{tags},\"created_at\":{created_at},\"pubkey\":\"{public_key}\""
        );
        Texts { canonical, unsigned, created_at }
    }

    fn write_tags(&self, out: &mut String) {
        out.push('[');
        for (i, tag) in self.tags.iter().enumerate() {
            out.push_str(if i == 0 { "[" } else { ",[" });
            for (j, text) in tag.iter().enumerate() {
                if j > 0 {
                    out.push(',');
                }
                write_string(out, text);
            }
            out.push(']');
        }
        out.push(']');
    }
}

/// The two texts of a settled event.
#[derive(Debug, PartialEq, Eq)]
pub struct Texts {
    /// NIP-01's serialisation: its SHA-256 is the event's id.
    pub canonical: String,
    /// The reply's event object up to the public key; id, sig and the closing brace are missing.
    pub unsigned: String,
    /// Its created_at, seconds since 1970.
    pub created_at: u32,
}

fn kind(value: Option<Value>) -> Result<u16, String> {
    match value {
        Some(Value::Unsigned(kind)) => u16::try_from(kind).ok(),
        _ => None,
    }
    .ok_or_else(|| "Invalid kind: must be an integer from 0 to 65535".to_owned())
}

fn string(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn tags(value: Option<Value>) -> Option<Vec<Vec<String>>> {
    let tag = |value| match value {
        Value::Array(items) => items.into_iter().map(|item| string(Some(item))).collect(),
        _ => None,
    };
    match value {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(items)) => items.into_iter().map(tag).collect(),
        Some(_) => None,
    }
}

fn created_at(value: Option<Value>) -> Result<Option<u32>, String> {
    match value {
        None | Some(Value::Null | Value::Unsigned(0)) => Ok(None),
        Some(Value::Unsigned(seconds)) if u32::try_from(seconds).is_ok() => Ok(u32::try_from(seconds).ok()),
        Some(_) => Err("Invalid created_at: must be a whole number of seconds from 1 to 4294967295".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use sha2::{Digest, Sha256};

    const KEY3: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";

    fn draft(params: &str) -> Result<Draft, String> {
        Draft::from_params(&mut json::parse(params.as_bytes()).expect("test JSON"))
    }

    fn id(params: &str) -> String {
        let texts = draft(params).expect("valid event").settle(KEY3, 1_800_000_000);
        let hash = Sha256::digest(texts.canonical);
        hash.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn ids_are_those_of_json_stringify() {
        // wire.md and recorded cases of the reference daemon.
        for (content, expected) in [
            (r"\u0000", "6549d74a"),
            (r"\u2028\u2029", "a2e707c4"),
            (r"\ud83d\ude00", "cd531a56"),
            (r"\u0001\u001f", "6f43ce7e"),
            (r"\u007f", "19d451f0"),
            (r"e\u0301 \u00e9", "e156a0d3"),
            (r"</script>&", "94d4335b"),
            ("hello", "a9d53fee"),
        ] {
            let params = format!(r#"{{"kind":1,"content":"{content}","tags":[],"created_at":1700000000}}"#);
            assert!(id(&params).starts_with(expected), "{content}");
        }
        assert!(id(r#"{"kind":1,"content":"hello","tags":[["a"]],"created_at":1700000000}"#).starts_with("3e49dba7"));
        assert!(id(r#"{"kind":1,"content":"hello","tags":[[]],"created_at":1700000000}"#).starts_with("301d9726"));
    }

    #[test]
    fn the_two_texts_agree() {
        let texts = draft(r#"{"kind":7,"content":"+\n","tags":[["e","x"],["p"]]}"#).expect("valid").settle("ab", 5);
        assert_eq!(texts.canonical, r#"[0,"ab",5,7,[["e","x"],["p"]],"+\n"]"#);
        assert_eq!(
            texts.unsigned,
            r#"{"kind":7,"content":"+\n","tags":[["e","x"],["p"]],"created_at":5,"pubkey":"ab""#
        );
    }

    #[test]
    fn required_fields_are_named_in_order() {
        assert_eq!(draft("{}"), Err("Missing required field: kind".into()));
        assert_eq!(draft(r#"{"content":"x"}"#), Err("Missing required field: kind".into()));
        assert_eq!(draft(r#"{"kind":"1"}"#), Err("Missing required field: content".into()));
    }

    #[test]
    fn nothing_is_converted() {
        for kind in ["\"1\"", "1.5", "-0", "1.0", "1e3", "-1", "65536", "9007199254740993", "null", "true", "[1]", "{}"]
        {
            let refused = draft(&format!(r#"{{"kind":{kind},"content":""}}"#));
            assert!(refused.is_err_and(|e| e.starts_with("Invalid kind")), "{kind}");
        }
        for content in ["null", "5", "{}", "[\"x\"]", "true"] {
            assert!(draft(&format!(r#"{{"kind":1,"content":{content}}}"#)).is_err(), "{content}");
        }
        for tags in ["\"\"", "{}", "[1]", "[\"a\"]", "[[\"a\",1]]", "[[\"a\",[\"b\"]]]", "[{}]", "[[[]]]", "0", "false"]
        {
            assert!(draft(&format!(r#"{{"kind":1,"content":"","tags":{tags}}}"#)).is_err(), "{tags}");
        }
        for time in
            ["\"\"", "true", "-1", "-0", "\"1700000000\"", "1700000000.5", "99999999999", "1e9", "0.1", "4294967296"]
        {
            assert!(draft(&format!(r#"{{"kind":1,"content":"","created_at":{time}}}"#)).is_err(), "{time}");
        }
        for time in ["0", "null"] {
            let draft = draft(&format!(r#"{{"kind":1,"content":"","created_at":{time},"tags":null}}"#)).expect("valid");
            assert_eq!((draft.created_at, draft.tags), (None, vec![]));
        }
        assert!(draft(r#"{"kind":65535,"content":"","created_at":4294967295}"#).is_ok());
    }
}
