//! The units and the configuration that are installed, as far as they can be judged without a running systemd.
//!
//! Checked: a directive taken out of the service, an unknown one put in, a capability more or less, a key of the parser that
//! docs/nsecd.example.toml does not explain: each turns one of these red.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{Dir, missing};

/// The highest exposure, in tenths, that systemd-analyze(1) may find: a start as root, to give each role a uid.
const EXPOSURE: u32 = 21;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn service() -> String {
    fs::read_to_string(root().join("systemd/system/nsecd.service")).unwrap()
}

fn no_systemd() -> bool {
    missing("systemd-analyze", "--version")
}

/// The units in a directory of their own, where what they start exists: its path is put in its place.
fn copies(dir: &Dir, of: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("systemd").join(of)).unwrap();
    let copy = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).unwrap();
        let text = text.replace("/usr/bin/nsecd", env!("CARGO_BIN_EXE_nsecd"));
        let text = text.replace("/usr/bin/nsecctl", env!("CARGO_BIN_EXE_nsecctl"));
        // Its manual page and its other file are installed by the package.
        let text: String =
            text.lines().filter(|l| !l.starts_with("Documentation=")).map(|l| format!("{l}\n")).collect();
        dir.file(entry.file_name().to_str().unwrap(), 0o644, None, text.as_bytes())
    };
    entries.map(|entry| copy(entry.unwrap())).collect()
}

fn verify(of: &str, units: &[PathBuf], runtime: &Path) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--recursive-errors=no"]).args((of == "user").then_some("--user"));
    // A user's manager has a directory of its own.
    command.env("XDG_RUNTIME_DIR", runtime).args(units).output().unwrap()
}

#[test]
fn systemd_finds_nothing_to_say_about_the_units() {
    if no_systemd() {
        return;
    }
    for of in ["system", "user"] {
        let dir = Dir::new(None);
        let runtime = dir.subdir("run", 0o700, None);
        let units = copies(&dir, of);
        assert!(units.len() >= 2, "no units: {units:?}");
        let said = verify(of, &units, &runtime);
        assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        // Control.
        let service = units.iter().find(|unit| unit.ends_with("nsecd.service")).unwrap();
        let text = fs::read_to_string(service).unwrap();
        fs::write(service, text.replace("NoNewPrivileges=", "NoMorePrivileges=")).unwrap();
        let said = verify(of, &units, &runtime);
        assert!(String::from_utf8_lossy(&said.stderr).contains("NoMorePrivileges"), "{said:?}");
    }
}

/// Whether systemd-analyze finds a unit of this text within the threshold, and what it says.
fn within(text: &str) -> (bool, String) {
    let dir = Dir::new(None);
    let unit = dir.file("nsecd.service", 0o644, None, text.as_bytes());
    let threshold = format!("--threshold={EXPOSURE}");
    let said =
        Command::new("systemd-analyze").args(["security", "--offline=true", &threshold]).arg(unit).output().unwrap();
    (said.status.success(), String::from_utf8_lossy(&said.stdout).into_owned())
}

#[test]
fn the_services_exposure_is_at_most_two_point_one() {
    if no_systemd() {
        return;
    }
    let (good, said) = within(&service());
    assert!(good, "{said}");
    // Control: it is at the threshold, and each of these takes it over.
    for directive in ["NoNewPrivileges=yes", "PrivateNetwork=yes", "RestrictNamespaces=mnt", "ProtectSystem=strict"] {
        let text = service();
        assert!(text.contains(&format!("\n{directive}\n")), "{directive} is not there");
        let (good, said) = within(&text.replace(&format!("\n{directive}\n"), "\n"));
        assert!(!good && said.contains("exposure"), "without {directive}: {said}");
    }
}

/// What is not about how nsecd is started, stopped and found.
const HARDENING: &str = "
UMask=0077
LimitCORE=0
LimitNOFILE=8192
LimitMEMLOCK=1M
TasksMax=160
AmbientCapabilities=
NoNewPrivileges=yes
KeyringMode=private
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateNetwork=yes
PrivateIPC=yes
PrivateMounts=yes
IPAddressDeny=any
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=mnt
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@resources @clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap
SystemCallFilter=memfd_secret landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp mount chroot
SystemCallErrorNumber=EPERM
";
/// The rest of the service, by names: tests/systemd holds what they do.
const LIFE: [&str; 21] = [
    "Type",
    "NotifyAccess",
    "ExecStart",
    "ExecReload",
    "LoadCredentialEncrypted",
    "Restart",
    "RestartSec",
    "RestartPreventExitStatus",
    "ExecStopPost",
    "WatchdogSec",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "KillMode",
    "StateDirectory",
    "StateDirectoryMode",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "LogsDirectory",
    "LogsDirectoryMode",
    "CapabilityBoundingSet",
    "StartLimitIntervalSec",
];

