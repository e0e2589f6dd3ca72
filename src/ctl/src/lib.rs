//! nsecctl: one request to a running nsecd, the reply as JSON on standard output; or a check of what nsecd has left on record.
//!
//! It decides nothing; it must never take a secret from its command line, and touches a key only in `key`.

mod admin;
mod adopt;
mod agent;
mod audit;
mod child;
mod cli;
mod doctor;
mod key;
mod named;
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
    match writeln!(io::stdout(), "{}", obeyed_by_none(text, true)) {
        Ok(()) => code,
        Err(e) => complain(&format!("writing the reply: {e}"), 3),
    }
}

fn complain(what: &str, code: u8) -> ExitCode {
    // Nothing is left to say it to if standard error is closed.
    let _ = writeln!(io::stderr(), "nsecctl: {}", obeyed_by_none(what, true));
    ExitCode::from(code)
}

/// A text without what a terminal obeys: a broker that was taken over, a file's name or a process's may have it. JSON stays JSON, with the
/// same meaning. `lines`: ends of lines stay.
fn obeyed_by_none(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\n' if lines => out.push(c),
            _ if c.is_control() || turns => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_that_a_terminal_obeys_is_printed_and_json_stays_the_same() {
        let text = "{\"a\":\"\u{9b}2J\u{7f}\u{202e}ü\"}";
        let shown = super::obeyed_by_none(text, true);
        assert_eq!(shown, "{\"a\":\"\\u009b2J\\u007f\\u202eü\"}");
        let [a, b] = [text, &shown].map(|text| serde_json::from_str::<serde_json::Value>(text).expect("JSON"));
        assert_eq!(a, b);
        assert_eq!(super::obeyed_by_none("\u{1b}[2J\nclean", false), "\\u001b[2J\\u000aclean");
        assert_eq!(super::obeyed_by_none("a\nb", true), "a\nb");
    }
}
