//! The configuration: command line, TOML file and environment become one [`Config`] with nothing left to decide. Opens
//! only the config file, creates nothing, and never reads a key.
//!
//! Forward only: `cli`, `file` → `tree` → `raw` (what was written) → `resolve` with `accounts`, `sockets`, `limits`,
//! `profiles`, `defaults` (what holds) → [`Config`] → `print`.

mod accounts;
pub(crate) mod defaults;
mod ecdh;
pub(crate) mod error;
mod file;
pub mod handed;
mod limits;
mod notes;
mod peers;
mod print;
pub(crate) mod profiles;
mod raw;
mod resolve;
mod rules;
pub mod secrets;
mod sockets;
pub mod source;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod tree;
pub(crate) mod values;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

pub use nsecd_policy::Ceiling;
use nsecd_policy::rules::Rule;
use nsecd_policy::units;
use nsecd_policy::{Bind, CryptLimits, DmLimits, Kinds, Limits, Method, StartSessions};

pub use defaults::Host;
pub use error::Error;
pub use print::{summary, toml as to_text};
pub use source::Source;

use crate::cli::{self, Action, Cli};
use crate::environment::Environment;
use crate::names::Names;
use defaults::System;
use profiles::Profile;
use raw::RawFile;
use secrets::shown;

/// What nsecd runs with. Paths are absolute, durations in seconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The accounts that the sockets use, the default one first.
    pub accounts: Vec<Account>,
    /// The agent sockets, in the file's order; at least one.
    pub sockets: Vec<Socket>,
    /// How key-holder and gate run.
    pub holder: Holder,
    /// What the default account's ECDH holder may be asked for; `None`: no socket offers encryption, and there is none.
    pub ecdh: Option<Ecdh>,
    /// Where records and logs lie.
    pub state: State,
    /// The admin directory.
    pub admin_dir: PathBuf,
    /// The state directory is this process's own, `nsecd-ephemeral-PID`: made at the start, removed at exit.
    pub ephemeral: bool,
    /// The account that an absent, empty or `default` account parameter means. Not in `accounts` if no socket uses it.
    pub default_account: String,
    /// What the operator should be told once: settings without effect and the like.
    pub notes: Vec<String>,
}

/// One key and its hard ceiling, which the gate enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Name on the wire: letters, digits, `-`, `_`, `.`; fit to be part of a file name.
    pub name: String,
    /// Where the key is, tried in order; several only for `auto`.
    pub source: Vec<Source>,
    /// Unlink a keyring key once it is loaded.
    pub consume: bool,
    /// Kinds that may be signed.
    pub kinds: Kinds,
    /// How fast; `None`: unlimited.
    pub ceiling: Option<Ceiling>,
    /// How fast direct messages' seals (kind 13), where the ceiling is automatic and they have their own; the inner `None`:
    /// unlimited.
    pub seal_ceiling: Option<Option<Ceiling>>,
    /// Seconds before and after now that created_at may lie; `None`: any.
    pub created_at: Option<(i64, i64)>,
    /// The same for kind 13 (NIP-59's seals), which lie up to two days in the past.
    pub seals: Option<(i64, i64)>,
    /// How fast its ECDH holder may answer; `None`: unlimited. Only the default account has one.
    pub ecdh_ceiling: Option<Ceiling>,
}

/// What an ECDH holder may be asked for, as `nsecd_ecdh` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ecdh {
    /// Numbers of operations.
    pub ops: Vec<u8>,
    /// 64 lower-case hex digits each, or `self`; `None`: anybody.
    pub peers: Option<Vec<String>>,
}

/// An agent socket. The fields after `alert_log` are those of [`nsecd_policy::Socket`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// At most 107 bytes, outside the admin directory.
    pub path: PathBuf,
    /// Permission bits of the socket file.
    pub mode: u32,
    /// Name of an existing user, or a uid in digits; `None`: left as created.
    pub owner: Option<String>,
    /// Name of an existing group, or a gid in digits; `None`: left as created.
    pub group: Option<String>,
    /// Alert log; no two sockets share one.
    pub alert_log: PathBuf,
    /// Uids that may connect; `None`: any whom the mode lets in.
    pub peer_uids: Option<Vec<u32>>,
    /// The ceiling of kinds a session may hold.
    pub kinds: Kinds,
    /// The longest TTL of a session.
    pub max_ttl: u64,
    /// Kinds signed without a token; within `kinds`.
    pub tokenless: Kinds,
    /// Methods offered; at least one.
    pub methods: Vec<Method>,
    /// Names of accounts; at least one.
    pub accounts: Vec<String>,
    /// Who may start sessions.
    pub start_sessions: StartSessions,
    /// Who owns a session.
    pub bind: Bind,
    /// Seconds a rate-limited request with a token waits; 0 refuses at once.
    pub on_limit_wait: u64,
    /// The same without a token.
    pub tokenless_on_limit_wait: u64,
    /// Seconds before and after now that created_at may lie; `None`: any.
    pub created_at: Option<(i64, i64)>,
    /// Largest request.
    pub max_request: usize,
    /// Per session and per principal; `None`: unlimited.
    pub limits: Option<Limits>,
    /// Of the whole socket; `None`: unlimited.
    pub total: Option<Limits>,
    /// Public keys, 64 lower-case hex digits each, to encrypt to and decrypt from; `None`: anybody's.
    pub peers: Option<Vec<String>>,
    /// Direct messages of one principal; `None`: unlimited.
    pub dm: Option<DmLimits>,
    /// nip44 and nip04 of one principal; `None`: unlimited.
    pub crypt: Option<CryptLimits>,
    /// Rules on whole events, at most one for a kind.
    pub rules: Vec<Rule>,
    /// Sessions that a principal may start in a minute.
    pub sessions_per_minute: u32,
    /// Live sessions of one principal.
    pub live_sessions: usize,
}

