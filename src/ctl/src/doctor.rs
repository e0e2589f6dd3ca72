//! `nsecctl doctor`: what this machine gives nsecd, what it lacks, and what would mend it. It changes nothing.
//!
//! [`facts`](facts::Facts) are gathered in one place and judged in another, so that every judgement can be tried on machines that
//! are not at hand.

mod facts;
mod findings;
mod mounts;
mod sockets;
mod sys;

use crate::cli::absolute;
use crate::{complain, show};
use clap::{Args, ValueHint};
use facts::Facts;
use findings::{Finding, State, judge};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `doctor`: what to look at.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// nsecd's admin directory [default: nsecd's own]
    #[arg(long, value_name = "DIR", value_parser = absolute, value_hint = ValueHint::DirPath)]
    pub admin_dir: Option<PathBuf>,
    /// nsecd's state directory [default: nsecd's own]
    #[arg(long, value_name = "DIR", value_parser = absolute, value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// A configuration: each of its sockets is tried as who is to use it, which takes root; and its directories are looked at
    #[arg(long, value_name = "FILE", value_parser = absolute, value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// With --config: try its sockets as this uid, without any group [default: each socket's owner and peer_uids]
    #[arg(long = "as", value_name = "UID", requires = "config")]
    pub uids: Vec<u32>,
}

/// Prints the findings. Exit code 0: nothing to mend; 4: something optional is missing; 1: a problem.
pub(crate) fn run(options: &Options, json: bool) -> ExitCode {
    let mut options = options.clone();
    let config = match options.config.as_deref().map(crate::policy::read_file).transpose() {
        Ok(config) => config,
        Err(why) => return complain(&format!("doctor: {why}"), 2),
    };
    if let Some(config) = &config {
        options.admin_dir.get_or_insert_with(|| config.admin_dir.clone());
        options.state_dir.get_or_insert_with(|| config.state.dir.clone());
    }
    let facts = match Facts::gather(Path::new("/"), &options) {
        Ok(facts) => facts,
        Err(why) => return complain(&why, 3),
    };
    let mut findings = judge(&facts);
    findings.push(mounts::judge(&mounts::Views::gather(), &facts.admin.0));
    let root = facts.uid == 0;
    let tried = config.map(|config| sockets::gather(&config, &options.uids, root)).unwrap_or_default();
    findings.extend(sockets::judge(&tried, root));
    let code = findings.iter().map(|finding| finding.state).max().map_or(0, State::exit_code);
    let text = if json { as_json(&findings) } else { as_text(&findings) };
    show(&text, ExitCode::from(code))
}

fn as_json(findings: &[Finding]) -> String {
    let one = |f: &Finding| json!({"check": f.check, "state": f.state.name(), "found": f.found, "fix": f.fix});
    json!(findings.iter().map(one).collect::<Vec<_>>()).to_string()
}

fn as_text(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        lines.push(format!("{:8} {}: {}", finding.state.name(), finding.check, finding.found));
        lines.extend(finding.fix.as_ref().map(|fix| format!("         → {fix}")));
    }
    lines.join("\n")
}
