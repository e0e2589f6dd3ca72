//! A configuration that is refused changes nothing: by sample, each kind of error.

use super::{OPEN, another, ask, refused, write};
use crate::support::{Nsecd, Setup, control};
use nsecd_policy::operator::{Command, Status};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;

/// Refused with this reason, and all is as before: processes, connections, policy, files.
fn unchanged(nsecd: &Nsecd, config: &str, why: &str) {
    let before = nsecd.processes();
    let mut client = nsecd.connect();
    let text = refused(nsecd, config);
    assert!(text.contains(why), "expected {why}: {text}");
    assert_eq!(nsecd.processes(), before);
    assert!(client.sign(7, None).get("event").is_some());
    assert!(!nsecd.dir.join("second.sock").exists() && !nsecd.dir.join("second.sock.lock").exists());
    nsecd.serves();
}

#[test]
fn a_configuration_with_an_error_changes_nothing() {
    let nsecd = Nsecd::start(OPEN);
    let narrow = OPEN.replace("tokenless = [1, 7]", "tokenless = [1]");
    let second = another("second");
    for (config, why) in [
        (format!("{narrow}nonsense = 1\n"), "nsecd.toml:10: unknown key"),
        (format!("{narrow}max_ttl = \"1 week\"\n"), "max_ttl"),
        (format!("{narrow}[[socket"), "nsecd.toml:"),
        (narrow.replace("tokenless = [1]", "tokenless = [5]"), "tokenless"),
        (format!("{narrow}{second}{second}"), "second.sock"),
        (format!("{narrow}{}", another("admin/second")), "admin directory"),
        (
            format!("{narrow}{}", second.replace("limits", "owner = \"nobody-has-this-name\"\nlimits")),
            "nobody-has-this-name",
        ),
        (format!("{narrow}{}", second.replace("@DIR@/second", &"/x".repeat(60))), "107 bytes"),
    ] {
        unchanged(&nsecd, &config, why);
    }
    fs::remove_file(nsecd.dir.join("nsecd.toml")).unwrap();
    assert!(ask(&nsecd).unwrap_err().contains("cannot open"));
}

/// Checked: with a file that has no setting taken for the defaults, this fails.
#[test]
fn a_file_with_no_setting_is_taken_for_one_that_was_cut_short() {
    let nsecd = Nsecd::start(OPEN);
    for config in ["", "# [key]\n", "[key]\n\n[[socket]]\n"] {
        unchanged(&nsecd, config, "nsecd.toml: no setting is in it, as in a file that was cut short");
    }
    // Whoever started with such a file meant it, and may ask again.
    let nsecd = Setup::new("# All as it comes.\n").start();
    assert_eq!(ask(&nsecd), Ok(()));
    write(&nsecd, "");
    assert_eq!(ask(&nsecd), Ok(()));
}

#[test]
fn what_needs_a_restart_is_said_key_by_key_and_changes_nothing() {
    let nsecd = Nsecd::start(OPEN);
    let second = another("second");
    for (config, why) in [
        (
            format!("[state]\nlog_size = \"1MiB\"\nlog_keep = 3\n{OPEN}{second}"),
            "needs a restart: [state] log_size; [state] log_keep",
        ),
        (format!("[holder]\nrecord = false\n{OPEN}{second}"), "needs a restart: [holder] record"),
        (OPEN.replace("[key]", "[key]\nsource = \"ephemeral\"") + &second, "account default: source"),
        (OPEN.replace("[key]", "[key]\nsource = \"keyring:x\"\nconsume = true") + &second, "account default: consume"),
        (
            OPEN.replace("limits = ", "methods = [\"sign_event\", \"nip44\"]\nlimits = ") + &second,
            "needs a restart: methods nip44",
        ),
        (
            OPEN.replace(
                "[[socket]]",
                "[[account]]\nname = \"n\"\nsource = \"fd:7\"\n[[socket]]\naccounts = [\"default\", \"n\"]",
            ),
            "fd:",
        ),
    ] {
        unchanged(&nsecd, &config, why);
    }
}

#[test]
fn without_a_file_there_is_nothing_to_read_again() {
    let nsecd = Setup::profile("nanoclaw").start();
    assert!(ask(&nsecd).unwrap_err().contains("without --config"));
    nsecd.serves();
}

/// B12 and B26 at a reload.
#[test]
fn what_is_planted_at_a_new_sockets_or_logs_path_stays_as_it_is() {
    let nsecd = Nsecd::start(OPEN);
    let victim = nsecd.dir.file("victim", 0o600, None, b"precious");
    let socket = nsecd.dir.join("second.sock");
    let log = nsecd.dir.join("state/planted.log");
    let config =
        OPEN.to_owned() + &another("second").replace("limits", "alert_log = \"@DIR@/state/planted.log\"\nlimits");
    let identity = |path: &std::path::Path| {
        let m = fs::symlink_metadata(path).unwrap();
        (m.ino(), m.mode(), m.nlink(), m.len(), m.uid())
    };
    for path in [&socket, &log] {
        for plant in ["another's socket", "file", "link", "hard link", "FIFO", "directory"] {
            // A log of nsecd's may be a file that is there.
            match (plant, path == &log) {
                ("another's socket", false) => drop(UnixListener::bind(path).unwrap()),
                ("another's socket" | "file", true) => continue,
                ("file", false) => fs::write(path, "x").unwrap(),
                ("link", _) => symlink(&victim, path).unwrap(),
                ("hard link", _) => fs::hard_link(&victim, path).unwrap(),
                ("FIFO", _) => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap(),
                _ => fs::create_dir(path).unwrap(),
            }
            let before = identity(path);
            let why = refused(&nsecd, &config);
            assert!(why.contains(path.to_str().unwrap()), "{plant}: {why}");
            assert_eq!(identity(path), before, "{plant}");
            assert_eq!(fs::read(&victim).unwrap(), b"precious");
            nsecd.serves();
            if plant == "directory" { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
    // Control: with nothing there it is done.
    assert_eq!(ask(&nsecd), Ok(()));
}

/// The control socket is in the admin directory: whoever gets there without being the operator is told so.
#[test]
fn nobody_but_the_operator_reloads() {
    if crate::support::not_root("another user's process") {
        return;
    }
    let nsecd = Nsecd::start(OPEN);
    fs::set_permissions(nsecd.dir.join("admin"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(control::socket(&nsecd), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    write(&nsecd, &OPEN.replace("tokenless = [1, 7]", "tokenless = [1]"));
    let frame = control::frame(Command::Reload, "");
    let script = format!(
        "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\ntry: s.sendall(bytes({frame:?}))\nexcept BrokenPipeError: pass\nsys.stdout.write(str(s.recv(80)[1]))\n"
    );
    let mut command = std::process::Command::new("python3");
    std::os::unix::process::CommandExt::uid(&mut command, crate::support::ctl::ALICE);
    let output = command.arg("-c").arg(script).arg(control::socket(&nsecd)).output().unwrap();
    let status = nsecd_policy::operator::Reply::refusal(Status::NotAllowed).encode()[1];
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        status.to_string(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(nsecd.connect().sign(7, None).get("event").is_some());
}
