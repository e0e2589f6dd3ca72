//! The config file as a tree of values that know their line, and the reading of a section key by key: a key that
//! nobody asked for is an error. Knows TOML, knows no setting.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::error::{At, Error, Origin};
use super::secrets::{self, shown};

/// A TOML value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer that fits 64 bits.
    Number(i64),
    /// true or false.
    Flag(bool),
    /// An array.
    List(Vec<At<Value>>),
    /// A table.
    Table(Table),
    /// What no setting takes (floats, dates, huge integers), by its name.
    Other(&'static str),
}

/// A table's entries; each entry's origin is its key's line.
pub type Table = BTreeMap<String, At<Value>>;

impl Value {
    /// The value as an error quotes it.
    pub fn shown(&self) -> String {
        match self {
            Value::Text(text) => format!("\"{}\"", shown(text)),
            Value::Number(n) => n.to_string(),
            Value::Flag(b) => b.to_string(),
            Value::List(list) => {
                format!("[{}]", shown(&list.iter().map(|v| v.value.shown()).collect::<Vec<_>>().join(", ")))
            }
            Value::Table(_) => "{…}".to_string(),
            Value::Other(name) => format!("({name})"),
        }
    }
}

/// Parses a config file. `file` is its name in errors. Refuses one that holds a private key.
pub fn parse(text: &str, file: &str) -> Result<Table, Error> {
    let lines = Lines { text, file: Arc::from(shown(file)) };
    for (i, line) in text.lines().enumerate() {
        if secrets::holds_nsec(line.as_bytes()) {
            return Err(Error::at(&Origin::File(lines.file, i + 1), secrets::in_file()));
        }
    }
    let document = DeTable::parse(text).map_err(|e| {
        let origin = lines.origin(e.span().unwrap_or(0..0));
        Error::at(&origin, format!("not TOML: {}", e.message()))
    })?;
    Ok(lines.table(document.get_ref()))
}

/// Whether a value is set anywhere: headers alone, of whatever tables, set none.
pub fn has_setting(table: &Table) -> bool {
    let sets = |value: &Value| match value {
        Value::Table(table) => has_setting(table),
        Value::List(list) if !list.is_empty() => {
            list.iter().any(|item| !matches!(&item.value, Value::Table(table) if !has_setting(table)))
        }
        _ => true,
    };
    table.values().any(|entry| sets(&entry.value))
}

/// Turns positions in the file into lines.
struct Lines<'a> {
    text: &'a str,
    file: Arc<str>,
}

impl Lines<'_> {
    fn origin(&self, span: Range<usize>) -> Origin {
        let before = self.text.as_bytes().iter().take(span.start);
        Origin::File(self.file.clone(), 1 + before.filter(|b| **b == b'\n').count())
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let entry = |(key, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
            (key.get_ref().to_string(), At::new(self.value(value.get_ref()), self.origin(key.span())))
        };
        table.iter().map(entry).collect()
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(n) => {
                i64::from_str_radix(n.as_str(), n.radix()).map_or(Value::Other("huge integer"), Value::Number)
            }
            DeValue::Boolean(b) => Value::Flag(*b),
            DeValue::Array(list) => {
                Value::List(list.iter().map(|v| At::new(self.value(v.get_ref()), self.origin(v.span()))).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table)),
            other => Value::Other(other.type_str()),
        }
    }
}

/// One table being read: each key is taken once, and [`Section::finish`] refuses what is left.
pub struct Section {
    name: String,
    origin: Origin,
    entries: Table,
    known: Vec<&'static str>,
}

impl Section {
    /// The section `name` (empty for the file itself), written at `origin`.
    pub fn new(name: impl Into<String>, origin: Origin, entries: Table) -> Section {
        Section { name: name.into(), origin, entries, known: Vec::new() }
    }

    /// Where the section begins.
    pub fn origin(&self) -> Origin {
        self.origin.clone()
    }

