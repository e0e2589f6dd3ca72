//! nsecd's own page, made from the text of `nsecd --help`: its command line is read by hand (src/supervisor/src/cli.rs), and a
//! second description of it could say something else.

use clap_mangen::roff::{Roff, bold, roman};

/// What `nsecd --help` prints.
pub const HELP: &str = include_str!("../../supervisor/src/help.txt");

/// Columns in which the help's explanations of options begin.
const INDENT: usize = 21;

/// nsecd(8).
///
/// # Errors
/// The help is not laid out as it is read here.
pub fn page() -> Result<String, String> {
    let mut roff = Roff::new();
    roff.control("TH", ["nsecd", "8", "", concat!("nsecd ", env!("CARGO_PKG_VERSION"))]);
    let (name, rest) = HELP.split_once("\n\n").ok_or("the help has no first line")?;
    section(&mut roff, "NAME");
    roff.text([roman(name)]);
    for block in rest.split("\n\n") {
        block_of(&mut roff, block.trim_end())?;
    }
    section(&mut roff, "SEE ALSO");
    roff.text([bold("nsecctl"), roman("(1)")]);
    Ok(roff.render())
}

fn section(roff: &mut Roff, title: &str) {
    roff.control("SH", [title]);
}

/// A paragraph of the help.
fn block_of(roff: &mut Roff, block: &str) -> Result<(), String> {
    let (first, rest) = block.split_once('\n').unwrap_or((block, ""));
    if let Some(title) = first.strip_suffix(':').filter(|title| title.starts_with(char::is_uppercase)) {
        section(roff, if title == "Usage" { "SYNOPSIS".into() } else { title.to_uppercase() }.as_str());
        verbatim(roff, rest);
    } else if let Some(text) = block.strip_prefix("Exit status: ") {
        section(roff, "EXIT STATUS");
        roff.text([roman(text.replace('\n', " "))]);
    } else if first.trim_start().starts_with('-') {
        section(roff, "OPTIONS");
        return options(roff, block);
    } else {
        // The first paragraph stands after the synopsis.
        if block.starts_with("Serves") {
            section(roff, "DESCRIPTION");
        } else {
            roff.control("PP", []);
        }
        roff.text([roman(block.replace('\n', " "))]);
    }
    Ok(())
}

/// Lines as they stand, without the indentation that they share.
fn verbatim(roff: &mut Roff, lines: &str) {
    roff.control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
}

fn options(roff: &mut Roff, block: &str) -> Result<(), String> {
    for line in block.lines() {
        let at = line.char_indices().nth(INDENT).map_or(line.len(), |(at, _)| at);
        let (head, text) = line.split_at(at);
        if head.trim().starts_with('-') {
            roff.control("TP", []);
            roff.text([bold(head.trim())]);
            roff.text([roman(text.trim())]);
        } else if head.trim().is_empty() {
            roff.control("br", []);
            roff.text([roman(text.trim_end())]);
        } else {
            return Err(format!("no option, and no explanation of one: {line}"));
        }
    }
    Ok(())
}
