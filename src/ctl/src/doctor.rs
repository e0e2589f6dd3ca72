//! `nsecctl doctor`: what this machine gives nsecd, what it lacks, and what would mend it. It changes nothing.
//!
//! [`facts`](facts::Facts) are gathered in one place and judged in another, so that every judgement can be tried on machines that
//! are not at hand.

mod facts;
mod findings;
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
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// nsecd's admin directory [default: nsecd's own]
    #[arg(long, value_name = "DIR", value_parser = absolute, value_hint = ValueHint::DirPath)]
    pub admin_dir: Option<PathBuf>,
    /// nsecd's state directory [default: nsecd's own]
    #[arg(long, value_name = "DIR", value_parser = absolute, value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
}

/// Prints the findings. Exit code 0: nothing to mend; 4: something optional is missing; 1: a problem.
pub(crate) fn run(options: &Options, json: bool) -> ExitCode {
    let facts = match Facts::gather(Path::new("/"), options) {
        Ok(facts) => facts,
        Err(why) => return complain(&why, 3),
    };
    let findings = judge(&facts);
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
