//! nsecctl: one request to a running nsecd, the reply as JSON on standard output; or a check of what nsecd has left on record.
//!
//! It decides nothing; it must never take a secret from its command line, and touches a key only in `key`.

mod admin;
mod adopt;
mod agent;
mod audit;
mod cli;
mod doctor;
mod key;
mod order;
mod policy;
mod status;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

/// Runs nsecctl with the process's own arguments. Exit codes: see the help text.
pub fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    match key::refuse_in_arguments(&args) {
        Ok(()) => cli::run(args),
        Err(what) => complain(&what, 2),
    }
}

/// The whole command line, for man pages and completions.
pub fn command() -> clap::Command {
    <cli::Cli as clap::CommandFactory>::command()
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
