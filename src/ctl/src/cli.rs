//! nsecctl's command line.
//!
//! A command is a type of its own module, with its flags as fields (`clap::Args`) and a function that runs it; here it gets
//! a name, one line of help, and its arm in `run`. Exit codes are the same everywhere: [`EXIT_CODES`].

use crate::{adopt, agent, audit, doctor, key, order, policy, status};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use serde_json::Value;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// What every command's exit code means, for help and manual alike.
const EXIT_CODES: &str = "\
Exit codes, of all commands:
  0  done; what was checked is right
  1  refused by nsecd; or what was checked is not right: doctor has found a problem, audit verify something
     missing, altered, out of order or too much
  2  the command line is wrong; or a file or directory that it names cannot be used
  3  no answer: no nsecd serves there, or it broke off; or the result cannot be written
  4  done or right, with a reservation that is said: frozen, but a restart would thaw it, since the state
     directory cannot be written; doctor has found something optional missing

Options may also stand before the command.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "nsecctl",
    version,
    about = "Ask and operate a running nsecd; look at what it has left on record, and at the machine that it runs on",
    after_help = EXIT_CODES,
    arg_required_else_help = true,
    args_override_self = true
)]
pub(crate) struct Cli {
    /// Print data as JSON also where text is the default (replies of nsecd are JSON anyway)
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell how a running nsecd is: processes and what locks them, accounts, sockets, sessions, rates, refusals
    ///
    /// For root and the user that nsecd runs as.
    Status(AdminDir),
    /// Print an account's public key
    Pubkey(agent::Pubkey),
    /// Start, look at and end sessions
    #[command(subcommand)]
    Session(agent::Session),
    /// Have an event signed, and print it
    Sign(agent::Sign),
    /// Stop every use of a key: at once, and until `thaw`
    ///
    /// When it returns no process of nsecd's uses the key any more, and none will before `thaw`: not for an agent, not for a broker
    /// that somebody has taken over, not after a restart. For root and the user that nsecd runs as.
    Freeze(order::Account),
    /// Allow a frozen key's use again
    ///
    /// For root and the user that nsecd runs as.
    Thaw(order::Account),
    /// Have nsecd read its configuration file again: in force at once and as a whole, or not at all
    ///
    /// Connections stay. Sessions lose at once what they are not allowed any more, for good. What it cannot change without a restart
    /// is named, and then nothing is changed. For root and the user that nsecd runs as.
    Reload(order::Reload),
    /// Put a key into the keyring or a credential, move it, import it
    #[command(subcommand)]
    Key(key::Key),
    /// Check a configuration, and try events on it
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Check or show the decision log
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Look at this machine: what nsecd needs, what it lacks, what would mend it
    Doctor(doctor::Options),
    /// Take over from a user's nostr-signer: its key, its socket, its place in systemd
    ///
    /// Prints what it finds and would do; with --apply it does so, with --undo it goes back. Needs root, and nsecd's units installed.
    Adopt(adopt::Options),
}

impl Command {
    fn run(self, json: bool) -> ExitCode {
        match self {
            Command::Status(admin) => status::run(&admin, json),
            Command::Pubkey(pubkey) => agent::run(pubkey),
            Command::Session(session) => agent::run(session),
            Command::Sign(sign) => agent::run(sign),
            Command::Freeze(account) => order::freeze(account),
            Command::Thaw(account) => order::thaw(account),
            Command::Reload(of) => order::reload(of),
            Command::Key(key) => key::run(key, json),
            Command::Policy(policy) => policy::run(policy, json),
            Command::Audit(audit) => audit::run(audit, json),
            Command::Doctor(options) => doctor::run(&options, json),
            Command::Adopt(options) => adopt::run(options, json),
        }
    }
}

/// The operator's directory, for commands that ask there.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub(crate) struct AdminDir {
    /// The directory of nsecd's control and admin sockets [default: the first of nsecd's default paths that has one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub admin_dir: Option<PathBuf>,
}

impl Cli {
    /// Reads the arguments after the program's name; the error says what was expected.
    #[cfg(test)]
    pub fn read<T: Into<OsString>>(args: impl IntoIterator<Item = T>) -> Result<Cli, String> {
        Cli::parse_words(args.into_iter().map(Into::into).collect()).map_err(|e| e.to_string())
    }

