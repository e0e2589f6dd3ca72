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

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit codes.
const CLEAN: u8 = 0;
const FINDINGS: u8 = 1;
const UNREADABLE: u8 = 2;

/// What was asked for.
#[derive(Debug, PartialEq)]
enum Command {
    Verify { head: Option<(u64, String)> },
    Tail { lines: usize, follow: bool },
}

/// Runs `nsecctl audit` with the arguments after that word.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let (command, json, state) = match parse(args) {
        Ok(parsed) => parsed,
        Err(what) => return crate::complain(&format!("{what}; see `nsecctl --help`"), UNREADABLE),
    };
    let Some(state) = state.or_else(default_state) else {
        return crate::complain("audit: no state directory: name it with --state-dir", UNREADABLE);
    };
    let result = match command {
        Command::Verify { head } => verify::verify(&state, head).map(|report| {
            let text = if json { report.json() } else { report.text(&state) };
            let code = if report.is_clean() { CLEAN } else { FINDINGS };
            crate::show(text.trim_end(), ExitCode::from(code))
        }),
        Command::Tail { lines, follow } => tail::tail(&state, lines, follow, json).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|what| crate::complain(&format!("audit: {what}"), UNREADABLE))
}

fn parse(args: &[String]) -> Result<(Command, bool, Option<PathBuf>), String> {
    let (mut words, mut json, mut follow, mut state, mut lines, mut head) =
        (Vec::new(), false, false, None, None, None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let mut value =
            || inline.clone().or_else(|| rest.next().cloned()).ok_or_else(|| format!("{name} needs a value"));
        match name {
            "--json" => json = true,
            "--follow" | "-f" => follow = true,
            "--state-dir" => state = Some(PathBuf::from(value()?)),
            "-n" | "--lines" => {
                let text = value()?;
                lines = Some(text.parse().map_err(|_| format!("-n wants a whole number, not `{text}`"))?);
            }
            "--head" => head = Some(parse_head(&value()?)?),
            flag if flag.starts_with('-') => return Err(format!("`audit` takes no {flag}")),
            word => words.push(word),
        }
    }
    let command = match words[..] {
        ["verify"] if lines.is_none() && !follow => Command::Verify { head },
        ["tail"] if head.is_none() => Command::Tail { lines: lines.unwrap_or(20), follow },
        ["verify" | "tail"] => return Err(format!("`audit {}` does not take all of these", words[0])),
        _ => return Err("`audit` wants one of verify and tail".into()),
    };
    Ok((command, json, state))
}

/// `N:CHAIN`, as an earlier run of verify has shown it.
fn parse_head(text: &str) -> Result<(u64, String), String> {
    let parsed = text.split_once(':').and_then(|(n, chain)| Some((n.parse().ok()?, chain)));
    match parsed {
        Some((n, chain)) if nsecd_trail::unhex::<32>(chain).is_some() => Ok((n, chain.to_owned())),
        _ => Err("--head wants N:CHAIN, as `audit verify` shows it".into()),
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

    fn parsed(line: &str) -> Result<(Command, bool, Option<PathBuf>), String> {
        parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_is_as_documented() {
        assert_eq!(parsed("verify"), Ok((Command::Verify { head: None }, false, None)));
        assert_eq!(
            parsed("verify --json --state-dir /s"),
            Ok((Command::Verify { head: None }, true, Some("/s".into())))
        );
        let chain = "ab".repeat(32);
        let head = Some((7, chain.clone()));
        assert_eq!(parsed(&format!("verify --head=7:{chain}")), Ok((Command::Verify { head }, false, None)));
        assert_eq!(parsed("tail"), Ok((Command::Tail { lines: 20, follow: false }, false, None)));
        assert_eq!(parsed("tail -n 3 --follow"), Ok((Command::Tail { lines: 3, follow: true }, false, None)));
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
