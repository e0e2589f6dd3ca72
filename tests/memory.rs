//! After ten thousand signatures and a thousand key agreements the key, and whatever would give it away, is in no memory but the
//! two holders' secret mappings, nor in a core, a log or the state directory.
//!
//! Rows A15 and B17: every readable byte of every process, read by root. Searched for: the key and its negation in every form, and each
//! signature's nonce and e·d, either of which gives the key to whoever has the signature: any eight bytes of any of them. Controls: the same
//! search finds each form where it was planted, one word of one nonce among ten thousand, and the key in holders that had to do without
//! secret memory.
//!
//! Checked: with the stack of computing an ordinary one (what key agreements make stays on it), with it not wiped after use, or with the
//! key left on the key-holder's heap, these fail. Of nonces this version of libsecp256k1, which clears what it used, left no word
//! on an ordinary stack either where that was tried (-O1).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "memory/busy.rs"]
mod busy;
#[path = "memory/forms.rs"]
mod forms;
#[path = "memory/signatures.rs"]
mod signatures;
#[path = "memory/texts.rs"]
mod texts;
#[path = "memory/words.rs"]
mod words;

use busy::{Busy, busy};
use forms::Forms;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use support::daemon::{Setup, walk};
use support::{Dir, Nsecd, SCAN_KEY, event, missing, not_root, process, sys};
use words::Words;

/// The two roles that hold the key.
const HOLDERS: [&str; 2] = ["nsecd-keyholder", "nsecd-ecdh"];
/// Whose user keyrings nobody else uses.
const USERS: [u32; 2] = [23_431, 23_432];

/// What is searched for.
trait Search {
    /// Names of what lies in `memory`.
    fn in_memory(&self, memory: &[u8]) -> Vec<String>;
}

impl Search for Forms {
    fn in_memory(&self, memory: &[u8]) -> Vec<String> {
        self.find(memory).into_iter().map(String::from).collect()
    }
}

impl Search for Words {
    fn in_memory(&self, memory: &[u8]) -> Vec<String> {
        self.find(memory)
    }
}

/// The key in every way in which a process can hold it: as a number, eight bytes of it or more, and as text.
struct Key(Words, Forms);

impl Key {
    fn scanned() -> Key {
        Key(busy::key(), Forms::of(SCAN_KEY))
    }
}

impl Search for Key {
    fn in_memory(&self, memory: &[u8]) -> Vec<String> {
        let mut found = self.0.find(memory);
        // One name for what both know.
        found.extend(self.1.in_memory(memory));
        found.sort();
        found.dedup();
        found
    }
}

/// Everything found in the memory of a process, with the mapping's name.
fn scan(search: &impl Search, pid: i32) -> Vec<String> {
    let mut found = Vec::new();
    for mapping in process::mappings(pid) {
        for form in search.in_memory(&process::read(pid, &mapping)) {
            found.push(format!("{form} in {:x} {} {}", mapping.start, mapping.mode, mapping.name));
        }
    }
    found
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

/// As [`busy::OPEN`], with a credential.
fn with_credential(uid: Option<u32>) -> Setup {
    let setup = Setup::of(uid, &busy::OPEN.replace("@KEY@", ""));
    fs::remove_file(setup.dir.join("credentials/nsec")).unwrap();
    setup.credential(SCAN_KEY.as_bytes())
}

/// As [`busy::OPEN`], with a keyring key that is removed once it is loaded.
fn with_keyring(uid: u32) -> Setup {
    let key = "source = \"keyring:nsec\"\nconsume = true";
    let mut setup = Setup::bare(Some(uid), &busy::OPEN.replace("@KEY@", key));
    sys::give_keyring(&mut setup.command, "nsec", SCAN_KEY.into());
    setup
}

/// A core of a process, as `user` forces one; `None` if none comes of it. With `all`, of what the process asked to be left out too.
fn core(dir: &Dir, pid: i32, all: bool, user: Option<u32>) -> Option<Vec<u8>> {
    let path = dir.join("core");
    let mut command = Command::new("gcore");
    command.args(all.then_some("-a")).arg("-o").arg(&path).arg(pid.to_string());
    if let Some(uid) = user {
        command.uid(uid).gid(uid);
    }
    command.output().unwrap();
    let path = format!("{}.{pid}", path.display());
    let core = fs::read(&path).ok();
    if core.is_some() {
        fs::remove_file(path).unwrap();
    }
    core
}

/// Files of an nsecd, state directory and logs, but for the key's source.
fn files(nsecd: &Nsecd) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    walk(nsecd.dir.path(), &mut |path| {
        if path.is_file() && !path.ends_with("credentials/nsec") {
            files.push(path.into());
        }
    });
    for name in ["default.record", "default.ecdh.record", "journal", "alerts-", "stderr"] {
        assert!(files.iter().any(|path| path.to_str().unwrap().contains(name)), "no {name} in {files:?}");
    }
    files
}

