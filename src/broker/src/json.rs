//! JSON text into a tree, with every value walked, used or not.
//!
//! serde's derive skips what no field asks for, and with it duplicate keys, lone surrogates, invalid UTF-8 and any depth
//! inside (measured). One visitor here sees every value, so no text passes that two parsers could read differently.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::run::run;

/// Values may be nested this deep; the outer object counts as one.
pub const MAX_DEPTH: usize = 64;

/// Members of one object: far above what any method takes; each costs a comparison with the others.
const MAX_MEMBERS: usize = 1024;

/// Members of one object up to which each key is compared with each.
const FEW: usize = 16;

/// Values in one request: a contact list of twenty thousand entries fits.
const MAX_VALUES: usize = 65_536;

/// Characters of a key that an error repeats.
const KEY_SHOWN: usize = 40;

/// One JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Digits alone that fit.
    Unsigned(u64),
    /// A minus sign and digits alone that fit, `-0` excepted.
    Negative(i64),
    /// Every other number: `1.0`, `1e3`, `-0`, 2⁶⁴.
    Float(f64),
    /// A string of Unicode scalar values.
    String(String),
    /// `[…]`
    Array(Vec<Value>),
    /// `{…}`
    Object(Object),
}

/// The members of an object, each key once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(Cow<'static, str>, Value)>);

impl Object {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Takes the value of `key` out.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Puts a member in, if there is a value.
    pub fn put(&mut self, key: &str, value: Option<Value>) {
        self.0.extend(value.map(|value| (Cow::Owned(key.to_owned()), value)));
    }

    /// All members.
    pub fn into_members(self) -> Vec<(String, Value)> {
        self.0.into_iter().map(|(key, value)| (key.into_owned(), value)).collect()
    }

    /// The name of a member that is left.
    pub fn first(&self) -> Option<&str> {
        self.0.first().map(|(key, _)| &**key)
    }

    /// A key that occurs twice. Sorting keeps this at n log n for an object of many keys.
    fn duplicate(&self) -> Option<&str> {
        if let few @ 0..=FEW = self.0.len() {
            let keys = self.0.iter().map(|(key, _)| &**key);
            return keys
                .enumerate()
                .find(|(n, key)| self.0[n + 1..few].iter().any(|(other, _)| other == key))
                .map(|(_, key)| key);
        }
        let mut keys: Vec<&str> = self.0.iter().map(|(key, _)| &**key).collect();
        keys.sort_unstable();
        keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }
}

/// Parses one object that fills `text`. The error says what is wrong and in which column.
pub fn parse(text: &[u8]) -> Result<Object, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let values = Cell::new(0);
    let value = Walk { depth: 1, values: &values }.deserialize(&mut reader)?;
    reader.end()?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(de::Error::custom("expected an object")),
    }
}

/// Appends `text` in quotes as JSON.stringify writes it: short escapes, `\u00xx` in lower case for other control
/// characters, everything else literal. NIP-01 ids hang on this form.
pub fn write_string(out: &mut String, text: &str) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    out.reserve(text.len() + 2);
    out.push('"');
    let mut rest = text;
    // Nearly all of a text goes as it is: a run at a time.
    loop {
        let at = run(rest.as_bytes(), |byte| byte < b' ' || matches!(byte, b'"' | b'\\'));
        let Some(&byte) = rest.as_bytes().get(at) else { break };
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let short = match byte {
            b'\x08' => 'b',
            b'\t' => 't',
            b'\n' => 'n',
            b'\x0c' => 'f',
            b'\r' => 'r',
            b'\0'..b' ' => {
                out.push_str("\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                continue;
            }
            _ => char::from(byte),
        };
        out.extend(['\\', short]);
    }
    out.push_str(rest);
    out.push('"');
}

/// Members that nearly every request has: their names are not copied.
const USUAL: [&str; 9] =
    ["method", "params", "kind", "content", "tags", "created_at", "pubkey", "session_token", "account"];

/// The visitor for a member's name.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'static, str>;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Cow<'static, str>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a member's name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let usual = USUAL.iter().find(|usual| **usual == name);
        Ok(usual.map_or_else(|| Cow::Owned(name.to_owned()), |usual| Cow::Borrowed(*usual)))
    }
}

/// The visitor for a value at this depth.
struct Walk<'a> {
    depth: usize,
    /// Values seen so far in the whole request.
    values: &'a Cell<usize>,
}

