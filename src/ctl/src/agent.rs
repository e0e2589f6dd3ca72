//! The commands that ask a running nsecd over an agent socket, or as the operator over the admin socket: one request of the
//! socket protocol, its reply as it came.
//!
//! A session token never comes from the command line, where every process of the host could read it: it is
//! read from a file or from standard input.

use crate::cli::{AdminDir, duration, tags};
use crate::{admin, complain, show};
use clap::{Args, Subcommand, ValueHint};
use serde_json::{Map, Value, json};
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where nsecd listens.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Socket {
    /// The agent socket [default: $NOSTR_SIGNER_SOCKET, else the first that exists of nsecd's default paths]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,
}

/// The agent socket, or the operator's.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Where {
    /// Ask as the operator, over the admin socket: whatever the account allows, no socket's limits
    #[arg(long, conflicts_with = "socket")]
    admin: bool,
    /// The directory of nsecd's control and admin sockets [default: the first of nsecd's default paths that has one]
    #[arg(long, value_name = "DIR", requires = "admin", value_hint = ValueHint::DirPath)]
    admin_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: Socket,
}

/// `pubkey`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Pubkey {
    /// Whose key; without it the default account's
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    #[command(flatten)]
    of: Where,
}

/// `session`.
#[derive(Debug, PartialEq, Subcommand)]
pub(crate) enum Session {
    /// Start a session, or with a token a narrower one; with --for, issue one as the operator
    Start(Start),
    /// List sessions, as the operator: whose they are, what they may do, until when
    List(List),
    /// What a session may do, and until when: by its token, or as the operator by its name
    Info(Token),
    /// End a session, and those that were narrowed from it: by its token, or as the operator by its name
    Revoke(Token),
}

/// `session start`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Start {
    /// Kinds it may sign, as 1,1111 [default: 1, 9734 and 1111, as far as the socket allows]
    #[arg(long, value_name = "KINDS")]
    scope: Option<String>,
    /// How long it lives: seconds, or a number with s, m, h or d [default: 8h, as far as the socket allows]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<u64>,
    /// Whose key it may use; without it the default account's
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// The session to narrow: a file whose first line is its token, `-` for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// Write the new token to a new file as well, mode 0600
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    save: Option<PathBuf>,
    /// Issue it as the operator for this agent socket: its path, or its file name without suffix
    #[arg(long = "for", value_name = "SOCKET", conflicts_with_all = ["socket", "token_file"])]
    issue_for: Option<String>,
    /// Rules that it keeps to beside its socket's: a file of [[rule]] tables, in the words of [[socket.rule]]
    #[arg(long, value_name = "FILE", requires = "issue_for", value_hint = ValueHint::FilePath)]
    rules: Option<PathBuf>,
    /// The directory of nsecd's control and admin sockets [default: the first of nsecd's default paths that has one]
    #[arg(long, value_name = "DIR", requires = "issue_for", value_hint = ValueHint::DirPath)]
    admin_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: Socket,
}

/// `session list`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct List {
    /// Only those of this agent socket: its path, or its file name without suffix
    #[arg(long = "for", value_name = "SOCKET")]
    list_for: Option<String>,
    #[command(flatten)]
    admin_dir: AdminDir,
}

/// `session info` and `session revoke`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Token {
    /// The session's name, which `session list` shows: 12 digits, or all 64. Never its token
    #[arg(value_name = "SESSION", conflicts_with_all = ["token_file", "socket"])]
    session: Option<String>,
    /// A file whose first line is the session's token, `-` for standard input
    #[arg(long, value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    token_file: PathBuf,
    /// The directory of nsecd's control and admin sockets [default: the first of nsecd's default paths that has one]
    #[arg(long, value_name = "DIR", requires = "session", value_hint = ValueHint::DirPath)]
    admin_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: Socket,
}

