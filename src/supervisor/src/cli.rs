//! The command line: reads the flags, each value checked on its own. Never repeats an argument that may be a key.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::error::{At, Error, Origin};
use crate::config::profiles::Profile;
use crate::config::secrets::{self, shown};
use crate::config::source::{self, KeySource, Source};
use crate::config::values;

/// The text of `--help`.
pub const HELP: &str = include_str!("help.txt");

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Serve.
    #[default]
    Run,
    /// `--check FILE`; the file is [`Cli::config`].
    Check,
    /// `--print-config`.
    PrintConfig,
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// The command line's settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cli {
    /// What to do.
    pub action: Action,
    /// `--config FILE`, or the file of `--check`.
    pub config: Option<PathBuf>,
    /// `--profile`.
    pub profile: Option<Profile>,
    /// `--socket`.
    pub socket: Option<At<PathBuf>>,
    /// `--admin-dir`.
    pub admin_dir: Option<At<PathBuf>>,
    /// `--key`, or `--ephemeral`.
    pub key: Option<At<KeySource>>,
    /// `--ephemeral`, or `--key ephemeral`.
    pub ephemeral: bool,
    /// `--state-dir`.
    pub state_dir: Option<At<PathBuf>>,
}

/// The flags that take a value.
const WITH_VALUE: [&str; 7] = ["--config", "--profile", "--socket", "--admin-dir", "--key", "--state-dir", "--check"];

/// The flags that take none.
const ALONE: [&str; 3] = ["--ephemeral", "--print-config", "--version"];

/// Reads the arguments, without the program's name. `--help` and `--version` win over all others.
pub fn parse(args: &[OsString]) -> Result<Cli, Error> {
    secrets::refuse_in_arguments(args)?;
    let mut cli = Cli::default();
    let mut seen: Vec<&'static str> = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let Some(text) = arg.to_str() else { return Err(unexpected(&arg.to_string_lossy())) };
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if matches!(text, "--help" | "-h") {
            return Ok(Cli { action: Action::Help, ..Cli::default() });
        }
        let name = if text == "-V" { "--version" } else { name };
        let flag = if let Some(flag) = ALONE.into_iter().find(|f| *f == name && inline.is_none()) {
            alone(&mut cli, flag);
            flag
        } else if let Some(flag) = WITH_VALUE.into_iter().find(|f| *f == name) {
            let value = match inline {
                Some(value) => Some(value),
                None => rest.next().and_then(|v| v.to_str()),
            };
            let missing = || Error::new(format!("{flag}: expected a value after it (see --help)"));
            with_value(&mut cli, flag, value.filter(|v| !v.is_empty()).ok_or_else(missing)?)?;
            flag
        } else {
            return Err(unexpected(text));
        };
        if seen.contains(&flag) {
            return Err(Error::new(format!("{flag} is there twice")));
        }
        seen.push(flag);
    }
    for (a, b) in [
        ("--config", "--profile"),
        ("--check", "--config"),
        ("--check", "--profile"),
        ("--check", "--print-config"),
        ("--key", "--ephemeral"),
    ] {
        if seen.contains(&a) && seen.contains(&b) {
            return Err(Error::new(format!("{a} and {b} contradict each other: expected one of them")));
        }
    }
    if seen.contains(&"--version") {
        cli.action = Action::Version;
    }
    Ok(cli)
}

fn unexpected(text: &str) -> Error {
    Error::new(format!("unexpected argument \"{}\" (see --help)", shown(text)))
}

fn alone(cli: &mut Cli, flag: &'static str) {
    match flag {
        "--ephemeral" => {
            cli.ephemeral = true;
            cli.key = Some(At::new(KeySource::One(Source::Ephemeral), Origin::Flag(flag)));
        }
        "--print-config" => cli.action = Action::PrintConfig,
        // --version: see the end of `parse`.
        _ => {}
    }
}

