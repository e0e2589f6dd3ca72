//! B1: whoever loads what it is told to load runs it (ssh-agent, CVE-2023-38408). No role links a function that loads code or starts
//! a program; that the calls beneath those are refused as well: tests/probes/named.rs.
//!
//! Checked: with dlopen(3) called in the vault, this fails.

use crate::support::missing;
use std::collections::BTreeSet;
use std::process::Command;

const LOADS: [&str; 10] =
    ["dlopen", "dlmopen", "dlsym", "dlvsym", "system", "popen", "fexecve", "posix_spawn", "posix_spawnp", "fork"];

#[test]
fn no_role_links_a_function_that_loads_code_or_starts_a_program() {
    if missing("nm", "--version") {
        return;
    }
    for binary in [
        env!("CARGO_BIN_EXE_nsecd-keyholder"),
        env!("CARGO_BIN_EXE_nsecd-gate"),
        env!("CARGO_BIN_EXE_nsecd-ecdh"),
        env!("CARGO_BIN_EXE_nsecd-broker"),
    ] {
        let output = Command::new("nm").args(["--dynamic", "--undefined-only", binary]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let names = text.lines().filter_map(|line| line.split_whitespace().last()?.split('@').next());
        let imported: BTreeSet<&str> = names.collect();
        assert!(imported.contains("write") && imported.contains("prctl"), "control: {binary} imports {imported:?}");
        let loads: Vec<_> = imported.iter().filter(|name| LOADS.contains(name) || name.starts_with("exec")).collect();
        assert!(loads.is_empty(), "{binary}: {loads:?}");
    }
}
