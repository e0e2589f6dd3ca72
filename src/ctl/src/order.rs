//! `freeze`, `thaw` and `reload`: one fixed frame to the supervisor; one back for each account, or as many as a reason takes.

use crate::cli::AdminDir;
use crate::{complain, show};
use clap::Args;
use nsecd_policy::operator::{Command, NAME, REPLY, Reply, Request, SOCKET, Status, reason};
use nsecd_policy::time::iso;
use serde_json::{Value, json};
use std::env;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long the supervisor may take. It answers at once, but for a key in use (3 s at most) and broker and gates that are being
/// started (some 10 s at most, unless the journal is very long).
const PATIENCE: Duration = Duration::from_secs(60);
/// Exit code: frozen, and not for good.
const NOT_SAVED: u8 = 4;

/// `freeze` and `thaw`: of which account.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Account {
    /// The account; without it all of them
    #[arg(long, value_name = "NAME", value_parser = name)]
    account: Option<String>,
    #[command(flatten)]
    admin_dir: AdminDir,
}

/// `reload`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Reload {
    #[command(flatten)]
    admin_dir: AdminDir,
}

/// One request of the operator's.
#[derive(Debug, PartialEq)]
struct Order {
    /// What to do with which account.
    request: Request,
    /// `--admin-dir`, if given.
    admin_dir: AdminDir,
}

/// The name of an account.
fn name(text: &str) -> Result<String, String> {
    match text.len() {
        // Empty it would mean all of them: a script's unset variable must not.
        0 => Err("expected a name; without --account all accounts are meant".into()),
        1..=NAME => Ok(text.to_owned()),
        _ => Err(format!("no account has a name of more than {NAME} bytes")),
    }
}

/// Freezes, and says how it went.
pub(crate) fn freeze(of: Account) -> ExitCode {
    run(&Order::new(Command::Freeze, of))
}

/// Thaws, and says how it went.
pub(crate) fn thaw(of: Account) -> ExitCode {
    run(&Order::new(Command::Thaw, of))
}

/// Has the configuration read again, and says how it went.
pub(crate) fn reload(of: Reload) -> ExitCode {
    let request = Request { command: Command::Reload, account: String::new() };
    run(&Order { request, admin_dir: of.admin_dir })
}

impl Order {
    fn new(command: Command, of: Account) -> Order {
        Order { request: Request { command, account: of.account.unwrap_or_default() }, admin_dir: of.admin_dir }
    }
}

/// Sends the order and says how it went. Exit codes: see the help text.
fn run(order: &Order) -> ExitCode {
    let path = match socket(order.admin_dir.admin_dir.as_deref(), SOCKET) {
        Ok(path) => path,
        Err(what) => return complain(&what, 3),
    };
    let replies = match exchange(&path, order) {
        Ok(replies) => replies,
        Err(e) => return complain(&format!("{}: {}", path.display(), advice(order.request.command, &e)), 3),
    };
    let (text, code) = verdict(order, &replies);
    let report = match order.request.command {
        Command::Reload => json!({"reloaded": code == 0}),
        _ => report(&replies),
    };
    let shown = show(&report.to_string(), ExitCode::from(code));
    if text.is_empty() || shown != ExitCode::from(code) { shown } else { complain(&text, code) }
}

/// Which accounts are frozen, and since when (Unix ms, 0 where that is not known).
pub(crate) fn frozen(admin_dir: &AdminDir) -> Result<Vec<(String, Option<u64>)>, String> {
    let path = socket(admin_dir.admin_dir.as_deref(), SOCKET)?;
    let request = Request { command: Command::Status, account: String::new() };
    let order = Order { request, admin_dir: admin_dir.clone() };
    let replies = exchange(&path, &order).map_err(|e| format!("{}: {e}", path.display()))?;
    match replies.iter().all(|reply| reply.status == Status::Done) {
        true => Ok(replies.into_iter().map(|reply| (reply.account, reply.frozen)).collect()),
        false => Err("the supervisor refused to say".into()),
    }
}