/// `sign`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Sign {
    /// The event's kind
    #[arg(long, value_name = "N")]
    kind: u16,
    /// Its content [default: empty]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    content: Option<String>,
    /// A file that is its content, `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "content", value_hint = ValueHint::FilePath)]
    content_file: Option<PathBuf>,
    /// Its tags: a JSON array of arrays of strings
    #[arg(long, value_name = "JSON", value_parser = tags)]
    tags: Option<Value>,
    /// Its time, in seconds since 1970 [default: now]
    #[arg(long, value_name = "SECONDS")]
    created_at: Option<u32>,
    /// Whose key signs; without it the session's, or the default account's
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// The session to sign in: a file whose first line is its token, `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "admin", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    of: Where,
}

/// Whom to ask.
#[derive(Debug, PartialEq)]
enum Whom {
    /// An agent socket, that of `--socket` if given.
    Agents(Option<PathBuf>),
    /// The admin socket.
    Operators(AdminDir),
}

impl From<Where> for Whom {
    fn from(of: Where) -> Whom {
        if of.admin { Whom::Operators(AdminDir { admin_dir: of.admin_dir }) } else { Whom::Agents(of.socket.socket) }
    }
}

impl From<Socket> for Whom {
    fn from(of: Socket) -> Whom {
        Whom::Agents(of.socket)
    }
}

/// One request, but for the parts that lie in files.
#[derive(Debug, PartialEq)]
pub(crate) struct Ask {
    /// Where.
    whom: Whom,
    /// The protocol's method.
    method: &'static str,
    /// Its parameters.
    params: Map<String, Value>,
    /// A parameter whose value is the first line of a file (`-`: standard input).
    token: Option<(&'static str, PathBuf)>,
    /// Where a new session's token is to be written.
    save: Option<PathBuf>,
    /// A file whose text is the parameter `content`.
    content: Option<PathBuf>,
    /// A file of `[[rule]]` tables.
    rules: Option<PathBuf>,
}

impl Ask {
    fn new(method: &'static str, whom: impl Into<Whom>, params: Value) -> Ask {
        let Value::Object(mut params) = params else { unreachable!("parameters are written as an object") };
        params.retain(|_, value| !value.is_null());
        Ask { whom: whom.into(), method, params, token: None, save: None, content: None, rules: None }
    }
}

impl From<Pubkey> for Ask {
    fn from(asked: Pubkey) -> Ask {
        Ask::new("get_public_key", asked.of, json!({"account": asked.account}))
    }
}

impl From<Session> for Ask {
    fn from(asked: Session) -> Ask {
        let named = |method: &'static str, token: Token| match token.session {
            Some(name) => {
                let whom = Whom::Operators(AdminDir { admin_dir: token.admin_dir });
                Ask::new(method, whom, json!({"session": name}))
            }
            None => Ask { token: Some(("token", token.token_file)), ..Ask::new(method, token.socket, json!({})) },
        };
        match asked {
            Session::Start(start) => {
                let mut params = json!({"account": start.account, "scope": start.scope, "ttl": start.ttl});
                if let Some(socket) = start.issue_for {
                    params["socket"] = json!(socket);
                    let whom = Whom::Operators(AdminDir { admin_dir: start.admin_dir });
                    return Ask { save: start.save, rules: start.rules, ..Ask::new("session_start", whom, params) };
                }
                let token = start.token_file.map(|file| ("session_token", file));
                Ask { token, save: start.save, ..Ask::new("session_start", start.socket, params) }
            }
            Session::List(list) => {
                Ask::new("session_list", Whom::Operators(list.admin_dir), json!({"socket": list.list_for}))
            }
            Session::Info(token) => named("session_info", token),
            Session::Revoke(token) => named("session_revoke", token),
        }
    }
}

impl From<Sign> for Ask {
    fn from(sign: Sign) -> Ask {
        let params = json!({
            "account": sign.account,
            "kind": sign.kind,
            "content": sign.content.unwrap_or_default(),
            "tags": sign.tags,
            "created_at": sign.created_at,
        });
        let token = sign.token_file.map(|file| ("session_token", file));
        Ask { token, content: sign.content_file, ..Ask::new("sign_event", sign.of, params) }
    }
}

