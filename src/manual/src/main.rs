//! Writes the man pages and the shell completions: `nsecd-manual DIR` makes DIR/man1, DIR/man8, DIR/completions and fills them.
//!
//! A program of its own, so that nsecctl does not carry what only a package's build needs. It reads nothing but what it was
//! compiled with.

mod nsecd;

use clap_complete::{Shell, generate_to};
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let [dir] = args.as_slice() else {
        eprintln!("usage: nsecd-manual DIR");
        return ExitCode::from(2);
    };
    match write(Path::new(dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("nsecd-manual: writing into {}: {e}", Path::new(dir).display());
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &Path) -> io::Result<()> {
    let [man1, man8, completions] = ["man1", "man8", "completions"].map(|name| dir.join(name));
    for dir in [&man1, &man8, &completions] {
        fs::create_dir_all(dir)?;
    }
    clap_mangen::generate_to(nsecd_ctl::command(), &man1)?;
    let top = man1.join("nsecctl.1");
    fs::write(&top, as_laid_out(&fs::read_to_string(&top)?))?;
    fs::write(man8.join("nsecd.8"), nsecd::page().map_err(io::Error::other)?)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut nsecd_ctl::command(), "nsecctl", &completions)?;
    }
    Ok(())
}

/// The page with what help prints at its end as it is laid out there: a table of exit codes.
fn as_laid_out(page: &str) -> String {
    page.replacen(".SH EXTRA\n", ".SH NOTES\n.nf\n", 1).replacen(".SH VERSION", ".fi\n.SH VERSION", 1)
}