    /// The key's name as errors have it: `socket.max_ttl`.
    pub fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_string() } else { format!("{}.{key}", self.name) }
    }

    /// An error about a key's value: `socket.max_ttl = "24 hours": expected …`.
    pub fn error(&self, key: &str, entry: &At<Value>, expected: &str) -> Error {
        Error::at(&entry.origin, format!("{} = {}: {expected}", self.full(key), entry.value.shown()))
    }

    /// The raw value of a key, if it is there.
    pub fn entry(&mut self, key: &'static str) -> Option<At<Value>> {
        self.known.push(key);
        self.entries.remove(key)
    }

    /// The value of a key, if it is there, read by `read`, whose error says what was expected.
    pub fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<Option<At<T>>, Error> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match read(&entry.value) {
            Ok(value) => Ok(Some(At::new(value, entry.origin))),
            Err(expected) => Err(self.error(key, &entry, &expected)),
        }
    }

    /// The table at a key, if it is there.
    pub fn section(&mut self, key: &'static str) -> Result<Option<Section>, Error> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match entry.value {
            Value::Table(table) => Ok(Some(Section::new(self.full(key), entry.origin, table))),
            _ => Err(self.error(key, &entry, "expected a table")),
        }
    }

    /// The table at a key, or `Some(None)` if the key is "none".
    pub fn section_or_none(&mut self, key: &'static str) -> Result<Option<Option<Section>>, Error> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match entry.value {
            Value::Table(table) => Ok(Some(Some(Section::new(self.full(key), entry.origin, table)))),
            Value::Text(ref text) if text == "none" => Ok(Some(None)),
            _ => Err(self.error(key, &entry, "expected a table, or \"none\"")),
        }
    }

    /// The tables of an array of tables (`[[key]]`), in order.
    pub fn sections(&mut self, key: &'static str) -> Result<Vec<Section>, Error> {
        let Some(entry) = self.entry(key) else { return Ok(Vec::new()) };
        let expected = format!("expected [[{key}]] tables");
        let Value::List(list) = &entry.value else { return Err(self.error(key, &entry, &expected)) };
        let table = |item: &At<Value>| match &item.value {
            Value::Table(table) => Ok(Section::new(self.full(key), item.origin.clone(), table.clone())),
            _ => Err(self.error(key, item, &expected)),
        };
        list.iter().map(table).collect()
    }

    /// All entries, for a table whose keys are its writer's.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &At<Value>)> {
        self.entries.iter()
    }

    /// Refuses every key that was not taken.
    pub fn finish(self) -> Result<(), Error> {
        let Some((key, entry)) = self.entries.iter().next() else { return Ok(()) };
        let text = format!("unknown key {}: expected one of {}", shown(&self.full(key)), self.known.join(", "));
        Err(Error::at(&entry.origin, text))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, "f.toml").unwrap_err().to_string()
    }

    #[test]
    fn every_value_knows_its_line() {
        let text = "a = 1\n\n[[socket]]\npath = '/x'\n[[socket]]\nkinds = [\n 1,\n 'x']\n";
        let mut top = Section::new("", Origin::Default, parse(text, "f.toml").unwrap());
        let sockets = top.sections("socket").unwrap();
        assert_eq!(sockets[0].origin().to_string(), "f.toml:3");
        assert_eq!(sockets[1].origin().to_string(), "f.toml:5");
        assert_eq!(sockets[1].entries["kinds"].origin.to_string(), "f.toml:6");
        let Value::List(list) = &sockets[1].entries["kinds"].value else { panic!() };
        assert_eq!(list[1].origin.to_string(), "f.toml:8");
        let e = top.finish().unwrap_err().to_string();
        assert_eq!(e, "f.toml:1: unknown key a: expected one of socket");
    }

    #[test]
    fn broken_toml_has_a_line_and_no_excerpt() {
        let hex = "7".repeat(64);
        let text = error(&format!("[key]\nsource = \"{hex}\n"));
        assert!(text.starts_with("f.toml:2: not TOML: ") && !text.contains("777"), "{text}");
        assert!(error("[key]\n[key]\n").starts_with("f.toml:2: "));
        assert!(error("a = 1\na = 2\n").starts_with("f.toml:2: "));
        assert!(error(&format!("a = {}1{}", "[".repeat(10_000), "]".repeat(10_000))).starts_with("f.toml:1: "));
    }

    #[test]
    fn headers_and_comments_are_no_setting() {
        let sets = |text| has_setting(&parse(text, "f.toml").unwrap());
        for text in ["", "\n", "# kinds = [1]", "[key]\n", "[key]\n[[socket]]\n[[socket]]", "[socket.limits]", "a = {}"]
        {
            assert!(!sets(text), "{text}");
        }
        for text in ["a = 1", "a = []", "[key]\na = ''", "[[socket]]\n[[socket]]\na = false", "a = { b = 1 }"] {
            assert!(sets(text), "{text}");
        }
    }

    #[test]
    fn a_key_anywhere_in_the_file_is_refused_by_line() {
        let text = error(&format!("[key]\n# nsec1{}\n", "q".repeat(58)));
        assert!(text.starts_with("f.toml:2: this is a private key") && !text.contains("qqq"), "{text}");
    }
}
