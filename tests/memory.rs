//! The key is in no memory but the two holders' secret mappings, nor in a core, a log or the state directory.
//!
//! Row B17's scan, as root, over every readable page of every process. Controls: the same scan finds each form of
//! the key where it was planted in ordinary memory, and in holders that had to do without secret memory. Checked: with the key left on the key-holder's heap the scan fails.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "memory/agreements.rs"]
mod agreements;
#[path = "memory/forms.rs"]
mod forms;
#[path = "memory/texts.rs"]
mod texts;

use forms::Forms;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use support::daemon::{DM, Setup};
use support::{Nsecd, SCAN_KEY, event, missing, not_root, process, sys};

/// The two roles that hold the key.
const HOLDERS: [&str; 2] = ["nsecd-keyholder", "nsecd-ecdh"];

/// Every form of the key found in the memory of a process, with the mapping's name.
fn scan(forms: &Forms, pid: i32) -> Vec<String> {
    let mut found = Vec::new();
    for mapping in process::mappings(pid) {
        for form in forms.find(&process::read(pid, &mapping)) {
            found.push(format!("{form} in {:x} {} {}", mapping.start, mapping.mode, mapping.name));
        }
    }
    found
}

/// A running nsecd with the scanned key, after a thousand signatures.
fn busy(setup: Setup) -> Nsecd {
    fs::remove_file(setup.dir.join("credentials/nsec")).unwrap();
    let nsecd = setup.credential(SCAN_KEY.as_bytes()).start();
    let mut client = nsecd.connect();
    let public_key = client.public_key();
    for _ in 0..1_000 {
        event::signed(&client.sign(1, None), &public_key);
    }
    nsecd
}

/// A process that has read `bytes` into ordinary memory and waits.
struct Planted(Child);

impl Planted {
    fn start(bytes: &[u8]) -> Planted {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
        let mut echo = vec![0; bytes.len()];
        child.stdout.as_mut().unwrap().read_exact(&mut echo).unwrap();
        Planted(child)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn control_the_scan_finds_every_form_planted_in_ordinary_memory() {
    if not_root("reading another process's memory") {
        return;
    }
    let forms = Forms::of(SCAN_KEY);
    assert!(forms.all().len() >= 12);
    for (name, bytes) in forms.all() {
        let planted = Planted::start(bytes);
        let found = scan(&forms, planted.0.id() as i32);
        assert!(found.iter().any(|f| f.starts_with(name)), "{name} not found: {found:?}");
    }
}

#[test]
fn control_the_scan_finds_the_key_in_holders_without_secret_memory_and_in_no_other_role() {
    if not_root("reading another process's memory") {
        return;
    }
    let mut setup = Setup::new(DM);
    sys::without_memfd_secret(&mut setup.command);
    let nsecd = busy(setup);
    let forms = Forms::of(SCAN_KEY);
    for (name, pid) in nsecd.processes() {
        let found = scan(&forms, pid);
        assert_eq!(!found.is_empty(), HOLDERS.contains(&name.as_str()), "{name}: {found:?}");
    }
}

#[test]
fn after_a_thousand_signatures_the_key_is_in_no_readable_memory_of_any_role() {
    if not_root("reading another process's memory") {
        return;
    }
    let nsecd = busy(Setup::new(DM));
    let forms = Forms::of(SCAN_KEY);
    let processes = nsecd.processes();
    assert_eq!(processes.len(), 5, "{processes:?}");
    for (name, pid) in processes {
        let found = scan(&forms, pid);
        assert!(found.is_empty(), "{name}: {found:?}");
    }
}

#[test]
fn root_cannot_read_the_secret_mapping_itself() {
    if not_root("reading another process's memory") {
        return;
    }
    let nsecd = busy(Setup::new(DM));
    for holder in HOLDERS {
        let pid = nsecd.role(holder);
        let secret: Vec<_> = process::mappings(pid).into_iter().filter(|m| m.name.contains("secretmem")).collect();
        assert!(!secret.is_empty(), "no secret mapping in {holder}: memfd_secret is missing here");
        for mapping in &secret {
            assert_eq!(process::read(pid, mapping), b"", "{holder}: {:x}", mapping.start);
        }
    }
    for role in ["nsecd-gate", "nsecd-broker"] {
        assert!(process::mappings(nsecd.role(role)).iter().all(|m| !m.name.contains("secretmem")), "{role}");
    }
}

#[test]
fn neither_files_nor_a_forced_core_hold_the_key() {
    if not_root("forcing a core") || missing("gdb", "--version") {
        return;
    }
    let nsecd = busy(Setup::new(DM));
    let forms = Forms::of(SCAN_KEY);
    let core = |pid: i32| {
        let path = nsecd.dir.join(&format!("core-{pid}"));
        let output = Command::new("gcore").arg("-a").arg("-o").arg(&path).arg(pid.to_string()).output().unwrap();
        fs::read(format!("{}.{pid}", path.display())).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    };
    for (name, pid) in nsecd.processes() {
        let found = forms.find(&core(pid));
        assert!(found.is_empty(), "core of {name}: {found:?}");
    }
    let planted = Planted::start(SCAN_KEY.as_bytes());
    assert!(!forms.find(&core(planted.0.id() as i32)).is_empty(), "control: a core of a process that holds it");
    let mut files = nsecd.files_in_state("");
    files.push(nsecd.dir.join("stderr"));
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert!(forms.find(&fs::read(&file).unwrap()).is_empty(), "{}", file.display());
    }
}
