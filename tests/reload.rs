//! A new configuration for an nsecd that serves: in force at once and as a whole, or not at all, and no connection is lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "reload/accounts.rs"]
mod accounts;
#[path = "reload/changes.rs"]
mod changes;
#[path = "reload/ends.rs"]
mod ends;
#[path = "reload/narrower.rs"]
mod narrower;
#[path = "reload/refused.rs"]
mod refused;
#[path = "reload/storm.rs"]
mod storm;

use nsecd_policy::operator::{Command, Status, reason};
use support::{Nsecd, control};

/// One socket that signs kinds 1 and 7 without limits.
const OPEN: &str = support::daemon::OPEN;

/// Another `[[socket]]` in the test's directory.
fn another(name: &str) -> String {
    format!(
        "[[socket]]\npath = \"@DIR@/{name}.sock\"\nkinds = [1]\ntokenless = [1]\nlimits = \"none\"\ntotal = \"none\"\n"
    )
}

/// Writes the configuration file anew.
fn write(nsecd: &Nsecd, config: &str) {
    let text = config.replace("@DIR@", nsecd.dir.path().to_str().unwrap());
    nsecd.dir.file("nsecd.toml", 0o644, None, text.as_bytes());
}

/// Asks for a reload of what the file has; why it was refused, if it was.
fn ask(nsecd: &Nsecd) -> Result<(), String> {
    let replies = control::order(nsecd, Command::Reload, "");
    match replies.first().map(|reply| reply.status) {
        Some(Status::Done) => Ok(()),
        Some(Status::NotReloaded) => Err(reason(&replies)),
        other => panic!("{other:?}\n{}", nsecd.stderr()),
    }
}

/// Writes and reloads; panics unless that is done.
fn reload(nsecd: &Nsecd, config: &str) {
    write(nsecd, config);
    ask(nsecd).unwrap_or_else(|why| panic!("refused: {why}\n{}", nsecd.stderr()));
}

/// Writes and reloads; why it was refused.
fn refused(nsecd: &Nsecd, config: &str) -> String {
    write(nsecd, config);
    ask(nsecd).expect_err("not refused")
}