/// `[holder]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Refuse to start without memfd_secret(2).
    pub require_secretmem: bool,
    /// Keep a record; false is for load tests.
    pub record: bool,
}

/// `[state]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Records and, unless configured elsewhere, alert logs and the journal.
    pub dir: PathBuf,
    /// The journal of sessions and limits.
    pub journal: PathBuf,
    /// SIGNER_SESSION_FILE, which is the journal instead, unless another program's file is there.
    pub session_file: Option<PathBuf>,
    /// Bytes at which a log is rotated.
    pub log_size: u64,
    /// Rotated files kept.
    pub log_keep: u32,
}

/// nsecd's own user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve with this configuration.
    Run(Box<Config>),
    /// All is said; exit with this status.
    Exit(i32),
}

/// What the configuration depends on beside what was written.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub env: &'a Environment,
    pub ids: Ids,
    pub pid: u32,
    pub host: &'a dyn Host,
}

/// What `args` (without the program's name) and `env` ask for. The answers of `--help`, `--version`, `--check` and
/// `--print-config` go to standard output. An [`Error`] is one of usage or configuration: exit status 2.
pub fn from_command_line(args: Vec<OsString>, env: &Environment, ids: Ids) -> Result<Command, Error> {
    let cx = Context { env, ids, pid: std::process::id(), host: &System(Names::System) };
    let mut answer = String::new();
    let command = run(&args, &cx, &mut answer)?;
    // Whoever closed the pipe has read what they wanted.
    let _ = std::io::stdout().write_all(answer.as_bytes());
    Ok(command)
}

/// [`from_command_line`], with the standard output's text in `answer`.
fn run(args: &[OsString], cx: &Context<'_>, answer: &mut String) -> Result<Command, Error> {
    let cli = cli::parse(args)?;
    match cli.action {
        Action::Help => {
            answer.push_str(cli::HELP);
            return Ok(Command::Exit(0));
        }
        Action::Version => {
            answer.push_str(concat!("nsecd ", env!("CARGO_PKG_VERSION"), "\n"));
            return Ok(Command::Exit(0));
        }
        _ => {}
    }
    secrets::refuse_in_environment(&cx.env.key_variables)?;
    let config = load(&cli, cx);
    match (&cli.action, config) {
        (Action::Run, config) => Ok(Command::Run(Box::new(config?))),
        (Action::PrintConfig, config) => {
            answer.push_str(&print::toml(&config?));
            Ok(Command::Exit(0))
        }
        (_, Ok(config)) => {
            answer.push_str(&print::summary(&config));
            Ok(Command::Exit(0))
        }
        (_, Err(e)) => {
            answer.push_str(&format!("error: {e}\n"));
            Ok(Command::Exit(1))
        }
    }
}

/// What nsecd was started with, to be read once more.
#[derive(Clone, Debug)]
pub struct Start {
    /// The arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The environment.
    pub environment: Environment,
    /// nsecd's own user and group.
    pub ids: Ids,
    /// The directory that it was started in.
    pub directory: PathBuf,
}

impl Start {
    /// The configuration as its file has it now, and the file's bytes. Names are looked up in files alone ([`Names::Files`]).
    /// `current`: what is in force.
    ///
    /// # Errors
    /// Those of a start; there is no file; there is nothing in it, and something else is in force.
    pub fn again(&self, current: &Config) -> Result<(Config, String), Error> {
        let cx =
            Context { env: &self.environment, ids: self.ids, pid: std::process::id(), host: &System(Names::Files) };
        let cli = cli::parse(&self.args)?;
        let Some(path) = &cli.config else {
            return Err(Error::new(
                "nsecd was started without --config, so there is no file to read again: restart it to change its configuration",
            ));
        };
        let text = file::read(&self.directory.join(path), self.ids.uid)?;
        let file = raw::read(&text, &path.to_string_lossy())?;
        let config = resolve::resolve(&cli, file, Profile::Strict, &cx)?;
        // A start with such a file is somebody's choice; here it is more likely an editor's file that is not written yet.
        if config != *current && !tree::has_setting(&tree::parse(&text, "")?) {
            return Err(Error::new(format!(
                "{}: no setting is in it, as in a file that was cut short: write it again; for the defaults on purpose write one of \
                 them, such as `default_account = \"default\"`",
                shown(&path.to_string_lossy())
            )));
        }
        Ok((config, text))
    }
}

/// What a config file of this text gives on `host`, without flags and in an empty environment.
pub fn of_text(text: &str, ids: Ids, host: &dyn Host) -> Result<Config, Error> {
    let cx = Context { env: &Environment::default(), ids, pid: 1, host };
    resolve::resolve(&cli::parse(&[])?, raw::read(text, "nsecd.toml")?, Profile::Strict, &cx)
}

/// Reads the config file, if there is one, and resolves.
fn load(cli: &Cli, cx: &Context<'_>) -> Result<Config, Error> {
    let file = match &cli.config {
        Some(path) => raw::read(&file::read(path, cx.ids.uid)?, &path.to_string_lossy())?,
        None => RawFile::default(),
    };
    resolve::resolve(cli, file, cli.profile.unwrap_or(Profile::Strict), cx)
}
