//! Whether the broker's JSON tree and the second reader's say the same.

use std::collections::HashSet;

use nsecd_broker::json::{Object, Value};

use crate::reader::Node;

/// Whether the two trees are one.
pub fn same(ours: &Value, theirs: &Node) -> bool {
    match (ours, theirs) {
        (Value::Null, Node::Null) => true,
        (Value::Bool(ours), Node::Bool(theirs)) => ours == theirs,
        (Value::String(ours), Node::String(theirs)) => ours == theirs,
        (Value::Array(ours), Node::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| same(ours, theirs))
        }
        (Value::Object(ours), Node::Object(theirs)) => same_members(ours, theirs),
        (Value::Unsigned(ours), Node::Number(_)) => theirs.whole() == Some(*ours),
        (Value::Negative(ours), Node::Number(text)) => *ours < 0 && text.parse() == Ok(*ours),
        (Value::Float(ours), Node::Number(text)) => {
            let (exact, small) = (text.parse::<f64>().unwrap(), f64::MIN_POSITIVE);
            let is_whole = theirs.whole::<u64>().is_some() || (text.parse::<i64>().is_ok_and(|n| n < 0));
            // serde_json may be wrong in the last place, which no method reads.
            !is_whole && (ours - exact).abs() <= exact.abs() * 1e-14 + small
        }
        _ => false,
    }
}

/// The same for an object's members.
pub fn same_members(ours: &Object, theirs: &[(String, Node)]) -> bool {
    let mut left = ours.clone();
    let all = theirs.iter().all(|(key, theirs)| left.take(key).is_some_and(|ours| same(&ours, theirs)));
    all && left == Object::default()
}

/// Whether a text that is JSON is beyond what the broker takes of it: a name twice, over 1,024 members in one object, over
/// 65,536 values, a number that no double is near to.
pub fn is_beyond(root: &Node) -> bool {
    let (mut values, mut next) = (0, vec![root]);
    while let Some(node) = next.pop() {
        values += 1;
        match node {
            Node::Array(items) => next.extend(items),
            Node::Object(members) => {
                let names: HashSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
                if members.len() > 1024 || names.len() < members.len() {
                    return true;
                }
                next.extend(members.iter().map(|(_, value)| value));
            }
            Node::Number(text) if text.parse::<f64>().unwrap().is_infinite() => return true,
            _ => {}
        }
    }
    values > 65_536
}

/// Whether a number is so near to the largest double that two right readers may differ about it.
pub fn is_borderline(root: &Node) -> bool {
    match root {
        Node::Array(items) => items.iter().any(is_borderline),
        Node::Object(members) => members.iter().any(|(_, value)| is_borderline(value)),
        Node::Number(text) => text.parse::<f64>().unwrap().abs() > 1e308,
        _ => false,
    }
}