/// What is wrong, if anything is, and the exit code.
fn verdict(order: &Order, replies: &[Reply]) -> (String, u8) {
    let freeze = order.request.command == Command::Freeze;
    let has = |status| replies.iter().any(|reply| reply.status == status);
    if has(Status::UnknownAccount) {
        return (format!("nsecd has no account {}", order.request.account), 1);
    }
    if has(Status::NotAllowed) {
        return ("refused: only root and the user that nsecd runs as may ask that".into(), 1);
    }
    if has(Status::Malformed) {
        return ("refused: nsecd and nsecctl are of different versions".into(), 1);
    }
    if has(Status::NotReloaded) {
        return (format!("not reloaded, and nothing has changed: {}", reason(replies)), 1);
    }
    if order.request.command == Command::Reload {
        return (String::new(), 0);
    }
    let names = |of: fn(&Reply) -> bool| {
        replies.iter().filter(|r| of(r)).map(|r| r.account.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (frozen, free) = (names(|r| r.frozen.is_some()), names(|r| r.frozen.is_none()));
    match freeze {
        true if !free.is_empty() => (format!("not frozen: {free}: somebody has thawed it meanwhile"), 1),
        false if !frozen.is_empty() => (
            format!(
                "still frozen: {frozen}: see nsecd's log (the state directory must be writable), or somebody has frozen it meanwhile"
            ),
            1,
        ),
        true if replies.iter().any(|r| !r.saved) => {
            let text = "frozen, but the state directory cannot be written: a restart of nsecd would thaw it; see its log, and freeze again";
            (text.into(), NOT_SAVED)
        }
        _ => (String::new(), 0),
    }
}

/// The replies for people and programs.
fn report(replies: &[Reply]) -> Value {
    let account = |r: &Reply| {
        let since = r.frozen.filter(|ms| *ms > 0).map(iso);
        json!({"account": r.account, "frozen": r.frozen.is_some(), "since": since, "saved": r.saved})
    };
    json!({"accounts": replies.iter().filter(|r| !r.account.is_empty()).map(account).collect::<Vec<_>>()})
}

fn advice(command: Command, e: &io::Error) -> String {
    let doubt = match command {
        Command::Freeze => "not acknowledged: do not count on the freeze; if it is urgent, stop nsecd",
        Command::Thaw | Command::Status => "not acknowledged",
        Command::Reload => "not acknowledged: whether the configuration is in force nsecd's log says",
    };
    match e.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => format!("{e}: no nsecd serves it"),
        ErrorKind::PermissionDenied => format!("{e}: it is for root and the user that nsecd runs as"),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("{doubt} ({} s without an answer)", PATIENCE.as_secs()),
        ErrorKind::UnexpectedEof => format!("{doubt} (nsecd has closed the connection; see its log)"),
        _ => format!("{e}: {doubt}"),
    }
}

fn exchange(path: &Path, order: &Order) -> io::Result<Vec<Reply>> {
    let frame = order.request.encode().ok_or(ErrorKind::InvalidInput)?;
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Who is refused for its uid may be so before it has asked; the refusal is there to be read all the same.
    let sent = stream.write_all(&frame);
    let mut replies: Vec<Reply> = Vec::new();
    loop {
        let mut frame = [0; REPLY];
        stream.read_exact(&mut frame).map_err(|e| sent.as_ref().err().map_or(e.kind(), io::Error::kind))?;
        let reply = Reply::decode(&frame).ok_or_else(|| io::Error::other("this is no answer of nsecd's"))?;
        let left = reply.left;
        replies.push(reply);
        if left == 0 {
            return Ok(replies);
        }
    }
}

/// One of the operator's sockets. Among the default paths only that in a directory which nobody else can have made: who answers there could
/// acknowledge what has not been done.
pub(crate) fn socket(admin_dir: Option<&Path>, name: &str) -> Result<PathBuf, String> {
    if let Some(dir) = admin_dir {
        return Ok(dir.join(name));
    }
    let uid = fs::metadata("/proc/self").map(|m| m.uid()).map_err(|e| format!("/proc/self: {e}"))?;
    let dirs = default_dirs(uid, env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let ours =
        |dir: &&PathBuf| fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == uid && m.mode() & 0o077 == 0);
    match dirs.iter().filter(ours).map(|dir| dir.join(name)).find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => {
            let tried: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            Err(format!("no {name} in {}; start nsecd, or say where with --admin-dir", tried.join(", ")))
        }
    }
}