fn with_value(cli: &mut Cli, flag: &'static str, value: &str) -> Result<(), Error> {
    let origin = Origin::Flag(flag);
    let wrong = |expected: &str| Error::at(&origin, format!("\"{}\": expected {expected}", shown(value)));
    let path = |read: fn(&str) -> Option<PathBuf>, expected: &str| {
        read(value).map(|p| Some(At::new(p, origin.clone()))).ok_or_else(|| wrong(expected))
    };
    match flag {
        "--socket" => cli.socket = path(values::absolute_socket, values::SOCKET_PATH)?,
        "--admin-dir" => cli.admin_dir = path(values::absolute, values::ABSOLUTE)?,
        "--state-dir" => cli.state_dir = path(values::absolute, values::ABSOLUTE)?,
        "--profile" => cli.profile = Some(Profile::named(value).ok_or_else(|| wrong("strict or nanoclaw"))?),
        "--key" => {
            let key = source::parse(value)
                .map_err(|expected| Error::at(&origin, format!("\"{}\": {expected}", shown(value))))?;
            cli.ephemeral |= key == KeySource::One(Source::Ephemeral);
            cli.key = Some(At::new(key, origin));
        }
        _ => {
            if flag == "--check" {
                cli.action = Action::Check;
            }
            cli.config = Some(PathBuf::from(value));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn cli(args: &[&str]) -> Result<Cli, String> {
        parse(&args.iter().map(OsString::from).collect::<Vec<_>>()).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_take_values_in_both_forms() {
        let a =
            cli(&["--socket", "/run/x.sock", "--key=keyring:nostr:a", "--state-dir", "/var//x", "--profile=nanoclaw"])
                .unwrap();
        assert_eq!(a.socket.unwrap().value, PathBuf::from("/run/x.sock"));
        assert_eq!(a.key.unwrap().value, KeySource::One(Source::Keyring("nostr:a".into())));
        assert_eq!(a.state_dir.unwrap().value, PathBuf::from("/var/x"));
        assert_eq!((a.profile, a.action), (Some(Profile::NanoClaw), Action::Run));
        assert_eq!(cli(&["--check", "x.toml"]).unwrap().action, Action::Check);
        assert_eq!(cli(&["--config", "x", "-h", "--nonsense"]).unwrap().action, Action::Help);
        assert_eq!(cli(&["--print-config", "-V"]).unwrap().action, Action::Version);
        assert!(cli(&["--ephemeral"]).unwrap().ephemeral && cli(&["--key", "ephemeral"]).unwrap().ephemeral);
    }

    /// The manual is made from this text (src/manual).
    #[test]
    fn the_help_lists_the_flags_that_are_read_and_no_others() {
        let listed: Vec<&str> = HELP.lines().filter_map(|line| line.strip_prefix("  --")).collect();
        let name = |line: &str| format!("--{}", line.split([' ', ',']).next().unwrap());
        let mut listed: Vec<String> = listed.into_iter().map(name).collect();
        let mut read: Vec<String> = WITH_VALUE.iter().chain(&ALONE).map(|flag| flag.to_string()).collect();
        read.push("--help".into());
        listed.sort();
        read.sort();
        assert_eq!(listed, read);
    }

    #[test]
    fn a_wrong_command_line_says_what_was_expected() {
        for (args, expected) in [
            (&["nsecd"][..], "unexpected argument \"nsecd\""),
            (&["--sock", "/x"], "unexpected argument \"--sock\""),
            (&["--ephemeral=yes"], "unexpected argument \"--ephemeral=yes\""),
            (&["--config"], "--config: expected a value"),
            (&["--config="], "--config: expected a value"),
            (&["--socket", "x.sock"], "--socket: \"x.sock\": expected an absolute path"),
            (&["--admin-dir", "/a/../b"], "--admin-dir: \"/a/../b\": expected an absolute path"),
            (&["--profile", "open"], "--profile: \"open\": expected strict or nanoclaw"),
            (&["--key", "nsec"], "--key: \"nsec\": expected credential:NAME"),
            (&["--key", "file:/x"], "fd:3 3<FILE"),
            (&["--key", "auto", "--key", "auto"], "--key is there twice"),
            (&["--key", "auto", "--ephemeral"], "--key and --ephemeral contradict"),
            (&["--config", "a", "--profile", "strict"], "--config and --profile contradict"),
            (&["--check", "a", "--config", "b"], "--check and --config contradict"),
        ] {
            let text = cli(args).unwrap_err();
            assert!(text.contains(expected), "{args:?}: {text}");
        }
    }

    #[test]
    fn no_argument_that_is_a_key_is_repeated() {
        let (nsec, hex) = (format!("nsec1{}", "q".repeat(58)), "9".repeat(64));
        for key in [nsec.as_str(), &hex] {
            for args in [&[key][..], &["--key", key], &[&format!("--key={key}")], &["--help", key]] {
                let text = cli(args).unwrap_err();
                assert!(text.contains("is a private key") && !text.contains("qqq") && !text.contains("999"), "{text}");
            }
        }
    }
}