impl Walk<'_> {
    /// For what lies inside.
    fn inner(&self) -> Self {
        Walk { depth: self.depth + 1, values: self.values }
    }

    /// Refuses an array or object that is itself one too deep.
    fn enter<E: de::Error>(&self) -> Result<(), E> {
        match self.depth > MAX_DEPTH {
            true => Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}"))),
            false => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let values = self.values.get() + 1;
        self.values.set(values);
        if values > MAX_VALUES {
            return Err(de::Error::custom(format_args!("more than {MAX_VALUES} values")));
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Negative(value), Value::Unsigned))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut all = Vec::new();
        while let Some(value) = items.next_element_seed(self.inner())? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut all = Object::default();
        while let Some(key) = members.next_key_seed(Key)? {
            if all.0.len() >= MAX_MEMBERS {
                return Err(de::Error::custom(format_args!("an object of more than {MAX_MEMBERS} members")));
            }
            all.0.push((key, members.next_value_seed(self.inner())?));
        }
        match all.duplicate() {
            None => Ok(Value::Object(all)),
            Some(key) => {
                let shown: String = key.chars().take(KEY_SHOWN).collect();
                Err(de::Error::custom(format_args!("duplicate key {shown:?}")))
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => out.serialize_unit(),
            Value::Bool(value) => out.serialize_bool(*value),
            Value::Unsigned(value) => out.serialize_u64(*value),
            Value::Negative(value) => out.serialize_i64(*value),
            Value::Float(value) => out.serialize_f64(*value),
            Value::String(value) => out.serialize_str(value),
            Value::Array(items) => {
                let mut seq = out.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Value::Object(members) => {
                let mut map = out.serialize_map(Some(members.0.len()))?;
                members.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &[u8]) -> String {
        parse(text).expect_err("this text must be refused").to_string()
    }

    #[test]
    fn members_and_values_are_bounded() {
        let members = |n: usize| format!("{{{}}}", (0..n).map(|i| format!("\"{i}\":0")).collect::<Vec<_>>().join(","));
        assert!(parse(members(MAX_MEMBERS).as_bytes()).is_ok());
        assert!(parse(members(MAX_MEMBERS + 1).as_bytes()).is_err_and(|e| e.to_string().contains("1024 members")));
        // The object and the array are two of them.
        let values = |n: usize| format!("{{\"a\":[{}]}}", vec!["[]"; n - 2].join(","));
        assert!(parse(values(MAX_VALUES).as_bytes()).is_ok());
        assert!(parse(values(MAX_VALUES + 1).as_bytes()).is_err_and(|e| e.to_string().contains("65536 values")));
    }

    #[test]
    fn ignored_values_are_walked_like_used_ones() {
        assert!(error(br#"{"a":{"x":1,"y":2,"x":3}}"#).starts_with("duplicate key \"x\""));
        assert!(error(br#"{"a":1,"\u0061":2}"#).starts_with("duplicate key \"a\""));
        for lone in [r"\ud800", r"\udc00", r"a\ud800b", r"\ude00\ud83d", r"\ud83d\u0041"] {
            assert!(parse(format!("{{\"a\":[\"{lone}\"]}}").as_bytes()).is_err(), "{lone}");
            assert!(parse(format!("{{\"{lone}\":1}}").as_bytes()).is_err(), "{lone}");
        }
        assert!(error(b"{\"a\":\"\xed\xa0\x80\"}").contains("unicode"));
        assert!(error(b"{\"a\":[\"\xff\"]}").contains("unicode"));
        assert!(error(br#"{"a":1e400}"#).contains("out of range"));
        for text in [&b"{} {}"[..], b"{\"a\":1,}", b"{bad json}", b"{'a':1}", b"{\"a\":NaN}", b"{\"a\":01}", b"[]", b""]
        {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn sixty_four_levels_pass_and_sixty_five_do_not() {
        let nested = |levels: usize| {
            let inner = levels - 1;
            format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner))
        };
        assert!(parse(nested(64).as_bytes()).is_ok());
        assert!(error(nested(65).as_bytes()).starts_with("nested deeper than 64"));
        let objects = format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65));
        assert!(error(objects.as_bytes()).starts_with("nested deeper than 64"));
        assert!(error(nested(100_000).as_bytes()).starts_with("nested deeper than 64"));
    }

    #[test]
    fn only_plain_digits_are_integers() {
        let object =
            parse(br#"{"a":1,"b":-1,"c":-0,"d":1.0,"e":1e3,"f":18446744073709551616,"g":18446744073709551615}"#)
                .expect("valid JSON");
        assert_eq!(object.get("a"), Some(&Value::Unsigned(1)));
        assert_eq!(object.get("b"), Some(&Value::Negative(-1)));
        for key in ["c", "d", "e", "f"] {
            assert!(matches!(object.get(key), Some(Value::Float(_))), "{key}");
        }
        assert_eq!(object.get("g"), Some(&Value::Unsigned(u64::MAX)));
    }

    #[test]
    fn strings_are_written_as_json_stringify_writes_them() {
        let mut out = String::new();
        write_string(&mut out, "\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\"\\/\u{7f}\u{2028}😀");
        assert_eq!(
            serde_json::to_string("\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\"\\/\u{7f}\u{2028}😀").ok(),
            Some(out.clone())
        );
        assert_eq!(out, "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\/\u{7f}\u{2028}😀\"");
    }
}
