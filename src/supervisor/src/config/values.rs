//! Single values of the config file: each function takes what was written and says what it expected. Checks a value
//! on its own; what contradicts another setting is `resolve`'s to find.

use std::path::PathBuf;

use nsecd_policy::{Bind, Kinds, Method, StartSessions};

use super::Ceiling;
use super::peers::public_key;
use super::source::{self, KeySource};
use super::tree::Value;
use super::units;

/// Most kinds in a list: the gate gets them in its arguments. More than that is "any".
const MAX_KINDS: usize = 256;

/// Most peers in all: the ECDH holder gets them in one argument, of at most 128 KiB (execve(2)).
pub const MAX_PEERS: usize = 1024;

/// Longest path of a Unix socket in bytes: sun_path is 108 with its final zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// `auto`, or a value that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auto<T> {
    /// Computed from the sockets.
    Auto,
    /// As written.
    Fixed(T),
}

/// A string that `read` understands.
pub fn text<T>(value: &Value, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
    let read = if let Value::Text(text) = value { read(text) } else { None };
    read.ok_or_else(|| format!("expected {expected}"))
}

/// true or false.
pub fn flag(value: &Value) -> Result<bool, String> {
    if let Value::Flag(b) = value { Ok(*b) } else { Err("expected true or false".to_string()) }
}

/// A whole number from 1 to `most`.
pub fn count(value: &Value, most: u32) -> Result<u32, String> {
    let n = if let Value::Number(n) = value { u32::try_from(*n).ok() } else { None };
    n.filter(|n| (1..=most).contains(n)).ok_or_else(|| format!("expected a whole number from 1 to {most}"))
}

/// Seconds, from 1 s to `most`.
pub fn duration(value: &Value, most: u64) -> Result<u64, String> {
    let seconds = text(value, "a whole number with s, m, h or d, such as \"24h\"", units::duration)?;
    let range = format!("expected 1s to {}", units::show_duration(most));
    (1..=most).contains(&seconds).then_some(seconds).ok_or(range)
}

/// Bytes, within `least..=most`.
pub fn size(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    let bytes = text(value, "a whole number with B, KiB or MiB, such as \"512KiB\"", units::size)?;
    let range = format!("expected {} to {}", units::show_size(least), units::show_size(most));
    (least..=most).contains(&bytes).then_some(bytes).ok_or(range)
}

/// A list whose items `read` understands, none of them twice.
pub fn list<T: PartialEq>(value: &Value, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, String> {
    let wrong = || format!("expected {expected}");
    let Value::List(items) = value else { return Err(wrong()) };
    let mut out = Vec::new();
    for item in items {
        let one = read(&item.value).ok_or_else(wrong)?;
        if out.contains(&one) {
            return Err(format!("expected each item once, but {} is there twice", item.value.shown()));
        }
        out.push(one);
    }
    Ok(out)
}

/// A list of kinds, or "any".
pub fn kinds(value: &Value) -> Result<Kinds, String> {
    if matches!(value, Value::Text(text) if text == "any") {
        return Ok(Kinds::Any);
    }
    let kind = |v: &Value| if let Value::Number(n) = v { u16::try_from(*n).ok() } else { None };
    let list = list(value, "a list of kinds from 0 to 65535, such as [1, 7], or \"any\"", kind)?;
    if list.len() > MAX_KINDS {
        return Err(format!("expected at most {MAX_KINDS} kinds, or \"any\""));
    }
    Ok(Kinds::List(list))
}

/// The name of a method, as configured.
pub fn method_name(method: Method) -> &'static str {
    match method {
        Method::SignEvent => "sign_event",
        Method::Nip44 => "nip44",
        Method::Nip04 => "nip04",
        Method::Dm => "dm",
    }
}

/// At least one method.
pub fn methods(value: &Value) -> Result<Vec<Method>, String> {
    let expected = "one or more of \"sign_event\", \"nip44\", \"nip04\", \"dm\" in a list";
    let all = [Method::SignEvent, Method::Nip44, Method::Nip04, Method::Dm];
    let read = |v: &Value| all.into_iter().find(|m| matches!(v, Value::Text(text) if text == method_name(*m)));
    let methods = list(value, expected, read)?;
    if methods.is_empty() { Err(format!("expected {expected}")) } else { Ok(methods) }
}

/// Whether `name` can be an account's: it becomes part of file names and of the wire's replies.
pub fn is_account_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

/// What [`is_account_name`] wants.
pub const ACCOUNT_NAME: &str = "a name of 1 to 64 letters, digits, -, _ or . (not first)";

/// An account's name.
pub fn account_name(value: &Value) -> Result<String, String> {
    text(value, ACCOUNT_NAME, |t| is_account_name(t).then(|| t.to_string()))
}

/// At least one account's name.
pub fn account_names(value: &Value) -> Result<Vec<String>, String> {
    let expected = "a list of account names, such as [\"default\"]";
    let names = list(value, expected, |v| account_name(v).ok())?;
    if names.is_empty() { Err(format!("expected {expected}")) } else { Ok(names) }
}

/// At least one uid. 65534 may be listed; the broker refuses it all the same.
pub fn uids(value: &Value) -> Result<Vec<u32>, String> {
    let expected = "a list of one or more numeric user ids, such as [1000]";
    // uid -1 means "unchanged" to the kernel and belongs to no one.
    let uid =
        |v: &Value| if let Value::Number(n) = v { u32::try_from(*n).ok().filter(|u| *u != u32::MAX) } else { None };
    let uids = list(value, expected, uid)?;
    if uids.is_empty() { Err(format!("expected {expected}")) } else { Ok(uids) }
}

