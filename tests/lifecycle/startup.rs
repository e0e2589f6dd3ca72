//! A start that cannot be whole is no start: non-zero exit, a message that says what to do, nothing left behind.

use crate::support::daemon::{OPEN, Setup, walk};
use crate::support::{Exit, KEY_HEX, PUBLIC_KEY, client, event, not_root, root, sys};
use nix::sys::signal::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const ROLES: [&str; 4] = [
    env!("CARGO_BIN_EXE_nsecd-keyholder"),
    env!("CARGO_BIN_EXE_nsecd-ecdh"),
    env!("CARGO_BIN_EXE_nsecd-gate"),
    env!("CARGO_BIN_EXE_nsecd-broker"),
];

/// A start that failed properly, with these words in its message.
fn failed(exit: &Exit, words: &[&str]) {
    assert!(exit.code.is_some_and(|code| code != 0), "{:?}: {}", exit.code, exit.stderr);
    for word in words {
        assert!(exit.stderr.contains(word), "no `{word}` in: {}", exit.stderr);
    }
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    let mut sockets = Vec::new();
    walk(exit.dir.path(), &mut |p| sockets.extend(p.extension().filter(|e| *e == "sock").map(|_| p.to_path_buf())));
    assert!(sockets.is_empty(), "left behind: {sockets:?}");
}

