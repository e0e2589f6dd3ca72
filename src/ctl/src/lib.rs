//! nsecctl: one request to a running nsecd, the reply as JSON on standard output; or a check of what nsecd has left on record.
//!
//! It holds no key and decides nothing; it must never take a secret from its command line or environment.

mod args;
mod audit;
mod doctor;
mod order;

use args::{Ask, Command};
use serde_json::{Value, json};
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
nsecctl [--socket PATH] COMMAND: ask a running nsecd, print its JSON reply

  pubkey [--account NAME]
  session start [--scope 1,1111] [--ttl 8h] [--account NAME] [--token-file FILE] [--save FILE]
  session info|revoke [--token-file FILE]
  sign --kind N [--content TEXT | --content-file FILE] [--tags JSON] [--created-at SECONDS]
       [--account NAME] [--token-file FILE]
  freeze [--account NAME] [--admin-dir DIR]
  thaw [--account NAME] [--admin-dir DIR]
  doctor [--json] [--state-dir DIR] [--admin-dir DIR]

nsecctl audit verify [--state-dir DIR] [--json] [--head N:CHAIN]
nsecctl audit tail [-n LINES] [--follow] [--state-dir DIR] [--json]: check the decision log against the records of
  gates and ECDH holder, or show it. Only reads, beside a running nsecd too. Exit codes of verify: 0 clean,
  1 something is missing, altered, out of order or too much, 2 usage, or it cannot be read.

A session token is the first line of --token-file's FILE (`-`: standard input, the default of info and
revoke). `start` with a token narrows that session; --save writes the new token to a new FILE, mode 0600.
Without --scope a session gets kinds 1, 9734 and 1111, without --ttl 8 hours, as far as the socket allows.
Socket: --socket, else $NOSTR_SIGNER_SOCKET, else the first that exists of nsecd's default paths.

`freeze` returns when no process of nsecd's uses the key any more, and none will before `thaw`: not for an
agent, not for a broker that somebody has taken over, not after a restart. Without --account it is about all
accounts. Both are for root and nsecd's own user, over control.sock in the admin directory: --admin-dir, else
the first of nsecd's default paths that has one.

`doctor` looks at this machine: what nsecd needs, what it lacks, what would mend it. Run it as nsecd's user.
Its exit codes: 0 nothing to mend, 4 something optional is missing, 1 a problem: nsecd would not
start, or not be safe.

Exit codes: 0 done, 1 refused, 2 usage, 3 cannot connect, or no answer; 4 frozen, but a restart would thaw,
since the state directory could not be written.
";

/// Runs nsecctl with the process's own arguments. Exit codes: see the help text.
pub fn main() -> ExitCode {
    let args: Result<Vec<String>, _> = env::args_os().skip(1).map(|a| a.into_string()).collect();
    if let Ok(args) = &args
        && let Some(("audit", rest)) = args.split_first().map(|(first, rest)| (first.as_str(), rest))
        && !rest.iter().any(|arg| arg == "--help" || arg == "-h")
    {
        return audit::run(rest);
    }
    let command = args.map_err(|a| format!("an argument is not UTF-8: {}", a.display())).and_then(|a| args::parse(&a));
    match command {
        Ok(None) => show(&format!("nsecctl {}\n\n{}", env!("CARGO_PKG_VERSION"), HELP.trim_end()), ExitCode::SUCCESS),
        Ok(Some(Command::Ask(ask))) => run(ask),
        Ok(Some(Command::Order(order))) => order::run(&order),
        Ok(Some(Command::Doctor(options))) => doctor::run(&options),
        Err(what) => complain(&format!("{what}; see `nsecctl --help`"), 2),
    }
}

fn run(ask: Ask) -> ExitCode {
    let (socket, save) = (ask.socket.clone(), ask.save.clone());
    let request = match complete(ask) {
        Ok(request) => request,
        Err(what) => return complain(&what, 2),
    };
    let candidates = socket.map_or_else(default_sockets, |path| vec![path]);
    let Some(path) = candidates.iter().find(|p| p.exists()) else {
        let tried: Vec<_> = candidates.iter().map(|p| p.display().to_string()).collect();
        return complain(
            &format!("no socket at {}; start nsecd, or name its socket with --socket", tried.join(", ")),
            3,
        );
    };
    let reply = match exchange(path, &request) {
        Ok(reply) => reply,
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

/// The request's line, with the parts that lie in files.
fn complete(mut ask: Ask) -> Result<String, String> {
    if let Some(file) = &ask.content {
        ask.params.insert("content".into(), json!(text(file)?));
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
        _ => fs::read_to_string(file),
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
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
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
    paths.extend(["/run/user/", "/tmp/nsecd-"].map(|dir| format!("{dir}{uid}/nostr-signer.sock").into()));
    paths
}

fn show(text: &str, code: ExitCode) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => code,
        Err(e) => complain(&format!("writing the reply: {e}"), 3),
    }
}

fn complain(what: &str, code: u8) -> ExitCode {
    // Nothing is left to say it to if standard error is closed.
    let _ = writeln!(io::stderr(), "nsecctl: {what}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_from_the_first_line_of_a_file() {
        let file = env::temp_dir().join(format!("nsecctl-token-{}", std::process::id()));
        fs::write(&file, "abc\nrest\n").expect("temp file");
        let args = ["session".into(), "info".into(), format!("--token-file={}", file.display())];
        let line = args::parse(&args).map(|command| match command {
            Some(Command::Ask(ask)) => complete(ask),
            other => panic!("{other:?}"),
        });
        fs::remove_file(&file).expect("temp file");
        assert_eq!(line, Ok(Ok("{\"method\":\"session_info\",\"params\":{\"token\":\"abc\"}}\n".into())));
    }
}
