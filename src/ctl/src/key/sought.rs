//! Finding a key in a text that people keep one in: the key alone, `NAME=value` lines, a process's environment, JSON.
//!
//! Never a guess: where several keys are there, the operator names one.

use super::Fault;
use super::add::secret_of;
use super::ncryptsec;
use super::secret::Secret;
use nsecd_supervisor::config::secrets::{holds_nsec, variable_holds_key};
use serde_json::Value;
use std::path::Path;

/// A value with a name, which may be a key.
struct Named {
    name: String,
    value: zeroize::Zeroizing<Vec<u8>>,
}

/// The key in `text`, under `field` if one is named; and the name that it was found under.
///
/// # Errors
/// There is none, or there are several.
pub(super) fn find(
    text: &[u8],
    field: Option<&str>,
    password_file: Option<&Path>,
) -> Result<(Secret, Option<String>), Fault> {
    let alone = text.trim_ascii();
    if field.is_none() && (alone.starts_with(ncryptsec::PREFIX) || Secret::of_text(text).is_ok()) {
        return Ok((secret_of(text, password_file)?, None));
    }
    let all = match alone.first() {
        Some(b'{' | b'[') => of_json(alone)?,
        _ => of_lines(text),
    };
    let mut found: Vec<Named> = match field {
        Some(field) => all.into_iter().filter(|named| named.name == field).collect(),
        None => all.into_iter().filter(is_key).collect(),
    };
    // The same key twice, under two names, is one.
    found.dedup_by(|a, b| a.value == b.value);
    match (found.as_slice(), field) {
        ([one], _) => {
            let why = |_| {
                Fault::usage(format!("{} is no private key: expected nsec1…, ncryptsec1… or 64 hex digits", one.name))
            };
            let secret = match one.value.starts_with(ncryptsec::PREFIX) {
                true => secret_of(&one.value, password_file)?,
                false => Secret::of_text(&one.value).map_err(why)?,
            };
            Ok((secret, Some(one.name.clone())))
        }
        ([], Some(field)) => Err(Fault::usage(format!("there is no {field} in it"))),
        ([], None) => Err(Fault::usage(
            "no private key is in it: neither a key alone, nor one in a variable or a field whose name or value says so; --field NAME names it",
        )),
        (several, _) => {
            let names: Vec<_> = several.iter().map(|named| named.name.as_str()).collect();
            Err(Fault::usage(format!("several keys are in it: say which with --field: {}", names.join(", "))))
        }
    }
}

fn is_key(named: &Named) -> bool {
    let last = named.name.rsplit('.').next().unwrap_or_default();
    let camel: String = last.chars().flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain([c])).collect();
    let is = |name: &str| variable_holds_key(name.as_bytes(), &named.value);
    is(last) || is(&camel) || named.value.starts_with(ncryptsec::PREFIX) || holds_nsec(&named.value)
}

/// `NAME=value`, with or without `export` and quotes, a line each; or ended by zero bytes, as in /proc/PID/environ.
fn of_lines(text: &[u8]) -> Vec<Named> {
    let is_environ = text.contains(&0);
    let lines = text.split(move |b| if is_environ { *b == 0 } else { *b == b'\n' });
    let named = |line: &[u8]| {
        let line = line.trim_ascii();
        let at = line.iter().position(|b| *b == b'=')?;
        let (name, value) = (line[..at].trim_ascii(), line[at + 1..].trim_ascii());
        let name = name.strip_prefix(b"export ").unwrap_or(name).trim_ascii();
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        if name.is_empty() || !name.iter().all(is_name) {
            return None;
        }
        let value = if is_environ { value } else { unquoted(value) };
        Some(Named { name: String::from_utf8_lossy(name).into_owned(), value: value.to_vec().into() })
    };
    lines.filter_map(named).collect()
}

/// A value as a shell or a dotenv reader takes it: quotes off, a comment after white space off. No key has an escape in it.
fn unquoted(value: &[u8]) -> &[u8] {
    match value.first() {
        Some(quote @ (b'"' | b'\'')) => {
            let end = value[1..].iter().position(|b| b == quote).map_or(value.len(), |at| at + 1);
            &value[1..end]
        }
        _ => value.split(|b| b.is_ascii_whitespace()).next().unwrap_or_default(),
    }
}

fn of_json(text: &[u8]) -> Result<Vec<Named>, Fault> {
    // serde_json's errors give a place and no text.
    let value: Value =
        serde_json::from_slice(text).map_err(|e| Fault::usage(format!("this JSON cannot be read: {e}")))?;
    let mut all = Vec::new();
    collect(String::new(), value, &mut all);
    Ok(all)
}

/// Every text in it, by its path: `accounts.0.nsec`.
fn collect(name: String, value: Value, all: &mut Vec<Named>) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::String(text) => all.push(Named { name, value: text.into_bytes().into() }),
        Value::Array(items) => {
            for (at, item) in items.into_iter().enumerate() {
                collect(below(&at.to_string()), item, all);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields {
                collect(below(&key), item, all);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NSEC: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
    const HEX: &str = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa";

    fn named(text: &str, field: Option<&str>) -> Result<String, String> {
        match find(text.as_bytes(), field, None) {
            Ok((secret, name)) => {
                assert_eq!(secret.hex().as_str(), HEX, "{text}");
                Ok(name.unwrap_or_default())
            }
            Err(Fault::Usage(why) | Fault::Failed(why)) => {
                assert!(!why.contains("7dea2") && !why.contains("vl029"), "{why}");
                Err(why)
            }
        }
    }

    #[test]
    fn a_key_is_found_where_people_keep_one() {
        for (text, name) in [
            (format!("{HEX}\n"), ""),
            (NSEC.to_owned(), ""),
            (format!("# mine\nPORT=80\nexport NOSTR_PRIVATE_KEY=\"{NSEC}\" # secret\n"), "NOSTR_PRIVATE_KEY"),
            (format!("NSEC='{HEX}'\r\nDIGEST={}\n", "ab".repeat(32)), "NSEC"),
            (format!("PATH=/bin\0BOT_SECRET_KEY={HEX}\0HOME=/\0"), "BOT_SECRET_KEY"),
            (format!("{{\"name\":\"x\",\"accounts\":[{{\"privateKey\":\"{HEX}\"}}]}}"), "accounts.0.privateKey"),
            (format!("{{\"sec\":\"{NSEC}\"}}"), "sec"),
            (format!("A={NSEC}\nB={NSEC}\n"), "A"),
        ] {
            assert_eq!(named(&text, None), Ok(name.to_owned()), "{text}");
        }
        assert_eq!(named(&format!("{{\"k\":\"{HEX}\"}}"), Some("k")), Ok("k".into()));
    }

    #[test]
    fn what_is_not_certain_is_asked_for() {
        let two = format!("A_NSEC={NSEC}\nB_NSEC={}\n", "1".repeat(64));
        let why = named(&two, None).expect_err("two keys");
        assert!(why.contains("A_NSEC, B_NSEC") && why.contains("--field"), "{why}");
        assert_eq!(named(&two, Some("A_NSEC")), Ok("A_NSEC".into()));
        for text in ["", "PORT=80\n", "{}", &format!("DIGEST={HEX}\n")] {
            let why = named(text, None).expect_err(text);
            assert!(why.contains("no private key is in it"), "{text}: {why}");
        }
        assert!(named("{\"a\":", None).expect_err("no JSON").contains("line 1"));
        assert!(named("A=1\n", Some("B")).expect_err("none").contains("no B in it"));
    }
}