/// systemd-analyze weighs what it knows; of most directives one less is within the threshold.
#[test]
fn the_service_has_each_directive_that_holds_it_and_no_other() {
    let text = service();
    let lines = |text: &str| -> Vec<String> {
        let all =
            text.lines().skip_while(|line| *line != "[Service]").skip(1).take_while(|line| !line.starts_with('['));
        all.filter(|line| line.contains('=') && !line.starts_with('#')).map(String::from).collect()
    };
    let life = |line: &String| LIFE.iter().any(|name| line.split('=').next() == Some(name));
    let found: Vec<String> = lines(&text).into_iter().filter(|line| !life(line)).collect();
    let wanted: Vec<&str> = HARDENING.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(found, wanted);
    let named: BTreeSet<_> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert_eq!(LIFE.iter().find(|name| !named.contains(**name)), None);
}

#[test]
fn the_service_has_the_capabilities_that_the_supervisor_keeps_and_no_other() {
    const NAMES: [(&str, u32); 9] = [
        ("CAP_CHOWN", 0),
        ("CAP_DAC_OVERRIDE", 1),
        ("CAP_FOWNER", 3),
        ("CAP_KILL", 5),
        ("CAP_SETGID", 6),
        ("CAP_SETUID", 7),
        ("CAP_SETPCAP", 8),
        ("CAP_SYS_CHROOT", 18),
        ("CAP_SYS_ADMIN", 21),
    ];
    let text = service();
    let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let number = |name: &str| NAMES.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name}")).1;
    let unit: BTreeSet<u32> = line.split_whitespace().map(number).collect();
    // `1 << 0 | 1 << 1 | …` of KEPT, and what AT_FIRST adds.
    let harden = fs::read_to_string(root().join("src/supervisor/src/harden.rs")).unwrap();
    let constants = harden.lines().filter(|l| l.starts_with("const KEPT") || l.starts_with("const AT_FIRST"));
    let shifts = constants.flat_map(|line| line.split("1 << ").skip(1));
    let digits = |s: &str| s.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u32>().unwrap();
    let kept: BTreeSet<u32> = shifts.map(digits).collect();
    assert!(kept.len() > 4, "harden.rs was not understood: {kept:?}");
    assert_eq!(unit, kept);
}

/// Every key that the parser takes: the first argument of `take`, `section`, `sections` and the like.
fn keys_of_the_parser() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for file in ["raw.rs", "rules.rs"] {
        let text = fs::read_to_string(root().join("src/supervisor/src/config").join(file)).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for call in [".take(\"", ".section(\"", ".sections(\"", "_or_none(\"", "_or_none(&mut s, \""] {
            keys.extend(text.split(call).skip(1).filter_map(|rest| rest.split('"').next()).map(String::from));
        }
    }
    keys
}

#[test]
fn the_installed_configuration_explains_every_key_and_is_accepted() {
    let example = root().join("docs/nsecd.example.toml");
    let text = fs::read_to_string(&example).unwrap();
    let keys = keys_of_the_parser();
    for known in ["source", "live_sessions", "dm", "limits", "rule", "canary", "socket"] {
        assert!(keys.contains(known), "the parser was not understood: {keys:?}");
    }
    let words: BTreeSet<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let unnamed: Vec<_> = keys.iter().filter(|key| !words.contains(key.as_str())).collect();
    assert!(unnamed.is_empty(), "docs/nsecd.example.toml does not name {unnamed:?}");
    // The package installs it as it is, for the socket that its unit makes.
    let rules = fs::read_to_string(root().join("debian/rules")).unwrap();
    assert!(rules.contains("docs/nsecd.example.toml debian/nsecd/etc/nsecd/nsecd.toml"), "{rules}");
    let unit = fs::read_to_string(root().join("systemd/system/nsecd.socket")).unwrap();
    let listens = unit.lines().find_map(|line| line.strip_prefix("ListenStream=")).unwrap();
    let first = text.lines().find_map(|line| line.strip_prefix("path = ")).unwrap();
    assert_eq!(first, format!("\"{listens}\""));
    let dir = Dir::new(None);
    let file = dir.file("nsecd.toml", 0o644, None, text.as_bytes());
    let said = Command::new(env!("CARGO_BIN_EXE_nsecd")).arg("--check").arg(&file).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains(listens), "{said:?}");
}
