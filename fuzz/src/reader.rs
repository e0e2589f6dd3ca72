//! A second JSON reader, written from RFC 8259 alone, to judge the broker's by. Shares no line with serde_json.

/// Arrays and objects may be nested this deep, the outermost counted: the broker's limit, docs/wire.md.
const DEEPEST: usize = 64;

/// One value; a number as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number's text.
    Number(String),
    /// A string, its escapes resolved.
    String(String),
    /// `[…]`
    Array(Vec<Node>),
    /// `{…}`, members as written, a name perhaps twice.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// The members of an object.
    pub fn members(&self) -> Option<&[(String, Node)]> {
        if let Node::Object(members) = self { Some(members) } else { None }
    }

    /// The member of this name of an object.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.members()?.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A string's text.
    pub fn text(&self) -> Option<&str> {
        if let Node::String(text) = self { Some(text) } else { None }
    }

    /// A number written with digits alone, if it fits.
    pub fn whole<T: std::str::FromStr>(&self) -> Option<T> {
        match self {
            Node::Number(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        }
    }
}

/// The value that fills `text`; `None` if that is no JSON text, or one nested too deep.
pub fn read(text: &[u8]) -> Option<Node> {
    let text = std::str::from_utf8(text).ok()?;
    let (node, rest) = value(blank(text), 1)?;
    blank(rest).is_empty().then_some(node)
}

fn blank(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// The value that `text` begins with, and what follows it. `depth`: which an array or object here would have.
fn value(text: &str, depth: usize) -> Option<(Node, &str)> {
    for (word, node) in [("null", Node::Null), ("true", Node::Bool(true)), ("false", Node::Bool(false))] {
        if let Some(rest) = text.strip_prefix(word) {
            return Some((node, rest));
        }
    }
    match text.chars().next()? {
        '"' => string(text).map(|(text, rest)| (Node::String(text), rest)),
        '[' | '{' if depth > DEEPEST => None,
        '[' => list(text, ']', |item| value(item, depth + 1)).map(|(items, rest)| (Node::Array(items), rest)),
        '{' => list(text, '}', |item| {
            let (name, rest) = string(item)?;
            let (node, rest) = value(blank(blank(rest).strip_prefix(':')?), depth + 1)?;
            Some(((name, node), rest))
        })
        .map(|(members, rest)| (Node::Object(members), rest)),
        _ => number(text).map(|(number, rest)| (Node::Number(number.to_owned()), rest)),
    }
}

/// Items with commas between them, from the opening bracket to `close`.
fn list<'a, T>(
    text: &'a str,
    close: char,
    item: impl Fn(&'a str) -> Option<(T, &'a str)>,
) -> Option<(Vec<T>, &'a str)> {
    let (mut items, mut text) = (Vec::new(), blank(&text[1..]));
    if let Some(rest) = text.strip_prefix(close) {
        return Some((items, rest));
    }
    loop {
        let (next, rest) = item(text)?;
        items.push(next);
        let rest = blank(rest);
        if let Some(rest) = rest.strip_prefix(close) {
            return Some((items, rest));
        }
        text = blank(rest.strip_prefix(',')?);
    }
}

fn string(text: &str) -> Option<(String, &str)> {
    let (mut out, mut rest) = (String::new(), text.strip_prefix('"')?);
    loop {
        let end = rest.find(|c: char| c < ' ' || c == '"' || c == '\\')?;
        out.push_str(&rest[..end]);
        let special = rest.as_bytes()[end];
        rest = &rest[end + 1..];
        match special {
            b'"' => return Some((out, rest)),
            b'\\' => {
                let (c, after) = escape(rest)?;
                out.push(c);
                rest = after;
            }
            _ => return None,
        }
    }
}

/// What follows a backslash.
fn escape(text: &str) -> Option<(char, &str)> {
    let rest = text.get(1..)?;
    let c = match text.as_bytes()[0] {
        b'u' => {
            let (unit, rest) = unit(rest)?;
            if let Some(c) = char::from_u32(unit) {
                return Some((c, rest));
            }
            // Half of a pair (RFC 8259, 7): the other one has to follow.
            let (low, rest) = self::unit(rest.strip_prefix("\\u")?)?;
            let pair = char::decode_utf16([unit as u16, low as u16]).collect::<Result<Vec<char>, _>>().ok()?;
            return Some((*pair.first()?, rest)).filter(|_| pair.len() == 1);
        }
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        c @ (b'"' | b'\\' | b'/') => char::from(c),
        _ => return None,
    };
    Some((c, rest))
}

/// Four hexadecimal digits.
fn unit(text: &str) -> Option<(u32, &str)> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some((u32::from_str_radix(digits, 16).ok()?, &text[4..]))
}

fn number(text: &str) -> Option<(&str, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut end = usize::from(text.starts_with('-'));
    let whole = digits(&text[end..]);
    if whole == 0 || (whole > 1 && text[end..].starts_with('0')) {
        return None;
    }
    end += whole;
    if text[end..].starts_with('.') {
        let fraction = digits(&text[end + 1..]);
        end += (fraction > 0).then_some(1 + fraction)?;
    }
    if text[end..].starts_with(['e', 'E']) {
        let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
        let exponent = digits(&text[end + 1 + sign..]);
        end += (exponent > 0).then_some(1 + sign + exponent)?;
    }
    Some(text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_rfc_8259_are_read_and_others_are_not() {
        let read = |text: &str| super::read(text.as_bytes());
        let pair = (r#"\ud83d\ude00/"#, "😀/");
        assert_eq!(read(&format!("[\"{}\"]", pair.0)), Some(Node::Array(vec![Node::String(pair.1.into())])));
        assert_eq!(
            read(" {\"a\" : -0.5E+7 , \"a\":[ ]}\r"),
            Some(Node::Object(vec![("a".into(), Node::Number("-0.5E+7".into())), ("a".into(), Node::Array(vec![]))]))
        );
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(read(&deep(64)).is_some() && read(&deep(65)).is_none());
        for bad in [
            "",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{a:1}",
            "'a'",
            "\"\t\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\u12g4\"",
            "\"\\u+123\"",
            "nul",
            "true false",
            "\u{feff}1",
            "\u{a0}1",
            "\"a",
            "[1",
            "{\"a\":1",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(super::read(b"\"\xff\""), None);
    }
}