/// Asks, and prints the reply. Exit code 1: it is an error.
pub(crate) fn run(ask: impl Into<Ask>) -> ExitCode {
    let ask = ask.into();
    let save = ask.save.clone();
    let found = match &ask.whom {
        Whom::Agents(socket) => agent_socket(socket.as_deref()),
        Whom::Operators(admin_dir) => admin::socket(admin_dir),
    };
    let operator = matches!(ask.whom, Whom::Operators(_));
    let request = match complete(ask) {
        Ok(request) => request,
        Err(what) => return complain(&what, 2),
    };
    let path = match found {
        Ok(path) => path,
        Err(what) => return complain(&what, 3),
    };
    let reply = match if operator { admin::exchange(&path, &request) } else { exchange(&path, &request) } {
        Ok(reply) => reply,
        Err(e) if operator => return complain(&format!("{}: {}", path.display(), admin::advice(&e)), 3),
        Err(e) => {
            let advice = "is nsecd running, and may this user connect (the socket's mode and owner decide)?";
            return complain(&format!("asking {}: {e}; {advice}", path.display()), 3);
        }
    };
    match serde_json::from_str::<Value>(&reply) {
        Ok(value) => {
            let refused = value.get("error").is_some_and(|e| !e.is_null());
            if let (Some(file), Some(token)) = (save, value["session"]["token"].as_str())
                && let Err(e) = store(&file, token)
            {
                return complain(
                    &format!("the session has started, but its token is not saved: {}: {e}", file.display()),
                    3,
                );
            }
            show(reply.trim_end(), ExitCode::from(u8::from(refused)))
        }
        Err(e) => complain(&format!("the reply from {} is not JSON: {e}", path.display()), 3),
    }
}

/// The agent socket that is meant, if it is there.
fn agent_socket(named: Option<&Path>) -> Result<PathBuf, String> {
    let candidates = named.map_or_else(default_sockets, |path| vec![path.to_owned()]);
    // Of what may not be looked at the connection says so.
    let there = |path: &&PathBuf| path.try_exists().unwrap_or(true);
    candidates.iter().find(there).cloned().ok_or_else(|| {
        let tried: Vec<_> = candidates.iter().map(|p| p.display().to_string()).collect();
        format!("no socket at {}; start nsecd, or name its socket with --socket", tried.join(", "))
    })
}

/// The request's line, with the parts that lie in files.
fn complete(mut ask: Ask) -> Result<String, String> {
    if let Some(file) = &ask.content {
        ask.params.insert("content".into(), json!(text(file)?));
    }
    if let Some(file) = &ask.rules {
        ask.params.insert("rules".into(), admin::rules(file)?);
    }
    if let Some((name, file)) = &ask.token {
        let all = text(file)?;
        ask.params.insert((*name).into(), json!(all.lines().next().unwrap_or_default().trim()));
    }
    Ok(json!({"method": ask.method, "params": ask.params}).to_string() + "\n")
}

fn text(file: &Path) -> Result<String, String> {
    let mut all = String::new();
    let read = match file.to_str() {
        Some("-") => io::stdin().read_to_string(&mut all).map(|_| all),
        _ => crate::named::text(file),
    };
    read.map_err(|e| format!("reading {}: {e}", file.display()))
}

/// A new file that only its owner can read.
fn store(file: &Path, token: &str) -> io::Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{token}")
}

fn exchange(path: &Path, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(request.as_bytes())?;
    admin::reply(stream)
}

/// Where nsecd listens unless told otherwise, most specific first.
fn default_sockets() -> Vec<PathBuf> {
    if let Some(path) = env::var_os("NOSTR_SIGNER_SOCKET").filter(|p| !p.is_empty()) {
        return vec![path.into()];
    }
    let uid = fs::metadata("/proc/self").map(|m| m.uid()).unwrap_or_default();
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty());
    let mut paths: Vec<PathBuf> = runtime.map(|d| Path::new(&d).join("nostr-signer.sock")).into_iter().collect();
    if uid == 0 {
        paths.extend(["/run/nsecd/agents/signer.sock", "/run/nostr/signer.sock"].map(PathBuf::from));
    }
    let dirs = ["/run/user/", "/tmp/nsecd-"].map(|dir| PathBuf::from(format!("{dir}{uid}")));
    paths.extend(dirs.into_iter().filter(|dir| is_ours(dir, uid)).map(|dir| dir.join("nostr-signer.sock")));
    paths
}

