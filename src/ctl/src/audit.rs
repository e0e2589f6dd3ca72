//! `nsecctl audit`: checks the decision log and the records against each other, or shows the log.
//!
//! Only reads, and trusts nothing that it reads: whoever wrote these files may have been taken over. A running nsecd may
//! write meanwhile. `files` takes a snapshot, `rows` checks each record for itself, `chain` the log, `matching` both together.

mod chain;
mod files;
mod matching;
mod report;
mod rows;
mod tail;
mod verify;

use clap::{Args, Subcommand, ValueHint};
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit codes.
const CLEAN: u8 = 0;
const FINDINGS: u8 = 1;
const UNREADABLE: u8 = 2;

/// `audit`.
#[derive(Debug, PartialEq, Subcommand)]
pub(crate) enum Audit {
    /// Check the decision log against the records of gates and ECDH holder
    ///
    /// Only reads, beside a running nsecd too.
    Verify(Verify),
    /// Show the decision log
    Tail(Tail),
}

/// `audit verify`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Verify {
    /// A line as an earlier run has shown it: it must still be there
    #[arg(long, value_name = "N:CHAIN", value_parser = parse_head)]
    head: Option<(u64, String)>,
    #[command(flatten)]
    state: StateDir,
}

/// `audit tail`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Tail {
    /// How many lines
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 20)]
    lines: usize,
    /// Go on with those that come
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    state: StateDir,
}

#[derive(Args, Debug, PartialEq)]
struct StateDir {
    /// nsecd's state directory [default: where nsecd keeps it unless told otherwise]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    state_dir: Option<PathBuf>,
}

impl StateDir {
    fn path(self) -> Result<PathBuf, String> {
        self.state_dir.or_else(default_state).ok_or_else(|| "no state directory: name it with --state-dir".into())
    }
}

/// Runs `nsecctl audit`.
pub(crate) fn run(audit: Audit, json: bool) -> ExitCode {
    let result = match audit {
        Audit::Verify(Verify { head, state }) => state.path().and_then(|state| {
            let report = verify::verify(&state, head)?;
            let text = if json { report.json() } else { report.text(&state) };
            let code = if report.is_clean() { CLEAN } else { FINDINGS };
            Ok(crate::show(text.trim_end(), ExitCode::from(code)))
        }),
        Audit::Tail(Tail { lines, follow, state }) => {
            state.path().and_then(|state| tail::tail(&state, lines, follow, json)).map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|what| crate::complain(&format!("audit: {what}"), UNREADABLE))
}

/// `N:CHAIN`, as an earlier run of verify has shown it.
fn parse_head(text: &str) -> Result<(u64, String), String> {
    let parsed = text.split_once(':').and_then(|(n, chain)| Some((n.parse().ok()?, chain)));
    match parsed {
        Some((n, chain)) if nsecd_trail::unhex::<32>(chain).is_some() => Ok((n, chain.to_owned())),
        _ => Err("expected N:CHAIN, as `audit verify` shows it".into()),
    }
}

/// Where nsecd keeps its state unless told otherwise.
fn default_state() -> Option<PathBuf> {
    let directory = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(state) = directory("STATE_DIRECTORY") {
        return Some(state);
    }
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0) {
        return Some(Path::new("/var/lib/nsecd").to_owned());
    }
    let home = || directory("HOME").map(|home| home.join(".local/state"));
    directory("XDG_STATE_HOME").or_else(home).map(|state| state.join("nsecd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::cli::{Cli, Command};

    fn parsed(line: &str) -> Result<(Audit, bool), String> {
        let cli = Cli::read(["audit"].into_iter().chain(line.split_whitespace()))?;
        match cli.command {
            Command::Audit(audit) => Ok((audit, cli.json)),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_command_line_is_as_documented() {
        let state = |dir: Option<&str>| StateDir { state_dir: dir.map(PathBuf::from) };
        let verify = |head, dir| Audit::Verify(Verify { head, state: state(dir) });
        assert_eq!(parsed("verify"), Ok((verify(None, None), false)));
        assert_eq!(parsed("verify --json --state-dir /s"), Ok((verify(None, Some("/s")), true)));
        let chain = "ab".repeat(32);
        let head = Some((7, chain.clone()));
        assert_eq!(parsed(&format!("verify --head=7:{chain}")), Ok((verify(head, None), false)));
        let tail = |lines, follow| Ok((Audit::Tail(Tail { lines, follow, state: state(None) }), false));
        assert_eq!(parsed("tail"), tail(20, false));
        assert_eq!(parsed("tail -n 3 --follow"), tail(3, true));
        for bad in [
            "",
            "verify x",
            "verify -n 3",
            "verify --follow",
            "tail -n x",
            "tail --head 7:ab",
            "verify --head 7",
            "tail --x",
            "verify --state-dir",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
