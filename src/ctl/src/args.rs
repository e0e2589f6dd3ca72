//! nsecctl's command line, turned into one request of the socket protocol.
//!
//! A session token never comes from the command line, where every process of the host could read it: it is
//! read from a file or from standard input.

use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Print the help text.
    Help,
    /// Print the version.
    Version,
    /// Send one request.
    Ask(Ask),
}

/// One request, but for the parts that lie in files.
#[derive(Debug, PartialEq)]
pub(crate) struct Ask {
    /// `--socket`, if given.
    pub socket: Option<PathBuf>,
    /// The protocol's method.
    pub method: &'static str,
    /// Its parameters.
    pub params: Map<String, Value>,
    /// A parameter whose value is the first line of a file (`-`: standard input).
    pub token: Option<(&'static str, PathBuf)>,
    /// A file whose text is the parameter `content`.
    pub content: Option<PathBuf>,
}

/// Reads the arguments after the program's name. The error says what was expected.
pub(crate) fn parse(args: &[String]) -> Result<Command, String> {
    let (mut words, mut flags) = (Vec::new(), Vec::new());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.strip_prefix("--") {
            Some("help") => return Ok(Command::Help),
            Some("version") => return Ok(Command::Version),
            Some(flag) => flags.push(match flag.split_once('=') {
                Some((name, value)) => (name, value),
                None => (flag, rest.next().ok_or(format!("--{flag} needs a value"))?.as_str()),
            }),
            None if arg == "-h" => return Ok(Command::Help),
            None => words.push(arg.as_str()),
        }
    }
    let (method, allowed): (_, &[&str]) = match words[..] {
        ["pubkey"] => ("get_public_key", &["account"]),
        ["session", "start"] => ("session_start", &["account", "scope", "ttl", "token-file"]),
        ["session", "info"] => ("session_info", &["token-file"]),
        ["session", "revoke"] => ("session_revoke", &["token-file"]),
        ["sign"] => ("sign_event", &["account", "kind", "content", "content-file", "tags", "created-at", "token-file"]),
        [] => return Err("no command given".into()),
        _ => return Err(format!("unknown command `{}`", words.join(" "))),
    };
    let mut ask = Ask { socket: None, method, params: Map::new(), token: None, content: None };
    let token = if method == "sign_event" || method == "session_start" { "session_token" } else { "token" };
    if token == "token" {
        ask.token = Some((token, "-".into()));
    }
    for (name, value) in flags {
        if name != "socket" && !allowed.contains(&name) {
            return Err(format!("`{}` takes no --{name}", words.join(" ")));
        }
        match name {
            "socket" => ask.socket = Some(value.into()),
            "token-file" => ask.token = Some((token, value.into())),
            "content-file" => ask.content = Some(value.into()),
            "kind" => set(&mut ask.params, "kind", json!(number::<u16>(name, value)?)),
            "created-at" => set(&mut ask.params, "created_at", json!(number::<u32>(name, value)?)),
            "ttl" => set(&mut ask.params, "ttl", json!(seconds(value)?)),
            "tags" => {
                let tags: Vec<Vec<String>> = serde_json::from_str(value)
                    .map_err(|e| format!("--tags wants a JSON array of arrays of strings: {e}"))?;
                set(&mut ask.params, "tags", json!(tags));
            }
            _ => set(&mut ask.params, name, json!(value)),
        }
    }
    if method == "sign_event" {
        if !ask.params.contains_key("kind") {
            return Err("`sign` needs --kind N".into());
        }
        if ask.params.contains_key("content") && ask.content.is_some() {
            return Err("--content and --content-file exclude each other".into());
        }
        ask.params.entry("content").or_insert(json!(""));
    }
    Ok(Command::Ask(ask))
}

fn set(params: &mut Map<String, Value>, name: &str, value: Value) {
    params.insert(name.into(), value);
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("--{name} wants a whole number in range, not `{value}`"))
}

/// `90`, `90s`, `15m`, `8h`, `2d` in seconds; on the wire a TTL is whole seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((i, 's')) => (&text[..i], 1),
        Some((i, 'm')) => (&text[..i], 60),
        Some((i, 'h')) => (&text[..i], 3600),
        Some((i, 'd')) => (&text[..i], 86400),
        _ => (text, 1),
    };
    let count = digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    count
        .and_then(|n| n.checked_mul(unit))
        .ok_or(format!("--ttl wants a whole number with s, m, h or d, such as 8h, not `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Result<Ask, String> {
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        parse(&args).map(|c| match c {
            Command::Ask(ask) => ask,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_command_line_becomes_the_protocols_request() {
        let a = ask("--socket /s session start --scope 1,1111 --ttl=8h").unwrap();
        assert_eq!((a.socket, a.method), (Some("/s".into()), "session_start"));
        assert_eq!(Value::Object(a.params), json!({"scope": "1,1111", "ttl": 28800}));
        let a = ask("sign --kind 1 --content hi --tags [[\"t\",\"x\"]] --created-at 5 --token-file f").unwrap();
        assert_eq!(Value::Object(a.params), json!({"kind": 1, "content": "hi", "tags": [["t", "x"]], "created_at": 5}));
        assert_eq!(a.token, Some(("session_token", "f".into())));
        assert_eq!(ask("session info").unwrap().token, Some(("token", "-".into())));
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for line in [
            "",
            "sing",
            "sign",
            "sign --kind 65536",
            "sign --kind 1 --tags {}",
            "sign --kind 1 --content-file a --content b",
        ] {
            ask(line).unwrap_err();
        }
        for line in [
            "pubkey --kind 1",
            "session info --token abc",
            "session start --ttl 8w",
            "session start --ttl +8",
            "session start --ttl",
        ] {
            ask(line).unwrap_err();
        }
    }
}