    fn parse_words(args: Vec<OsString>) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("nsecctl".into()).chain(behind_the_command(args, Cli::command())))
    }
}

/// Runs nsecctl with these arguments, without the program's name.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    match Cli::parse_words(args) {
        Ok(cli) => cli.command.run(cli.json),
        // Help and version, asked for.
        Err(e) if !e.use_stderr() => crate::show(e.to_string().trim_end(), ExitCode::SUCCESS),
        Err(e) => {
            let text = e.to_string();
            crate::complain(&concealed(text.strip_prefix("error: ").unwrap_or(&text).trim_end()), 2)
        }
    }
}

/// Moves options that stand before the last word of the command (`--socket PATH session start`) behind it, where clap looks for
/// them: so they may stand anywhere, without every command offering every other's.
fn behind_the_command(args: Vec<OsString>, mut tree: clap::Command) -> Vec<OsString> {
    /// Options that take no value: only these can stand before a command by themselves.
    const ALONE: [&str; 1] = ["--json"];
    let (mut words, mut options) = (Vec::new(), Vec::new());
    let mut rest = args.into_iter();
    while tree.has_subcommands() {
        let Some(arg) = rest.next() else { break };
        let text = arg.to_string_lossy().into_owned();
        if text.starts_with("--") && !["--help", "--version", "--"].contains(&text.as_str()) {
            options.push(arg);
            if !text.contains('=') && !ALONE.contains(&text.as_str()) {
                options.extend(rest.next());
            }
            continue;
        }
        words.push(arg);
        // Not one of them: clap says so.
        let Some(next) = tree.find_subcommand(&text) else { break };
        tree = next.clone();
    }
    words.into_iter().chain(options).chain(rest).collect()
}

/// An error's text without what may be a session's token or a key: clap repeats arguments that it does not know.
fn concealed(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_hexdigit();
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find(is_hex) {
        let digits = rest[start..].find(|c| !is_hex(c)).unwrap_or(rest.len() - start);
        out += &rest[..start];
        out += if digits >= 32 { "(not shown)" } else { &rest[start..start + digits] };
        rest = &rest[start + digits..];
    }
    out + rest
}

/// `90`, `90s`, `15m`, `8h`, `2d` in seconds; on the wire a TTL is whole seconds.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86400)];
    let split = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (count, unit) = split.unwrap_or((text, 1));
    let digits = count.bytes().all(|b| b.is_ascii_digit());
    let count = count.parse::<u64>().ok().filter(|_| digits);
    let count = count.ok_or("expected a whole number of seconds, or one with s, m, h or d, as in 8h")?;
    count.checked_mul(unit).ok_or_else(|| "this is too long".into())
}

/// An event's tags.
pub(crate) fn tags(text: &str) -> Result<Value, String> {
    let tags: Result<Vec<Vec<String>>, _> = serde_json::from_str(text);
    tags.map(Value::from).map_err(|e| format!("expected a JSON array of arrays of strings: {e}"))
}

/// A path that means the same from everywhere.
pub(crate) fn absolute(text: &str) -> Result<PathBuf, String> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute()).ok_or_else(|| "expected an absolute path".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_the_command() {
        let moved = |line: &str| {
            let args = line.split_whitespace().map(OsString::from).collect();
            behind_the_command(args, Cli::command()).join(" ".as_ref()).into_string().expect("UTF-8")
        };
        assert_eq!(moved("--socket /s session --ttl=1 start --scope 1"), "session start --socket /s --ttl=1 --scope 1");
        assert_eq!(moved("--json audit tail -n 3"), "audit tail --json -n 3");
        assert_eq!(moved("--help sign --kind"), "--help sign --kind");
        assert_eq!(moved("--admin-dir /a sing"), "sing --admin-dir /a");
        assert_eq!(moved("--account"), "--account");
    }

    #[test]
    fn an_error_does_not_repeat_what_may_be_a_token() {
        let token = "5a".repeat(32);
        assert_eq!(concealed(&format!("unexpected '{token}' found")), "unexpected '(not shown)' found");
        assert_eq!(concealed("deed 5a5a"), "deed 5a5a");
    }
}
