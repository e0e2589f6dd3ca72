//! nsecctl's command line, turned into one request of the socket protocol, or of the operator's.
//!
//! A session token never comes from the command line, where every process of the host could read it: it is
//! read from a file or from standard input.

use crate::doctor;
use nsecd_policy::operator;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// What is asked, and of whom.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// The broker, over an agent socket.
    Ask(Ask),
    /// The supervisor, over the control socket.
    Order(Order),
    /// Nobody: this machine is looked at.
    Doctor(doctor::Options),
}

/// One request of the operator's.
#[derive(Debug, PartialEq)]
pub(crate) struct Order {
    /// `--admin-dir`, if given.
    pub admin_dir: Option<PathBuf>,
    /// What to do with which account.
    pub request: operator::Request,
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
    /// Where a new session's token is to be written.
    pub save: Option<PathBuf>,
    /// A file whose text is the parameter `content`.
    pub content: Option<PathBuf>,
}

/// Reads the arguments after the program's name; `None` asks for help. The error says what was expected.
pub(crate) fn parse(args: &[String]) -> Result<Option<Command>, String> {
    let (mut words, mut flags, mut as_json) = (Vec::new(), Vec::new(), false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.strip_prefix("--").map(|flag| flag.split_once('=').ok_or(flag)) {
            Some(Err("help" | "version")) => return Ok(None),
            None if arg == "-h" || arg == "help" => return Ok(None),
            Some(Err("json")) => as_json = true,
            Some(Ok(pair)) => flags.push(pair),
            Some(Err(flag)) => flags.push((flag, rest.next().ok_or(format!("--{flag} needs a value"))?)),
            None => words.push(arg.as_str()),
        }
    }
    if as_json && words != ["doctor"] {
        return Err("only `doctor` takes --json: every other reply is JSON already".into());
    }
    match words[..] {
        ["doctor"] => return look(as_json, &flags).map(Some),
        ["freeze"] => return order(operator::Command::Freeze, &flags).map(Some),
        ["thaw"] => return order(operator::Command::Thaw, &flags).map(Some),
        _ => {}
    }
    let (method, token, allowed): (_, _, &[&str]) = match words[..] {
        ["pubkey"] => ("get_public_key", "", &["account"]),
        ["session", "start"] => ("session_start", "session_token", &["account", "scope", "ttl", "token-file", "save"]),
        ["session", "info"] => ("session_info", "token", &["token-file"]),
        ["session", "revoke"] => ("session_revoke", "token", &["token-file"]),
        ["sign"] => (
            "sign_event",
            "session_token",
            &["account", "kind", "content", "content-file", "tags", "created-at", "token-file"],
        ),
        [] => return Err("no command given".into()),
        _ => return Err(format!("unknown command `{}`", words.join(" "))),
    };
    let from_input = (token == "token").then(|| (token, "-".into()));
    let mut ask = Ask { socket: None, method, params: Map::new(), token: from_input, save: None, content: None };
    for (name, value) in flags {
        if name != "socket" && !allowed.contains(&name) {
            return Err(format!("`{}` takes no --{name}", words.join(" ")));
        }
        let mut set = |name: &str, value| ask.params.insert(name.into(), value);
        match name {
            "socket" => ask.socket = Some(value.into()),
            "token-file" => ask.token = Some((token, value.into())),
            "save" => ask.save = Some(value.into()),
            "content-file" => ask.content = Some(value.into()),
            "kind" => _ = set("kind", json!(number::<u16>(name, value)?)),
            "created-at" => _ = set("created_at", json!(number::<u32>(name, value)?)),
            "ttl" => _ = set("ttl", json!(seconds(value)?)),
            "tags" => {
                let tags = serde_json::from_str::<Vec<Vec<String>>>(value);
                let tags = tags.map_err(|e| format!("--tags wants a JSON array of arrays of strings: {e}"))?;
                _ = set("tags", json!(tags));
            }
            _ => _ = set(name, json!(value)),
        }
    }
    if method == "sign_event" {
        if !ask.params.contains_key("kind") || ask.params.contains_key("content") && ask.content.is_some() {
            return Err("`sign` needs --kind N, and one of --content and --content-file at most".into());
        }
        ask.params.entry("content").or_insert(json!(""));
    }
    Ok(Some(Command::Ask(ask)))
}