fn neither_files_nor_logs_hold_a_secret(busy: &Busy) {
    let key = Key::scanned();
    for file in files(&busy.nsecd) {
        let content = fs::read(&file).unwrap();
        let found = [key.in_memory(&content), busy.computed.find(&content)].concat();
        assert!(found.is_empty(), "{}: {found:?}", file.display());
    }
}

fn no_process_nor_core_nor_file_holds_a_secret(busy: &Busy) {
    let processes = busy.nsecd.processes();
    assert_eq!(processes.len(), 5, "{processes:?}");
    let key = Key::scanned();
    for (name, pid) in processes {
        let found = [scan(&key, pid), scan(&busy.computed, pid)].concat();
        assert!(found.is_empty(), "{name}: {found:?}");
        let core = core(&busy.nsecd.dir, pid, true, None).unwrap_or_else(|| panic!("no core of {name}"));
        let found = [key.in_memory(&core), busy.computed.find(&core)].concat();
        assert!(found.is_empty(), "core of {name}: {found:?}");
    }
    neither_files_nor_logs_hold_a_secret(busy);
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
fn control_one_word_of_one_nonce_in_any_form_is_found_among_ten_thousand() {
    if not_root("reading another process's memory") {
        return;
    }
    // Numbers that nobody has computed with stand for nonces.
    let numbers = (0..10_000u32).map(|i| (format!("nonce {i}"), Sha256::digest(i.to_be_bytes()).to_vec()));
    let all = Words::of(numbers.collect());
    let mut forms = Vec::new();
    for (form, word) in words::words(&Sha256::digest(7_777u32.to_be_bytes())) {
        if forms.contains(&form) {
            continue;
        }
        forms.push(form);
        // Where a word happens to lie is nobody's choice.
        let planted = Planted::start(&[&b"odd"[..], &word.to_le_bytes()].concat());
        let found = scan(&all, planted.0.id() as i32);
        let expected = format!("nonce 7777, {form} ");
        assert!(found.iter().any(|f| f.starts_with(&expected)), "{expected}not found: {found:?}");
    }
    assert_eq!(forms, ["raw", "reversed", "4-byte limbs", "5x52", "5x62", "10x26", "9x30"]);
}

#[test]
fn after_ten_thousand_signatures_and_a_thousand_agreements_no_secret_is_in_any_memory_core_file_or_log() {
    if not_root("reading another process's memory") || missing("gdb", "--version") {
        return;
    }
    no_process_nor_core_nor_file_holds_a_secret(&busy(with_credential(None)));
}

/// A15, as an ordinary user, whose key was in the keyring. Root is who looks: what there is nowhere nobody can find.
#[test]
fn nor_where_all_roles_have_one_users_uid_and_the_key_came_from_that_users_keyring() {
    if not_root("reading another process's memory") || missing("gdb", "--version") {
        return;
    }
    let busy = busy(with_keyring(USERS[0]));
    // What that user's own other processes get: nothing to search.
    for (name, pid) in busy.nsecd.processes() {
        assert!(core(&busy.nsecd.dir, pid, true, Some(USERS[0])).is_none(), "{name} left its own user a core");
    }
    no_process_nor_core_nor_file_holds_a_secret(&busy);
}

/// What is left where the kernel has no secret memory: the key, once, in a page that is locked, in no core and in no child; and
/// nothing that was computed with it. Root can read that page, and a core that is forced to have everything has it.
fn holds_the_key_once_in_a_locked_page(busy: &Busy) {
    let key = Key::scanned();
    for (name, pid) in busy.nsecd.processes() {
        let computed = scan(&busy.computed, pid);
        assert!(computed.is_empty(), "{name}: {computed:?}");
        let found = scan(&key, pid);
        if !HOLDERS.contains(&name.as_str()) {
            assert!(found.is_empty(), "{name}: {found:?}");
            continue;
        }
        let [page] = &found[..] else { panic!("{name}: {found:?}") };
        let start = page.strip_prefix("key, raw in ").and_then(|rest| rest.strip_suffix(" rw-p ")).unwrap();
        let mapping = process::mappings(pid).into_iter().find(|m| format!("{:x}", m.start) == start).unwrap();
        let memory = process::read(pid, &mapping);
        assert_eq!(memory.windows(32).filter(|window| *window == event::unhex(SCAN_KEY)).count(), 1, "{name}");
        let flags = flags(pid, start);
        for flag in ["lo", "dd", "dc", "wf"] {
            assert!(flags.contains(&flag.to_string()), "{name}: the page is not {flag}: {flags:?}");
        }
        for (all, expected) in [(false, vec![]), (true, vec!["key, raw"])] {
            let core = core(&busy.nsecd.dir, pid, all, None).unwrap_or_else(|| panic!("no core of {name}"));
            assert_eq!(key.in_memory(&core), expected, "core of {name}");
            assert!(busy.computed.find(&core).is_empty(), "core of {name}");
        }
    }
    neither_files_nor_logs_hold_a_secret(busy);
}

/// The flags of a mapping (proc_pid_smaps(5)): lo locked, dd in no core, dc not inherited, wf wiped in a child.
fn flags(pid: i32, start: &str) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut lines = maps.lines().skip_while(|line| !line.starts_with(start));
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
    flags.split_whitespace().map(String::from).collect()
}