/// Whether nobody else can have put a socket there: anybody can make a directory in /tmp, and who answers is given tokens and told what
/// to sign.
fn is_ours(dir: &Path, uid: u32) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == uid && m.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn ask(line: &str) -> Result<Ask, String> {
        match Cli::read(line.split_whitespace())?.command {
            Command::Pubkey(asked) => Ok(asked.into()),
            Command::Session(asked) => Ok(asked.into()),
            Command::Sign(asked) => Ok(asked.into()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_command_line_becomes_the_protocols_request() {
        let a = ask("--socket /s session start --scope 1,1111 --ttl=8h").expect("valid");
        assert_eq!((a.whom, a.method), (Whom::Agents(Some("/s".into())), "session_start"));
        assert_eq!(Value::Object(a.params), json!({"scope": "1,1111", "ttl": 28800}));
        let a = ask("sign --kind 1 --tags [[\"t\",\"x\"]] --created-at 5 --token-file f").expect("valid");
        assert_eq!(Value::Object(a.params), json!({"kind": 1, "content": "", "tags": [["t", "x"]], "created_at": 5}));
        assert_eq!(a.token, Some(("session_token", "f".into())));
        assert_eq!(ask("session info").expect("valid").token, Some(("token", "-".into())));
    }

    #[test]
    fn the_operator_asks_over_the_admin_socket() {
        let operators = |dir: Option<&str>| Whom::Operators(AdminDir { admin_dir: dir.map(PathBuf::from) });
        let a = ask("--admin-dir /a session start --for main --scope 1 --rules r").expect("valid");
        assert_eq!((a.whom, a.method, a.rules), (operators(Some("/a")), "session_start", Some("r".into())));
        assert_eq!(Value::Object(a.params), json!({"scope": "1", "socket": "main"}));
        let a = ask("session list --for main").expect("valid");
        assert_eq!((a.whom, Value::Object(a.params)), (operators(None), json!({"socket": "main"})));
        let a = ask("session revoke 0123456789ab").expect("valid");
        assert_eq!(
            (a.whom, a.token, Value::Object(a.params)),
            (operators(None), None, json!({"session": "0123456789ab"}))
        );
        let a = ask("sign --admin --kind 0").expect("valid");
        assert_eq!((a.whom, a.method), (operators(None), "sign_event"));
        for line in [
            "sign --admin --kind 0 --token-file f",
            "sign --admin --socket /s --kind 0",
            "sign --admin-dir /a --kind 0",
            "session start --for main --token-file f",
            "session start --rules r",
            "session revoke 0123456789ab --socket /s",
            "session info --admin-dir /a",
        ] {
            ask(line).expect_err(line);
        }
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
    fn a_token_comes_from_the_first_line_of_a_file() {
        let file = env::temp_dir().join(format!("nsecctl-token-{}", std::process::id()));
        fs::write(&file, "abc\nrest\n").expect("temp file");
        let line = ask(&format!("session info --token-file={}", file.display())).and_then(complete);
        fs::remove_file(&file).expect("temp file");
        assert_eq!(line, Ok("{\"method\":\"session_info\",\"params\":{\"token\":\"abc\"}}\n".into()));
    }

    #[test]
    fn among_the_default_paths_a_directory_that_others_can_have_made_is_passed_over() {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
        let (uid, dir) =
            (nix::unistd::geteuid().as_raw(), env::temp_dir().join(format!("nsecctl-ours-{}", std::process::id())));
        fs::DirBuilder::new().mode(0o700).create(&dir).expect("temp dir");
        assert!(is_ours(&dir, uid));
        assert!(!is_ours(&dir, uid + 1), "another's");
        symlink(&dir, dir.join("link")).expect("link");
        assert!(!is_ours(&dir.join("link"), uid), "a link, to be turned by whoever made it");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("mode");
        assert!(!is_ours(&dir, uid), "all may write");
        fs::remove_dir_all(&dir).expect("temp dir");
    }
}