#[test]
fn a_role_run_by_hand_or_by_another_version_refuses() {
    for role in ROLES {
        for arguments in [&[][..], &["0.0.0", "1", "-", "-"], &["", "", "", ""], &["--help"]] {
            let output = Command::new(role).args(arguments).env_clear().output().unwrap();
            assert_eq!(output.status.code(), Some(64), "{role} {arguments:?}");
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(message.lines().count(), 1, "{message}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn what_is_no_key_is_refused_and_never_echoed() {
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    for bad in [
        "",
        "\n",
        "nsec1qqqqqq",
        "zz",
        &KEY_HEX[1..],
        &format!("{KEY_HEX}00"),
        &"0".repeat(64),
        order,
        &"f".repeat(64),
        &"a".repeat(500),
    ] {
        let setup = Setup::new(OPEN);
        fs::remove_file(setup.dir.join("credentials/nsec")).unwrap();
        let exit = setup.credential(bad.as_bytes()).refused();
        failed(&exit, &["key"]);
        assert!(bad.len() < 30 || !exit.stderr.contains(&bad[..30]), "{}", exit.stderr);
    }
}

#[test]
fn a_missing_key_source_names_what_was_looked_for() {
    failed(&Setup::bare(None, OPEN).refused(), &["nsec"]);
    let mut named = Setup::new(OPEN);
    named.command.args(["--key", "credential:other"]);
    failed(&named.refused(), &["credential", "other"]);
    let mut descriptor = Setup::bare(None, OPEN);
    descriptor.command.args(["--key", "fd:77"]);
    failed(&descriptor.refused(), &["77"]);
}

#[test]
fn a_configuration_with_a_mistake_is_refused_with_its_line() {
    let socket = "[[socket]]\npath = \"/run/x.sock\"\n";
    for (config, words) in [
        (format!("{socket}kindz = [1]\n"), &["nsecd.toml:3", "kindz"][..]),
        (format!("{socket}max_ttl = \"8 parsecs\"\n"), &["nsecd.toml:3", "8 parsecs"]),
        (format!("{socket}kinds = [65536]\n"), &["nsecd.toml:3", "65536"]),
        (format!("{socket}kinds = [1]\ntokenless = [7]\n"), &["nsecd.toml", "7"]),
        (format!("{socket}mode = \"0999\"\n"), &["nsecd.toml:3"]),
        (format!("{socket}path = \"/run/y.sock\"\n"), &["nsecd.toml:3"]),
        ("[key]\nsource = \"file:/etc/key\"\n".into(), &["nsecd.toml:2"]),
        ("nonsense".into(), &["nsecd.toml:1"]),
    ] {
        failed(&Setup::new(&config).refused(), words);
    }
}

#[test]
fn a_configuration_that_others_can_write_is_refused() {
    for mode in [0o666, 0o664, 0o646] {
        let setup = Setup::new(OPEN);
        fs::set_permissions(setup.dir.join("nsecd.toml"), Permissions::from_mode(mode)).unwrap();
        failed(&setup.refused(), &["nsecd.toml"]);
    }
    let setup = Setup::new(OPEN);
    fs::set_permissions(setup.dir.path(), Permissions::from_mode(0o777)).unwrap();
    failed(&setup.refused(), &[]);
}

#[test]
fn a_directory_that_cannot_take_the_socket_is_named() {
    let setup = Setup::at("file/s.sock", OPEN);
    setup.dir.file("file", 0o644, None, b"");
    failed(&setup.refused(), &["file"]);
    if root() {
        return;
    }
    let setup = Setup::at("closed/s.sock", OPEN);
    setup.dir.subdir("closed", 0o555, None);
    failed(&setup.refused(), &["closed"]);
}

#[test]
fn an_ordinary_user_is_told_which_directory_it_cannot_write() {
    if not_root("a directory of another user") {
        return;
    }
    let setup = Setup::of(Some(23_411), OPEN);
    nix::unistd::chown(setup.dir.path(), Some(0.into()), Some(0.into())).unwrap();
    failed(&setup.refused(), &["creating directory", "/admin: EACCES", "--admin-dir"]);
}

#[test]
fn an_ordinary_user_is_served_like_root() {
    if not_root("starting nsecd as another user") {
        return;
    }
    let nsecd =
        Setup::of(Some(23_412), &OPEN.replace("kinds = [1, 7, 1111]", "kinds = [1, 7]\nmode = \"0666\"")).start();
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    nsecd.kill("nsecd-broker");
    event::signed(&nsecd.connect().sign(7, None), PUBLIC_KEY);
}

/// Checked: with the directory made 0755, as it once was, the third start refuses it; with what was made for it left, the first one fails.
#[test]
fn an_ordinary_user_without_a_runtime_directory_can_start_it_again() {
    if not_root("starting nsecd as another user") {
        return;
    }
    const USER: u32 = 23_413;
    let default = std::path::PathBuf::from(format!("/tmp/nsecd-{USER}"));
    // The second one is killed: the third starts with what it has left, which is not its own to take away.
    for (signal, left) in [(Signal::SIGTERM, false), (Signal::SIGKILL, true), (Signal::SIGTERM, true)] {
        let mut setup = Setup::bare(Some(USER), "");
        let mut command = Command::new(setup.command.get_program());
        command.env_clear().current_dir("/").stdin(std::process::Stdio::null());
        command.args(["--ephemeral", "--profile", "nanoclaw"]);
        setup.command = command;
        setup.socket = default.join("nostr-signer.sock");
        let nsecd = setup.start();
        nsecd.connect().public_key();
        nsecd.signal(signal);
        nsecd.wait();
        assert_eq!(default.exists(), left, "{signal}");
        // What a throw-away key's start keeps there a killed one cannot remove.
        if signal == Signal::SIGKILL {
            for entry in fs::read_dir(&default).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.file_name().unwrap().to_str().unwrap().starts_with("nsecd-ephemeral-") {
                    fs::remove_dir_all(entry).unwrap();
                }
            }
        }
    }
    // Each is empty.
    std::fs::remove_dir(default.join("nsecd-admin")).unwrap();
    std::fs::remove_dir(default).unwrap();
}

#[test]
fn without_secret_memory_require_secretmem_refuses_and_the_fallback_serves_with_a_warning() {
    let mut strict = Setup::new(&format!("{OPEN}\n[holder]\nrequire_secretmem = true\n"));
    sys::without_memfd_secret(&mut strict.command);
    failed(&strict.refused(), &["secret"]);

    let mut fallback = Setup::new(OPEN);
    sys::without_memfd_secret(&mut fallback.command);
    let nsecd = fallback.start();
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    assert!(nsecd.stderr().contains("secret memory"), "no warning: {}", nsecd.stderr());

    // Control: where the kernel has it, nothing is said and the requirement is met.
    let nsecd = Setup::new(&format!("{OPEN}\n[holder]\nrequire_secretmem = true\n")).start();
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    assert!(!nsecd.stderr().contains("secret memory"), "{}", nsecd.stderr());
}

#[test]
fn check_and_print_config_start_nothing() {
    let dir = crate::support::Dir::new(None);
    let good = dir.file("good.toml", 0o644, None, OPEN.as_bytes());
    let bad = dir.file("bad.toml", 0o644, None, b"[[socket]]\nkindz = 1\n");
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_nsecd")).args(args).env_clear().env("HOME", dir.path()).output().unwrap()
    };
    let check = run(&["--check", good.to_str().unwrap()]);
    assert!(check.status.success(), "{check:?}");
    assert_eq!(run(&["--check", bad.to_str().unwrap()]).status.code(), Some(1));
    let printed = run(&["--print-config", "--config", good.to_str().unwrap()]);
    assert!(printed.status.success(), "{printed:?}");
    let again = dir.file("printed.toml", 0o644, None, &printed.stdout);
    assert!(run(&["--check", again.to_str().unwrap()]).status.success());
    assert!(String::from_utf8(run(&["--help"]).stdout).unwrap().contains("--ephemeral"));
    assert!(run(&["--version"]).status.success());
}

#[test]
fn nsecctl_speaks_to_it_and_tells_refusal_from_absence() {
    let nsecd = Setup::new(&OPEN.replace("tokenless = [1, 7]", "")).start();
    let run = |args: &[&str], input: &str| {
        use std::io::Write;
        let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
        command.arg("--socket").arg(&nsecd.socket).args(args).env_clear();
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may not read its input at all.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let reply = serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
        (output.status.code().unwrap(), reply)
    };
    let (code, reply) = run(&["session", "start", "--scope", "1,7", "--ttl", "8h"], "");
    assert_eq!((code, &reply["session"]["allowedKinds"]), (0, &serde_json::json!([1, 7])));
    let token = reply["session"]["token"].as_str().unwrap().to_string();
    let (code, reply) = run(&["sign", "--kind", "1", "--content", "hi", "--token-file", "-"], &token);
    assert_eq!(code, 0);
    event::signed(&reply, PUBLIC_KEY);
    let (code, reply) = run(&["sign", "--kind", "1111", "--token-file", "-"], &token);
    assert_eq!((code, client::code(&reply)), (1, "out_of_scope"));
    assert_eq!(run(&["session", "info"], &token).1["session"]["signCount"], 1);
    assert_eq!(run(&["session", "revoke"], &token).1["revoked"], true);
    assert_eq!(run(&["sign", "--kind", "x"], "").0, 2);
    assert_eq!(run(&["pubkey", "--socket", "/nonexistent"], "").0, 3);
}