/// Where nsecd's admin directory is unless told otherwise, as this user would have started it.
pub(crate) fn default_dirs(uid: u32, runtime: Option<PathBuf>) -> Vec<PathBuf> {
    if uid == 0 {
        return vec!["/run/nsecd/admin".into()];
    }
    let runtime = runtime.filter(|dir| dir.is_absolute());
    let parents = runtime.into_iter().chain([format!("/run/user/{uid}").into(), format!("/tmp/nsecd-{uid}").into()]);
    let mut dirs: Vec<PathBuf> = parents.map(|dir: PathBuf| dir.join("nsecd-admin")).collect();
    dirs.dedup();
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command as Asked};

    fn order(command: Command) -> Order {
        Order { admin_dir: AdminDir::default(), request: Request { command, account: String::new() } }
    }

    #[test]
    fn freeze_and_thaw_are_for_the_operators_socket() {
        for word in ["freeze", "thaw"] {
            let parse = |line: &str| match Cli::read(line.split(' '))?.command {
                Asked::Freeze(of) if word == "freeze" => Ok(of),
                Asked::Thaw(of) if word == "thaw" => Ok(of),
                other => Err(format!("{other:?}")),
            };
            let of = |admin_dir: Option<&str>, account: Option<&str>| {
                let admin_dir = AdminDir { admin_dir: admin_dir.map(PathBuf::from) };
                Ok(Account { account: account.map(String::from), admin_dir })
            };
            assert_eq!(parse(word), of(None, None));
            assert_eq!(parse(&format!("--admin-dir /a {word} --account=b")), of(Some("/a"), Some("b")));
            for rest in ["--account=", "--socket=/s", "--kind=1", "default", &format!("--account={}", "a".repeat(65))] {
                parse(&format!("{word} {rest}")).expect_err(rest);
            }
        }
    }

    fn reply(status: Status, frozen: Option<u64>, saved: bool) -> Reply {
        Reply { status, frozen, saved, left: 0, account: "default".into() }
    }

    #[test]
    fn only_what_is_so_is_reported_as_done() {
        let (freeze, thaw) = (order(Command::Freeze), order(Command::Thaw));
        let frozen = reply(Status::Done, Some(1_775_108_259_123), true);
        let free = reply(Status::Done, None, true);
        let code = |order, replies: &[Reply]| verdict(order, replies).1;
        assert_eq!((code(&freeze, std::slice::from_ref(&frozen)), code(&thaw, std::slice::from_ref(&free))), (0, 0));
        assert_eq!((code(&freeze, &[frozen.clone(), free.clone()]), code(&thaw, &[free, frozen.clone()])), (1, 1));
        assert_eq!(code(&freeze, &[reply(Status::NotSaved, Some(1), false)]), NOT_SAVED);
        assert_eq!(code(&freeze, &[reply(Status::Done, Some(1), false)]), NOT_SAVED);
        assert_eq!(code(&thaw, &[reply(Status::NotSaved, Some(1), false)]), 1);
        for status in [Status::UnknownAccount, Status::NotAllowed, Status::Malformed] {
            assert_eq!(code(&freeze, &[Reply::refusal(status)]), 1);
        }
        let order = order(Command::Reload);
        assert_eq!(code(&order, &[Reply::done()]), 0);
        let refused = verdict(&order, &nsecd_policy::operator::refusal(&"é".repeat(50)));
        assert_eq!(refused, (format!("not reloaded, and nothing has changed: {}", "é".repeat(50)), 1));
        let shown = report(&[frozen, reply(Status::Done, Some(0), true), reply(Status::Done, None, true)]);
        assert_eq!(
            shown.to_string(),
            r#"{"accounts":[{"account":"default","frozen":true,"saved":true,"since":"2026-04-02T05:37:39.123Z"},{"account":"default","frozen":true,"saved":true,"since":null},{"account":"default","frozen":false,"saved":true,"since":null}]}"#
        );
    }

    #[test]
    fn the_default_directories_are_nsecds() {
        let text = |dirs: Vec<PathBuf>| dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>();
        assert_eq!(text(default_dirs(0, Some("/run/user/0".into()))), ["/run/nsecd/admin"]);
        let own = ["/run/user/7/nsecd-admin", "/tmp/nsecd-7/nsecd-admin"];
        assert_eq!(text(default_dirs(7, Some("/run/user/7".into()))), own);
        assert_eq!(text(default_dirs(7, Some("run".into()))), own);
        assert_eq!(text(default_dirs(7, Some("/x".into())))[0], "/x/nsecd-admin");
    }
}