/// A socket file's mode: octal digits in a string; someone must be able to write, that is, to connect.
pub fn mode(value: &Value) -> Result<u32, String> {
    let expected = "octal permissions in a string, with write permission for someone, such as \"0600\"";
    text(value, expected, |t| {
        let octal = matches!(t.len(), 3 | 4) && t.bytes().all(|b| (b'0'..=b'7').contains(&b));
        u32::from_str_radix(t, 8).ok().filter(|m| octal && *m <= 0o777 && m & 0o222 != 0)
    })
}

/// An absolute path.
pub fn path(value: &Value) -> Result<PathBuf, String> {
    text(value, ABSOLUTE, absolute)
}

/// An absolute path that fits a socket's address.
pub fn socket_path(value: &Value) -> Result<PathBuf, String> {
    text(value, SOCKET_PATH, absolute_socket)
}

/// What [`absolute`] wants.
pub const ABSOLUTE: &str = "an absolute path without . or .., not / itself";

/// What [`absolute_socket`] wants.
pub const SOCKET_PATH: &str = "an absolute path without . or .., of at most 107 bytes";

/// An absolute path without `.`, `..` and control characters (it stands in logs); repeated slashes become one.
pub fn absolute(text: &str) -> Option<PathBuf> {
    let inner = text.strip_prefix('/')?;
    let plain = !inner.split('/').any(|part| matches!(part, "." | "..")) && !text.contains(char::is_control);
    let path: PathBuf = std::path::Path::new(text).components().collect();
    (plain && text.len() < 4096 && path.file_name().is_some()).then_some(path)
}

/// An absolute path that fits a socket's address.
pub fn absolute_socket(text: &str) -> Option<PathBuf> {
    absolute(text).filter(|p| p.as_os_str().len() <= MAX_SOCKET_PATH && !text.ends_with('/'))
}

/// A user's or group's name or number, in a string.
pub fn principal(value: &Value) -> Result<String, String> {
    text(value, "a name or a number in a string, such as \"1000\"", |t| (!t.is_empty()).then(|| t.to_string()))
}

/// Where a key comes from.
pub fn key_source(value: &Value) -> Result<KeySource, String> {
    match value {
        Value::Text(text) => source::parse(text),
        _ => source::parse(""),
    }
}

/// An account's ceiling: `None` inside for "none".
pub fn ceiling(value: &Value) -> Result<Auto<Option<Ceiling>>, String> {
    text(value, "a burst and a refill such as \"120, 2/s\" (s, m or h), \"none\" or \"auto\"", |t| match t {
        "auto" => Some(Auto::Auto),
        "none" => Some(Auto::Fixed(None)),
        _ => units::ceiling(t).map(|c| Auto::Fixed(Some(c))),
    })
}

/// The ceiling of seals: `None` inside for "none".
pub fn seal_ceiling(value: &Value) -> Result<Option<Ceiling>, String> {
    text(value, "a burst and a refill such as \"120, 2/s\" (s, m or h), or \"none\"", |t| match t {
        "none" => Some(None),
        _ => units::ceiling(t).map(Some),
    })
}

/// At least one public key, each as 64 lower-case hex digits.
pub fn peers(value: &Value) -> Result<Vec<String>, String> {
    let expected = "a list of one or more public keys, each npub1… or 64 hex digits";
    if let Value::List(items) = value {
        let key = |v: &Value| matches!(v, Value::Text(text) if public_key(text).is_some());
        if let Some(wrong) = items.iter().position(|item| !key(&item.value)) {
            return Err(format!("expected {expected}; number {} is none", wrong + 1));
        }
    }
    let peers = list(value, expected, |v| if let Value::Text(text) = v { public_key(text) } else { None })?;
    match peers.len() {
        0 => Err(format!("expected {expected}")),
        1..=MAX_PEERS => Ok(peers),
        _ => Err(format!("expected at most {MAX_PEERS} public keys, or no peers at all: anybody")),
    }
}

/// A socket's created_at window.
pub fn window(value: &Value) -> Result<Option<(i64, i64)>, String> {
    text(value, "a window that contains now, such as \"-1h..+15m\", or \"any\"", units::window)
}

/// An account's created_at window.
pub fn auto_window(value: &Value) -> Result<Auto<Option<(i64, i64)>>, String> {
    text(value, "a window that contains now, such as \"-1h..+15m\", \"any\" or \"auto\"", |t| {
        if t == "auto" { Some(Auto::Auto) } else { units::window(t).map(Auto::Fixed) }
    })
}

/// Seconds to wait at a limit.
pub fn wait(value: &Value) -> Result<u64, String> {
    text(value, "\"reject\", or \"wait \" and 1s to 10m, such as \"wait 20s\"", units::wait)
}

/// Who owns a session.
pub fn bind(value: &Value) -> Result<Bind, String> {
    text(value, "\"first_use\" or \"starter\"", |t| match t {
        "first_use" => Some(Bind::FirstUse),
        "starter" => Some(Bind::Starter),
        _ => None,
    })
}

/// Who may start sessions.
pub fn start_sessions(value: &Value) -> Result<StartSessions, String> {
    text(value, "\"self\", \"once\" or \"admin\"", |t| match t {
        "self" => Some(StartSessions::Own),
        "once" => Some(StartSessions::Once),
        "admin" => Some(StartSessions::Admin),
        _ => None,
    })
}
