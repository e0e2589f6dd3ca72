//! B19: a solver shows that each filter allows exactly what its policy says, for every number, architecture and argument.
//!
//! The filters are those of the crate that the roles link; the last test reads them back out of running roles. The proof
//! itself is sandbox/prove/prove.py, which knows nothing of how policies are compiled.
//!
//! Checked: with one comparison of a compiled filter changed by build.rs, with a check taken out of a policy that the filter
//! still has, and with a rule for ptrace(2) in both, the first test fails; with a second filter installed by the lock, or
//! one that allows everything given to the gate, the last one does. That the solver sees such changes at all is the control's subject, at every instruction.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use nsecd_sandbox::filter::{BROKER, ECDH, GATE, KEYHOLDER, SUPERVISOR};
use serde_json::{Value, json};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::daemon::{DM, ROLES};
use support::{Dir, Nsecd, filters, not_root, skip};

/// Role, filter, and the program that links it.
const FILTERS: [(&str, &[u64], &str); 5] = [
    ("keyholder", KEYHOLDER, env!("CARGO_BIN_EXE_nsecd-keyholder")),
    ("gate", GATE, env!("CARGO_BIN_EXE_nsecd-gate")),
    ("ecdh", ECDH, env!("CARGO_BIN_EXE_nsecd-ecdh")),
    ("broker", BROKER, env!("CARGO_BIN_EXE_nsecd-broker")),
    ("supervisor", SUPERVISOR, env!("CARGO_BIN_EXE_nsecd")),
];

fn policy(role: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sandbox/{role}.json"))
}

fn bytes(filter: &[u64]) -> Vec<u8> {
    filter.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Where sandbox/prove/install.sh put the solver; `None`, after saying so, if it did not run.
fn python() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("prove");
    let wanted = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox/prove/requirements.txt")).unwrap();
    if std::fs::read(installed.join("installed")).is_ok_and(|is| is == wanted) {
        return Some(installed.join("bin/python"));
    }
    skip("the solver is not installed: run sandbox/prove/install.sh");
    None
}

/// What prove.py says of each case: a policy's path and a program.
fn verdicts(python: &Path, cases: &[(PathBuf, Vec<u64>)]) -> Vec<String> {
    let mut input = tempfile();
    for (policy, program) in cases {
        let hex: String = bytes(program).iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(input, "{} {hex}", policy.display()).unwrap();
    }
    input.rewind().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox/prove/prove.py");
    let output = Command::new(python).arg(script).stdin(Stdio::from(input)).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect();
    assert_eq!(lines.len(), cases.len());
    assert_eq!(output.status.success(), lines.iter().all(|line| line.starts_with("proved")));
    lines
}

/// A file without a name, so that neither side waits for the other's pipe.
fn tempfile() -> std::fs::File {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).open("/tmp").unwrap()
}

#[test]
fn every_filter_allows_exactly_what_its_policy_says_for_every_call_architecture_and_argument() {
    let Some(python) = python() else { return };
    let cases: Vec<_> = FILTERS.map(|(role, filter, _)| (policy(role), filter.to_vec())).into();
    for ((role, ..), verdict) in FILTERS.iter().zip(verdicts(&python, &cases)) {
        assert!(verdict.starts_with("proved"), "{role}: {verdict}");
        println!("{role}: {verdict}");
    }
}

/// The program with one instruction changed, in every way that is worth trying.
fn mutants(program: &[u64]) -> Vec<Vec<u64>> {
    const RET: u64 = 0x06;
    const KILL: u64 = 0x8000_0000;
    const ALLOW: u64 = 0x7fff_0000;
    let mut all = Vec::new();
    for at in reachable(program) {
        let (word, k) = (program[at], program[at] >> 32);
        let with = |k: u64| word & 0xffff_ffff | k << 32;
        let jumps = |t: u64, f: u64| word & !0xffff_0000 | t << 16 | f << 24;
        let (t, f) = (word >> 16 & 0xff, word >> 24 & 0xff);
        let changed: Vec<u64> = match word & 0xffff {
            // Another action: allow for kill, kill for allow, a mere errno, a thread, a tracer, a log line.
            RET => [KILL, ALLOW, 0x0005_0001, 0, 0x7ff0_0000, 0x7ffc_0000].map(with).to_vec(),
            // Another word of the call.
            0x20 => vec![with((k + 4) % 64), with((k + 60) % 64)],
            // Another mask, another way.
            0x54 => vec![with(k ^ 1)],
            0x05 => vec![with(k ^ 1)],
            // Another number, x32's bit; the check turned round, or passed whatever the value is.
            _ => vec![with(k ^ 1), with(k ^ 0x4000_0000), jumps(f, t), jumps(t, t), jumps(f, f)],
        };
        // The upper half is zero here, because the instruction before has just said that it is not greater than zero: the one
        // kind of check that can be passed without effect.
        let decided = at > 0 && word & 0xffff == 0x15 && program[at - 1] & 0xffff == 0x25 && program[at - 1] >> 32 == k;
        let idle = |changed: u64| changed == word || decided && changed == jumps(t, t);
        for word in changed.into_iter().filter(|changed| !idle(*changed)) {
            let mut mutant = program.to_vec();
            mutant[at] = word;
            all.push(mutant);
        }
    }
    all
}