/// Reads the flags of `doctor`.
fn look(json: bool, flags: &[(&str, impl AsRef<str>)]) -> Result<Command, String> {
    let mut options = doctor::Options { json, ..doctor::Options::default() };
    for (name, value) in flags {
        let dir = match *name {
            "admin-dir" => &mut options.admin_dir,
            "state-dir" => &mut options.state_dir,
            _ => return Err(format!("`doctor` takes no --{name}")),
        };
        let path = std::path::PathBuf::from(value.as_ref());
        if !path.is_absolute() {
            return Err(format!("--{name} wants an absolute path"));
        }
        *dir = Some(path);
    }
    Ok(Command::Doctor(options))
}

/// Reads the flags of `freeze` and `thaw`.
fn order(command: operator::Command, flags: &[(&str, impl AsRef<str>)]) -> Result<Command, String> {
    let mut order = Order { admin_dir: None, request: operator::Request { command, account: String::new() } };
    for (name, value) in flags {
        let value = value.as_ref();
        match *name {
            "admin-dir" => order.admin_dir = Some(value.into()),
            // Empty it would mean all of them: a script's unset variable must not.
            "account" if value.is_empty() => return Err("--account wants a name; without it all are meant".into()),
            "account" => order.request.account = value.into(),
            _ => return Err(format!("`freeze` and `thaw` take no --{name}")),
        }
    }
    match order.request.encode() {
        Some(_) => Ok(Command::Order(order)),
        None => Err(format!("--account: no account has a name of more than {} bytes", operator::NAME)),
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(format!("--{name} wants a whole number in range, not `{text}`"))
}

/// `90`, `90s`, `15m`, `8h`, `2d` in seconds; on the wire a TTL is whole seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86400)];
    let split = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (count, unit) = split.unwrap_or((text, 1));
    number::<u64>("ttl", count)?.checked_mul(unit).ok_or(format!("--ttl {text} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Result<Ask, String> {
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        match parse(&args)?.expect("no help was asked for") {
            Command::Ask(ask) => Ok(ask),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_command_line_becomes_the_protocols_request() {
        let a = ask("--socket /s session start --scope 1,1111 --ttl=8h").expect("valid");
        assert_eq!((a.socket, a.method), (Some("/s".into()), "session_start"));
        assert_eq!(Value::Object(a.params), json!({"scope": "1,1111", "ttl": 28800}));
        let a = ask("sign --kind 1 --tags [[\"t\",\"x\"]] --created-at 5 --token-file f").expect("valid");
        assert_eq!(Value::Object(a.params), json!({"kind": 1, "content": "", "tags": [["t", "x"]], "created_at": 5}));
        assert_eq!(a.token, Some(("session_token", "f".into())));
        assert_eq!(ask("session info").expect("valid").token, Some(("token", "-".into())));
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for line in ["", "sing", "sign", "sign --kind 65536", "sign --kind 1 --tags {}", "pubkey --kind 1"] {
            ask(line).expect_err(line);
        }
        for ttl in ["8w", "+8", "", "h", "-1", "999999999999999999d"] {
            ask(&format!("session start --ttl={ttl}")).expect_err(ttl);
        }
        ask("sign --kind 1 --content-file a --content b").expect_err("two contents");
        ask("session info --token abc").expect_err("a token in argv");
    }

    #[test]
    fn freeze_and_thaw_are_for_the_operators_socket() {
        let parse_line = |line: &str| parse(&line.split(' ').map(String::from).collect::<Vec<_>>());
        for (word, command) in [("freeze", operator::Command::Freeze), ("thaw", operator::Command::Thaw)] {
            let order = |admin_dir: Option<&str>, account: &str| {
                let request = operator::Request { command, account: account.into() };
                Ok(Some(Command::Order(Order { admin_dir: admin_dir.map(PathBuf::from), request })))
            };
            assert_eq!(parse_line(word), order(None, ""));
            assert_eq!(parse_line(&format!("--admin-dir /a {word} --account=b")), order(Some("/a"), "b"));
            for rest in ["--account=", "--socket=/s", "--kind=1", "default", &format!("--account={}", "a".repeat(65))] {
                parse_line(&format!("{word} {rest}")).expect_err(rest);
            }
        }
    }
}
