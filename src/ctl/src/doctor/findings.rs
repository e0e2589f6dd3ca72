//! What to make of the facts: one finding for each thing that nsecd needs, uses, or is endangered by.

use super::facts::{Facts, Seen, VAULT};
use std::path::Path;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// nsecd runs without it, and says so at its start; or it could be better.
    Missing,
    /// nsecd will not start, or not be safe.
    Problem,
}

impl State {
    /// As `--json` has it.
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Missing => "missing",
            State::Problem => "problem",
        }
    }

    /// Of nsecctl, when this is the worst.
    pub fn exit_code(self) -> u8 {
        match self {
            State::Ok => 0,
            State::Missing => 4,
            State::Problem => 1,
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Its name, which stays the same.
    pub check: &'static str,
    pub state: State,
    /// What is so.
    pub found: String,
    /// What would mend it; always there unless all is well.
    pub fix: Option<String>,
}

pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, state: State::Ok, found: found.into(), fix: None }
}

pub(super) fn missing(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check, state: State::Missing, found: found.into(), fix: Some(fix.into()) }
}

pub(super) fn problem(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check, state: State::Problem, found: found.into(), fix: Some(fix.into()) }
}

/// All findings, in the order in which they are shown.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![
        kernel(facts),
        seccomp(facts),
        secret_memory(facts),
        landlock(facts),
        mdwe(facts),
        cgroup_identity(facts),
        user_namespaces(facts),
        yama(facts),
        core_pattern(facts),
        swap(facts),
        memlock(facts),
        nofile(facts),
        private("state directory", &facts.state, facts.uid),
        private("admin directory", &facts.admin, facts.uid),
        binaries(facts),
    ];
    if facts.uid == 0 {
        all.push(users(facts));
    }
    all
}