#[test]
fn without_secret_memory_each_holder_has_the_key_once_in_a_locked_page_and_nothing_else_stays() {
    if not_root("reading another process's memory") || missing("gdb", "--version") {
        return;
    }
    let mut setup = with_credential(None);
    sys::without_memfd_secret(&mut setup.command);
    holds_the_key_once_in_a_locked_page(&busy(setup));
}

#[test]
fn the_same_without_secret_memory_where_all_roles_have_one_users_uid() {
    if not_root("reading another process's memory") || missing("gdb", "--version") {
        return;
    }
    let mut setup = with_credential(Some(USERS[1]));
    sys::without_memfd_secret(&mut setup.command);
    holds_the_key_once_in_a_locked_page(&busy(setup));
}

#[test]
fn control_a_user_can_force_a_core_of_a_process_of_its_own() {
    if not_root("starting processes of another user") || missing("gdb", "--version") {
        return;
    }
    let dir = Dir::new(Some(USERS[0]));
    let mut child = Command::new("sleep").arg("60").uid(USERS[0]).gid(USERS[0]).spawn().unwrap();
    let core = core(&dir, child.id() as i32, true, Some(USERS[0]));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(core.is_some());
}

#[test]
fn root_cannot_read_the_secret_mapping_itself() {
    if not_root("reading another process's memory") {
        return;
    }
    let nsecd = with_credential(None).start();
    event::signed(&nsecd.connect().sign(1, None), &nsecd.connect().public_key());
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
