//! `nsecctl policy`: what a configuration means, and what it says of one event. Where an event is tried it is the broker's own code
//! that decides, with a memory of nothing.

mod explain;

use crate::{complain, show};
use clap::{Args, Subcommand, ValueHint};
use explain::Explain;
use nsecd_supervisor::config::{self, Config, Ids, summary, to_text};
use nsecd_supervisor::environment::Environment;
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `policy`.
#[derive(Debug, PartialEq, Subcommand)]
pub(crate) enum Policy {
    /// Check a configuration, and say what it means, as `nsecd --check` does
    Check(Check),
    /// Try an event on a configuration: the verdict, the rule that decided, what would have allowed it
    ///
    /// The broker's own code decides, as if no signature had been made yet: windows and the budgets of a day are all there. Exit code
    /// 0: it would be signed, 1: it would not.
    Explain(Box<Explain>),
}

/// `policy check`.
#[derive(Args, Debug, PartialEq)]
pub(crate) struct Check {
    /// The configuration
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

/// Runs `nsecctl policy`.
pub(crate) fn run(policy: Policy, as_json: bool) -> ExitCode {
    match policy {
        Policy::Check(check) => run_check(&check.file, as_json),
        Policy::Explain(explain) => match explain.run(as_json) {
            Ok((text, signed)) => show(&text, ExitCode::from(u8::from(!signed))),
            Err(what) => complain(&format!("policy: {what}"), 2),
        },
    }
}

fn run_check(file: &Path, as_json: bool) -> ExitCode {
    match (read_file(file), as_json) {
        (Ok(config), false) => show(summary(&config).trim_end(), ExitCode::SUCCESS),
        (Ok(config), true) => {
            let in_force = to_text(&config);
            show(&json!({"ok": true, "notes": config.notes, "in_force": in_force}).to_string(), ExitCode::SUCCESS)
        }
        (Err(why), false) => show(&format!("error: {why}"), ExitCode::FAILURE),
        (Err(why), true) => show(&json!({"ok": false, "error": why}).to_string(), ExitCode::FAILURE),
    }
}

/// The configuration in a file.
pub(crate) fn read_file(file: &Path) -> Result<Box<Config>, String> {
    read(["--config".into(), file.into()])
}

/// The configuration that nsecd would have with these flags.
fn read<const N: usize>(flags: [OsString; N]) -> Result<Box<Config>, String> {
    let ids = Ids { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
    match config::from_command_line(flags.into(), &Environment::from_process(), ids) {
        Ok(config::Command::Run(config)) => Ok(config),
        Ok(config::Command::Exit(_)) => Err("no configuration".into()),
        Err(why) => Err(why.to_string()),
    }
}