/// Major and minor number of `6.1.0-18-amd64`.
fn version(kernel: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn kernel(facts: &Facts) -> Finding {
    let found = format!("Linux {}", facts.kernel);
    match version(&facts.kernel) {
        // close_range(2) and openat2(2).
        Some(version) if version < (5, 9) => {
            problem("kernel", found, "nsecd needs Linux 5.9, and 5.14 for secret memory")
        }
        Some(version) if version < (6, 13) => {
            missing("kernel", found, "Linux 6.13 has all that nsecd uses; what this one lacks is listed below")
        }
        Some(_) => ok("kernel", found),
        None => missing("kernel", found, "its version cannot be read from this name"),
    }
}

fn seccomp(facts: &Facts) -> Finding {
    match facts.has_seccomp {
        true => ok("seccomp", "filters that end a process"),
        false => problem(
            "seccomp",
            "the kernel has no filters",
            "use a kernel with CONFIG_SECCOMP_FILTER: no role starts without",
        ),
    }
}

fn secret_memory(facts: &Facts) -> Finding {
    match &facts.no_secret_memory {
        None => ok("secret memory", "memfd_secret works"),
        Some(why) => missing(
            "secret memory",
            format!("memfd_secret: {why}: root can read the key in memory"),
            "Linux 5.14 or later; before 6.5 boot with secretmem.enable=1; in a container allow memfd_secret; or raise RLIMIT_MEMLOCK to 64 KiB",
        ),
    }
}

fn landlock(facts: &Facts) -> Finding {
    let fix = |what| format!("{what}; and `landlock` among the kernel's lsm= parameters");
    match facts.landlock_abi {
        0 => missing("Landlock", "none", fix("Linux 5.13 or later, built with CONFIG_SECURITY_LANDLOCK")),
        abi @ 1..4 => {
            missing("Landlock", format!("ABI {abi}: files only"), fix("Linux 6.7 has TCP, 6.12 sockets and signals"))
        }
        abi @ 4..6 => {
            missing("Landlock", format!("ABI {abi}: files and TCP"), fix("Linux 6.12 has sockets and signals"))
        }
        abi => ok("Landlock", format!("ABI {abi}")),
    }
}

fn mdwe(facts: &Facts) -> Finding {
    match facts.has_mdwe {
        true => ok("memory-deny-write-execute", "PR_SET_MDWE is there"),
        false => missing("memory-deny-write-execute", "the kernel does not know PR_SET_MDWE", "Linux 6.3 or later"),
    }
}

fn cgroup_identity(facts: &Facts) -> Finding {
    match facts.tells_cgroups {
        true => ok("cgroup identity", "PIDFD_GET_INFO tells cgroups"),
        false => missing(
            "cgroup identity",
            "the kernel does not tell a peer's cgroup: containers of one uid on one socket are one principal",
            "Linux 6.13 or later; until then give each container a socket of its own",
        ),
    }
}

fn user_namespaces(facts: &Facts) -> Finding {
    const CHECK: &str = "user namespaces";
    if facts.uid == 0 {
        return ok(CHECK, "not needed by an nsecd that root starts");
    }
    if facts.max_user_namespaces == Some(0) {
        return missing(
            CHECK,
            "user.max_user_namespaces is 0",
            "sysctl user.max_user_namespaces=100, or start nsecd as root",
        );
    }
    if facts.unprivileged_userns_clone == Some(0) {
        let fix = "sysctl kernel.unprivileged_userns_clone=1, or start nsecd as root";
        return missing(CHECK, "kernel.unprivileged_userns_clone is 0", fix);
    }
    if facts.apparmor_restricts_userns == Some(1) {
        let fix = "an AppArmor profile with `userns` for nsecd's binaries, or start nsecd as root";
        return missing(CHECK, "kernel.apparmor_restrict_unprivileged_userns is 1", fix);
    }
    ok(CHECK, "nothing forbids them")
}

fn yama(facts: &Facts) -> Finding {
    const WHY: &str = "between its exec and its lock a role of an ordinary user can be traced by that user";
    match facts.ptrace_scope {
        Some(scope @ 1..) => ok("ptrace", format!("kernel.yama.ptrace_scope is {scope}")),
        Some(scope) => missing(
            "ptrace",
            format!("kernel.yama.ptrace_scope is {scope}"),
            format!("sysctl kernel.yama.ptrace_scope=1: {WHY}"),
        ),
        None => missing(
            "ptrace",
            "Yama is not there".to_owned(),
            format!("start nsecd as root, or use a kernel with Yama: {WHY}"),
        ),
    }
}

fn core_pattern(facts: &Facts) -> Finding {
    let pattern = &facts.core_pattern;
    match pattern.starts_with('|') {
        // For a pipe RLIMIT_CORE 0 means nothing (core(5)); that roles are non-dumpable does.
        true => missing(
            "core pattern",
            format!(
                "{pattern}: cores go to a program, whatever RLIMIT_CORE says; roles are non-dumpable and make none"
            ),
            "sysctl kernel.core_pattern=core, where no crash reports are wanted",
        ),
        false => ok("core pattern", pattern.clone()),
    }
}

fn swap(facts: &Facts) -> Finding {
    match facts.swap.is_empty() {
        true => ok("swap", "none"),
        false => missing(
            "swap",
            format!(
                "{}: the key is never there, messages and tokens in the broker's memory can be",
                facts.swap.join(", ")
            ),
            "encrypt it (`swap` in crypttab(5)), or MemorySwapMax=0 in nsecd's unit",
        ),
    }
}

fn memlock(facts: &Facts) -> Finding {
    match facts.memlock {
        Some(bytes) if bytes < VAULT as u64 => problem(
            "locked memory",
            format!("the hard limit of this shell is {bytes} bytes: no key can be locked in memory"),
            "LimitMEMLOCK=64K in nsecd's unit, `ulimit -H -l 64`, or memlock in limits.conf(5)",
        ),
        Some(bytes) => ok("locked memory", format!("up to {bytes} bytes in this shell")),
        None => ok("locked memory", "unlimited in this shell"),
    }
}

fn nofile(facts: &Facts) -> Finding {
    match facts.nofile {
        Some(files) if files < 1024 => missing(
            "open files",
            format!("the hard limit of this shell is {files}: few connections"),
            "LimitNOFILE=8192 in nsecd's unit, or `ulimit -H -n 8192`",
        ),
        Some(files) => ok("open files", format!("up to {files} in this shell")),
        None => ok("open files", "unlimited in this shell"),
    }
}

/// Whether somebody else than root and `uid` may change what lies there; a sticky directory of root's counts as safe.
fn others_may_write(seen: &Seen, uid: u32) -> bool {
    let sticky = seen.is_dir && seen.mode & 0o1000 != 0 && seen.uid == 0;
    seen.uid != 0 && seen.uid != uid || seen.mode & 0o022 != 0 && !sticky
}

/// A directory of nsecd's own: nobody else reads or writes it, nobody else can put another in its place.
fn private(check: &'static str, (path, above): &(std::path::PathBuf, Vec<Seen>), uid: u32) -> Finding {
    let path: &Path = path;
    let shown = path.display();
    if let Some(bad) = above.iter().find(|seen| others_may_write(seen, uid)) {
        let (at, mode) = (bad.path.display(), bad.mode);
        let found = format!("{at} (uid {}, mode {mode:04o}) can be changed by others", bad.uid);
        return problem(check, found, format!("chown {uid} {at} && chmod go-w {at}, or choose another directory"));
    }
    match above.first().filter(|seen| seen.path == path) {
        None => ok(check, format!("{shown} is not there yet: nsecd makes it")),
        Some(seen) if !seen.is_dir => problem(check, format!("{shown} is no directory"), "move it away"),
        Some(seen) if seen.uid != uid => problem(
            check,
            format!("{shown} belongs to uid {}, and this is uid {uid}", seen.uid),
            "run `nsecctl doctor` as nsecd's user, or name another directory",
        ),
        Some(seen) if seen.mode & 0o077 != 0 => {
            problem(check, format!("{shown} has mode {:04o}", seen.mode), format!("chmod 0700 {shown}"))
        }
        Some(_) => ok(check, format!("{shown} is private")),
    }
}

fn binaries(facts: &Facts) -> Finding {
    const CHECK: &str = "binaries";
    const FIX: &str =
        "install -o root -m 0755 -t /usr/local/bin nsecd nsecd-keyholder nsecd-gate nsecd-ecdh nsecd-broker nsecctl";
    let absent: Vec<_> = facts.binaries.iter().filter(|(_, seen)| seen.is_none()).map(|(name, _)| *name).collect();
    if !absent.is_empty() {
        return problem(
            CHECK,
            format!("not beside nsecctl, nor beside the nsecd that a link there leads to: {}", absent.join(", ")),
            FIX,
        );
    }
    match facts.binaries.iter().filter_map(|(_, seen)| seen.as_ref()).find(|seen| others_may_write(seen, facts.uid)) {
        Some(bad) => problem(CHECK, format!("{} can be changed by others", bad.path.display()), FIX),
        None => ok(CHECK, "all six side by side"),
    }
}

fn users(facts: &Facts) -> Finding {
    match facts.missing_users[..] {
        [] => ok("system users", "each role has one"),
        _ => missing(
            "system users",
            format!("there is no {}: roles get free uids of systemd's dynamic range", facts.missing_users.join(", ")),
            "for u in keyholder gate ecdh broker; do useradd --system --no-create-home --shell /usr/sbin/nologin nsecd-$u; done",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: &str, uid: u32, mode: u32) -> Seen {
        Seen { path: path.into(), uid, mode, is_dir: true }
    }

    /// A machine that lacks nothing, seen by a user.
    fn good() -> Facts {
        let dirs = |path: &str| {
            let above = [seen(path, 1000, 0o700), seen("/tmp", 0, 0o1777), seen("/", 0, 0o755)];
            (std::path::PathBuf::from(path), above.to_vec())
        };
        let binary = |name: &'static str| (name, Some(Seen { path: name.into(), uid: 0, mode: 0o755, is_dir: false }));
        Facts {
            uid: 1000,
            kernel: "6.18.0-1-amd64".into(),
            has_seccomp: true,
            no_secret_memory: None,
            landlock_abi: 7,
            has_mdwe: true,
            tells_cgroups: true,
            ptrace_scope: Some(1),
            max_user_namespaces: Some(1000),
            unprivileged_userns_clone: Some(1),
            apparmor_restricts_userns: Some(0),
            swap: vec![],
            core_pattern: "core".into(),
            memlock: Some(1 << 23),
            nofile: Some(4096),
            state: dirs("/tmp/state"),
            admin: dirs("/tmp/admin"),
            binaries: ["nsecd", "nsecd-gate"].map(binary).into(),
            missing_users: vec![],
        }
    }

    /// A change, and the one finding that it leads to.
    type Case = (fn(&mut Facts), &'static str, State);

    /// What changes where one fact does.
    fn changed(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, State)> {
        let mut facts = good();
        change(&mut facts);
        let findings = judge(&facts);
        assert!(findings.iter().all(|f| f.fix.is_some() == (f.state != State::Ok)), "{findings:?}");
        findings.into_iter().filter(|f| f.state != State::Ok).map(|f| (f.check, f.state)).collect()
    }

    #[test]
    fn a_machine_that_lacks_nothing_has_nothing_to_mend() {
        assert_eq!(changed(|_| ()), []);
        assert_eq!(changed(|f: &mut Facts| (f.uid, f.state.1[0].uid, f.admin.1[0].uid) = (0, 0, 0)), []);
        assert_eq!(changed(|f: &mut Facts| (f.memlock, f.nofile) = (None, None)), []);
        assert_eq!(changed(|f: &mut Facts| drop(f.state.1.remove(0))), [], "not there yet");
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_own_finding() {
        use State::{Missing, Problem};
        let cases: [Case; 24] = [
            (|f| f.kernel = "5.8.0".into(), "kernel", Problem),
            (|f| f.kernel = "6.1.0-18-amd64".into(), "kernel", Missing),
            (|f| f.kernel = "six".into(), "kernel", Missing),
            (|f| f.has_seccomp = false, "seccomp", Problem),
            (|f| f.no_secret_memory = Some("ENOSYS".into()), "secret memory", Missing),
            (|f| f.landlock_abi = 0, "Landlock", Missing),
            (|f| f.landlock_abi = 3, "Landlock", Missing),
            (|f| f.landlock_abi = 5, "Landlock", Missing),
            (|f| f.has_mdwe = false, "memory-deny-write-execute", Missing),
            (|f| f.tells_cgroups = false, "cgroup identity", Missing),
            (|f| f.max_user_namespaces = Some(0), "user namespaces", Missing),
            (|f| f.unprivileged_userns_clone = Some(0), "user namespaces", Missing),
            (|f| f.apparmor_restricts_userns = Some(1), "user namespaces", Missing),
            (|f| f.ptrace_scope = Some(0), "ptrace", Missing),
            (|f| f.ptrace_scope = None, "ptrace", Missing),
            (|f| f.core_pattern = "|/usr/bin/crash %p".into(), "core pattern", Missing),
            (|f| f.swap = vec!["/dev/sda2".into()], "swap", Missing),
            (|f| f.memlock = Some(4096), "locked memory", Problem),
            (|f| f.nofile = Some(256), "open files", Missing),
            (|f| f.state.1[0].mode = 0o750, "state directory", Problem),
            (|f| f.admin.1[0].uid = 0, "admin directory", Problem),
            (|f| f.state.1[2].mode = 0o777, "state directory", Problem),
            (|f| f.binaries[1].1 = None, "binaries", Problem),
            (|f| f.binaries[0].1.as_mut().expect("there").mode = 0o775, "binaries", Problem),
        ];
        for (n, (change, check, state)) in cases.into_iter().enumerate() {
            assert_eq!(changed(change), [(check, state)], "case {n}");
        }
        let as_root = |f: &mut Facts| {
            (f.uid, f.state.1[0].uid, f.admin.1[0].uid) = (0, 0, 0);
            (f.max_user_namespaces, f.missing_users) = (Some(0), vec!["nsecd-gate"]);
        };
        assert_eq!(changed(as_root), [("system users", Missing)], "root needs no user namespace");
    }
}