/// Instructions that some jump leads to, whatever the values.
fn reachable(program: &[u64]) -> Vec<usize> {
    let mut reached = vec![false; program.len()];
    let mut next = vec![0];
    while let Some(at) = next.pop() {
        if std::mem::replace(&mut reached[at], true) {
            continue;
        }
        let (word, k) = (program[at], (program[at] >> 32) as usize);
        let (t, f) = ((word >> 16 & 0xff) as usize, (word >> 24 & 0xff) as usize);
        match word & 0xffff {
            0x06 => {}
            0x05 => next.push(at + 1 + k),
            0x15 | 0x25 | 0x35 => next.extend([at + 1 + t, at + 1 + f]),
            _ => next.push(at + 1),
        }
    }
    (0..program.len()).filter(|at| reached[*at]).collect()
}

/// The policy with one thing changed: a rule or a check left out, another value, width or operator, another action, a call more.
fn rewordings(role: &str, policy: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Value)| {
        let mut changed = policy.clone();
        change(&mut changed[role]);
        all.push(changed);
    };
    let rules = policy[role]["filter"].as_array().unwrap();
    for (at, rule) in rules.iter().enumerate() {
        with(&|p| drop(p["filter"].as_array_mut().unwrap().remove(at)));
        for (arg, check) in rule["args"].as_array().into_iter().flatten().enumerate() {
            with(&|p| drop(p["filter"][at]["args"].as_array_mut().unwrap().remove(arg)));
            with(&|p| p["filter"][at]["args"][arg]["val"] = json!(check["val"].as_u64().unwrap() ^ 1));
            with(&|p| p["filter"][at]["args"][arg]["op"] = json!("ge"));
            let other = if check["type"] == "dword" { "qword" } else { "dword" };
            with(&|p| p["filter"][at]["args"][arg]["type"] = json!(other));
        }
    }
    for (action, other) in [("mismatch_action", "kill_thread"), ("mismatch_action", "allow"), ("match_action", "log")] {
        with(&|p| p[action] = json!(other));
    }
    with(&|p| p["filter"].as_array_mut().unwrap().push(json!({ "syscall": "getpid" })));
    all
}

#[test]
fn control_whatever_is_changed_in_a_filter_or_in_a_policy_is_refuted_with_a_counterexample() {
    let Some(python) = python() else { return };
    let dir = Dir::new(None);
    let mut cases = Vec::new();
    for (role, filter, _) in FILTERS {
        // The supervisor's is ten times as long, and a proof of it takes as much longer: of its changes one in 41.
        let every = if role == "supervisor" { 41 } else { 1 };
        cases.extend(mutants(filter).into_iter().step_by(every).map(|mutant| (policy(role), mutant)));
        let written: Value = serde_json::from_slice(&std::fs::read(policy(role)).unwrap()).unwrap();
        for (n, reworded) in rewordings(role, &written).into_iter().step_by(every).enumerate() {
            let text = reworded.to_string();
            cases.push((dir.file(&format!("{role}-{n}.json"), 0o644, None, text.as_bytes()), filter.to_vec()));
        }
        // Where both agree on a call that none may make: ptrace(2), after the architecture's three instructions.
        let mut widened = filter.to_vec();
        widened.splice(3..3, [0x20, 101 << 32 | 1 << 24 | 0x15, 0x7fff_0000 << 32 | 0x06]);
        let mut agreed = written;
        agreed[role]["filter"].as_array_mut().unwrap().push(json!({ "syscall": "ptrace" }));
        let file = dir.file(&format!("{role}.json"), 0o644, None, agreed.to_string().as_bytes());
        cases.push((file, widened));
    }
    assert!(cases.len() > 800, "{}", cases.len());
    let verdicts = verdicts(&python, &cases);
    for (verdict, (policy, program)) in verdicts.iter().zip(&cases) {
        let why = verdict.starts_with("refuted: call ") || verdict.starts_with("malformed: ");
        assert!(why, "{verdict}: {} and {program:x?}", policy.display());
    }
    let agreed = verdicts.iter().filter(|v| v.ends_with("no role may do that, whatever its policy")).count();
    assert_eq!(agreed, FILTERS.len(), "one for each role");
    let malformed = verdicts.iter().filter(|v| v.starts_with("malformed")).count();
    println!("{} changes, {malformed} of them no filter or policy at all; such as\n{}", cases.len(), verdicts[0]);
}

#[test]
fn each_program_holds_its_own_filter_and_no_other() {
    for (role, _, program) in FILTERS {
        let mut content = Vec::new();
        std::fs::File::open(program).unwrap().read_to_end(&mut content).unwrap();
        for (other, filter, _) in FILTERS {
            let filter = bytes(filter);
            let found = content.windows(filter.len()).filter(|window| *window == filter).count();
            assert_eq!(found, usize::from(other == role), "{other}'s filter in {program}");
        }
    }
}

#[test]
fn the_kernel_holds_for_each_running_role_the_filter_that_is_proved() {
    if not_root("reading filters back from the kernel") {
        return;
    }
    let nsecd = Nsecd::start(DM);
    let running = ROLES.map(|role| (role.trim_start_matches("nsecd-"), nsecd.role(role)));
    let inherited = support::process::status(std::process::id() as i32)["Seccomp_filters"].parse::<usize>().unwrap();
    for (role, pid) in running {
        let installed = match filters::installed(pid) {
            Ok(installed) => installed,
            Err(e) => return skip(&format!("the kernel does not give filters back: {e}")),
        };
        let (_, filter, _) = FILTERS.into_iter().find(|(name, ..)| *name == role).unwrap();
        assert_eq!(installed.len(), inherited + 2, "{role}: the supervisor's and one of its own");
        assert_eq!(installed[inherited..], [bytes(SUPERVISOR), bytes(filter)], "{role}");
    }
    let installed = filters::installed(nsecd.pid()).unwrap();
    assert_eq!(installed[inherited..], [bytes(SUPERVISOR)], "the supervisor: one of its own");
}
