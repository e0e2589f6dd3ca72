//! `nsecctl adopt`: takes over from the reference daemon of one user: its key, its clients' socket, its place in systemd.
//!
//! What is there is found ([`found`], [`live`]), what is to be done follows from that alone ([`plan`]) and is printed; with
//! `--apply` it is done ([`apply`]), each step noted before it is taken ([`journal`]), so that `--undo` ([`undo`]) goes back from
//! wherever it ended. It never prints a key, never overwrites what somebody has edited, and stops the reference last.

mod apply;
mod ask;
mod found;
mod journal;
mod layout;
mod live;
mod plan;
mod system;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod texts;
mod undo;

use crate::key::adopted::Step;
use crate::key::{Means, WithKey};
use crate::{complain, show};
use clap::Args;
use found::{Account, Files};
use live::Live;
use plan::plan;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use system::Here;

/// `adopt`.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// Whose nostr-signer: this user's service, keyring and socket
    #[arg(long, value_name = "NAME", required_unless_present = "step")]
    user: Option<String>,
    /// Do it; without it the plan is printed and nothing is changed
    #[arg(long, conflicts_with = "undo")]
    apply: bool,
    /// Go back: stop nsecd, take away what --apply has written, start the reference daemon again
    #[arg(long)]
    undo: bool,
    /// One socket for all, as the reference daemon has it, in place of one for agents without direct messages and one for the host
    #[arg(long)]
    shared: bool,
    /// The reference daemon's unit, if it is not found by its name
    #[arg(long, value_name = "UNIT")]
    service: Option<String>,
    /// Replace /etc/nsecd/nsecd.toml although it was edited; the old one is kept, and comes back with --undo
    #[arg(long)]
    replace: bool,
    /// Remove the key from the user's keyring once nsecd serves; --undo puts it back
    #[arg(long)]
    remove_key: bool,
    /// What the credential is encrypted with, as systemd-creds(1) has it
    #[arg(long, value_name = "KEY", default_value = "auto")]
    with_key: WithKey,
    /// What a second nsecctl does, as the user.
    #[arg(long, hide = true, value_parser = Step::parse)]
    step: Option<Step>,
}

/// Runs it. Exit code 0: done, or planned; 1: something stands in the way, and is said.
pub(crate) fn run(options: Options, json: bool) -> ExitCode {
    let means = Means::of_unit(options.with_key);
    if let Some(step) = options.step {
        return step.run(&means).map_or_else(|what| complain(&what, 1), |()| ExitCode::SUCCESS);
    }
    if !nix::unistd::geteuid().is_root() {
        return complain("adopt: expected root: it writes units and becomes the user to reach that user's keyring", 2);
    }
    let account = match Account::named(options.user.as_deref().unwrap_or_default()) {
        Ok(account) => account,
        Err(what) => return complain(&format!("adopt: {what}"), 2),
    };
    if options.undo {
        return finish(undo::undo(&account, &Here(&means)));
    }
    let root = Path::new("/");
    let files = Files::look(root, &account, options.service.as_deref());
    let live = Live::ask(&account, &files);
    match plan(&files, &live, &options) {
        Err(mut stops) => {
            if let Some(text) = stops.config.filter(|_| options.apply) {
                let config = Path::new(texts::CONFIG);
                // Not over one of before that somebody may have begun to edit.
                let is_same = |path: &Path| crate::named::text(path).is_ok_and(|there| there == text);
                let is_free = |path: &Path| found::thing(path) == found::Thing::Nothing || is_same(path);
                let beside = texts::beside(config, "adopted", is_free);
                if let Err(why) = texts::put(&beside, &text, 0o644) {
                    return complain(&format!("adopt: {why}"), 1);
                }
                stops.lines.push(format!("what would be written is {}", beside.display()));
            }
            if json {
                return show(&json!({"stops": stops.lines}).to_string(), ExitCode::from(1));
            }
            complain(&format!("adopt: nothing is changed:\n  - {}", stops.lines.join("\n  - ")), 1)
        }
        Ok(plan) if options.apply => finish(apply::apply(&plan, &Here(&means))),
        Ok(plan) if json => show(&plan.json().to_string(), ExitCode::SUCCESS),
        Ok(plan) => show(&plan.text(), ExitCode::SUCCESS),
    }
}

fn finish(done: Result<Vec<String>, String>) -> ExitCode {
    match done {
        Ok(lines) => show(&lines.join("\n"), ExitCode::SUCCESS),
        Err(what) => complain(&format!("adopt: {what}"), 1),
    }
}
